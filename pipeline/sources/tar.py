"""What the readers of tar archives share."""

from __future__ import annotations

import tarfile


def read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The bytes of a member that is a file."""
    stream = archive.extractfile(member)
    assert stream is not None  # None is for members that are no files
    return stream.read()
