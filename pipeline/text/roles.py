"""The roles of a modification's words: what is to appear, what is to go, and what stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.text.phrases import PhraseParser

if TYPE_CHECKING:
    from spacy.tokens import Doc

Role = Literal["changed", "excluded", "kept"]

CUES: dict[str, Role] = {
    **dict.fromkeys(("to", "into", "with", "but", "as", "by", "add", "now", "becomes", "is", "are", "has"), "changed"),
    **dict.fromkeys(("without", "remove", "removed", "delete", "no", "not", "from"), "excluded"),
    **dict.fromkeys(("replace", "instead", "rather"), "excluded"),
    **dict.fromkeys(("same", "keep", "keeps", "still"), "kept"),
}
"""A word -> the role of the words after it, until the next cue."""
CONTENT = ("NOUN", "PROPN", "ADJ", "NUM", "ADV")
"""Parts of speech that say something of an image."""


@dataclass(frozen=True)
class Roles:
    """A modification's words by their role. Any may be empty."""

    changed: str = ""
    """What the target shows and the reference does not."""
    excluded: str = ""
    """What the target does not show."""
    kept: str = ""
    """What both show, where the modification says so."""


class RoleParser(PhraseParser):
    """Finds roles by cues and parts of speech, from spaCy's tagger."""

    def roles(self, texts: Sequence[str]) -> list[Roles]:
        """The roles in every text."""
        return [_roles(doc) for doc in self._nlp.pipe(texts, batch_size=self._batch_size)]


def _roles(doc: Doc) -> Roles:
    words: dict[Role, list[str]] = {"changed": [], "excluded": [], "kept": []}
    role: Role = "changed"
    for token in doc:
        cue = CUES.get(token.lower_)
        role = cue or role
        if cue is None and (token.pos_ in CONTENT or token.dep_ == "compound"):
            words[role].append(token.text)
        elif token.is_punct and token.text in ",;.":
            role = "changed"
    return Roles(*(" ".join(words[name]) for name in ("changed", "excluded", "kept")))
