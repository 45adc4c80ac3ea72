"""Typed parameters: one dataclass a section, in the file of its name, checked when loaded.

`params.yaml` is what every stage reads; Hydra composes it from `conf/`, which holds every value (see
`dvc exp run -S`). The sections here say what a parameter means, its type, unit and choices. A parameter that
is unknown, missing or ill-typed, or does not fit the others, raises one `ParameterError` that names it.
"""

from pipeline.config.backbones import BackbonesParams, SmallClipParams, SmallMllmParams, SmallRerankerParams
from pipeline.config.data import (
    PUBLIC_BENCHMARKS,
    CircoParams,
    CirrParams,
    DataParams,
    FashionIQParams,
    GeneCISParams,
    WebParams,
)
from pipeline.config.decoder import DecoderParams, ImagineParams
from pipeline.config.diffcomp import DiffCompDataParams, DiffCompParams
from pipeline.config.encoders import (
    CaptionerParams,
    CaptionParams,
    DescriberParams,
    EmbedderParams,
    GeneratorParams,
    JobsParams,
    MllmParams,
    RerankerParams,
    TextEncoderParams,
)
from pipeline.config.experiments import AblationParams, ReportParams, SweepParams
from pipeline.config.fusion_diff import ControlParams, ControlSignal, DiffusionParams, PriorDataParams, PriorParams
from pipeline.config.index import IndexParams
from pipeline.config.params import Params, RuntimeParams, load_params, load_profile, params_from_dict
from pipeline.config.peers import LinCirParams, MapperParams, PeersParams, Pic2WordParams, SearleParams
from pipeline.config.rerank import RerankParams
from pipeline.config.retrieve import RetrieveParams
from pipeline.config.roles import RolesParams
from pipeline.config.schema import section_from_dict, with_overrides
from pipeline.config.section import ParameterError, Section, as_dict
from pipeline.config.speed import Speed
from pipeline.config.training import OptimiserParams

__all__ = [
    "AblationParams",
    "BackbonesParams",
    "CaptionParams",
    "CaptionerParams",
    "DescriberParams",
    "CircoParams",
    "CirrParams",
    "ControlParams",
    "ControlSignal",
    "DataParams",
    "DecoderParams",
    "DiffCompDataParams",
    "DiffCompParams",
    "DiffusionParams",
    "EmbedderParams",
    "GeneratorParams",
    "JobsParams",
    "LinCirParams",
    "MapperParams",
    "MllmParams",
    "FashionIQParams",
    "GeneCISParams",
    "ImagineParams",
    "IndexParams",
    "OptimiserParams",
    "PUBLIC_BENCHMARKS",
    "ParameterError",
    "Params",
    "PeersParams",
    "Pic2WordParams",
    "PriorDataParams",
    "PriorParams",
    "ReportParams",
    "RerankParams",
    "RerankerParams",
    "RetrieveParams",
    "RolesParams",
    "RuntimeParams",
    "SearleParams",
    "Section",
    "SmallClipParams",
    "SmallMllmParams",
    "SmallRerankerParams",
    "Speed",
    "SweepParams",
    "TextEncoderParams",
    "WebParams",
    "as_dict",
    "load_params",
    "load_profile",
    "params_from_dict",
    "section_from_dict",
    "with_overrides",
]
