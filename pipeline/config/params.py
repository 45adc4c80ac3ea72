"""All sections together, and how they are read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pipeline.config.checks import ParameterError
from pipeline.config.data import DataParams
from pipeline.config.encoders import CaptionParams, EncoderParams, TextEncoderParams
from pipeline.config.models import BackbonesParams, ControlParams, DiffCompParams, PriorParams
from pipeline.config.search import AblationParams, IndexParams, ReportParams, RetrieveParams, SweepParams


@dataclass
class RuntimeParams:
    threads: int = 2
    """CPU threads of torch and FAISS; part of what makes a run repeatable."""
    device: str = "auto"
    """auto: a GPU where there is one."""
    deterministic: bool = True
    """On a GPU: torch's deterministic algorithms, so that a run repeats itself bit for bit. On a CPU they always are."""


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
        raise ParameterError(
            f"parameter '{origin}.{error.full_key or error.key or '?'}': {str(error).splitlines()[0]}"
        ) from None
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
