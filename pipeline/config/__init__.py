"""Typed parameters: one dataclass a section, checked when loaded.

`params.yaml` is what every stage reads; Hydra composes it from `conf/` (see `dvc exp run -S`).
An unknown or ill-typed parameter, or sizes that cannot hold together, raise one `ParameterError`
that names the parameter.
"""

from pipeline.config.checks import ParameterError
from pipeline.config.data import (
    PUBLIC_BENCHMARKS,
    CircoParams,
    CirrParams,
    DataParams,
    FashionIQParams,
    GeneCISParams,
    WebParams,
)
from pipeline.config.encoders import CaptionParams, EncoderParams, TextEncoderParams
from pipeline.config.models import (
    BackbonesParams,
    ControlParams,
    DiffCompParams,
    DiffusionParams,
    OptimiserParams,
    PriorParams,
    SmallClipParams,
    SmallMllmParams,
)
from pipeline.config.params import (
    Params,
    RuntimeParams,
    as_dict,
    load_params,
    load_profile,
    params_from_dict,
    with_overrides,
)
from pipeline.config.search import AblationParams, IndexParams, ReportParams, RetrieveParams, SweepParams
from pipeline.config.speed import Speed

__all__ = [
    "AblationParams",
    "BackbonesParams",
    "CaptionParams",
    "CircoParams",
    "CirrParams",
    "ControlParams",
    "DataParams",
    "DiffCompParams",
    "DiffusionParams",
    "EncoderParams",
    "FashionIQParams",
    "GeneCISParams",
    "IndexParams",
    "OptimiserParams",
    "PUBLIC_BENCHMARKS",
    "ParameterError",
    "Params",
    "PriorParams",
    "ReportParams",
    "RetrieveParams",
    "RuntimeParams",
    "SmallClipParams",
    "SmallMllmParams",
    "Speed",
    "SweepParams",
    "TextEncoderParams",
    "WebParams",
    "as_dict",
    "load_params",
    "load_profile",
    "params_from_dict",
    "with_overrides",
]
