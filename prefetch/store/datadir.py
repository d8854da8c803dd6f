"""The data directory: where things lie, and whether the place is fit for use.

<data dir>/
  cache/                     an OCI image layout (image-spec, image-layout.md)
    oci-layout
    index.json
    blobs/<algorithm>/<hex>  content: whole and verified
  ingest/<algorithm>-<hex>   blobs under way
  locks/                     kernel locks of running processes
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from prefetch.errors import StoreError
from prefetch.filelock import FileLock
from prefetch.oci.reference import Digest
from prefetch.store import layout
from prefetch.store.disk import disk_errors, sync_directory

ALGORITHMS = ("sha256", "sha512")

# As mountinfo spells them; FUSE adds the name of its program.
# fmt: off
NETWORK_FILESYSTEMS = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gpfs", "lustre", "ncpfs", "nfs",
    "nfs4", "ocfs2", "orangefs", "pvfs2", "smb", "smb2", "smb3", "smbfs",
    "fuse.JuiceFS", "fuse.ceph", "fuse.ceph-fuse", "fuse.curlftpfs", "fuse.davfs", "fuse.davfs2",
    "fuse.gcsfuse", "fuse.glusterfs", "fuse.goofys", "fuse.juicefs", "fuse.mfs", "fuse.moosefs",
    "fuse.rclone", "fuse.s3fs", "fuse.seaweedfs", "fuse.smbnetfs", "fuse.sshfs",
})
# fmt: on


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """The paths under `root`. Nothing is touched until `prepare`."""

    root: Path

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def ingest(self) -> Path:
        return self.root / "ingest"

    @property
    def locks(self) -> Path:
        return self.root / "locks"

    def blobs(self, algorithm: str) -> Path:
        return self.cache / "blobs" / algorithm

    def blob_path(self, digest: Digest) -> Path:
        return self.blobs(digest.algorithm) / digest.hex

    def ingest_path(self, digest: Digest) -> Path:
        return self.ingest / f"{digest.algorithm}-{digest.hex}"

    def prepare(self) -> None:
        """Make what is missing and check what is there.

        Raises StoreError when the directory lies on a network filesystem, cannot be made or
        written, or holds something that is not ours.
        """
        _refuse_network(self.root)
        blobs = [self.blobs(algorithm) for algorithm in ALGORITHMS]
        cache = [self.cache, self.cache / "blobs", *blobs]
        for directory in (self.root, self.ingest, self.locks, *cache):
            _make(directory)
        lock = FileLock(self.locks / "layout.lock")
        with disk_errors("prepare", self.cache), lock:
            layout.initialise(self.cache)


def mount_type(mountinfo: str, mount_id: str) -> str | None:
    """The filesystem type of one mount; `mountinfo` as in proc_pid_mountinfo(5)."""
    for line in mountinfo.splitlines():
        mount, _, filesystem = line.partition(" - ")
        if mount.split(" ", 1)[0] == mount_id:
            return filesystem.split(" ", 1)[0]
    return None


def _filesystem(directory: Path) -> str | None:
    """The type of the filesystem that `directory` lies on; None without /proc."""
    fd = os.open(directory, os.O_PATH | os.O_CLOEXEC)
    try:
        fields = Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii").split()
        mountinfo = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    finally:
        os.close(fd)
    return mount_type(mountinfo, fields[fields.index("mnt_id:") + 1])


def _refuse_network(root: Path) -> None:
    """Refuse before anything is made there: the nearest directory that exists is asked."""
    with disk_errors("examine", root):
        existing = next(path for path in (root, *root.absolute().parents) if path.exists())
        kind = _filesystem(existing)
    if kind in NETWORK_FILESYSTEMS:
        raise StoreError(
            f"{root} lies on a network filesystem ({kind}), where file locks do not hold",
            hint="choose a data directory on a local disk",
        )


def _make(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise StoreError(f"{directory} is not a directory", hint="choose another data directory")
    if not directory.exists():
        with disk_errors("make the directory", directory):
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            sync_directory(directory.parent)
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        raise StoreError(
            f"{directory} is read-only for this user",
            hint="make it writable or choose another data directory",
        )
