"""What every trained model shares: the optimiser, the schedule, the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.config.ranges import Count, CountOrZero, NotNegative, Positive, ShareBelowOne
from pipeline.config.section import Section

Schedule = Literal["cosine", "constant"]
Precision = Literal["fp32", "bf16"]


@dataclass(kw_only=True)
class OptimiserParams(Section):
    """AdamW's numbers and the length of a training. The sections of all trained models hold these parameters."""

    lr: Positive
    """The peak learning rate."""
    weight_decay: NotNegative
    """AdamW's decoupled weight decay."""
    eps: Positive
    """AdamW's epsilon."""
    beta2: ShareBelowOne
    """AdamW's second decay rate."""
    clip_norm: Positive
    """The norm that gradients are clipped to."""
    warmup_steps: CountOrZero
    """Steps in which the learning rate rises from zero."""
    schedule: Schedule
    """The learning rate after warming up."""
    steps: Count
    """Optimiser steps."""
    batch_size: Count
    """Global batch, in rows: over all processes and accumulation steps."""
    micro_batch_size: CountOrZero
    """Rows that one process takes at once; 0: its whole share of the global batch."""
    precision: Precision
    """The type that the forward pass computes in."""
    ema_decay: ShareBelowOne
    """Decay of the weights' moving average, which is what is stored; 0: no average."""
    log_every: Count
    """Steps between two rows of the log."""
    checkpoint_every: Count
    """Steps between two checkpoints, from which a killed training resumes."""
