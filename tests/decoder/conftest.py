import pytest
import torch

from pipeline.config import DecoderParams
from pipeline.decoder import Decoder, DecoderSizes
from tests.sections import section

TINY = DecoderSizes(
    dim=8,
    channels=3,
    side=16,
    patch_size=4,
    width=32,
    layers=2,
    heads=2,
    cross_heads=1,
    ffn_ratio=2.0,
    positions=True,
    tokens=2,
    token_width=16,
)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def sizes():
    return TINY


@pytest.fixture
def decoder(sizes):
    return Decoder(sizes)


@pytest.fixture
def make_params():
    """`decoder` of the offline profile, for the tiny sizes, with changes."""

    names = ("patch_size", "width", "layers", "heads", "cross_heads", "ffn_ratio", "tokens", "token_width")
    values = {name: getattr(TINY, name) for name in names} | {"image_size": TINY.side}
    values |= {"precision": "fp32", "warmup_steps": 0, "batch_size": 8, "log_every": 1, "steps": 4, "ema_decay": 0.0}
    return lambda **changes: section(DecoderParams, **values | changes)
