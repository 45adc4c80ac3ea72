"""What is trained: the optimiser's numbers, and the sizes and choices of every model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from pipeline.config.checks import require
from pipeline.config.patch_grid import patch_grid
from pipeline.config.speed import Speed


@dataclass
class OptimiserParams:
    lr: float = 1e-4
    weight_decay: float = 0.0
    eps: float = 1e-8
    beta2: float = 0.999
    clip_norm: float = 1.0
    warmup_steps: int = 0
    schedule: str = "cosine"
    steps: int = 1000
    batch_size: int = 256
    """Global batch: over all processes and accumulation steps."""
    micro_batch_size: int = 0
    """What one process takes at once; 0: its whole share of the global batch."""
    precision: str = "fp32"
    ema_decay: float = 0.0
    """0: no moving average of the weights."""
    log_every: int = 10
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        require(self.schedule in ("cosine", "constant"), f"schedule: {self.schedule!r} is neither cosine nor constant")
        require(self.precision in ("fp32", "bf16"), f"precision: {self.precision!r} is neither fp32 nor bf16")
        require(self.steps > 0 and self.batch_size > 0, "steps and batch_size must be positive")


@dataclass
class DiffusionParams:
    train_steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 2e-2
    beta_schedule: str = "linear"
    prediction: str = "epsilon"
    """epsilon (the paper) | v_prediction | sample: see `Diffusion.target`."""
    scale_by_sqrt_dim: bool = True
    """Diffuse sqrt(d) z, whose standard deviation per dimension is one."""

    def __post_init__(self) -> None:
        require(
            self.prediction in ("epsilon", "v_prediction", "sample"),
            f"prior.diffusion.prediction: {self.prediction!r} is not one of epsilon, v_prediction, sample",
        )


@dataclass
class PriorParams(Speed, OptimiserParams):
    """The DiT prior, Stage 1. The defaults are the paper's sizes."""

    section: ClassVar[str] = "prior."

    channels: int = 4
    grid: int = 32
    patch_size: int = 2
    width: int = 1152
    heads: int = 16
    depth: int = 28
    """Blocks in all: the first half is the encoder, the second the decoder."""
    ffn_ratio: int = 4
    time_frequencies: int = 256
    p_cfg: float = 0.1
    """Share of the texts that are dropped, for classifier-free guidance."""
    diffusion: DiffusionParams = field(default_factory=DiffusionParams)

    def __post_init__(self) -> None:
        OptimiserParams.__post_init__(self)
        Speed.__post_init__(self)
        require(
            self.grid % self.patch_size == 0,
            f"prior.grid {self.grid} is not a multiple of prior.patch_size {self.patch_size}",
        )
        require(self.width % self.heads == 0, f"prior.width {self.width} is not a multiple of prior.heads {self.heads}")
        require(self.depth % 2 == 0, f"prior.depth {self.depth} must be even: half encoder, half decoder")


@dataclass
class ControlParams(Speed, OptimiserParams):
    """The Control-Adapter, Stage 2. Its sizes are the prior's."""

    section: ClassVar[str] = "control."

    p_cfg: float = 0.1
    """As `prior.p_cfg`."""

    def __post_init__(self) -> None:
        OptimiserParams.__post_init__(self)
        Speed.__post_init__(self)


