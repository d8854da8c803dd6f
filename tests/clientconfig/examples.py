"""What the project set out from: two mirrors, each with a login, and the registries' own."""

from __future__ import annotations

import base64
import json

from support.processes import CommandLine, Result


def login(pair: str) -> dict[str, str]:
    return {"auth": base64.b64encode(pair.encode()).decode()}


DOCKER_CONFIG = {
    "auths": {
        "mydockermirror.local": login("username:password"),
        "myquaymirror.local": login("myusername:mypassword"),
        "https://index.docker.io/v1/": login("hubuser:hubpassword"),
        "quay.io": login("quayuser:quaypassword"),
    }
}
MIRRORS = (
    *("--mirror", "docker.io=https://mydockermirror.local"),
    *("--mirror", "docker.io=https://docker.io"),
    *("--mirror", "quay.io=http://myquaymirror.local", "--mirror", "quay.io=https://quay.io"),
    *("--auth-file", "config.json"),
)
TLS = (
    *("--cert-file", "mydockermirror.local=/etc/ssl/mirror.crt"),
    *("--key-file", "mydockermirror.local=/etc/ssl/mirror.key"),
    *("--ca-file", "mydockermirror.local=/etc/ssl/ca.crt"),
)
REGISTRIES = {
    "mirrors": {
        "docker.io": {"endpoint": ["https://mydockermirror.local", "https://docker.io"]},
        "quay.io": {"endpoint": ["http://myquaymirror.local", "https://quay.io"]},
    },
    "configs": {
        "mydockermirror.local": {
            "auth": {"username": "username", "password": "password"},
            "tls": {
                "cert_file": "/etc/ssl/mirror.crt",
                "key_file": "/etc/ssl/mirror.key",
                "ca_file": "/etc/ssl/ca.crt",
            },
        },
        "myquaymirror.local": {"auth": {"username": "myusername", "password": "mypassword"}},
        "docker.io": {"auth": {"username": "hubuser", "password": "hubpassword"}},
        "quay.io": {"auth": {"username": "quayuser", "password": "quaypassword"}},
    },
}
ENTRIES = [
    {
        "url": "mydockermirror.local",
        "user": "username",
        "password": "password",
        "is_default": True,
    },
    {"url": "myquaymirror.local", "user": "myusername", "password": "mypassword"},
]


async def example(cli: CommandLine, target: str, *words: str) -> Result:
    """The one command; certificates are for K3s and RKE2, whose example has them."""
    (cli.home / "config.json").write_text(json.dumps(DOCKER_CONFIG))
    tls = TLS if target in ("k3s", "rke2") else ()
    done = await cli("client-config", target, *MIRRORS, *tls, *words)
    assert done.code == 0, done.stderr
    return done
