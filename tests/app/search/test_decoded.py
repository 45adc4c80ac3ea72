"""What was searched, as images of a decoder."""

from dataclasses import replace

import pytest
import torch

from pipeline.app.search import python
from pipeline.app.search.reference import RequestError
from pipeline.app.search.requests import Request
from pipeline.app.search.searcher import Searcher
from pipeline.decoder import Decoder, DecoderSizes
from pipeline.decoder.checkpoints import save_decoder
from pipeline.encoders.identity import mllm_identity
from pipeline.query.interface import Controls


@pytest.fixture
def decoding(searcher, monkeypatch, tmp_path) -> Searcher:
    """The same models with an untrained decoder."""
    torch.manual_seed(0)
    params = replace(searcher.params.decoder, width=32, layers=1, heads=2, cross_heads=1, tokens=2, token_width=16)
    sizes = DecoderSizes.from_params(params, 256)
    save_decoder(tmp_path / "decoder", Decoder(sizes), params, mllm_identity(searcher.params.embedder))
    monkeypatch.setattr(
        "pipeline.decoder.imagine.Imagination.open_fitting.__func__.__defaults__", (tmp_path / "decoder",)
    )
    return Searcher(searcher.params, searcher.gallery, searcher.models)


def test_hypotheses_are_decoded(decoding, reference):
    request = Request(reference, "in red", "fusion_diff", controls=Controls(hypotheses=3))
    images = decoding.decoded(decoding.search(request), most=2)
    side = decoding.params.decoder.image_size
    assert [image.size for image in images] == [(side, side)] * 2
    assert decoding.decoded(decoding.search(replace(request, method="slerp", controls=Controls()))) == []


def test_without_a_decoder_there_is_nothing(searcher, reference):
    assert searcher.decoded(searcher.search(Request(reference, "in red", "fusion_diff"))) == []


def test_python_shows_what_is_searched(decoding, reference, searcher):
    controls, opened = Controls(hypotheses=3), python.Searcher(decoding)
    expected = decoding.decoded(decoding.search(Request(reference, "in red", "fusion_diff", controls=controls)), 2)
    found = opened.imagine(reference, "in red", "fusion_diff", most=2, controls=controls)
    assert [image.tobytes() for image in found] == [image.tobytes() for image in expected] and found[0].mode == "RGB"
    assert len(opened.imagine(reference, "in red", "fusion_diff", controls=controls)) == 3
    assert opened.imagine(reference, "in red", "slerp") == []
    assert python.Searcher(searcher).imagine(reference, "in red", "fusion_diff") == []  # no decoder
    with pytest.raises(RequestError, match="modification is empty"):
        opened.imagine(reference, " ", "fusion_diff")
