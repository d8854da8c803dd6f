"""Certificates and keys that a target is given by content, not by path."""

from __future__ import annotations

from pathlib import Path

from prefetch.clientconfig.files import ConfigFile, read_text
from prefetch.clientconfig.plan import Plan
from prefetch.errors import UsageError


def pem(path: str) -> str:
    """The text of a PEM file on this machine.

    Raises UsageError when it cannot be read or is none: this target needs the content, not only
    the path.
    """
    text = read_text(Path(path))
    if "-----BEGIN " not in text:
        raise UsageError(f"{path}: this is no PEM file")
    return text if text.endswith("\n") else text + "\n"


def certs_directory(plan: Plan, root: str) -> list[ConfigFile]:
    """`<root>/<host>/ca.crt`, `client.cert` and `client.key`, as Docker and containers read them.

    Sources: docs.docker.com, "Verify repository client with certificates"; containers-certs.d(5).
    """
    files: list[ConfigFile] = []
    for endpoint in plan.hosts():
        tls = plan.tls_of(endpoint)
        for name, path in (
            ("ca.crt", tls.ca_file),
            ("client.cert", tls.cert_file),
            ("client.key", tls.key_file),
        ):
            if path is not None:
                place = f"{root}/{endpoint.host}/{name}"
                files.append(ConfigFile(place, "pem", pem(path), secret=name.endswith(".key")))
    return files
