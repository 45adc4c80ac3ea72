"""How errors read: one line for what the user can mend, a traceback for a mistake in the code."""

from __future__ import annotations

import errno
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_DISK_ERRORS = (errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.ENOSPC, errno.EPERM, errno.EROFS)
"""The disk is full or may not be written to. Python's own message names the file."""
_OWN_CODE = tuple(Path(__file__).resolve().parents[1] / folder for folder in ("pipeline", "stages"))


def is_user_error(error: Exception) -> bool:
    """Whether an error is about what the user gave, so that its message alone is enough.

    These are the project's own error classes, a disk that is full or write-protected, and every
    ValueError that the project's own code raises about its input.

    Args:
        error: An exception that was raised and caught.

    Returns:
        False for everything else, which is a mistake in the code and needs its traceback.
    """
    if type(error).__module__.startswith("pipeline."):
        return True
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return True
    if not isinstance(error, ValueError):
        return False
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename).resolve()
    return any(raised_in.is_relative_to(folder) for folder in _OWN_CODE)


def as_one_line(error: Exception) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split())


@contextmanager
def report_user_errors() -> Iterator[None]:
    """Print a user error as one line on standard error and end the process. Also serves as a decorator.

    Raises:
        SystemExit: With status 1, after a user error (see `is_user_error`).
        Exception: Any other error, unchanged.
    """
    try:
        yield
    except Exception as error:
        if not is_user_error(error):
            raise
        print(f"error: {as_one_line(error)}", file=sys.stderr)
        raise SystemExit(1) from None


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage's `main` and report user errors on one line.

    SIGTERM ends the stage as an exception does, so that unfinished outputs are tidied up.

    Args:
        main: The stage, without arguments.

    Raises:
        SystemExit: With status 1 after a user error, with 128 + 15 after SIGTERM.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with report_user_errors():
        main()
