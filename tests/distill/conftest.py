"""The small models of `tests/fusion_diff`, and a student of them."""

import pytest

from pipeline.config import DiffusionParams
from pipeline.distill import Jumps, Limits, Student
from pipeline.fusion_diff import Diffusion
from tests.fusion_diff.conftest import (  # noqa: F401  (fixtures)
    _one_thread,
    adapter,
    diffusion,
    inputs,
    prior,
    randomise,
    sizes,
)
from tests.sections import section


@pytest.fixture(params=["sample", "epsilon", "v_prediction"])
def jumps(request, sizes):  # noqa: F811
    return Jumps(Diffusion(section(DiffusionParams, prediction=request.param), sizes.dim), 14)


@pytest.fixture
def student(prior, adapter, randomise):  # noqa: F811
    """As if trained."""
    return randomise(Student.of(prior, adapter, Limits(4.0, 1.0))).eval()
