"""Role-aware rows against their equation, and what they are configured by."""

import copy

import numpy as np
import pytest
import torch.nn.functional as F

from pipeline.app.search.own_encoder import OwnEncoder
from pipeline.config import ParameterError, RolesParams
from pipeline.encoders.image_source import ImageTable
from pipeline.query import registry, roles
from pipeline.retrieval.queries import Query
from tests.sections import plain_params, profile, section

QUERIES = [Query("0", "red ball", ("a hat instead of a cap",), ()), Query("1", "green dog", ("do it",), ())]


def answered(models, names):
    found = registry.FAMILIES["roles"].opened().load(models, names)
    return found, found.answer(QUERIES, ImageTable("data/pairs/images"))


def test_a_vector_moves_as_in_the_equation(models):
    models.params.roles = section(RolesParams, methods=["slerp", "text_only"], weight=0.3)
    family, found = answered(models, ["slerp_roles"])
    assert list(found) == ["slerp_roles"] and list(family.spaces) == ["clip"]
    base = registry.FAMILIES["dual"].opened().load(models, ["slerp"])
    before = base.answer(QUERIES, ImageTable("data/pairs/images"))["slerp"].vectors
    encoder = models.backbone
    encoded = encoder.encode_text(encoder.tokenize(["this", "hat", "cap"])).detach()
    changed, excluded = F.normalize(encoded[1:] - encoded[:1], dim=-1).numpy()
    moved = before[0] + 0.3 * (changed - excluded)
    after = found["slerp_roles"].vectors
    np.testing.assert_allclose(after[0], moved / np.linalg.norm(moved), atol=1e-5)
    np.testing.assert_allclose(after[1], before[1], atol=1e-6)


def test_rows_are_those_that_the_parameters_name():
    params = copy.deepcopy(profile("offline"))  # others are given the same
    assert roles.methods(params) == ()
    params.roles.methods = ["slerp", "diffcomp"]
    slerp, diffcomp = roles.methods(params)
    assert (slerp.name, slerp.label, slerp.space) == ("slerp_roles", "Slerp, roles", "clip")
    assert diffcomp.space == "diffcomp" and "region" in diffcomp.controls and diffcomp.weights
    assert registry.find_method("slerp_roles", params) == slerp
    params.roles.methods = ["cirevl"]
    with pytest.raises(ParameterError, match=r"roles.methods: 'cirevl' is not one of image_only, text_only"):
        roles.methods(params)


def test_an_encoder_of_ones_own_has_them():
    params = OwnEncoder("ViT-L-14-quickgelu", "openai").into(plain_params())
    assert [method.name for method in roles.methods(params)] == ["image_text_roles", "slerp_roles"]
