"""One clear line on stderr for what the user can mend; a traceback only for what is our mistake."""

from __future__ import annotations

import errno
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_THE_DISK = (errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.ENOSPC, errno.EPERM, errno.EROFS)
"""It is full, or may not be written to: Python's own line names the file."""
_OWN_CODE = Path(__file__).resolve().parents[1]


@contextmanager
def clear_errors() -> Iterator[None]:
    """End the process with status 1 and one line for the project's own errors. Also serves as a decorator.

    These are the errors of the project's classes (a parameter, artifact, source or training that is
    wrong) and every ValueError that the project's own code raises about its input.
    """
    try:
        yield
    except Exception as error:
        if not is_clear(error):
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(1) from None


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage's `main`, its errors as one line. SIGTERM ends it as an exception does: what it was writing is tidied up."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with clear_errors():
        main()


def is_clear(error: Exception) -> bool:
    if type(error).__module__.startswith("pipeline."):
        return True
    if isinstance(error, OSError) and error.errno in _THE_DISK:
        return True
    if not isinstance(error, ValueError):
        return False
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename).resolve()
    return any(raised_in.is_relative_to(_OWN_CODE / folder) for folder in ("pipeline", "stages"))
