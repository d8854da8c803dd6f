"""What a target is: a system, what it can be told, and how that is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prefetch.clientconfig.files import ConfigFile
from prefetch.clientconfig.plan import Abilities, Plan


@dataclass(frozen=True, slots=True)
class Output:
    """The files for a node, the main one first, and what has to be known besides."""

    files: tuple[ConfigFile, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """A system that pulls images.

    `paths` are the files that it reads, `restart` what makes it read them. `keys` name, by the
    list's key, which key tells the entries of a list apart when files are merged; none: the
    main file cannot be merged. `merged` says what is wrong with the whole of a merged file.
    """

    name: str
    title: str
    paths: tuple[str, ...]
    restart: str
    render: Callable[[Plan], Output]
    abilities: Abilities = field(default_factory=Abilities)
    keys: Mapping[str, str] | None = None
    merged: Callable[[Mapping[str, Any]], list[str]] = field(default=lambda _: [])

    def output(self, plan: Plan) -> Output:
        """The files for a plan. Raises UsageError for what the system cannot do."""
        self.abilities.check(plan, self.name)
        return self.render(plan)
