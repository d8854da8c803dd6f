"""The upstream asked and scripted over HTTP, when it runs in a process of its own.

    GET    /_demo/log      {"pulls", "counts": {"GET manifest": 3, …}, "requests": […]}
    GET    /_demo/counts   the same without the requests
    GET    /_demo/images   [{"repository", "tag", "digest", "pulls"}]
    POST   /_demo/images   [{ImageOrder}]: more images
    POST   /_demo/faults   [{Fault}]: more faults
    DELETE /_demo/faults   none any more
    POST   /_demo/reset    forgets the log
    POST   /_demo/spend    {"pulls", "identity"}: somebody else pulls now
    POST   /_demo/burn     {"pulls_per_second", "identity"}: and from now on
    POST   /_demo/tag      {"repository", "tag", "digest"}: points a tag elsewhere
    POST   /_demo/revoke   no token is good any more

A specification that is wrong is answered 400, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from prefetch.demo.answers import Answer
from prefetch.demo.content import Content
from prefetch.demo.faults import Faults
from prefetch.demo.ratelimits import ANONYMOUS, Meter, PullLimits
from prefetch.demo.requests import Log
from prefetch.demo.settings import image_orders
from prefetch.demo.tokens import Doorkeeper
from prefetch.errors import UsageError

CONTROL_PREFIX = "/_demo/"


class Control:
    """Answers requests under `/_demo/`."""

    def __init__(
        self,
        content: Content,
        limits: PullLimits,
        doorkeeper: Doorkeeper,
        faults: Faults,
        log: Log,
    ) -> None:
        self._content = content
        self._limits = limits
        self._doorkeeper = doorkeeper
        self._faults = faults
        self._log = log
        self._actions: dict[tuple[str, str], Callable[[Any], Any]] = {
            ("GET", "log"): self._log_document,
            ("GET", "counts"): self._counts,
            ("GET", "images"): self._images,
            ("POST", "images"): self._add_images,
            ("POST", "faults"): self._add_faults,
            ("DELETE", "faults"): lambda _: faults.clear(),
            ("POST", "reset"): lambda body: log.reset(**(body or {})),
            ("POST", "spend"): lambda body: self._meter(body).spend(body["pulls"]),
            ("POST", "burn"): lambda body: self._meter(body).burn(body["pulls_per_second"]),
            ("POST", "tag"): lambda body: content.move(**body),
            ("POST", "revoke"): lambda _: doorkeeper.revoke(),
        }

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        """Do what a request says; a result of None is an empty object."""
        action = self._actions.get((method, path.removeprefix(CONTROL_PREFIX)))
        if action is None:
            return Answer.text(404, "no such control\n")
        try:
            result = action(json.loads(body) if body else None)
        except (UsageError, ValueError, KeyError, TypeError) as error:
            return Answer.text(400, f"{error}\n")
        return Answer.json({} if result is None else result)

    def _counts(self, _: Any) -> dict[str, Any]:
        return {"pulls": self._log.pulls, "counts": self._log.summary()}

    def _log_document(self, _: Any) -> dict[str, Any]:
        return {**self._counts(None), "requests": [each.document() for each in self._log]}

    def _images(self, _: Any) -> list[dict[str, Any]]:
        return [
            {
                "repository": name,
                "tag": tag,
                "digest": digest,
                "pulls": len({part.digest for part in held.manifests[digest].walk()}),
            }
            for name, held in self._content.repositories.items()
            for tag, digest in held.tags.items()
        ]

    def _add_images(self, body: Any) -> list[dict[str, str]]:
        return [
            {"repository": repository, "tag": tag, "digest": image.digest}
            for order in image_orders(body)
            for repository, tag, image in order.fill(self._content)
        ]

    def _add_faults(self, body: Any) -> None:
        for details in body:
            self._faults.add(**details)

    def _meter(self, body: Any) -> Meter:
        meter = self._limits.meter(body.get("identity", ANONYMOUS))
        if meter is None:
            raise UsageError("nothing is limited here")
        return meter
