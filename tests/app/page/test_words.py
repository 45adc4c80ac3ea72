"""What the page says of methods and controls."""

import json
from dataclasses import replace

from pipeline.app.page.script import titles
from pipeline.app.page.words import CONTROLS, METHODS, of_method
from pipeline.query.registry import labelled_methods


def test_every_method_is_explained_in_plain_words():
    assert METHODS.keys() == labelled_methods().keys()
    assert all(text.endswith(".") and "lambda" not in text for text in (*METHODS.values(), *CONTROLS.values()))


def test_a_variant_of_ones_own_has_its_note():
    variant = replace(labelled_methods()["diffcomp"], name="diffcomp_mine", note="without masks")
    assert of_method(variant) == "without masks"


def test_texts_in_a_script_are_quoted():
    script = titles({"search": 'say "go"'}, {"Slerp": "on the arc"})
    assert json.dumps('say "go"') in script and "COMPONENTS" not in script and "METHODS" not in script
