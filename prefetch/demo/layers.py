"""Layers that really unpack: gzip-compressed tar archives, the same bytes for the same seed."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zlib
from dataclasses import dataclass
from itertools import repeat

from prefetch.demo.blobs import Blob, pseudo_random

_BLOCK = 1 << 20
_LAZY_FROM = 4 * _BLOCK
_TAR_RECORD = 512


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer and the digest of its uncompressed tar.

    `urls` makes it a foreign layer; `held` says whether the registry has its blob.
    """

    blob: Blob
    diff_id: str
    urls: tuple[str, ...] = ()
    held: bool = True


def layer(
    seed: str,
    size: int = 4096,
    *,
    algorithm: str = "sha256",
    urls: tuple[str, ...] = (),
    held: bool = True,
) -> Layer:
    """A layer of about `size` incompressible bytes.

    From 4 MiB on it holds one file that repeats a block of 1 MiB, and its bytes are made
    while they are sent.
    """
    if size >= _LAZY_FROM:
        blob, diff_id = _large(seed, size, algorithm)
    else:
        tar = _tar(seed, size)
        blob = Blob.of(_gzip(tar), algorithm)
        diff_id = f"sha256:{hashlib.sha256(tar).hexdigest()}"
    return Layer(blob, diff_id, urls, held)


def _large(seed: str, size: int, algorithm: str) -> tuple[Blob, str]:
    """One gzip member a block: members may be concatenated (RFC 1952, section 2.2)."""
    times = -(-size // _BLOCK)
    block = pseudo_random(seed, _BLOCK)
    head = _entry(f"data/{_slug(seed)}.bin", times * _BLOCK).tobuf(tarfile.USTAR_FORMAT)
    tail = bytes(2 * _TAR_RECORD)
    uncompressed = hashlib.sha256(head)
    for part in repeat(block, times):
        uncompressed.update(part)
    uncompressed.update(tail)
    blob = Blob.repeated(
        _gzip(head), _gzip(block, level=0), times, _gzip(tail), algorithm=algorithm
    )
    return blob, f"sha256:{uncompressed.hexdigest()}"


def _tar(seed: str, size: int) -> bytes:
    files = {
        "etc/os-release": f'ID=demo\nPRETTY_NAME="{seed}"\n'.encode(),
        f"usr/share/doc/{_slug(seed)}/README": f"Made on the spot for {seed}.\n".encode(),
        f"usr/lib/{_slug(seed)}.bin": pseudo_random(seed, size),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            archive.addfile(_entry(name, len(data)), io.BytesIO(data))
    return buffer.getvalue()


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o644
    return entry


def _slug(seed: str) -> str:
    return hashlib.sha256(seed.encode()).hexdigest()[:12]


def _gzip(data: bytes, level: int = 6) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()
