"""Blobs on their way to a client: whole or by range, from a file or from one that still grows."""

from __future__ import annotations

from aiohttp import web

from prefetch.oci.distribution import ContentRange, requested_range
from prefetch.oci.reference import Digest
from prefetch.server.answers import matches, still_holds
from prefetch.server.blobs import Arriving, Broken, Lost, Whole
from prefetch.server.bodies import FileBody
from prefetch.server.exchange import Exchange
from prefetch.server.pump import Pump
from prefetch.server.refusals import Refusal, out_of_range


class Downloads:
    """Sends blobs; `stall` is how many seconds a client may take nothing."""

    def __init__(self, pump: Pump, stall: float) -> None:
        self._pump = pump
        self._stall = stall

    async def send(
        self,
        exchange: Exchange,
        source: Whole | Arriving,
        digest: Digest,
        headers: dict[str, str],
    ) -> web.StreamResponse:
        """Answer with the blob, or with as much of it as was asked for.

        Before anything has gone out it raises Refusal, and Lost for a blob that has to be opened
        again; after that Broken for one that turns out not to be what it should, TimeoutError for
        a client that has stalled, ConnectionError for one that has gone.
        """
        exchange.result = "hit" if isinstance(source, Whole) else "miss"
        request = exchange.request
        if matches(request.headers.get("If-None-Match"), digest):
            return web.Response(status=304, headers=headers)
        span = _span(request, digest, source.size)
        response = web.StreamResponse(status=200 if span.total is None else 206, headers=headers)
        if span.total is not None:
            response.headers["Content-Range"] = str(span)
        response.content_length = span.end - span.start
        if isinstance(source, Whole):
            await self._send_file(exchange, response, source, span)
        else:
            await self._send_growing(exchange, response, source, span)
        return response

    async def _send_file(
        self, exchange: Exchange, response: web.StreamResponse, source: Whole, span: ContentRange
    ) -> None:
        body = FileBody(exchange.request, response, source.reader, self._pump, self._stall)
        await body.begin()
        try:
            await body.send(span.start, span.end - span.start)
        finally:
            exchange.sent = body.sent
        await body.end()

    async def _send_growing(
        self, exchange: Exchange, response: web.StreamResponse, source: Arriving, span: ContentRange
    ) -> None:
        position = span.start
        # Nothing is said before there is something to say: a fetch may yet fail.
        limit = await source.ready(position, span.end)
        body = FileBody(exchange.request, response, source.follower, self._pump, self._stall)
        await body.begin()
        try:
            while True:
                await body.send(position, limit - position)
                position = limit
                if position >= span.end:
                    break
                limit = await source.ready(position, span.end)
        except Lost:
            raise Broken("digest_mismatch") from None
        except Refusal as refusal:
            raise Broken(refusal.cause) from None
        finally:
            exchange.sent = body.sent
        await body.end()


def _span(request: web.BaseRequest, digest: Digest, size: int) -> ContentRange:
    """What is asked for; `total` is None for all of it. Raises Refusal (416)."""
    header = request.headers.get("Range")
    condition = request.headers.get("If-Range")
    if condition is not None and not still_holds(condition, digest):
        header = None
    found = requested_range(header, size)
    if found == "unsatisfiable":
        raise out_of_range(size)
    return ContentRange(0, size, None) if found == "whole" else found
