import pytest
import torch

from pipeline.config import DiffusionParams
from pipeline.fusion_diff import ControlAdapter, Diffusion, Prior, PriorSizes, Sampler, SamplerSettings
from tests.sections import section

SMALL = PriorSizes(
    dim=24,
    channels=2,
    grid=8,
    patch_size=2,
    width=32,
    heads=4,
    depth=4,
    ffn_ratio=2,
    time_frequencies=16,
    text_dim=12,
    text_tokens=6,
)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def sizes():
    return SMALL


@pytest.fixture
def randomise():
    """Puts random values in every parameter, so that no gate or zero layer hides an error."""

    def fill(module, std=0.15):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.normal_(std=std)
        return module

    return fill


@pytest.fixture
def prior(sizes, randomise):
    """As if trained."""
    return randomise(Prior(sizes)).eval()


@pytest.fixture
def adapter(prior, randomise):
    """As if trained."""
    return randomise(ControlAdapter(prior)).eval()


@pytest.fixture
def diffusion(sizes):
    return Diffusion(section(DiffusionParams), sizes.dim)


@pytest.fixture
def make_sampler(prior, adapter, diffusion):
    """A sampler of the given settings and class, of the prior alone or with the adapter."""

    def make(*settings, kind=Sampler, with_adapter=True, **changes):
        return kind(prior, adapter if with_adapter else None, diffusion, SamplerSettings(*settings, **changes))

    return make


@pytest.fixture
def inputs(sizes):
    """noisy [5, d], step [5], text states [5, T, text_dim] and mask [5, T], control [5, d]."""
    mask = torch.arange(4) < torch.tensor([4, 2, 1, 3, 4])[:, None]
    return (
        torch.randn(5, sizes.dim),
        torch.tensor([0, 10, 500, 999, 3]),
        torch.randn(5, 4, sizes.text_dim),
        mask,
        torch.randn(5, sizes.dim),
    )
