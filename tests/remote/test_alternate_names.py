"""What repositories are called at an alternate."""

from __future__ import annotations

import pytest

from prefetch.oci.reference import MAX_PATH_LENGTH, Repository
from prefetch.remote.settings import Alternate


@pytest.mark.parametrize(
    ("alternate", "repository", "there"),
    [
        (Alternate("mirror.gcr.io"), "nginx", "mirror.gcr.io/library/nginx"),
        (
            Alternate("public.ecr.aws", "docker"),
            "nginx",
            "public.ecr.aws/docker/library/nginx",
        ),
        (
            Alternate("cache.example:5000", "docker.io"),
            "grafana/grafana",
            "cache.example:5000/docker.io/grafana/grafana",
        ),
        (Alternate("[::1]:5000", "a/b"), "quay.io/org/app", "[::1]:5000/a/b/org/app"),
    ],
)
def test_the_path_goes_before_the_name(alternate: Alternate, repository: str, there: str) -> None:
    assert str(alternate.repository(Repository.parse(repository))) == there


def test_a_name_that_becomes_too_long_is_none() -> None:
    longest = Repository.parse(f"quay.io/{'a' * MAX_PATH_LENGTH}")
    assert Alternate("mirror.example").repository(longest) is not None
    assert Alternate("mirror.example", "b").repository(longest) is None
