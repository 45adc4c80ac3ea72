"""Real full and read-only disks, where this process may mount any."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path


def _mount(*arguments: str | Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0
    return False


@contextlib.contextmanager
def disk(folder: Path, size: int) -> Iterator[bool]:
    """A disk of `size` bytes at `folder`; False where it cannot be had."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = _mount("-t", "tmpfs", "-o", f"size={size}", "none", folder)
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", folder], check=True)


def free(folder: Path) -> int:
    """Bytes that the disk of `folder` still has."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def set_writable(folder: Path, writable: bool) -> None:
    assert _mount("-o", f"remount,{'rw' if writable else 'ro'}", folder)
