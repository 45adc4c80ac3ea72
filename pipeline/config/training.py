"""What every trained model shares: the optimiser, the schedule, the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.config.section import Section, require

Schedule = Literal["cosine", "constant"]
Precision = Literal["fp32", "bf16"]


@dataclass(kw_only=True)
class OptimiserParams(Section):
    """AdamW's numbers and the length of a training. The sections of all trained models hold these parameters."""

    lr: float
    """The peak learning rate."""
    weight_decay: float
    """AdamW's decoupled weight decay."""
    eps: float
    """AdamW's epsilon."""
    beta2: float
    """AdamW's second decay rate."""
    clip_norm: float
    """The norm that gradients are clipped to."""
    warmup_steps: int
    """Steps in which the learning rate rises from zero."""
    schedule: Schedule
    """The learning rate after warming up."""
    steps: int
    """Optimiser steps."""
    batch_size: int
    """Global batch, in rows: over all processes and accumulation steps."""
    micro_batch_size: int
    """Rows that one process takes at once; 0: its whole share of the global batch."""
    precision: Precision
    """The type that the forward pass computes in."""
    ema_decay: float
    """Decay of the weights' moving average, which is what is stored; 0: no average."""
    log_every: int
    """Steps between two rows of the log."""
    checkpoint_every: int
    """Steps between two checkpoints, from which a killed training resumes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        prefix = f"{self.section}: " if self.section else ""
        require(self.steps > 0 and self.batch_size > 0, f"{prefix}steps and batch_size must be positive")
