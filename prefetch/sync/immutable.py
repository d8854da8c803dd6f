"""Tags that the configuration calls immutable, and that have moved all the same.

What such a tag was when it was last complete here is what it stays: whoever calls a tag immutable
wants one content under it. One that never was complete follows its upstream.
"""

from __future__ import annotations

from prefetch.events import ImmutableTagMoved
from prefetch.oci.reference import Digest
from prefetch.remote.settings import RegistrySettings
from prefetch.state.records import ReferenceRecord


def moved_though_immutable(
    record: ReferenceRecord | None, found: Digest | str | None, settings: RegistrySettings
) -> ImmutableTagMoved | None:
    """The event, if the tag's registry has just named another digest than is recorded."""
    if record is None or record.digest is None or found is None:
        return None
    if record.digest == str(found) or not settings.is_immutable(record.tag):
        return None
    return ImmutableTagMoved(record.name, record.digest, str(found), kept=record.warm)
