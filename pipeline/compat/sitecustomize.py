"""Runs at the start of every Python process that has this folder on `PYTHONPATH`.

It only plants an import hook: torch is imported when (and if) torchvision is.
"""

import importlib.abc
import importlib.machinery
import sys


class _DeclareOperatorsBeforeTorchvision(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            _declare_missing_operators()
        return None  # the ordinary finders load torchvision itself


def _declare_missing_operators() -> None:
    import torch

    spec = importlib.machinery.PathFinder.find_spec("torchvision")
    if spec is None or torch.version.cuda is not None:
        return  # no torchvision, or a CUDA torch whose own torchvision brings the operators
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _KEPT.append(library)  # a collected Library takes its definitions with it


_KEPT: list = []


def install_torchvision_hook() -> None:
    if "torchvision" in sys.modules:
        return
    if not any(type(finder).__name__ == "_DeclareOperatorsBeforeTorchvision" for finder in sys.meta_path):
        sys.meta_path.insert(0, _DeclareOperatorsBeforeTorchvision())


install_torchvision_hook()
