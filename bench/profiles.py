"""The profiles of `conf/`, from which benchmarks take what they do not measure."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pipeline.config import Params, load_profile

CONF = Path(__file__).parents[1] / "conf"


@cache
def profile(name: str) -> Params:
    """The parameters of a profile, which stay as they are: change a copy (`dataclasses.replace`)."""
    return load_profile(name, CONF)
