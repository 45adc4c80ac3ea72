"""Runs at the start of every Python process that has this folder on `PYTHONPATH`.

It only adds an import hook: torch is imported when, and only if, torchvision is.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any


class _DeclareOperatorsBeforeTorchvision(importlib.abc.MetaPathFinder):
    """Finds no module itself, but is asked before those that do."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            _declare_missing_operators()


def _declare_missing_operators() -> None:
    import torch

    spec = importlib.machinery.PathFinder.find_spec("torchvision")
    if spec is None or torch.version.cuda is not None:
        return  # no torchvision, or a CUDA torch whose own torchvision brings the operators
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _LIBRARIES.append(library)  # a Library that is garbage-collected takes its definitions with it


_LIBRARIES: list[Any] = []


def install_torchvision_hook() -> None:
    """Add the hook, unless torchvision is imported already or the hook is there."""
    if "torchvision" in sys.modules:
        return
    if not any(type(finder).__name__ == "_DeclareOperatorsBeforeTorchvision" for finder in sys.meta_path):
        sys.meta_path.insert(0, _DeclareOperatorsBeforeTorchvision())


install_torchvision_hook()
