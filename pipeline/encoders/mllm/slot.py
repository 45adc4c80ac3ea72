"""Which large models are open: on a GPU one at a time, on a CPU as many as are in use.

What opens models asks here. Whoever names the same checkpoint with the same settings shares one model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import TypeVar
from weakref import WeakValueDictionary


class OpenModel:
    """A model in memory, until it is closed."""

    closed = False

    def close(self) -> None:
        """Give its memory back. What still holds it opens the model anew when it is next asked."""
        self.closed = True


M = TypeVar("M", bound=OpenModel)


class ModelSlot:
    """The open models of a process. They live while something holds them."""

    def __init__(self) -> None:
        self._open: WeakValueDictionary[Hashable, OpenModel] = WeakValueDictionary()
        self._lock = threading.RLock()

    def open(self, key: Hashable, load: Callable[[], M], alone: bool) -> M:
        """The open model of a key.

        Args:
            key: Equal for models that can be shared.
            load: Loads the model where none is open.
            alone: Close every other model first: a GPU has no room for two.

        Returns:
            The model.
        """
        with self._lock:
            found = self._open.get(key)
            if found is None or found.closed:
                if alone:
                    self.close()
                found = load()
                self._open[key] = found
            return found  # type: ignore[return-value]  # one kind of model for one kind of key

    def close(self) -> None:
        """Close every model."""
        with self._lock:
            for model in list(self._open.values()):
                model.close()
            self._open.clear()


SLOT = ModelSlot()
"""Of this process: its models share its GPU."""
