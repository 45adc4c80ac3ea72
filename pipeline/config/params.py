"""All sections together, and how they are read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pipeline.config.backbones import BackbonesParams
from pipeline.config.data import DataParams
from pipeline.config.decoder import DecoderParams, ImagineParams
from pipeline.config.diffcomp import DiffCompParams
from pipeline.config.distill import DistillParams
from pipeline.config.encoders import (
    CaptionerParams,
    CaptionParams,
    DescriberParams,
    EmbedderParams,
    JobsParams,
    RerankerParams,
    TextEncoderParams,
)
from pipeline.config.experiments import AblationParams, ReportParams, SweepParams
from pipeline.config.fusion_diff import ControlParams, PriorParams
from pipeline.config.index import IndexParams
from pipeline.config.peers import PeersParams
from pipeline.config.ranges import Count, Seed
from pipeline.config.rerank import RerankParams
from pipeline.config.retrieve import RetrieveParams
from pipeline.config.roles import RolesParams
from pipeline.config.schema import section_from_dict, with_overrides
from pipeline.config.section import ParameterError, Section, require


@dataclass(kw_only=True)
class RuntimeParams(Section):
    """`runtime`: what every stage sets before it works."""

    section: ClassVar[str] = "runtime"

    threads: Count
    """CPU threads of torch and FAISS; part of what makes a run repeatable."""
    device: str
    """A torch device; auto: a GPU where there is one."""
    gpus: str
    """Processes that a training stage starts on this machine, each with a GPU; auto: as many as there are GPUs."""
    portable: bool
    """On a CPU: the same bytes on every x86-64 with AVX2. False: the widest instructions that the machine has."""
    deterministic: bool
    """On a GPU: torch's deterministic algorithms, so that a run repeats bit for bit. On a CPU they always are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        known = re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device)
        require(known is not None, f"runtime.device: {self.device!r} is not one of auto, cpu, cuda, cuda:N")
        counted = re.fullmatch(r"auto|[1-9]\d*", self.gpus)
        require(counted is not None, f"runtime.gpus: {self.gpus!r} is neither auto nor a number of at least 1")


@dataclass(kw_only=True)
class Params(Section):
    """All of `params.yaml`."""

    profile: str
    """The profile of `conf/profile/` that the values come from."""
    seed: Seed
    """Every draw of the pipeline comes from it."""
    runtime: RuntimeParams
    data: DataParams
    backbones: BackbonesParams
    embedder: EmbedderParams
    describer: DescriberParams
    captioner: CaptionerParams
    reranker: RerankerParams
    jobs: JobsParams
    text_encoder: TextEncoderParams
    captions: CaptionParams
    decoder: DecoderParams
    prior: PriorParams
    control: ControlParams
    distill: DistillParams
    diffcomp: DiffCompParams
    diffcomp_variants: dict[str, dict[str, Any]]
    """Every DiffComp that is trained: method name -> what it changes of `diffcomp`."""
    peers: PeersParams
    index: IndexParams
    retrieve: RetrieveParams
    roles: RolesParams
    rerank: RerankParams
    imagine: ImagineParams
    report: ReportParams
    sweep: SweepParams
    ablations: AblationParams

    def __post_init__(self) -> None:
        super().__post_init__()
        known = self.data.web.pairs if self.data.sources == "web" else []
        for name, chosen in (
            ("diffcomp.data.sources", self.diffcomp.data.sources),
            ("prior.data.sources", self.prior.data.sources),
            ("prior.data.short_sources", self.prior.data.short_sources),
        ):
            missing = [source for source in chosen if source not in known]
            require(not missing, f"{name}: {missing} are not among the sources of data.web.pairs that are read")
        top, listed = self.rerank.top, self.retrieve.top_k
        possible = top <= listed or not self.rerank.methods
        require(possible, f"rerank.top: {top} is more than the {listed} images of a ranked list (retrieve.top_k)")
        trained = self.distill.enabled or self.retrieve.sampler != "distilled"
        require(trained, "retrieve.sampler: distilled needs a student: set distill.enabled to true")
        if self.retrieve.sampler == "distilled":
            for name in ("guidance_scale", "control_scale"):
                asked, learned = getattr(self.retrieve, name), getattr(self.distill, name)
                above = f"{asked:g} is above the {learned:g} that the student learns (distill.{name})"
                require(asked <= learned, f"retrieve.{name}: {above}")
        for name, variant in self.variants().items():
            same = variant.data == self.diffcomp.data
            require(same, f"diffcomp_variants.{name}.data: all variants learn from the pairs of diffcomp.data")
            try:
                variant.check_grid()
            except ParameterError as error:
                raise ParameterError(f"diffcomp_variants.{name}: {error}") from None

    def variants(self) -> dict[str, DiffCompParams]:
        """The whole parameters of every trained DiffComp, by method name.

        Raises:
            ParameterError: An override is wrong; the message names it.
        """
        overrides = self.diffcomp_variants.items()
        return {name: with_overrides(self.diffcomp, values, f"diffcomp_variants.{name}") for name, values in overrides}


def params_from_dict(values: Mapping[str, Any], origin: str = "params") -> Params:
    """All parameters of plain values.

    Args:
        values: Every section by name.
        origin: Where they come from, for messages.

    Raises:
        ParameterError: A parameter is unknown, missing, of the wrong type, or does not fit the others.
    """
    return section_from_dict(Params, values, origin)


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check `params.yaml`.

    Raises:
        ParameterError: The file is missing or no mapping, or a parameter is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise ParameterError(f"{path}: no such parameter file")
    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, ValueError, RecursionError, YAMLError, OmegaConfBaseException) as error:
        raise ParameterError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise ParameterError(f"{path}: not a mapping of sections")
    return params_from_dict(cast(dict[str, Any], values), origin=str(path))


def load_profile(profile: str, conf: str | Path = "conf", overrides: Sequence[str] = ()) -> Params:
    """Compose `conf/` for one profile, as `dvc exp run -S profile=...` does.

    Args:
        profile: A file's name in `conf/profile/`, without its ending.
        conf: The folder of the configuration.
        overrides: As those of `dvc exp run -S`, each NAME=VALUE.

    Raises:
        ParameterError: There is no such profile, a file of it cannot be read, or one of its parameters is wrong.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    conf = Path(conf).resolve()
    available = sorted(path.stem for path in (conf / "profile").glob("*.yaml"))
    if not available:
        raise ParameterError(f"{conf / 'profile'}: there are no profiles; run this in the project's folder")
    if profile not in available:
        raise ParameterError(f"profile: {profile!r} is not one of {', '.join(available)}")
    try:
        with initialize_config_dir(str(conf), version_base=None):
            composed = compose("config", overrides=[f"profile={profile}", *overrides])
        values = cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True))
    except (OSError, UnicodeError, HydraException, OmegaConfBaseException, YAMLError) as error:
        said = " ".join(str(error).split("Config search path")[0].split())
        raise ParameterError(f"profile {profile}: {said}") from None
    return params_from_dict(values, origin=f"profile {profile}")
