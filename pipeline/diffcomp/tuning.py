"""Fine-tuning DiffComp, and the way back: an average with the backbone's own weights."""

from __future__ import annotations

from typing import Any

import torch

from pipeline.diffcomp.task import DiffCompTask
from pipeline.training import train


def fine_tune(task: DiffCompTask, **options: Any) -> list[dict[str, float]]:
    """`train`, after which the encoder's weights are (1 - s) tuned + s untouched, s = `backbone_share`; returns the log.

    What fine-tuning gains on pictures like the training's it may lose on pictures drawn otherwise; the
    average in weight space keeps most of both (WiSE-FT, Wortsman et al. 2022). Not in the paper.
    The task's model must hold the backbone's weights still.
    """
    encoder, params = task.model.encoder, task.model.params
    before = {name: weight.detach().clone() for name, weight in encoder.named_parameters() if weight.requires_grad}
    log = train(task, params, **options)
    with torch.no_grad():
        for name, weight in encoder.named_parameters():
            if name in before and params.backbone_share:
                weight.lerp_(before[name].to(weight), params.backbone_share)
    return log
