"""YAML lists: images with platforms and priorities, and repositories with tag queries.

    images:
      - docker.io/library/nginx:1.27
      - {image: quay.io/corp/app:2, platforms: [linux/amd64, linux/arm64], priority: 10}
      - repository: docker.io/library/redis
        tags: {names: [latest], regex: '7\\.[0-9.]+', semver: '>=7.2 <8', newest: 3}

`names` are taken as they are; among the other tags of the repository those are wanted that pass
all of `regex` (the whole tag), `semver` and `newest` (by version) that are given.
"""

from __future__ import annotations

import re
import warnings
from typing import Final

from prefetch.errors import InvalidReference, SourceError
from prefetch.oci.platform import PlatformSet
from prefetch.oci.reference import Reference, Repository
from prefetch.sources.fields import Field
from prefetch.sources.selector import Parsed, Selector, TagQuery, parse_platforms
from prefetch.sources.versions import Range
from prefetch.sources.yamltree import Node, Scalar, is_null

MAX_PATTERN: Final = 512
"""Characters in a regular expression at most."""
MAX_PRIORITY: Final = 999_999_999

_ROOT: Final = ("images",)
_IMAGE: Final = ("image", "platforms", "priority")
_REPOSITORY: Final = ("repository", "tags", "platforms", "priority")
_TAGS: Final = ("names", "regex", "semver", "newest")


def parse(root: Node | None, name: str) -> Parsed:
    """Read a list from its tree; `name` stands in origins and errors. Raises nothing."""
    parsed = Parsed()
    if root is None or is_null(root):
        return parsed
    try:
        fields = Field(root, "", name).mapping(_ROOT, "a mapping with `images`")
        entries = fields["images"].elements("a list of images") if "images" in fields else iter(())
    except SourceError as error:
        parsed.errors.append(error)
        return parsed
    for entry in entries:
        if parsed.is_full(entry.origin):
            break
        try:
            parsed.selectors.append(_entry(entry))
        except SourceError as error:
            parsed.refuse(error)
    return parsed


def _entry(entry: Field) -> Selector:
    if isinstance(entry.node, Scalar):
        return Selector(entry.origin, _reference(entry))
    what = "a reference, or a mapping with `image` or `repository`"
    fields = entry.mapping(dict.fromkeys((*_IMAGE, *_REPOSITORY)), what)
    if ("image" in fields) == ("repository" in fields):
        raise entry.error("one of `image` and `repository` is needed")
    platforms = _platforms(fields["platforms"]) if "platforms" in fields else None
    priority = _priority(fields["priority"]) if "priority" in fields else 0
    if "image" in fields:
        if "tags" in fields:
            raise fields["tags"].error("`tags` belong to a `repository`, not to an `image`")
        reference = _reference(fields["image"])
        return Selector(entry.origin, reference, platforms=platforms, priority=priority)
    if "tags" not in fields:
        raise entry.error("a `repository` needs `tags`")
    return Selector(
        entry.origin,
        repository=_repository(fields["repository"]),
        tags=_query(fields["tags"]),
        platforms=platforms,
        priority=priority,
    )


def _query(field: Field) -> TagQuery:
    fields = field.mapping(_TAGS, "a mapping with names, regex, semver or newest")
    names = list(fields["names"].elements("a list of tags")) if "names" in fields else []
    query = TagQuery(
        names=tuple(dict.fromkeys(_tag(name) for name in names)),
        regex=_pattern(fields["regex"]) if fields.get("regex") else None,
        semver=_range(fields["semver"]) if fields.get("semver") else None,
        newest=_newest(fields["newest"]) if fields.get("newest") else None,
    )
    if not query.names and not query.needs_listing:
        raise field.error("no tags asked for", hint="give names, regex, semver or newest")
    return query


def _reference(field: Field) -> Reference:
    try:
        return Reference.parse(field.text("a reference"))
    except InvalidReference as error:
        raise field.error(str(error)) from None


def _repository(field: Field) -> Repository:
    try:
        return Repository.parse(field.text("a repository"))
    except InvalidReference as error:
        raise field.error(str(error)) from None


def _tag(field: Field) -> str:
    text = field.text("a tag")
    try:
        Repository("docker.io", "library/any").tagged(text)
    except InvalidReference as error:
        raise field.error(str(error)) from None
    return text


def _platforms(field: Field) -> PlatformSet:
    if isinstance(field.node, Scalar):
        words = [field.text("platforms")]
    else:
        words = [item.text("a platform") for item in field.elements("a list of platforms")]
    if not words:
        raise field.error("no platform is given", hint="leave it out for those of the run")
    try:
        return parse_platforms(words)
    except InvalidReference as error:
        raise field.error(str(error)) from None


def _priority(field: Field) -> int:
    value = field.number("a whole number")
    if abs(value) > MAX_PRIORITY:
        raise field.expected(f"a number within ±{MAX_PRIORITY}")
    return value


def _newest(field: Field) -> int:
    value = field.number("a number of tags")
    if value < 1:
        raise field.expected("a number of tags from 1")
    return value


def _pattern(field: Field) -> str:
    text = field.text("a regular expression")
    if len(text) > MAX_PATTERN:
        raise field.error(f"a regular expression may have {MAX_PATTERN} characters at most")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise field.error(f"not a regular expression: {error}") from None
    return text


def _range(field: Field) -> str:
    text = field.text("a version range")
    try:
        Range.parse(text)
    except ValueError as error:
        raise field.error(str(error)) from None
    return text
