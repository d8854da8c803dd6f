"""Run by tests as another process: writes 4 MiB in 64 KiB chunks and tells how far it is.

Usage: writer_process.py PLACE PAUSE HOLD_AT RESTARTS. Prints the offset after each chunk, then
`committed`; or `present` when the content is there already. Having printed HOLD_AT it waits for a
line on stdin, and then, if RESTARTS is 1, restarts from 0.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from prefetch.oci.reference import Digest
from prefetch.store.filesystem import FilesystemStore

CHUNK = 1 << 16


async def main(place: Path, pause: float, hold_at: int, restarts: bool) -> None:
    data = b"".join(number.to_bytes(4, "big") for number in range(1 << 20))
    store = await FilesystemStore.open(place)
    writer = await store.open_writer(Digest.of(data), len(data))
    while writer and writer.status.offset < len(data):
        await writer.write(data[writer.status.offset :][:CHUNK])
        print(writer.status.offset, flush=True)
        await asyncio.sleep(pause)
        if writer.status.offset == hold_at:
            hold_at = -1
            sys.stdin.readline()
            if restarts:
                await writer.restart()
    if writer:
        await writer.commit()
    print("committed" if writer else "present", flush=True)
    await store.close()


asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1"))
