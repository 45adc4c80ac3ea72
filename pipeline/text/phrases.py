"""Phrases and nouns of captions, from spaCy's parser."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

from pipeline.artifacts import ArtifactError
from pipeline.config import CaptionParams

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc, Span

BATCH = 256
"""Texts that are parsed at once."""
_MARGIN = ("DET", "PUNCT", "SPACE")
_OBJECTS = ("dobj", "obj", "prt", "dative")


class PhraseParser:
    """A spaCy pipeline, loaded once a process. Every distinct text of a call is parsed once.

    Args:
        model: The installed package that carries the pipeline.
        batch_size: Texts that are parsed at once.

    Raises:
        ArtifactError: The package is not installed.
    """

    def __init__(self, model: str, batch_size: int = BATCH):
        self._nlp, self._batch_size = _load(model), batch_size

    def noun_phrases(self, texts: Sequence[str]) -> list[list[str]]:
        """Noun chunks without determiners, as written, each once and in order; may be empty."""
        return self._each(texts, noun_phrases)

    def phrases(self, texts: Sequence[str]) -> list[list[str]]:
        """Noun, verb and prepositional phrases, as written, each once; may be empty."""
        return self._each(texts, lambda doc: (*noun_phrases(doc), *verb_phrases(doc), *prepositional_phrases(doc)))

    def nouns(self, texts: Sequence[str]) -> list[list[str]]:
        """Nouns and proper nouns, as written, each once and in order; may be empty."""
        return self._each(texts, lambda doc: (token.text for token in doc if token.pos_ in ("NOUN", "PROPN")))

    def _each(self, texts: Sequence[str], extract: Callable[[Doc], Iterable[str]]) -> list[list[str]]:
        """What `extract` finds in every text, each once and in order."""
        distinct = list(dict.fromkeys(texts))
        docs = self._nlp.pipe(distinct, batch_size=self._batch_size)
        found = {text: list(dict.fromkeys(extract(doc))) for text, doc in zip(distinct, docs, strict=True)}
        return [found[text] for text in texts]


@functools.cache
def _load(model: str) -> Language:
    """A package's pipeline: taggers and parser."""
    import spacy  # here: importing it takes seconds

    try:
        return spacy.load(model, exclude=["ner", "lemmatizer"])
    except OSError:
        raise _missing(model) from None


class ParallelParser:
    """Finds the phrases of many texts as `PhraseParser` does, in several processes. Close it by `with`.

    Args:
        model: The installed package that carries the pipeline.
        processes: How many; each holds a pipeline of its own.

    Raises:
        ArtifactError: The package is not installed.
    """

    def __init__(self, model: str, processes: int):
        if not is_package(model):
            raise _missing(model)
        # Spawned: a forked process would hold locks of this one's threads.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(processes, context, initializer=_open_parser, initargs=(model,))

    def __enter__(self) -> ParallelParser:
        return self

    def __exit__(self, *error: Any) -> None:
        self._pool.shutdown(cancel_futures=True)

    def phrases(self, texts: Sequence[str]) -> list[list[str]]:
        """See `PhraseParser.phrases`. Every distinct text of a call is parsed once."""
        distinct = list(dict.fromkeys(texts))
        parts = [distinct[first : first + BATCH] for first in range(0, len(distinct), BATCH)]
        found = dict(zip(distinct, itertools.chain.from_iterable(self._pool.map(_phrases_of, parts)), strict=True))
        return [found[text] for text in texts]


_parser: PhraseParser | None = None
"""A worker's."""


def _open_parser(model: str) -> None:
    global _parser
    _parser = PhraseParser(model)


def _phrases_of(texts: list[str]) -> list[list[str]]:
    assert _parser is not None  # `_open_parser` came first
    return _parser.phrases(texts)


def is_package(name: str) -> bool:
    """Whether a package of this name is installed."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # not a name that a package can have
        return False


def _missing(model: str) -> ArtifactError:
    return ArtifactError(f"captions.spacy_model {model!r}: no such spaCy package is installed")


def noun_phrases(doc: Doc) -> Iterable[str]:
    """The noun chunks of a text without determiners: `a green apple` gives `green apple`, a pronoun nothing."""
    for chunk in doc.noun_chunks:
        phrase = _without_margins(chunk)
        if phrase and chunk.root.pos_ != "PRON":
            words = phrase.text
            if words.count("(") > words.count(")"):  # the parser leaves the closing one outside of the chunk
                words = words[: words.rindex("(")]
            if words.split():
                yield " ".join(words.split())


def verb_phrases(doc: Doc) -> Iterable[str]:
    """Verbs with their particles and objects: `a man riding a horse` gives `riding a horse`.

    A participle in front of a noun belongs to the noun's phrase and is none.
    """
    for token in doc:
        if token.pos_ == "VERB" and token.dep_ not in ("amod", "compound"):
            ends = [child.right_edge.i for child in token.rights if child.dep_ in _OBJECTS]
            yield _words(doc[token.i : max([token.i, *ends]) + 1])


def prepositional_phrases(doc: Doc) -> Iterable[str]:
    """Prepositions with all that hangs on them: `a face with tears of joy` gives `with tears of joy`, `of joy`."""
    for token in doc:
        if token.pos_ == "ADP" and token.right_edge.i > token.i:
            yield _words(doc[token.i : token.right_edge.i + 1])


def _words(span: Span) -> str:
    """The span as written, without punctuation at its end and line breaks."""
    end = span.end
    while end > span.start + 1 and span.doc[end - 1].pos_ in ("PUNCT", "SPACE"):
        end -= 1
    return " ".join(span.doc[span.start : end].text.split())


def _without_margins(chunk: Span) -> Span | None:
    """The chunk without determiners in front and punctuation at either end; None when nothing is left."""
    start, end = chunk.start, chunk.end
    while start < end and chunk.doc[start].pos_ in _MARGIN:
        start += 1
    while end > start and chunk.doc[end - 1].pos_ in ("PUNCT", "SPACE"):
        end -= 1
    return chunk.doc[start:end] if end > start else None


def nouns(texts: Sequence[str], params: CaptionParams) -> list[list[str]]:
    """The nouns of every text, for masking at noun granularity; see `PhraseParser.nouns`."""
    return PhraseParser(params.spacy_model).nouns(texts)
