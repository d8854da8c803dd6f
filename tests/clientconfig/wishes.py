"""Plans as the command makes them from its options."""

from __future__ import annotations

from typing import Any

from prefetch.clientconfig.plan import Plan
from prefetch.clientconfig.request import Wishes, plan_of
from prefetch.credentials.authfile import AuthFile
from prefetch.credentials.credential import Credential, Login, Secret
from prefetch.oci.registries import DEFAULT_REGISTRIES

CACHE = "https://cache.example:5000"
LOGIN = Credential("alice", Secret("wonder:land"))
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n"


def plan(*, login: Login | None = None, auth_file: AuthFile | None = None, **wishes: Any) -> Plan:
    """`cache_urls` and `registries` have values of their own unless others or mirrors are given."""
    if "mirrors" not in wishes:
        wishes = {"cache_urls": (CACHE,), "registries": ("docker.io", "quay.io"), **wishes}
    return plan_of(
        Wishes(**wishes),
        configured=DEFAULT_REGISTRIES,
        any_registry=False,
        login=login,
        auth_file=auth_file,
    )
