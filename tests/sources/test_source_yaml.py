"""YAML lists: what they can say, and how what they cannot say is refused."""

from __future__ import annotations

import json
import textwrap
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefetch.errors import SourceError
from prefetch.oci.platform import ALL, Platform
from prefetch.sources import yamllist, yamltree
from prefetch.sources.selector import Parsed, TagQuery
from prefetch.sources.yamltree import plain, read


def parse(text: str) -> Parsed:
    return yamllist.parse(read(textwrap.dedent(text), "l.yaml"), "l.yaml")


def fault(text: str) -> str:
    (error,) = parse(text).errors
    return str(error)


def test_every_form_of_entry() -> None:
    parsed = parse("""\
        images:
          - nginx:1.27
          - {image: quay.io/corp/app:2, platforms: [linux/amd64, linux/arm64], priority: 10}
          - repository: redis
            tags: {names: [1.10, latest], regex: '7\\.[0-9.]+', semver: '>=7.2 <8', newest: 3}
            platforms: all
            priority: -1
        """)
    assert parsed.errors == []
    first, second, third = parsed.selectors
    assert str(first.reference) == "docker.io/library/nginx:1.27"
    assert (first.origin.source, first.origin.line) == ("l.yaml", 2)
    assert second.platforms == (Platform("linux", "amd64"), Platform("linux", "arm64"))
    assert second.priority == 10
    assert str(third.repository) == "docker.io/library/redis"
    assert third.tags == TagQuery(("1.10", "latest"), r"7\.[0-9.]+", ">=7.2 <8", 3)
    assert third.platforms is ALL
    assert third.priority == -1
    assert third.origin.line == 4


def test_empty_values_are_left_out() -> None:
    parsed = parse("images: [{repository: nginx, tags: {names: [a], regex: , semver: null}}]")
    assert parsed.selectors[0].tags == TagQuery(("a",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pictures: []", "l.yaml:1: pictures: unknown key (known are images)"),
        ("image: []", "l.yaml:1: image: unknown key (did you mean images?)"),
        ("[nginx]", "l.yaml:1: expected a mapping with `images`, got a list"),
        ("images: nginx", "l.yaml:1: images: expected a list of images, got 'nginx'"),
        ("images: [UPPER]", "l.yaml:1: images[0]: "),
        ("images: [[nginx]]", "l.yaml:1: images[0]: expected a reference, or a mapping"),
        ("images: [~]", "l.yaml:1: images[0]: expected a reference, got nothing"),
        ("images: [{priority: 1}]", "images[0]: one of `image` and `repository` is needed"),
        ("images: [{image: a, repository: b}]", "one of `image` and `repository` is needed"),
        ("images: [{image: a, tags: {newest: 1}}]", "images[0].tags: `tags` belong to a"),
        ("images: [{repository: a}]", "images[0]: a `repository` needs `tags`"),
        ("images: [{repository: 'a:1', tags: {newest: 1}}]", "images[0].repository: "),
        ("images: [{repository: a, tags: {}}]", "images[0].tags: no tags asked for"),
        ("images: [{repository: a, tags: [x]}]", "images[0].tags: expected a mapping with"),
        ("images: [{repository: a, tags: {name: [x]}}]", "images[0].tags.name: unknown key (did"),
        ("images: [{repository: a, tags: {names: ['a b']}}]", "images[0].tags.names[0]: "),
        ("images: [{repository: a, tags: {regex: '('}}]", "tags.regex: not a regular expression"),
        ("images: [{repository: a, tags: {semver: newer}}]", "semver: 'newer' is not a version"),
        (
            "images: [{repository: a, tags: {newest: 0}}]",
            "newest: expected a number of tags from 1",
        ),
        (
            "images: [{repository: a, tags: {newest: two}}]",
            "newest: expected a number of tags, got",
        ),
        ("images: [{repository: a, tags: {newest: true}}]", "newest: expected a number of tags"),
        ("images: [{image: a, priority: 1.5}]", "priority: expected a whole number, got '1.5'"),
        ("images: [{image: a, priority: 9999999999}]", "priority: expected a number within"),
        ("images: [{image: a, platforms: []}]", "platforms: no platform is given"),
        ("images: [{image: a, platforms: [a/b/c/d]}]", "platforms: "),
        ("images: [{image: a, platforms: {a: b}}]", "platforms: expected a list of platforms"),
    ],
)
def test_what_is_wrong_is_told_with_line_and_path(text: str, message: str) -> None:
    assert message in fault(text)


