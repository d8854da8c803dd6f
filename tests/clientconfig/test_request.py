"""From options to a plan: what is refused, in one clear line, and what belongs to whom."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from wishes import CACHE, LOGIN, plan

from prefetch.clientconfig.endpoints import Endpoint, parse_endpoint
from prefetch.credentials.authfile import AuthFile
from prefetch.credentials.credential import Credential, IdentityToken, Secret
from prefetch.errors import UsageError
from prefetch.oci.registries import DEFAULT_REGISTRIES


def auth_file(**users: str) -> AuthFile:
    auths = {
        host.replace("__", "."): {"auth": base64.b64encode(pair.encode()).decode()}
        for host, pair in users.items()
    }
    return AuthFile.parse(json.dumps({"auths": auths}).encode(), "auth.json")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("cache.example:5000", "has no scheme (write https://cache.example:5000)"),
        ("ftp://cache.example", "is not a URL such as"),
        ("https://", "is not a URL such as"),
        ("https://cache.example:0", "more than a host"),
        ("https://cache.example:99999", "is not a URL"),
        ("https://cache.example?x=1", "more than a host"),
        ("https://cache.example#x", "more than a host"),
        ("https://cache.example/docker.io", "a cache's URL has no path"),
        ("https://cache_.example/\n", "is not a URL"),
        ("https://-", "is not a URL"),
        ("https://a b", "is not a URL"),
    ],
)
def test_a_url_that_is_none_for_a_cache(text: str, complaint: str) -> None:
    if text == "https://-":  # a name that Docker and others would take
        parse_endpoint(text, "--cache-url", cache=True)
        return
    with pytest.raises(UsageError) as caught:
        plan(cache_urls=(text,))
    assert "--cache-url" in str(caught.value)
    assert "\n" not in str(caught.value)
    if text != "https://a b" and "_" not in text:
        assert complaint in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "https://alice:wonderland@cache.example",
        "alice:wonderland@cache.example",
        "https://:wonderland@cache.example",
        "https://wonderland@cache.example:x",
        "https://a:wonderland@b@cache.example",
        "https://alice:wonderland/x@cache.example",
        "https:/alice:wonderland@cache.example",
        "wonderland@",
    ],
)
def test_a_password_in_a_url_is_refused_and_not_repeated(text: str) -> None:
    for wishes in ({"cache_urls": (text,)}, {"mirrors": (f"docker.io={text}",)}):
        with pytest.raises(UsageError) as caught:
            plan(**wishes)
        assert "wonderland" not in str(caught.value)


def test_without_registries_the_configured_ones_are_mirrored() -> None:
    assert plan(registries=()).registries == DEFAULT_REGISTRIES


@pytest.mark.parametrize(
    ("wishes", "complaint"),
    [
        ({"registries": ("dockr.io",)}, "--registry dockr.io: the cache does not ask it"),
        ({"registries": ("a b",)}, "--registry"),
        ({"mirrors": ()}, "where is the cache?"),
        ({"mirrors": ("docker.io",)}, "expected REGISTRY=URL"),
        ({"mirrors": ("docker.io=mirror",)}, "--mirror docker.io: mirror has no scheme"),
        (
            {"mirrors": ("docker.io=https://m",), "registries": ("quay.io",)},
            "--registry quay.io: no --mirror and no --cache-url",
        ),
        (
            {"mirrors": ("docker.io=https://docker.io",), "fallback": False},
            "--no-fallback: https://docker.io is docker.io itself",
        ),
        (
            {"mirrors": ("quay.io=https://m", "quay.io=https://quay.io"), "fallback": False},
            "is quay.io itself",
        ),
        (
            {"mirrors": ("docker.io=https://docker.io",), "cache_urls": ()},
            "--mirror docker.io: https://docker.io is docker.io itself (give a mirror before it",
        ),
        ({"rewrites": ("a=b", "c=d", "a=e")}, "--rewrite: 'a' is given twice"),
        ({"ca_files": ("",)}, "--ca-file: expected PATH or HOST=PATH"),
        ({"rewrites": ("library",)}, "expected REGEX=REPLACEMENT"),
        ({"rewrites": ("(=x",)}, "no regular expression"),
        ({"cert_files": ("c.pem",)}, "--cert-file and --key-file go together"),
        ({"key_files": ("cache.example:5000=k",)}, "go together"),
        ({"ca_files": ("other.example=ca.pem",)}, "other.example, which is asked for nothing"),
        ({"ca_files": ("=ca.pem",)}, "--ca-file: expected PATH or HOST=PATH"),
        ({"ca_files": ("cache.example:5000=",)}, "expected PATH or HOST=PATH"),
        ({"cache_urls": ("http://10.0.0.7",), "ca_files": ("ca.pem",)}, "no cache is asked over"),
        ({"cache_urls": ("http://10.0.0.7",), "skip_verify": True}, "no cache is asked over"),
    ],
)
def test_what_cannot_be_meant(wishes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan(**wishes)
    assert complaint in str(caught.value)


def test_a_file_for_one_host_stands_before_the_one_for_all() -> None:
    found = plan(
        cache_urls=(CACHE, "https://b.example", "http://c.example"),
        ca_files=("b.example=b.pem", "all.pem"),
    )
    assert {host: tls.ca_file for host, tls in found.tls.items()} == {
        "cache.example:5000": "all.pem",
        "b.example": "b.pem",
    }


@pytest.mark.parametrize("path", ["/etc/a=b.pem", "./x=y/ca.pem", "/ca.pem", "ca.pem"])
def test_a_path_may_have_an_equals_sign_in_it(path: str) -> None:
    assert plan(ca_files=(path,)).tls["cache.example:5000"].ca_file == path
    assert plan(ca_files=(f"cache.example:5000={path}",)).tls["cache.example:5000"].ca_file == path


def test_a_file_may_be_for_a_registry_itself() -> None:
    found = plan(ca_files=("docker.io=hub.pem",))
    assert found.tls["docker.io"].ca_file == "hub.pem"


def test_a_login_is_for_the_caches_alone() -> None:
    found = plan(
        cache_urls=(CACHE, "https://b.example"),
        mirrors=("quay.io=https://q.example", "quay.io=https://quay.io"),
        registries=("docker.io",),
        login=LOGIN,
    )
    assert found.logins == {"cache.example:5000": LOGIN, "b.example": LOGIN}
    assert found.registry_logins == {}


def test_a_login_is_for_the_only_mirror_but_not_for_several() -> None:
    mirrors = ("docker.io=https://m.example", "docker.io=https://docker.io")
    assert plan(mirrors=mirrors, login=LOGIN).logins == {"m.example": LOGIN}
    with pytest.raises(UsageError, match="credentials are given for one host"):
        plan(mirrors=(*mirrors, "quay.io=https://q.example"), login=LOGIN)


def test_an_auth_file_has_entries_for_mirrors_and_registries() -> None:
    found = plan(
        mirrors=("docker.io=https://m.example", "quay.io=http://q.example:80"),
        auth_file=auth_file(
            m__example="a:1",
            **{"q__example:80": "b:2", "index__docker__io": "hub:3", "x__y": "c:4"},
        ),
    )
    assert found.logins == {
        "m.example": Credential("a", Secret("1")),
        "q.example:80": Credential("b", Secret("2")),
    }
    assert found.registry_logins == {"docker.io": Credential("hub", Secret("3"))}


def test_a_login_on_the_command_line_stands_before_the_auth_file() -> None:
    token = IdentityToken(Secret("token"))
    found = plan(login=token, auth_file=auth_file(**{"cache__example:5000": "a:1"}))
    assert found.logins == {"cache.example:5000": token}


@pytest.mark.parametrize(
    ("url", "api", "shown"),
    [
        ("https://m.example", "/v2", "https://m.example"),
        ("https://M.example/", "/v2", "https://m.example"),
        ("https://m.example/v2/", "/v2", "https://m.example"),
        ("https://m.example/v2/hub", "/v2/hub", "https://m.example/v2/hub"),
        ("http://m.example:80/a/v2", "/a/v2", "http://m.example:80/a/v2"),
        ("https://m.example/a/b", "/a/b/v2", "https://m.example/a/b/v2"),
        ("https://[::1]:5000", "/v2", "https://[::1]:5000"),
    ],
)
def test_where_a_mirrors_api_is(url: str, api: str, shown: str) -> None:
    found = parse_endpoint(url, "--mirror", cache=False)
    assert (found.api, found.url) == (api, shown)


def test_a_prefix_for_clients_that_send_no_namespace() -> None:
    assert Endpoint("https", "c:5000", cache=True).prefix("quay.io") == "c:5000/quay.io"
    assert Endpoint("https", "m", "/v2/hub").prefix("docker.io") == "m/hub"
    assert Endpoint("https", "m").prefix("docker.io") == "m"
    with pytest.raises(UsageError):
        Endpoint("https", "m", "/hub/v2").prefix("docker.io")


@pytest.mark.parametrize("host", ["docker.io", "index.docker.io", "registry-1.docker.io"])
def test_docker_hub_by_each_of_its_names_is_the_registry_itself(host: str) -> None:
    assert Endpoint("https", host).is_registry("docker.io")
    assert not Endpoint("https", host).is_registry("quay.io")
