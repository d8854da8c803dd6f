"""References: the tables of distribution/reference's own tests, then properties."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefetch.errors import InvalidReference
from prefetch.oci.reference import Digest, Reference, Repository

F64 = "sha256:" + "f" * 64
F128 = "sha512:" + "f" * 128
IMAGE_ID = "1a3f5e7d9c1b3a5f7e9d1c3b5a7f9e1d3c5b7a9f1e3d5d7c9b1a3f5e7d9c1b3a"

NORMALISED = {
    "redis": "docker.io/library/redis:latest",
    "redis:latest": "docker.io/library/redis:latest",
    "docker.io/library/redis:latest": "docker.io/library/redis:latest",
    "docker.io/redis": "docker.io/library/redis:latest",
    "index.docker.io/redis": "docker.io/library/redis:latest",
    "index.docker.io/dmcgowan/myapp": "docker.io/dmcgowan/myapp:latest",
    "dmcgowan/myapp": "docker.io/dmcgowan/myapp:latest",
    "library/foo/bar": "docker.io/library/foo/bar:latest",
    "store/foo/bar": "docker.io/store/foo/bar:latest",
    "ubuntu-12.04-base": "docker.io/library/ubuntu-12.04-base:latest",
    "dbcc1": "docker.io/library/dbcc1:latest",
    IMAGE_ID[:-1]: f"docker.io/library/{IMAGE_ID[:-1]}:latest",
    f"docker.io/{IMAGE_ID}": f"docker.io/library/{IMAGE_ID}:latest",
    f"redis@{F64}": f"docker.io/library/redis@{F64}",
    f"busybox:latest@{F64}": f"docker.io/library/busybox:latest@{F64}",
    "lowercase:Uppercase": "docker.io/library/lowercase:Uppercase",
    "Docker/docker": "Docker/docker:latest",
    "DOCKER/docker": "DOCKER/docker:latest",
    "Foo/bar": "Foo/bar:latest",
    "test.com": "docker.io/library/test.com:latest",
    "test.com:5000": "docker.io/library/test.com:5000",
    "test_com/foo": "docker.io/test_com/foo:latest",
    "test:5000/repo:tag": "test:5000/repo:tag",
    f"test:5000/repo:tag@{F64}": f"test:5000/repo:tag@{F64}",
    "test-com:8080/foo": "test-com:8080/foo:latest",
    "sub-dom1.foo.com/bar/baz/quux:some-long-tag": "sub-dom1.foo.com/bar/baz/quux:some-long-tag",
    "b.gcr.io/test.example.com/my-app:test.example.com": (
        "b.gcr.io/test.example.com/my-app:test.example.com"
    ),
    "xn--n3h.com:18080/foo": "xn--n3h.com:18080/foo:latest",
    f"xn--7o8h.com/myimage:xn--7o8h.com@{F128}": f"xn--7o8h.com/myimage:xn--7o8h.com@{F128}",
    "foo/foo_bar.com:8080": "docker.io/foo/foo_bar.com:8080",
    "localhost/app": "localhost/app:latest",
    "localhost:5000/app:1": "localhost:5000/app:1",
    "localhost": "docker.io/library/localhost:latest",
    "192.168.1.1": "docker.io/library/192.168.1.1:latest",
    "192.168.1.1:5000/repo:5050": "192.168.1.1:5000/repo:5050",
    "127.0.0.1:8000/private/moonbase": "127.0.0.1:8000/private/moonbase:latest",
    "[2001:db8::1]/repo": "[2001:db8::1]/repo:latest",
    "[2001:db8:1:2:3:4:5:6]/repo:tag": "[2001:db8:1:2:3:4:5:6]/repo:tag",
    f"[2001:db8::1]:5000/repo:tag@{F64}": f"[2001:db8::1]:5000/repo:tag@{F64}",
    "[::1]:5000/repo": "[::1]:5000/repo:latest",
    "docker---rules/docker": "docker.io/docker---rules/docker:latest",
    "dock__er/docker": "docker.io/dock__er/docker:latest",
    "jess/t": "docker.io/jess/t:latest",
    "a:" + "t" * 128: "docker.io/library/a:" + "t" * 128,
    "a:_tag": "docker.io/library/a:_tag",
}

INVALID = [
    "",
    " ",
    ":justtag",
    "@" + F64,
    "repo@sha256:" + "f" * 34,
    "validname@invaliddigest:" + "f" * 64,
    "repo@sha256:" + "F" * 64,
    "repo@sha512:" + "f" * 64,
    "repo@sha256:../../x",
    "repo@",
    "repo:",
    "repo:tag:tag",
    f"repo@{F64}@{F64}",
    f"repo@{F64}:tag",
    "repo:-tag",
    "repo:.tag",
    "repo:" + "t" * 129,
    "repo:t\u00e4g",
    "Uppercase:tag",
    "test:5000/Uppercase/lowercase:tag",
    "docker/Docker",
    "docker.io/docker/Docker",
    "aa/asdf$$^/aa",
    "https://github.com/docker/docker",
    "docker://nginx",
    "-docker",
    "-docker/docker",
    "docker-/docker",
    "-docker.io/docker/docker",
    "docker///docker",
    "docker.io/docker///docker",
    "/docker",
    "docker/",
    "____/____",
    "_docker/_docker",
    "dock..er/docker",
    "dock_.er/docker",
    "dock-.er/docker",
    "a___b",
    "../../etc/passwd",
    "[fc00::1]",
    "[fc00::1]:5000",
    "fc00::1:5000/debian",
    "[fe80::1%eth0]:5000/debian",
    "[2001:db8:3:4::192.0.2.33]:5000/debian",
    "user@example.com/repo",
    "example.com:/repo",
    "example.com:port/repo",
    IMAGE_ID,
    "nginx\n",
    "nginx:1\n",
    "nginx 1",
    "n\x00ginx",
    "\u0130/x",
    "x" * 1_000_000,
]


@pytest.mark.parametrize(("text", "canonical"), NORMALISED.items())
def test_normalises(text: str, canonical: str) -> None:
    reference = Reference.parse(text)
    assert str(reference) == canonical
    assert Reference.parse(canonical) == reference


@pytest.mark.parametrize("text", INVALID, ids=lambda text: ascii(text[:40]))
def test_refuses(text: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        Reference.parse(text)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 400


def test_the_path_has_255_characters_at_most() -> None:
    path = "a/" * 127 + "a"
    assert len(path) == 255
    assert Reference.parse(f"registry.example/{path}:tag").repository.path == path
    with pytest.raises(InvalidReference, match="at most 255"):
        Reference.parse(f"registry.example/{path}a:tag")


def test_library_counts_towards_the_length() -> None:
    assert Reference.parse("a" * 247).repository.path == "library/" + "a" * 247
    with pytest.raises(InvalidReference):
        Reference.parse("a" * 248)


def test_a_digest_wins_over_a_tag() -> None:
    both = Reference.parse(f"nginx:1.27@{F64}")
    assert both.tag == "1.27"
    assert both.target == F64
    assert both.name == "docker.io/library/nginx:1.27"
    assert Reference.parse("nginx:1.27").target == "1.27"
    assert Reference.parse(f"nginx@{F64}").name == f"docker.io/library/nginx@{F64}"


def test_hints_name_the_way_out() -> None:
    with pytest.raises(InvalidReference, match="without the scheme"):
        Reference.parse("https://quay.io/org/app")
    with pytest.raises(InvalidReference, match="must be lowercase"):
        Reference.parse("quay.io/Org/app")


def test_repositories() -> None:
    repository = Repository.parse("nginx")
    assert repository == Repository("docker.io", "library/nginx")
    assert str(repository.tagged("1.27")) == "docker.io/library/nginx:1.27"
    assert str(repository.at(Digest.parse(F64))) == f"docker.io/library/nginx@{F64}"
    for text in ("nginx:1.27", f"nginx@{F64}", "Nginx", ""):
        with pytest.raises(InvalidReference):
            Repository.parse(text)
    for tag in ("", "a b", "../x", "x" * 129, "a\n"):
        with pytest.raises(InvalidReference):
            repository.tagged(tag)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        ":" + "0" * 64,
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "0" * 63 + "\n",
        "sha256:" + "0" * 64 + "\n",
        "sha256:../../x",
        "sha256:" + "\u0660" * 64,
        "sha1:" + "0" * 40,
        "sha384:" + "0" * 96,
        "md5:" + "0" * 32,
        "SHA256:" + "0" * 64,
        "sha512:" + "0" * 64,
        "../sha256:" + "0" * 64,
    ],
)
def test_refuses_digests(text: str) -> None:
    with pytest.raises(InvalidReference):
        Digest.parse(text)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_digests_of_bytes(algorithm: str) -> None:
    digest = Digest.of(b"content", algorithm)
    assert str(digest) == f"{algorithm}:{hashlib.new(algorithm, b'content').hexdigest()}"
    hasher = digest.hasher()
    hasher.update(b"con")
    hasher.update(memoryview(b"tent"))
    assert hasher.hexdigest() == digest.hex
    assert Digest.parse(str(digest)) == digest


def test_an_invalid_digest_cannot_be_made() -> None:
    with pytest.raises(InvalidReference):
        Digest("sha256", "../../../etc/passwd")
    with pytest.raises(InvalidReference):
        Digest.of(b"", "md5")


HOSTS = st.one_of(
    st.just("localhost"),
    st.from_regex(r"[a-z0-9]{1,8}(\.[A-Za-z0-9]{1,8}){1,3}(:[0-9]{1,5})?", fullmatch=True),
    st.from_regex(r"\[[0-9a-f]{0,4}(:[0-9a-f]{0,4}){2,7}\](:[0-9]{1,5})?", fullmatch=True),
)
PATHS = st.from_regex(r"[a-z0-9]{1,6}((\.|_|__|-{1,3}|/)[a-z0-9]{1,6}){0,5}", fullmatch=True)
TAGS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
DIGESTS = st.builds(Digest.of, st.binary(max_size=8), st.sampled_from(["sha256", "sha512"]))


@settings(max_examples=150, deadline=None)
@given(HOSTS, PATHS, st.none() | TAGS, st.none() | DIGESTS)
def test_what_is_canonical_round_trips(
    host: str, path: str, tag: str | None, digest: Digest | None
) -> None:
    text = f"{host}/{path}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    reference = Reference.parse(text)
    assert reference.digest == digest
    assert reference.tag == (tag or (None if digest else "latest"))
    assert Reference.parse(str(reference)) == reference


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.text(alphabet="aA0./:@-_[]", max_size=40))
def test_any_text_parses_canonically_or_is_refused(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidReference:
        return
    assert Reference.parse(str(reference)) == reference
    assert str(Reference.parse(str(reference))) == str(reference)
