"""Platforms: specifiers, normalisation, and which entry of an index serves which platform.

Follows containerd's `platforms` package: `Parse`, `Normalize`, and `Only` for matching.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Literal, TypeAlias
from urllib.parse import quote, unquote

from prefetch.errors import InvalidReference

_WORDS = re.compile("[a-z0-9_.-]{1,64}(?:/[a-z0-9_.-]{1,64}){2}")
_SPECIFIER = re.compile(
    r"([\w.-]+)(?:\(([\w.%~-]*)((?:\+[\w.%~-]+)*)\))?(?:/([\w.-]+)(?:/([\w.-]+))?)?", re.ASCII
)
_SYSTEMS = frozenset({"darwin", "freebsd", "linux", "macos", "windows"})
_ARCHITECTURES = frozenset(
    {"386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x"}
)
_ALIASES = {
    "i386": ("386", None),
    "i686": ("386", None),
    "x86_64": ("amd64", None),
    "x86-64": ("amd64", None),
    "aarch64": ("arm64", None),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "loongarch64": ("loong64", None),
}
_VARIANTS = {
    ("amd64", "v1"): None,
    ("arm64", "8"): None,
    ("arm64", "v8"): None,
    ("arm64", "v8.0"): None,
    ("arm64", "9"): "v9",
    ("arm64", "v9.0"): "v9",
    ("arm", None): "v7",
    ("arm", "5"): "v5",
    ("arm", "6"): "v6",
    ("arm", "7"): "v7",
    ("arm", "8"): "v8",
}
_OLDEST_ARM: Final = 5
_ARM_V8: Final = 8
_BUILD_PARTS: Final = 3


@dataclass(frozen=True, slots=True)
class Platform:
    """What a manifest runs on (image-spec, "Image Index", `platform`). Always normalised.

    `x86_64` becomes `amd64`, `arm64/v8` becomes `arm64`, `arm` becomes `arm/v7`, and so on, so
    that equal platforms compare equal. Raises InvalidReference for words that no platform has.
    """

    os: str
    architecture: str
    variant: str | None = None
    os_version: str | None = None
    os_features: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        system = self.os.lower()
        architecture, variant = _normalise(self.architecture, self.variant)
        if not _WORDS.fullmatch(f"{system}/{architecture}/{variant or '-'}"):
            text = "/".join((self.os, self.architecture, self.variant or ""))
            raise InvalidReference(f"{text[:120]!a} is not a platform")
        set_field = object.__setattr__
        set_field(self, "os", "darwin" if system == "macos" else system)
        set_field(self, "architecture", architecture)
        set_field(self, "variant", variant)
        set_field(self, "os_version", self.os_version or None)
        if self.os_features:
            set_field(self, "os_features", tuple(sorted(set(self.os_features))))

    @classmethod
    def parse(cls, text: str) -> Platform:
        """From `os[(version+feature)]/architecture[/variant]`, or one of the two words alone.

        A lone architecture means linux, a lone system this host's architecture. Raises
        InvalidReference.
        """
        match = _SPECIFIER.fullmatch(text)
        if not match:
            raise InvalidReference(
                f"{text[:120]!a} is not a platform", hint="write it like linux/arm64/v8"
            )
        system, version, features, architecture, variant = match.groups()
        if architecture is None:
            system, architecture = _complete(system)
        return cls(
            system,
            architecture,
            variant,
            unquote(version or ""),
            tuple(unquote(feature) for feature in (features or "").split("+")[1:]),
        )

    @classmethod
    def host(cls) -> Platform:
        """Linux on this host's architecture."""
        return cls("linux", os.uname().machine)

    def __str__(self) -> str:
        options = "".join(
            [quote(self.os_version or "", safe="")]
            + [f"+{quote(feature, safe='')}" for feature in self.os_features]
        )
        system = f"{self.os}({options})" if options else self.os
        return "/".join(part for part in (system, self.architecture, self.variant) if part)


class AllPlatforms(Enum):
    """The type of `ALL`."""

    ALL = "all"


ALL: Final = AllPlatforms.ALL
"""Every platform that an image has, attestations left out."""

