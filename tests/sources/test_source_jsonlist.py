"""Large JSON lists of objects: as the others are read, but bit by bit."""

from __future__ import annotations

import io
import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefetch.sources import detect, jsonlist
from prefetch.sources import selector as limits
from prefetch.sources.detect import load
from prefetch.sources.jsonlist import begins
from prefetch.sources.selector import Parsed

GOOD = {"kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": [{"image": "web:1"}]}}
HEAD = 64


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few hundred bytes are large."""
    monkeypatch.setattr(detect, "_HEAD", HEAD)
    monkeypatch.setattr(jsonlist, "_BLOCK", 16)
    monkeypatch.setattr(jsonlist, "MAX_ITEM", 8192)


def read(text: str | bytes) -> Parsed:
    data = text.encode() if isinstance(text, str) else text
    return load("-", lambda: io.BytesIO(data))


def listed(*items: Any, indent: int | None = None) -> str:
    whole = {"apiVersion": "v1", "items": list(items), "kind": "List", "metadata": {"x": "é" * 30}}
    return json.dumps(whole, indent=indent, ensure_ascii=False)


def without_lines(parsed: Parsed) -> tuple[list[Any], list[str]]:
    return (
        [(each.reference, each.demand) for each in parsed.selectors],
        [error.advice for error in parsed.errors],
    )


def test_lines_are_those_where_items_begin() -> None:
    bad = {"kind": "Pod", "metadata": {"name": "bad"}}
    text = listed(GOOD, bad, GOOD, indent=2)
    parsed = read(text)
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines, 1) if line == "    {"]
    assert [each.origin.line for each in parsed.selectors] == [starts[0], starts[2]]
    [error] = parsed.errors
    assert error.line == starts[1]
    assert "Pod bad: there is no pod specification in it" in str(error)


@pytest.mark.parametrize(
    "item",
    [
        *(None, 1, "text", [], {}, {"kind": None}),
        {"kind": "Pod", "metadata": None, "spec": None},
        {"kind": "Pod", "metadata": [], "spec": {"containers": None, "volumes": None}},
        {"kind": "Pod", "spec": {"containers": [None, {"image": None}, {"image": "A b"}]}},
        {"kind": "PodList", "items": [GOOD, None, GOOD]},
        {"spec": {"containers": [{"image": "kindless:1"}]}},
        {**GOOD, "status": {"containerStatuses": [{"image": "other:1"}]}},
        {"kind": "Pod", "spec": {"containers": [{"image": "\ud800"}]}},
    ],
)
def test_the_result_is_that_of_a_small_list(item: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps({"kind": "List", "items": [GOOD, item, GOOD], "x": "." * HEAD})
    large = read(text)
    monkeypatch.setattr(detect, "_HEAD", 1 << 20)
    small = read(text.replace("\\ud800", "\ufffd"))
    assert [str(each.reference) for each in large.selectors][-1] == "docker.io/library/web:1"
    if "ud800" not in text:
        assert without_lines(large) == without_lines(small)
    assert all(str(error).isprintable() for error in large.errors)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["a:1", "", "x y", "é"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["kind", "spec", "containers", "image", "items", "metadata", "name"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(items=st.lists(JSON, max_size=5), indent=st.sampled_from([None, 0, 3]))
def test_any_list_is_read_as_a_small_one_is(items: list[Any], indent: int | None) -> None:
    text = listed(*items, indent=indent)
    large = read(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detect, "_HEAD", 1 << 20)
        small = read(text)
    assert without_lines(large) == without_lines(small)


@pytest.mark.parametrize(
    ("end", "complaint"),
    [
        ("", "not valid JSON"),
        (",", "not valid JSON"),
        ("]", "not valid JSON: a comma or } should stand here"),
        ("}", "not valid JSON: a comma or ] should stand here"),
        (", {]", "not valid JSON"),
        (', {"a": 1 "b": 2}', "not valid JSON"),
        ("], 1", "not valid JSON: a key and a colon should stand here"),
        ('], "kind" "List"', "not valid JSON: a key and a colon should stand here"),
        (f", {'[' * 100_000}", "not readable: nested too deeply"),
        (f", {'9' * 5000}", "number too long"),
        (f', "{"x" * 20_000}"]', "not valid JSON, or larger than 0 MiB"),
        (', "\xff"', "not UTF-8"),
        ('], "kind": "List"}\n---\nkind: Pod\n', "something follows the list, and is not read"),
    ],
)
def test_what_breaks_a_list_leaves_what_was_before(end: str, complaint: str) -> None:
    text = f'{{"kind": "List", "items": [\n{json.dumps(GOOD)}{end}'
    parsed = read(text.encode("latin-1"))
    assert [str(each.reference) for each in parsed.selectors] == ["docker.io/library/web:1"]
    assert complaint in str(parsed.errors[-1])
    assert str(parsed.errors[-1]).isprintable()


def test_items_of_no_list_are_not_taken() -> None:
    for kind in ("", '"kind": "Pod", ', '"kind": null, '):
        parsed = read(f'{{{kind}"items": [{json.dumps(GOOD)}], "x": 1}}')
        assert parsed.selectors == []
        assert "is no Kubernetes list" in str(parsed.errors[0])


def test_what_nests_deeper_than_we_walk_is_one_item() -> None:
    deep = f'{{"kind": "Pod", "spec": {"[" * 600}{"]" * 600}}}'
    parsed = read(f'{{"kind": "List", "items": [{deep}, {json.dumps(GOOD)}]}}')
    assert len(parsed.selectors) == 1
    assert len(parsed.errors) == 1


@pytest.mark.parametrize(
    ("text", "so"),
    [
        ('{"items": [', True),
        ('\ufeff \n{"a": {"items": 1}, "items": [', True),
        ('{"a": {"items": [1]}', False),
        ('{"items": null, "items": [', False),
        ('{"items": {"a": [', False),
        ("{items: [", False),
        ("[1, 2", False),
        ("", False),
        ('{"a": "', False),
    ],
)
def test_what_begins_like_a_list(text: str, so: bool) -> None:
    assert begins(text.encode()) is so


def test_a_list_that_is_too_large_is_read_as_far_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonlist, "MAX_SIZE", 2000)
    parsed = read(listed(*[GOOD] * 100))
    assert 0 < len(parsed.selectors) < 30
    assert "the rest is not read" in str(parsed.errors[-1])


def test_a_list_has_so_many_entries_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_ENTRIES", 10)
    for item in (GOOD, None):
        parsed = read(listed(*[item] * 100))
        assert len(parsed.selectors) + len(parsed.errors) == 11
        assert "more than 10 entries" in str(parsed.errors[-1])


def test_memory_does_not_grow_with_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    pod = {**GOOD, "status": {"message": random.Random(1).randbytes(5000).hex()}}
    path = tmp_path / "pods.json"
    path.write_text(listed(*[pod] * 2500))
    size = path.stat().st_size
    assert size > 24 << 20
    tracemalloc.start()
    try:
        parsed = load(path, io.BytesIO)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(parsed.selectors) == 2500
    assert peak < size / 3
