"""Requests to a Kubernetes API server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import aiohttp

from support.manifests import Object

# By version and kind: the plural, and whether it is of a namespace.
_Collections: TypeAlias = Mapping[tuple[str, str], tuple[str, bool]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answered, decoded where it is JSON."""

    status: int
    body: Any


async def ask(
    session: aiohttp.ClientSession, method: str, path: str, body: Object | None = None
) -> Answer:
    """One request; a PATCH merges."""
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    data = None if body is None else json.dumps(body)
    async with session.request(method, path, data=data, headers={"Content-Type": kind}) as answer:
        decoded = answer.content_type == "application/json"
        return Answer(answer.status, await (answer.json() if decoded else answer.text()))


def accepted(answer: Answer) -> Object:
    """The object in an answer; RuntimeError if it is a refusal."""
    if answer.status not in {200, 201}:
        raise RuntimeError(f"the API server answered {answer.status}: {answer.body}")
    assert isinstance(answer.body, dict)
    return answer.body


async def create_all(
    session: aiohttp.ClientSession, wanted: Sequence[Object], at_once: int
) -> list[Object]:
    """Create them, `at_once` at a time, with their `status` where they have one; in order."""
    known = await _collections(session, {each["apiVersion"] for each in wanted})
    waiting = iter(enumerate(wanted))
    made: dict[int, Object] = {}

    async def work() -> None:
        for number, each in waiting:
            made[number] = await _create(session, known, each)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())
    return [made[number] for number in range(len(wanted))]


async def _collections(session: aiohttp.ClientSession, versions: Iterable[str]) -> _Collections:
    found = {}
    for version in versions:
        listed = accepted(await ask(session, "GET", _root(version)))
        for each in listed["resources"]:
            if "/" not in each["name"]:
                found[version, each["kind"]] = (each["name"], each["namespaced"])
    return found


async def _create(session: aiohttp.ClientSession, known: _Collections, wanted: Object) -> Object:
    plural, namespaced = known[wanted["apiVersion"], wanted["kind"]]
    place = f"namespaces/{wanted['metadata'].get('namespace', 'default')}/" if namespaced else ""
    path = f"{_root(wanted['apiVersion'])}/{place}{plural}"
    made = accepted(await ask(session, "POST", path, wanted))
    # Of pods, among others, it is only taken by itself.
    if "status" in wanted:
        path = f"{path}/{made['metadata']['name']}/status"
        made = accepted(await ask(session, "PATCH", path, {"status": wanted["status"]}))
    return made


def _root(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"
