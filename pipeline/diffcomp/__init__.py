"""DiffComp: differentiate, then compose. What its supplement leaves open is filled by this project's own forms."""

from pipeline.diffcomp.batch import Batch, Phrases, Relatives
from pipeline.diffcomp.checkpoints import load_diffcomp, save_diffcomp
from pipeline.diffcomp.composition import Composition, slerp, subtract
from pipeline.diffcomp.losses import Negatives, info_nce, ratio_loss
from pipeline.diffcomp.model import DiffComp
from pipeline.diffcomp.superpatches import SuperPatches
from pipeline.diffcomp.task import DiffCompTask

__all__ = [
    "Batch",
    "Composition",
    "DiffComp",
    "DiffCompTask",
    "Negatives",
    "Phrases",
    "Relatives",
    "SuperPatches",
    "info_nce",
    "load_diffcomp",
    "ratio_loss",
    "save_diffcomp",
    "slerp",
    "subtract",
]
