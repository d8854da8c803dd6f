"""What the models of `prefetch.yaml` have in common: their base, and the simplest values."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from prefetch.config import values

SECRETS: Final = frozenset({"password", "token", "secret", "identity_token", "auth"})
"""Keys that people give what must not be in the file."""


class Strict(BaseModel):
    """No unknown keys, no guessing of types; an empty value is that of a key left out."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True
    )

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        if value is None:
            return {}
        if not isinstance(value, dict):
            got = values.kind(value)
            raise PydanticCustomError("shape", "expected a mapping, got {got}", {"got": got})
        for key in value:
            if key not in cls.model_fields:
                advice = {"key": key, "advice": cls._advice(key)}
                raise PydanticCustomError("key", "{advice}", advice)
        fields = cls.model_fields
        return {k: v for k, v in value.items() if v is not None or fields[k].is_required()}

    @classmethod
    def _advice(cls, key: str) -> str:
        near = difflib.get_close_matches(key, cls.model_fields, n=1)
        advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(cls.model_fields)}"
        return f"unknown key ({advice})"


def text_of(what: str, parse: Callable[[str], Any] | None = None) -> BeforeValidator:
    """A string that `parse` turns into something; what else was given is not shown."""

    def check(value: Any) -> Any:
        if not isinstance(value, str) or not value or "\0" in value:
            raise ValueError(f"expected {what}, got {values.kind(value)}")
        return parse(value) if parse else value

    return BeforeValidator(check)


Text: TypeAlias = Annotated[str, text_of("text")]
File: TypeAlias = Annotated[str, text_of("a file's path")]
Duration: TypeAlias = Annotated[float, BeforeValidator(values.duration)]


def path_at(text: str | None, base: Path) -> Path | None:
    """A path in the file, which starts from the file's directory."""
    return None if text is None else base / text
