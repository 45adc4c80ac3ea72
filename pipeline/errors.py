"""How errors read: one line, with the place in the code and a way to the traceback where nobody foresaw the error."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

DEBUG = "CIR_DEBUG"
"""The environment variable that turns tracebacks on."""
_BY_ENVIRONMENT = f"{DEBUG}=1 in the environment"
EXPERIMENT = "DVC_EXP_NAME"
"""The environment variable with which DVC tells a stage that `dvc exp run` runs it."""
_NAMES_AND_DISKS = (
    *(errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.ENOSPC, errno.EPERM, errno.EROFS),
    *(errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR),
)
"""The disk is full or may not be written to, or a name is none of a file. Python's own message names the file."""
_ROOT = Path(__file__).resolve().parents[1]
_OWN_CODE = tuple(_ROOT / folder for folder in ("pipeline", "stages"))


def is_user_error(error: Exception) -> bool:
    """Whether an error was made on purpose about what the user gave, so that its message alone is enough.

    These are the project's own error classes, a disk or a name that the system rejects, and a ValueError of a `raise`
    in the project's own code. A ValueError that Python itself raises there is none: nobody has foreseen it.

    Args:
        error: An exception that was raised and caught.

    Returns:
        False for everything else, which may be a mistake in the code.
    """
    if type(error).__module__.startswith("pipeline."):
        return True
    if isinstance(error, OSError) and error.errno in _NAMES_AND_DISKS:
        return True
    if type(error) is not ValueError:
        return False
    raised = traceback.extract_tb(error.__traceback__)[-1]
    return _is_own(raised) and (raised.line or "").startswith("raise ValueError(")


def place_of(error: Exception) -> str:
    """Where an error comes from: file and line of the innermost frame, in the project's own code if it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((frame for frame in reversed(frames) if _is_own(frame)), frames[-1])
    path = Path(frame.filename).resolve()
    return f"{path.relative_to(_ROOT) if path.is_relative_to(_ROOT) else path}:{frame.lineno}"


def _is_own(frame: traceback.FrameSummary) -> bool:
    return any(Path(frame.filename).resolve().is_relative_to(folder) for folder in _OWN_CODE)


def as_one_line(error: Exception) -> str:
    """An error's message without line breaks. Of a file or a disk: its name, and what the system says."""
    says = str(error)
    if isinstance(error, OSError) and error.errno in _NAMES_AND_DISKS and error.filename:
        says = f"{error.filename2 or error.filename}: {error.strerror}"  # of a renaming: the name that was asked for
    return " ".join(says.split())


@contextmanager
def report_user_errors(debug: str = _BY_ENVIRONMENT) -> Iterator[None]:
    """Print an error as one line on standard error and end the process. Also serves as a decorator.

    Args:
        debug: What a person adds to see the traceback.

    Raises:
        SystemExit: With status 1, after an error.
        Exception: The error itself, where the environment asks for tracebacks.
    """
    try:
        yield
    except BrokenPipeError:  # whoever read the output has ended; the command line knows what to do
        raise
    except Exception as error:
        if os.environ.get(DEBUG, "0") not in ("", "0"):
            raise
        line = as_one_line(error)
        if not is_user_error(error):
            name = type(error).__name__
            line = f"{f'{name}: {line}' if line else name} ({place_of(error)}; {debug} shows the traceback)"
        print(f"error: {line}", file=sys.stderr)
        raise SystemExit(1) from None


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage's `main` and report errors on one line; see `report_user_errors`.

    SIGTERM ends the stage as an exception does, so that unfinished outputs are tidied up.

    Args:
        main: The stage, without arguments.

    Raises:
        SystemExit: With status 1 after an error, with 128 + 15 after SIGTERM.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with _told_of_parameters(), report_user_errors():
        main()


@contextmanager
def _told_of_parameters() -> Iterator[None]:
    """Say after an error what `dvc exp run` leaves behind, unless it runs in a folder of its own (`--temp`)."""
    try:
        yield
    except SystemExit:
        if EXPERIMENT in os.environ and ".dvc" not in Path.cwd().parts:
            undo = "`git checkout params.yaml` takes those of the last commit"
            print(f"note: params.yaml has the parameters of this experiment; {undo}", file=sys.stderr)
        raise
