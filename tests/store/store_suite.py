"""What every suite for content stores stands on: data, fixtures, and how a store is opened."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from prefetch.oci.reference import Digest
from prefetch.store.content import ContentStore, Info, Writer

DATA = bytes(range(256)) * 1024
DIGEST = Digest.of(DATA)
OTHER = Digest.of(b"something else")


async def opened(store: ContentStore, digest: Digest = DIGEST, total: int | None = None) -> Writer:
    """A writer, where the content is known to be absent and nobody is writing it."""
    writer = await asyncio.wait_for(store.open_writer(digest, total), 10)
    assert writer is not None
    return writer


async def walked(store: ContentStore) -> set[Info]:
    return {info async for info in store.walk()}


class StoreSuite(ABC):
    """Tests of one implementation; opening the same place twice stands for two processes."""

    @abstractmethod
    async def open_store(self, place: Path) -> ContentStore:
        """A store on `place`, which other stores may have filled."""

    @abstractmethod
    async def close_store(self, store: ContentStore) -> None:
        """Give back what the store holds; its writers are closed."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[ContentStore]:
        store = await self.open_store(tmp_path)
        yield store
        await self.close_store(store)

    @pytest.fixture
    async def neighbour(self, tmp_path: Path, store: ContentStore) -> AsyncIterator[ContentStore]:
        """A second store on the same place."""
        neighbour = await self.open_store(tmp_path)
        yield neighbour
        await self.close_store(neighbour)
