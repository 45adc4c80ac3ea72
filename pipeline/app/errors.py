"""How the errors of `cir` read."""

from __future__ import annotations

from functools import partial

from pipeline.errors import report_user_errors

report_errors = partial(report_user_errors, "`cir --debug` in place of `cir`")
"""`report_user_errors` for a command: it names the option that shows the traceback."""


class ServeError(ValueError):
    """Why there is nothing to serve."""
