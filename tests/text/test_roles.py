"""The roles of a modification's words."""

import pytest

from pipeline.text.roles import RoleParser, Roles
from tests.sections import profile


@pytest.fixture(scope="module")
def parser():
    return RoleParser(profile("offline").captions.spacy_model)


@pytest.mark.parametrize(
    ("text", "roles"),
    [
        ("replace the dog with a cat", Roles("cat", "dog")),
        ("change it from red to blue", Roles("blue", "red")),
        ("without glasses", Roles("", "glasses")),
        ("a dog, not a cat", Roles("dog", "cat")),
        ("same person but with a hat instead of a cap", Roles("hat", "cap", "person")),
        ("the same dress but longer and without sleeves", Roles("longer", "sleeves", "dress")),
        ("is red, has no sleeves, and is longer", Roles("red longer", "sleeves")),
        ("do it", Roles()),
    ],
)
def test_cues_give_words_their_roles(parser, text, roles):
    assert parser.roles([text]) == [roles]
    assert parser.roles([text, "add a tree"]) == [roles, Roles("tree")]
