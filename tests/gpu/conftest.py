"""The small models of `tests/fusion_diff`."""

from tests.fusion_diff.conftest import (  # noqa: F401  (fixtures)
    _one_thread,
    adapter,
    diffusion,
    inputs,
    make_sampler,
    prior,
    randomise,
    sizes,
)
