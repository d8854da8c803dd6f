"""BuildKit: `buildkitd.toml` (moby/buildkit docs/buildkitd.toml.md, util/resolver).

A mirror's path goes behind `/v2`. The registry itself always comes last. Credentials come with
each build, from the client's Docker configuration.
"""

from __future__ import annotations

from typing import Any

from prefetch.clientconfig.files import ConfigFile
from prefetch.clientconfig.plan import Plan
from prefetch.clientconfig.target import Output
from prefetch.clientconfig.words import fallback_note, header


def buildkit(plan: Plan) -> Output:
    """For buildkitd, also as `docker buildx create --buildkitd-config`."""
    registries: dict[str, Any] = {}
    for mirror in plan.mirrors:
        registries[mirror.registry] = {
            "mirrors": [
                endpoint.prefix(mirror.registry)
                for endpoint in mirror.endpoints
                if not endpoint.is_registry(mirror.registry)
            ]
        }
    for endpoint in plan.hosts():
        tls = plan.tls_of(endpoint)
        entry: dict[str, Any] = {} if endpoint.secure else {"http": True}
        if tls.skip_verify:
            entry["insecure"] = True
        if tls.ca_file is not None:
            entry["ca"] = [tls.ca_file]
        if tls.cert_file is not None:
            entry["keypair"] = [{"key": tls.key_file, "cert": tls.cert_file}]
        if entry:
            registries[endpoint.host] = entry
    main = ConfigFile(
        "/etc/buildkit/buildkitd.toml", "toml", {"registry": registries}, header("buildkit", plan)
    )
    return Output((main,), (fallback_note(plan),))
