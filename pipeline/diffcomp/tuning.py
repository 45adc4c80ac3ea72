"""Fine-tuning DiffComp: from the backbone to its task, and an average with the backbone's own weights afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipeline.config import DiffCompParams, Params
from pipeline.diffcomp.model import DiffComp
from pipeline.diffcomp.task import DiffCompTask
from pipeline.encoders.dual.open import load_dual_encoder
from pipeline.encoders.hub import resolve_model_path
from pipeline.runtime import device
from pipeline.text.carriers import carrier_words
from pipeline.training import Run, train


def new_task(
    variant: DiffCompParams,
    params: Params,
    pixels: Callable[[int], Tensor],
    captions: Sequence[str],
    phrases: Sequence[Sequence[str]],
    nouns: Callable[[], Sequence[Sequence[str]]],
) -> DiffCompTask:
    """The task of fine-tuning `variant` from its backbone. Its `model` is on the device, where relatives are searched.

    pixels: side -> uint8 [N, 3, side, side]. nouns: those of every caption, asked for where they guide the masks.
    Errors: as `load_dual_encoder` and `DiffCompTask`.
    """
    model = DiffComp(load_dual_encoder(variant.backbone, variant.pretrained), variant).to(device(params.runtime))
    guides = nouns() if variant.granularity == "noun" else None
    words = carrier_words(captions, resolve_model_path(params.text_encoder.path)) if variant.carriers else []
    return DiffCompTask(model, pixels(model.encoder.image_size), captions, phrases, guides, words)


def fine_tune(task: DiffCompTask, run: Run) -> list[dict[str, float]]:
    """`train`, then average the encoder's weights: (1 - s) tuned + s untouched, s = `backbone_share`. Returns the log.

    What fine-tuning gains on images like the training's it may lose on images drawn otherwise; the
    average in weight space keeps most of both (WiSE-FT, Wortsman et al. 2022). Not in the paper.
    The task's model must hold the backbone's weights still.
    """
    encoder, params = task.model.encoder, task.model.params
    before = {name: weight.detach().clone() for name, weight in encoder.named_parameters() if weight.requires_grad}
    log = train(task, params, run)
    with torch.no_grad():
        for name, weight in encoder.named_parameters():
            if name in before and params.backbone_share:
                weight.lerp_(before[name].to(weight), params.backbone_share)
    return log
