"""Zero-shot composed image retrieval: Fusion-Diff and DiffComp on one spine.

Searching from Python, in the project's folder:

    from pipeline import Searcher

    searcher = Searcher.open("photos")  # a folder that `cir index` has indexed
    searcher.search("dog.jpg", "as a drawing")[0].path
"""

from typing import TYPE_CHECKING, Any

from pipeline.compat import install as _install_compat
from pipeline.compat.numerics import pin as _pin_numerics

if TYPE_CHECKING:
    from pipeline.app.search.python import Found, Searcher

__all__ = ["Found", "Searcher"]

_pin_numerics()  # before NumPy and torch are loaded
_install_compat()


def __getattr__(name: str) -> Any:
    """The public names on first use: every module runs this one, and few need what they import."""
    if name in __all__:
        from pipeline.app.search import python

        return getattr(python, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
