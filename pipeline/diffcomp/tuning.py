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
from pipeline.encoders.training_images import LazyImages
from pipeline.runtime import device
from pipeline.text.carriers import carrier_words
from pipeline.training import Run, train


def new_task(
    variant: DiffCompParams,
    params: Params,
    pixels: Callable[[int], Tensor | LazyImages],
    captions: Sequence[str],
    phrases: Sequence[Sequence[str]],
    nouns: Callable[[], Sequence[Sequence[str]]],
) -> DiffCompTask:
    """The task of fine-tuning a variant from its backbone. Its model is on the device already.

    Args:
        variant: What is trained.
        params: Where the device and the text encoder are named.
        pixels: The images at a side: side -> uint8 [N, 3, side, side].
        captions: One an image.
        phrases: The phrases of each caption.
        nouns: Those of every caption, called where they guide the masks.

    Returns:
        The task; `task.model` is what is trained.

    Raises:
        ValueError: Sizes or lengths do not agree; see `DiffCompTask`.
        ArtifactError: The backbone cannot be loaded; see `load_dual_encoder`.
    """
    encoder = load_dual_encoder(variant.backbone, variant.pretrained, variant.image_size)
    model = DiffComp(encoder, variant).to(device(params.runtime))
    guides = nouns() if variant.granularity == "noun" else phrases
    words = carrier_words(captions, resolve_model_path(params.captions.carrier_vocabulary)) if variant.carriers else []
    return DiffCompTask(model, pixels(model.encoder.image_size), captions, guides, words)


def fine_tune(task: DiffCompTask, run: Run) -> list[dict[str, float]]:
    """Train, and average the encoder with the backbone: weights = (1 - s) tuned + s untouched, s = `backbone_share`.

    What fine-tuning gains on images like the training's it may lose on images drawn otherwise; the average in weight
    space keeps most of both (WiSE-FT, Wortsman et al. 2022). It is not in the paper.

    Args:
        task: As `new_task` makes it; its model holds the backbone's weights.
        run: How the training is run.

    Returns:
        The training's log, one row a line.
    """
    encoder, params = task.model.encoder, task.model.params
    before = {name: weight.detach().clone() for name, weight in encoder.named_parameters() if weight.requires_grad}
    log = train(task, params, run)
    with torch.no_grad():
        for name, weight in encoder.named_parameters():
            if name in before and params.backbone_share:
                weight.lerp_(before[name].to(weight), params.backbone_share)
    return log
