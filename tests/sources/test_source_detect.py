"""Sources told apart by content, and what cannot be read at all."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefetch.errors import UsageError
from prefetch.sources import detect
from prefetch.sources.detect import load, parse


def names(data: bytes) -> list[str]:
    parsed = parse(data, "list")
    assert parsed.errors == []
    return [str(selector.reference) for selector in parsed.selectors]


@pytest.mark.parametrize(
    "data",
    [
        b"nginx:1.27\n",
        b"images: [nginx:1.27]\n",
        b"# comment\n\nimages:\n- nginx:1.27\n",
        b"---\nimages:\n  - image: nginx:1.27\n",
        b'{"images": ["nginx:1.27"]}',
        b'{\n  "images":\n  [\n"nginx:1.27"]}',
        b"\xef\xbb\xbfimages: [nginx:1.27]\r\n",
        b"%YAML 1.2\n---\nimages: [nginx:1.27]\n",
    ],
)
def test_a_list_is_told_by_its_content(data: bytes) -> None:
    assert names(data) == ["docker.io/library/nginx:1.27"]


def test_a_registry_with_a_port_is_no_key() -> None:
    assert names(b"localhost:5000/app:1\n") == ["localhost:5000/app:1"]


@pytest.mark.parametrize(
    "data", [b"", b"\n\n", b"# nothing\n", b"images:\n", b"images: []\n", b"---\n"]
)
def test_an_empty_list_is_no_error(data: bytes) -> None:
    assert names(data) == []


@pytest.mark.parametrize(
    "data",
    [
        b"kind: Pod\nspec: {containers: [{image: nginx:1.27}]}\n",
        b"# Source: chart\n---\napiVersion: v1\nkind: Pod\nspec:\n  containers:\n"
        b"  - image: nginx:1.27\n",
        b'{"kind": "List", "items": [{"kind": "Pod", "spec": {"containers":'
        b' [{"image": "nginx:1.27"}]}}]}',
        b"name: demo\nservices:\n  web: {image: 'nginx:1.27'}\n",
        b"kind: ConfigMap\n---\nimages: [nginx:1.27]\n---\n",
    ],
)
def test_objects_and_compose_files_are_told_by_their_content(data: bytes) -> None:
    assert names(data) == ["docker.io/library/nginx:1.27"]


@pytest.mark.parametrize(
    "data",
    [
        b"kind: Pod\nmetadata: {name: {{ .Values.name }}}\n",
        b"{{- if .Values.on }}\nkind: Pod\n{{- end }}\n",
        b"kind: Pod\nspec:\n  containers:\n  {{- range .all }}\n  - image: x\n  {{- end }}\n",
    ],
)
def test_a_template_is_to_be_rendered_first(data: bytes) -> None:
    parsed = parse(data, "x.yaml")
    assert parsed.selectors == []
    assert "not yet rendered (render it first: helm template" in str(parsed.errors[-1])


def test_what_is_wrong_with_a_document_does_not_touch_those_before_it() -> None:
    pod = b"kind: Pod\nspec: {containers: [{image: nginx:1.27}]}\n---\n"
    parsed = parse(pod + b"kind: Pod\nspec: [\n---\n" + pod, "x.yaml")
    assert [str(selector.reference) for selector in parsed.selectors] == [
        "docker.io/library/nginx:1.27"
    ]
    assert str(parsed.errors[0]).startswith("x.yaml:")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x7fELF\x02\x01\0\0", "x: a binary file, not an image list"),
        ("nginx\n".encode("utf-16"), "x: written in UTF-16; save it as UTF-8"),
        (b"images:\n- ngin\xff\n", "x:2: the line is not UTF-8"),
    ],
)
def test_what_is_no_text(data: bytes, message: str) -> None:
    assert [str(error) for error in parse(data, "x").errors] == [message]


def test_a_huge_file_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "MAX_SIZE", 2 << 20)
    parsed = parse(b"nginx\n" * 500_000, "x")
    assert "larger than 2 MiB" in str(parsed.errors[0])


def test_files_and_standard_input(tmp_path: Path) -> None:
    path = tmp_path / "images.txt"
    path.write_text("nginx\nbad line\n")
    parsed = load(path, io.BytesIO)
    assert parsed.selectors[0].origin.source == str(path)
    assert str(parsed.errors[0]).startswith(f"{path}:2: ")
    parsed = load("-", lambda: io.BytesIO(b"redis\n?\n"))
    assert str(parsed.selectors[0].reference) == "docker.io/library/redis:latest"
    assert str(parsed.errors[0]).startswith("-:2: ")


def test_only_the_word_is_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration beside which there is a file of that name has to get that."""
    monkeypatch.chdir(tmp_path)
    Path("-").write_text("nginx\n")

    def none() -> io.BytesIO:
        raise AssertionError

    assert len(load(Path("-"), none).selectors) == 1
    assert load("-", lambda: io.BytesIO(b"")).selectors == []


def test_missing_files_and_directories(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such file: nginx:1.27 \(.*--image nginx:1.27\)"):
        load("nginx:1.27", io.BytesIO)
    with pytest.raises(UsageError) as caught:
        load(str(tmp_path / "No Such File"), io.BytesIO)
    assert caught.value.hint is None
    with pytest.raises(UsageError, match=r"there is no \.yaml, \.yml or \.json file in it"):
        load(tmp_path, io.BytesIO)
    with pytest.raises(UsageError, match="is not a file's path"):
        load("a\0b", io.BytesIO)
    with pytest.raises(UsageError, match="File name too long"):
        load("x" * 5000, io.BytesIO)


def test_a_directory_is_all_the_objects_in_it(tmp_path: Path) -> None:
    for name, text in {
        "b/pod.yaml": "kind: Pod\nspec: {containers: [{image: b}]}\n",
        "a.yml": "services: {web: {image: a}}\n",
        "c.json": '{"images": ["c"]}',
        "values.yaml": "replicas: 2\nimage: {repository: x}\n",
        "notes.txt": "not an image\n",
        ".git/hidden.yaml": "images: [hidden]\n",
        "d.yaml": "kind: Pod\nspec: {containers: [{image: '?'}]}\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    parsed = load(tmp_path, io.BytesIO)
    assert [
        selector.reference.repository.path for selector in parsed.selectors if selector.reference
    ] == [
        "library/a",
        "library/b",
        "library/c",
    ]
    assert [str(error).partition(": ")[0] for error in parsed.errors] == [f"{tmp_path}/d.yaml:2"]
    assert [str(note) for note in parsed.notes] == [
        f"{tmp_path}/values.yaml:1: no object, compose file or image list"
    ]


def test_a_file_whose_reading_fails() -> None:
    with pytest.raises(UsageError, match="cannot be read: Input/output error"):
        load("/proc/self/mem", io.BytesIO)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"images:\n", b"{", b"- ", b"images: ["]))
def test_any_bytes_give_entries_or_source_errors(data: bytes, start: bytes) -> None:
    for error in parse(start + data, "any").errors:
        assert str(error).startswith("any")
        assert str(error).isprintable()
