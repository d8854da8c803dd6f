"""Adding to files that are there: nothing else is lost, and ours is asked first."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
import yaml
from wishes import CACHE, LOGIN, plan

from prefetch.clientconfig.merging import Merged, merge
from prefetch.clientconfig.plan import Plan
from prefetch.clientconfig.targets import target_named
from prefetch.errors import UsageError


def merged(target: str, existing: str, made: Plan | None = None) -> Merged:
    found = target_named(target)
    assert found.keys is not None
    main = found.output(made or plan()).files[0]
    return merge(main, existing, "there", found.keys)


REGISTRIES = """\
# what the platform team wrote
mirrors:
  docker.io:
    endpoint:
      - "https://old.example"   # keep me
  registry.corp.example:
    endpoint: ["https://corp.example"]
configs:
  "corp.example":
    auth: {username: u, password: "no"}
    tls:
      ca_file: /etc/corp.pem  # ours
"""


def test_registries_yaml_keeps_comments_and_asks_the_cache_first() -> None:
    found = merged("k3s", REGISTRIES, plan(login=LOGIN, ca_files=("/ca.pem",)))
    tree = yaml.safe_load(found.text)
    assert tree["mirrors"] == {
        "docker.io": {"endpoint": [CACHE, "https://old.example"]},
        "registry.corp.example": {"endpoint": ["https://corp.example"]},
        "quay.io": {"endpoint": [CACHE]},
    }
    assert tree["configs"]["corp.example"] == {
        "auth": {"username": "u", "password": "no"},
        "tls": {"ca_file": "/etc/corp.pem"},
    }
    assert tree["configs"]["cache.example:5000"] == {
        "auth": {"username": "alice", "password": "wonder:land"},
        "tls": {"ca_file": "/ca.pem"},
    }
    for comment in ("# what the platform team wrote", "# keep me", "# ours"):
        assert comment in found.text
    assert found.replaced == ()


@pytest.mark.parametrize("target", ["k3s", "rke2", "docker", "rke", "podman", "crio", "buildkit"])
def test_merging_twice_changes_nothing(target: str) -> None:
    once = merged(target, "")
    again = merged(target, once.text)
    assert (again.text, again.replaced) == (once.text, ())


def test_a_value_that_is_another_now_is_named_without_being_shown() -> None:
    existing = "configs: {'cache.example:5000': {auth: {username: bob, password: secret}}}\n"
    found = merged("k3s", existing, plan(login=LOGIN))
    assert found.replaced == (
        "configs.cache.example:5000.auth.username",
        "configs.cache.example:5000.auth.password",
    )


@pytest.mark.parametrize("word", ["no", "yes", "on", "0123", "1:30", "1e3", "null", "~", "true"])
def test_words_that_yaml_takes_for_something_else_stay_text(word: str) -> None:
    login = type(LOGIN)(word, type(LOGIN.password)(word))
    for text in (merged("k3s", "a: 1\n", plan(login=login)).text, merged("k3s", "").text):
        assert "a: 1" in text or "mirrors" in text
    found = yaml.safe_load(merged("k3s", "a: 1\n", plan(login=login)).text)
    assert found["configs"]["cache.example:5000"]["auth"] == {"username": word, "password": word}


def test_lists_keep_the_way_in_which_they_are_indented() -> None:
    flush = "nodes:\n- address: 10.0.0.1\n  role:\n  - worker\n"
    assert merged("rke", flush).text.startswith(flush)
    indented = "nodes:\n  - address: 10.0.0.1\n    role:\n      - worker\n"
    assert merged("rke", indented).text.startswith(indented)


def test_private_registries_are_told_apart_by_their_url() -> None:
    existing = (
        "private_registries:\n"
        "- url: other.example\n  user: u\n  password: p\n"
        "- url: cache.example:5000/docker.io\n  is_default: false\n"
    )
    found = merged("rke", existing)
    assert yaml.safe_load(found.text)["private_registries"] == [
        {"url": "other.example", "user": "u", "password": "p"},
        {"url": "cache.example:5000/docker.io", "is_default": True},
    ]
    assert found.replaced == ("private_registries[cache.example:5000/docker.io].is_default",)


def test_of_several_defaults_rke_takes_the_first() -> None:
    existing = "private_registries:\n- {url: other.example, is_default: true}\n"
    found = merged("rke", existing)
    assert target_named("rke").merged(found.tree) == [
        "of several with is_default RKE takes the first, other.example"
    ]
    assert target_named("rke").merged(merged("rke", "").tree) == []


def test_daemon_json_keeps_its_order() -> None:
    existing = {"log-driver": "journald", "registry-mirrors": ["https://m/"], "bip": "10.0.0.1/24"}
    found = merged("docker", json.dumps(existing))
    tree = json.loads(found.text)
    assert list(tree) == ["log-driver", "registry-mirrors", "bip"]
    assert tree["registry-mirrors"] == [CACHE, "https://m/"]


def test_registries_conf_keeps_comments_and_other_registries() -> None:
    existing = (
        'unqualified-search-registries = ["docker.io"]  # as ever\n\n'
        '[[registry]]\nprefix = "docker.io"\nlocation = "docker.io"\nblocked = false\n\n'
        '[[registry.mirror]]\nlocation = "old.example"\n\n'
        '[[registry]]\nprefix = "corp.example"\nlocation = "corp.example"\n'
    )
    found = merged("podman", existing)
    tree = tomllib.loads(found.text)
    by_prefix = {each["prefix"]: each for each in tree["registry"]}
    assert by_prefix["docker.io"] == {
        "prefix": "docker.io",
        "location": "docker.io",
        "blocked": False,
        "mirror": [{"location": "cache.example:5000/docker.io"}, {"location": "old.example"}],
    }
    assert by_prefix["quay.io"]["mirror"] == [{"location": "cache.example:5000/quay.io"}]
    assert by_prefix["corp.example"]["location"] == "corp.example"
    assert "# as ever" in found.text
    assert found.replaced == ()


def test_without_a_fallback_the_location_is_another_and_that_is_said() -> None:
    existing = '[[registry]]\nprefix = "docker.io"\nlocation = "docker.io"\n'
    found = merged("podman", existing, plan(fallback=False))
    tree = tomllib.loads(found.text)
    assert tree["registry"][0]["location"] == "cache.example:5000/docker.io"
    assert found.replaced == ("registry[docker.io].location",)


@pytest.mark.parametrize(
    ("target", "existing", "complaint"),
    [
        ("k3s", "- a\n", "there: expected a mapping at the top"),
        ("k3s", "just text", "there: expected a mapping at the top"),
        ("k3s", "a: [", "there: not valid YAML"),
        ("k3s", "a: 1\na: 2\n", "there: not valid YAML"),
        ("k3s", "a: 1\n---\nb: 2\n", "there: not valid YAML"),
        ("k3s", "mirrors: [x]\n", "there: mirrors is not a mapping"),
        (
            "k3s",
            "mirrors: {docker.io: {endpoint: x}}\n",
            "mirrors.docker.io.endpoint is not a list",
        ),
        ("k3s", "a: " + "[" * 5000, "there: not valid YAML"),
        ("docker", "[]", "there: expected a mapping at the top"),
        ("docker", "{", "there: not valid JSON"),
        ("docker", '{"a": 1, "a": 2}', "there: not valid JSON: a key stands twice"),
        ("docker", "[" * 100_000, "there: not valid JSON"),
        ("docker", '{"registry-mirrors": "x"}', "registry-mirrors is not a list"),
        ("podman", "[[registry", "there: not valid TOML"),
        ("podman", '[registries.search]\nregistries = ["x"]\n', "the older form"),
        ("podman", '[registry]\nprefix = "x"\n', "registry is not a list"),
    ],
)
def test_a_file_that_is_not_what_it_should_be(target: str, existing: str, complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        merged(target, existing)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_broken_file_is_not_quoted_in_the_error() -> None:
    for target, existing in (
        ("k3s", "configs: {x: {auth: {password: hunter2, password: hunter2}}}\n"),
        ("k3s", "password: 'hunter2\n"),
        ("docker", '{"password": "hunter2" "x"}'),
        ("podman", 'password = "hunter2" hunter2\n'),
    ):
        with pytest.raises(UsageError) as caught:
            merged(target, existing)
        assert "hunter2" not in str(caught.value)


def test_what_an_alias_shares_is_changed_in_one_place_only() -> None:
    existing = (
        "base: &b {endpoint: [https://old.example], rewrite: &r {a: b}}\n"
        "mirrors:\n  docker.io: *b\n  ghcr.io: *b\n  gcr.io:\n    <<: *b\n  x: {rewrite: *r}\n"
    )
    found = yaml.safe_load(merged("k3s", existing, plan(registries=("docker.io",))).text)
    old = {"endpoint": ["https://old.example"], "rewrite": {"a": "b"}}
    assert found["mirrors"] == {
        "docker.io": {"endpoint": [CACHE, "https://old.example"], "rewrite": {"a": "b"}},
        "ghcr.io": old,
        "gcr.io": old,
        "x": {"rewrite": {"a": "b"}},
    }
    assert found["base"] == old
    merge_key = "base: &b {endpoint: [x]}\nmirrors:\n  docker.io:\n    <<: *b\n"
    found = yaml.safe_load(merged("k3s", merge_key, plan(registries=("docker.io",))).text)
    assert found["mirrors"]["docker.io"]["endpoint"] == [CACHE, "x"]
    assert found["base"] == {"endpoint": ["x"]}


@pytest.mark.parametrize(
    "existing", ["mirrors: &m\n  docker.io: *m\n", "other: &m\n  me: *m\n", "a: &a [[*a]]\n"]
)
def test_a_tree_that_contains_itself_is_refused(existing: str) -> None:
    with pytest.raises(UsageError, match="within what it stands for"):
        merged("k3s", existing)


SCALARS = [
    *("+4912345678", "0xAbCd1234", "-01", "1_0.5_0", "12345678901234567890.12345678", "TRUE"),
    *("99e999", "5e-324", "~", "Null", "no", "1:30", "2026-11-25", "0o17", "1.10", "'quoted'"),
]


@pytest.mark.parametrize("scalar", SCALARS)
def test_what_has_nothing_to_do_with_it_stays_as_it_is_written(scalar: str) -> None:
    line = f"    auth: {{username: u, password: {scalar}}}\n"
    block = f"  b.example:\n    auth:\n      password: {scalar}  # kept\n"
    found = merged("k3s", f"configs:\n  a.example:\n{line}{block}").text
    assert line in found
    assert block in found


@pytest.mark.parametrize("existing", ["# nothing\n#mirrors:\n", "---\n", "# a", "\n\n"])
def test_a_file_of_comments_alone_keeps_them(existing: str) -> None:
    found = merged("k3s", existing).text
    assert yaml.safe_load(found)["mirrors"]["docker.io"] == {"endpoint": [CACHE]}
    assert found.startswith(existing.strip())


def test_toml_without_a_final_newline() -> None:
    found = merged("podman", '[[registry]]\nprefix = "a"\nlocation = "a"').text
    assert [each["prefix"] for each in tomllib.loads(found)["registry"]] == [
        "a", "docker.io", "quay.io"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("target", "existing"),
    [
        ("buildkit", 'registry."docker.io".mirrors = ["o"]\nregistry."quay.io".http = true\n'),
        ("docker", '{"b": "\ue0001\ue000"}'),
    ],
)
def test_what_cannot_be_merged_without_a_loss_is_refused(target: str, existing: str) -> None:
    made = plan(cache_urls=("http://10.0.0.7:5000",), registries=("docker.io",))
    with pytest.raises(UsageError, match="without changing what else is in it"):
        merged(target, existing, made)


def test_json_with_half_a_surrogate_pair() -> None:
    found = merged("docker", '{"a": "\\ud800"}')
    found.text.encode()
    assert json.loads(found.text)["a"] == "\ud800"


@pytest.mark.parametrize("number", ["1e400", "-0.10", "1E+2", "0", "9" * 5000, "1.0e-400"])
def test_numbers_in_json_stay_as_they_are_written(number: str) -> None:
    for more in ("", ', "b": "\\ud800"'):
        text = merged("docker", f'{{"a": [{number}, {{"x": {number}}}]{more}}}').text
        found = json.loads(text, parse_int=str, parse_float=str)
        assert found["a"] == [number, {"x": number}]
        assert found["registry-mirrors"]


@pytest.mark.parametrize("number", ["NaN", "-Infinity"])
def test_what_is_no_number_in_json_is_refused(number: str) -> None:
    with pytest.raises(UsageError, match=f"not valid JSON: {number} is no JSON number"):
        merged("docker", f'{{"a": {number}}}')


@pytest.mark.parametrize("target", ["podman", "crio"])
def test_a_table_without_a_prefix_is_for_its_location(target: str) -> None:
    existing = '[[registry]]\nlocation = "docker.io"\n# kept\ninsecure = false\n'
    found = merged(target, existing, plan(registries=("docker.io",)))
    [table] = tomllib.loads(found.text)["registry"]
    assert (table["prefix"], table["insecure"]) == ("docker.io", False)
    assert table["mirror"]
    assert "# kept" in found.text
    assert found.replaced == ()


def test_what_makes_yaml_parsers_fail_is_one_line() -> None:
    for text in ("a: !!int ''", "a: &a [x]\n" + "b: !!set {? x}"):
        with pytest.raises(UsageError, match="there: a tag in line"):
            merged("k3s", text)


def test_an_empty_value_is_filled() -> None:
    found: Any = yaml.safe_load(merged("k3s", "mirrors:\nconfigs:\n").text)
    assert found["mirrors"]["docker.io"] == {"endpoint": [CACHE]}