def test_a_bad_entry_is_told_and_the_rest_goes_on() -> None:
    parsed = parse("""\
        images:
          - nginx
          - image: redis
            platfroms: [linux/amd64]
          - busybox
        """)
    assert len(parsed.selectors) == 2
    assert [str(error) for error in parsed.errors] == [
        "l.yaml:4: images[1].platfroms: unknown key (did you mean platforms?)"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("images: [a\n", "l.yaml:2: not valid YAML"),
        ("images:\n\t- a\n", "not valid YAML"),
        ("a: 1\nb: 2\na: 3\n", "l.yaml:3: duplicate key 'a'"),
        ("a: 1\n---\nb: 2\n", "l.yaml:3: more than one YAML document"),
        ("a: *b\n", "unknown alias 'b'"),
        ("a: &a [*a]\n", "unknown alias 'a'"),
        ("a: !!python/object/apply:os.system ['true']\n", "the tag "),
        ("? [a]\n: b\n", "a key must be text"),
        ("[" * 200_000, "nested deeper than 64 levels"),
        ("- " * 200_000, "nested deeper than 64 levels"),
        ("a: \x07\n", "not valid YAML"),
        ("a: {<<: 1}\n", "l.yaml:1: << takes a mapping, or a list of mappings"),
        ("a: {<<: [{}, ~]}\n", "<< takes a mapping, or a list of mappings"),
        ("a: {<<: {}, <<: {}}\n", "duplicate key '<<'"),
        ("a: &a {<<: *a}\n", "unknown alias 'a'"),
    ],
)
def test_hostile_documents_are_refused(text: str, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        read(text, "l.yaml")
    assert message in str(caught.value)


def test_an_alias_bomb_is_refused_at_once() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
    )
    started = time.monotonic()
    with pytest.raises(SourceError, match="aliases counted"):
        read(bomb, "bomb")
    assert time.monotonic() - started < 5


def test_collections_do_not_nest_deeper_through_aliases_than_they_may() -> None:
    steps = "".join(f"a{n}: &a{n} {'[' * 30}*a{n - 1}{']' * 30}\n" for n in range(1, 50))
    with pytest.raises(SourceError, match="nested deeper than 64 levels"):
        read(f"a0: &a0 [x]\n{steps}", "x")


@pytest.mark.parametrize(
    "step", ["{<<: [%s], %d: 1}", "{<<: %s, %d: 1, x: [%s]}"], ids=["lists", "both"]
)
def test_merges_cannot_grow_without_bound(step: str) -> None:
    text = "a0: &a0 {" + ", ".join(f"k{n}: 1" for n in range(1000)) + "}\n"
    for n in range(1, 12):
        many = ", ".join([f"*a{n - 1}"] * 10)
        values = (many, n) if step.count("%") == 2 else (f"*a{n - 1}", n, many)
        text += f"a{n}: &a{n} {step % values}\n"
    started = time.monotonic()
    with pytest.raises(SourceError, match="aliases counted"):
        read(text, "bomb")
    assert time.monotonic() - started < 5


def test_merge_keys_are_followed() -> None:
    text = """\
        one: &one {a: 1, b: 1, c: 1}
        two: &two {b: 2, d: 2}
        both: {c: 3, <<: [*one, *two], e: 3}
        here: {<<: {x: 1}, x: 2}
        chain: {<<: &three {<<: *one, z: 1}}
        text: {"<<": 1}
        """
    found = plain(read(textwrap.dedent(text), "x"))
    assert isinstance(found, dict)
    assert found["both"] == {"a": 1, "b": 1, "c": 3, "d": 2, "e": 3}
    assert found["here"] == {"x": 2}
    assert found["chain"] == {"a": 1, "b": 1, "c": 1, "z": 1}
    assert found["text"] == {"<<": 1}


def test_what_is_merged_has_the_line_where_it_stands() -> None:
    parsed = parse("""\
        images:
          - &base {image: 'A b', priority: 1}
          - {<<: *base, image: b}
          - {<<: *base}
        """)
    assert [str(error).partition(":")[2].partition(":")[0] for error in parsed.errors] == ["2", "2"]
    assert [(str(each.reference), each.priority) for each in parsed.selectors] == [
        ("docker.io/library/b:latest", 1)
    ]


def test_an_alias_in_good_faith_is_followed() -> None:
    parsed = parse("""\
        images:
          - {image: a, platforms: &p [linux/amd64]}
          - {image: b, platforms: *p}
        """)
    assert parsed.selectors[1].platforms == parsed.selectors[0].platforms


def test_plain_scalars_mean_what_yaml_1_2_says() -> None:
    text = "[1, -2, 1.5, 1e3, true, no, 1:30, ~, null, '1', \"true\", 0x1F, text, ! 1, '']"
    assert plain(read(text, "x")) == [
        *(1, -2, 1.5, 1000.0, True, "no", "1:30", None, None, "1", "true", "0x1F", "text", "1", "")
    ]


def test_a_document_of_many_entries_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamltree, "MAX_NODES", 100)
    with pytest.raises(SourceError, match="more than 100 entries"):
        read("a:\n" + "- b\n" * 100, "x")


def parse_or_refuse(text: str) -> Parsed:
    try:
        return yamllist.parse(read(text, "any"), "any")
    except SourceError as error:
        return Parsed(errors=[error])


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from([*yamllist._REPOSITORY, *yamllist._TAGS, "image", "other"]), inner
            )
        ),
        max_leaves=12,
    )
)
def test_any_shape_gives_entries_or_source_errors(value: object) -> None:
    text = json.dumps({"images": value})
    for error in parse_or_refuse(text).errors:
        assert str(error).startswith("any:1: ")
        assert str(error).isprintable()
