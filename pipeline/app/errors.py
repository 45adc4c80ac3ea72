"""How commands of `cir` run: their errors, and the paths that a person gives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.app.given_paths import rebased
from pipeline.errors import report_user_errors


class ServeError(ValueError):
    """Why there is nothing to serve."""


def report_errors() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a command: an error is one line that names the option for the traceback, and paths are the person's."""
    return lambda command: report_user_errors("`cir --debug` in place of `cir`")(rebased(command))
