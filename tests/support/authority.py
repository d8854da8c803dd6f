"""A certificate authority of a test's own."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its chain, and its key, both PEM."""

    cert_file: Path
    key_file: Path

    def context(self) -> ssl.SSLContext:
        """For a server."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(self.cert_file, self.key_file)
        return made


class Authority:
    """Issues certificates into a directory; `ca_file` is its own, for those who are to trust it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        self._authority = trustme.CA()
        self.ca_file = directory / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.ca_file))

    def issue(self, *names: str) -> Certificate:
        """For these names and addresses."""
        pair = self._authority.issue_cert(*names)
        made = Certificate(self._directory / f"{names[0]}.pem", self._directory / f"{names[0]}.key")
        made.cert_file.write_bytes(b"".join(part.bytes() for part in pair.cert_chain_pems))
        made.key_file.write_bytes(pair.private_key_pem.bytes())
        return made

    def trust(self) -> ssl.SSLContext:
        """For a client."""
        return ssl.create_default_context(cafile=self.ca_file)
