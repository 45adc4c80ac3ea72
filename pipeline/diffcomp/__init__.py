"""DiffComp: differentiate, then compose (method-diffcomp.md; a reconstruction from the supplement)."""

from pipeline.diffcomp.composition import Composition, slerp, subtract
from pipeline.diffcomp.losses import info_nce, ratio_loss
from pipeline.diffcomp.model import DiffComp, load_diffcomp, save_diffcomp
from pipeline.diffcomp.superpatches import SuperPatches
from pipeline.diffcomp.task import DiffCompTask

__all__ = [
    "Composition",
    "DiffComp",
    "DiffCompTask",
    "SuperPatches",
    "info_nce",
    "load_diffcomp",
    "ratio_loss",
    "save_diffcomp",
    "slerp",
    "subtract",
]
