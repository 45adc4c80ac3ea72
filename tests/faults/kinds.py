"""Faults of machines: kills at a moment and at a file operation, a full disk, a folder that is read-only."""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path

WRITING = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.truncate", "os.link", "os.symlink"}
COUNT = "operations.txt"


def kill_after(seconds: float, number: int) -> Callable[[int], None]:
    """For `run`'s `watch`: a signal `seconds` after the start; one that has ended by then is left alone."""

    def watch(child: int) -> None:
        ended = os.pidfd_open(child)
        try:
            if not select.select([ended], [], [], seconds)[0]:
                os.kill(child, number)
        finally:
            os.close(ended)

    return watch


def kill_before_operation(operation: int) -> Callable[[], None]:
    """For `run`'s `prepare`: SIGKILL before the n-th operation (from 1) that changes the project's files."""
    return lambda: _at_operations(operation, lambda event: os.kill(os.getpid(), signal.SIGKILL))


def fail_at_operation(operation: int, number: int) -> Callable[[], None]:
    """The n-th operation and all after it are refused with an errno, as by a disk that has become full or read-only."""

    def refuse(event: str) -> None:
        if number == errno.EROFS or event not in ("os.remove", "os.rmdir", "shutil.rmtree"):
            raise OSError(number, os.strerror(number))

    return lambda: _at_operations(operation, refuse, onwards=True)


def count_operations() -> None:
    """Leave their number in the file COUNT, which is no operation itself."""
    out = os.open(COUNT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    _at_operations(1, lambda event: os.write(out, b"."), onwards=True)


def small_files(most: int) -> Callable[[], None]:
    """The kernel lets no file grow beyond `most` bytes: the one limit that needs neither root nor a disk of its own."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then fails with EFBIG
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    return limit


def _at_operations(first: int, act: Callable[[str], None], onwards: bool = False) -> None:
    """Call `act` before the operation number `first`; before every later one too, if `onwards`."""
    here, seen = str(Path.cwd()), 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event == "open":
            path, mode, flags = arguments
            changes = isinstance(path, str | bytes | os.PathLike) and bool(
                flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            )
        else:
            changes = event in WRITING
        if not changes or not _inside(arguments[0], here):
            return
        seen += 1
        if seen == first or (onwards and seen > first):
            act(event)

    sys.addaudithook(hook)


def _inside(path: object, here: str) -> bool:
    """Whether a path is the project's, not a library's cache or /dev/null."""
    name = os.path.abspath(os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else ""
    return name.startswith(f"{here}{os.sep}")