@dataclass
class DiffCompParams(OptimiserParams):
    """DiffComp (method-diffcomp.md). One instance is one trained variant."""

    backbone: str = "models/backbones/clip"
    """A local open_clip folder, or an open_clip / transformers name for the paper's three."""
    pretrained: str = ""
    image_layers: int = 4
    """The last so many visual blocks are trained, the others frozen."""
    text_layers: int = 2
    css: bool = True
    psm: bool = True
    dac: bool = True
    super_patch: int = 2
    """S: patches on a super-patch's side."""
    grouping: str = "grid"
    """grid | kmeans (Table 9)."""
    local_blocks: int = 1
    """k: the last k visual blocks run on each super-patch alone."""
    text: str = "mixed"
    """Composition text in training: caption (the paper) | phrase | mixed. Where relatives fill, a phrase is what the
    caption says and the relative's does not."""
    carriers: float = 0.0
    """Share of composition texts that stand among random English words (`pipeline.encoders.carriers`)."""
    masking: str = "phrase"
    """phrase (PSM) | random | crop | cam (Table 10). psm = false means random."""
    mask_model: str = "straight_through"
    """straight_through | hard | sigmoid | gumbel (Table 10)."""
    granularity: str = "phrase"
    """noun | phrase | sentence."""
    fill: str = "token"
    """What a masked super-patch shows in training: token (the learned mask token) | relative (`pipeline.diffcomp.relatives`)."""
    relatives: int = 10
    """An image's relative is drawn from this many nearest ones."""
    augment: bool = False
    """Vary training images (`pipeline.encoders.augment`), for a backbone that has seen them before."""
    rho: float = 0.7
    tau_mask: float = 0.1
    alpha_base: float = 0.8
    alpha_query: float = 0.0
    """alpha_base at inference, where it should be another one; 0 keeps it."""
    alpha_form: str = "sigmoid"
    """sigmoid of the standardised discrepancy | clip of the raw one (method-diffcomp: lesson 2)."""
    kappa: float = 1.0
    """How strongly the discrepancy moves alpha, before training: it is learned."""
    lam: float = 0.4
    """lambda: weight of the local composition."""
    backbone_share: float = 0.0
    """Share of the untouched backbone in the fine-tuned weights (`pipeline.diffcomp.tuning`)."""
    w_align: float = 1.0
    w_ratio: float = 1.0
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        choices = {
            "text": ("caption", "phrase", "mixed"),
            "grouping": ("grid", "kmeans"),
            "masking": ("phrase", "random", "crop", "cam"),
            "mask_model": ("straight_through", "hard", "sigmoid", "gumbel"),
            "granularity": ("noun", "phrase", "sentence"),
            "alpha_form": ("sigmoid", "clip"),
            "fill": ("token", "relative"),
        }
        for name, allowed in choices.items():
            require(
                getattr(self, name) in allowed,
                f"diffcomp.{name}: {getattr(self, name)!r} is not one of {', '.join(allowed)}",
            )
        for name in ("rho", "alpha_base", "alpha_query", "lam", "carriers", "backbone_share"):
            require(0.0 <= getattr(self, name) <= 1.0, f"diffcomp.{name}: {getattr(self, name)} is not between 0 and 1")
        require(self.kappa > 0, f"diffcomp.kappa: {self.kappa} is not positive")
        require(self.relatives > 0, f"diffcomp.relatives: {self.relatives} is not positive")
        require(self.super_patch > 0, f"diffcomp.super_patch: {self.super_patch} is not positive")

    def check_grid(self) -> None:
        """Raises ParameterError where S does not divide the backbone's patch grid, as far as its configuration is at hand."""
        height, width = (self.css and patch_grid(self.backbone)) or (0, 0)
        require(
            height % self.super_patch == width % self.super_patch == 0,
            f"diffcomp.super_patch: {self.super_patch} does not divide the patch grid {height} x {width} of {self.backbone}",
        )


@dataclass
class SmallMllmParams(OptimiserParams):
    """The embedded f_M: a small Qwen2.5-VL trained here (stage `backbones`)."""

    vocabulary: int = 4096
    width: int = 256
    layers: int = 6
    heads: int = 4
    ffn: int = 768
    vision_width: int = 256
    vision_layers: int = 6
    vision_heads: int = 4
    vision_ffn: int = 768
    patch_size: int = 8
    drop_path: float = 0.0
    """Stochastic depth of the vision tower."""
    instruction_dropout: float = 0.15
    """Share of instruction tokens replaced at random, so that wordings never seen still work."""


@dataclass
class SmallClipParams(OptimiserParams):
    """The embedded dual encoder that DiffComp starts from (stage `backbones`)."""

    embed_dim: int = 256
    image_size: int = 64
    patch_size: int = 8
    vision_width: int = 256
    vision_layers: int = 8
    text_width: int = 256
    text_layers: int = 6
    text_heads: int = 4
    context_length: int = 32


@dataclass
class BackbonesParams:
    mllm: SmallMllmParams = field(default_factory=SmallMllmParams)
    clip: SmallClipParams = field(default_factory=SmallClipParams)