PlatformSet: TypeAlias = tuple[Platform, ...] | Literal[AllPlatforms.ALL]


def select(wanted: Sequence[Platform], have: Sequence[Platform | None]) -> dict[Platform, int]:
    """For each wanted platform the position of its best match; what is missing has no key.

    The best match is the one that containerd's `Only` ranks first, the earlier among equals. An
    entry without a platform serves everything when it is the only one, otherwise nothing. An
    entry's os.version counts only where one is wanted, and its os.features must all be wanted.
    """
    if list(have) == [None]:
        return dict.fromkeys(wanted, 0)
    found = ((platform, _best(platform, have)) for platform in wanted)
    return {platform: position for platform, position in found if position is not None}


def _best(wanted: Platform, have: Sequence[Platform | None]) -> int | None:
    for candidate in _served_by(wanted):
        for position, platform in enumerate(have):
            if platform is not None and _matches(candidate, platform):
                return position
    return None


def _served_by(wanted: Platform) -> Iterator[Platform]:
    """What can run on `wanted`, best first.

    amd64/v3: v3, v2, v1, then 386. arm/v7: v7, v6, v5. arm64/v9.1: v9.1, v9, v8.6 down to v8, then
    arm/v8 down to v5 (v9.x can run what was built for v8.{x+5}).
    """
    yield wanted
    match wanted.architecture:
        case "amd64":
            for number in range(_version(wanted.variant or "v1")[0] - 1, 0, -1):
                yield replace(wanted, variant=f"v{number}")
            yield replace(wanted, architecture="386", variant=None)
        case "arm":
            yield from _arm_below(wanted, _version(wanted.variant or "v7")[0])
        case "arm64":
            yield from _arm64_below(wanted)
            yield from _arm_below(replace(wanted, architecture="arm"), _ARM_V8 + 1)


def _arm_below(wanted: Platform, number: int) -> Iterator[Platform]:
    for older in range(number - 1, _OLDEST_ARM - 1, -1):
        yield replace(wanted, variant=f"v{older}")


def _arm64_below(wanted: Platform) -> Iterator[Platform]:
    major, minor = _version(wanted.variant or "v8")
    versions = [(major, older) for older in range(minor - 1, -1, -1)]
    if major == _ARM_V8 + 1:
        versions += [(_ARM_V8, older) for older in range(minor + 5, -1, -1)]
    for major, minor in versions:
        yield replace(wanted, variant=f"v{major}.{minor}")


def _version(variant: str) -> tuple[int, int]:
    """`v8.2` is (8, 2), `v3` is (3, 0); (0, 0) for what is no version."""
    match = re.fullmatch(r"v?([0-9]{1,2})(?:\.([0-9]))?", variant)
    return (int(match[1]), int(match[2] or 0)) if match else (0, 0)


def _matches(wanted: Platform, have: Platform) -> bool:
    return (
        wanted.os == have.os
        and wanted.architecture == have.architecture
        and wanted.variant == have.variant
        and _same_build(wanted.os_version, have.os_version)
        and set(have.os_features) <= set(wanted.os_features)
    )


def _same_build(wanted: str | None, have: str | None) -> bool:
    """Windows runs containers of its own build: `10.0.17763`, whatever the revision after it."""
    if wanted is None or have is None:
        return True
    pairs = zip(wanted.split(".")[:_BUILD_PARTS], have.split("."), strict=False)
    return all(ours == theirs for ours, theirs in pairs)


def _normalise(architecture: str, variant: str | None) -> tuple[str, str | None]:
    architecture, variant = architecture.lower(), (variant or "").lower() or None
    name, implied = _ALIASES.get(architecture, (architecture, None))
    if implied is not None or name == "386":
        variant = implied
    return name, _VARIANTS.get((name, variant), variant)


def _complete(word: str) -> tuple[str, str]:
    """The system and the architecture that a lone word stands for."""
    if word.lower() in _SYSTEMS:
        return word, os.uname().machine
    if _normalise(word, None)[0] in _ARCHITECTURES:
        return "linux", word
    raise InvalidReference(
        f"{word[:120]!a} is neither a system nor an architecture",
        hint="write it like linux/amd64",
    )
