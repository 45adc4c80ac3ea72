"""Short and long captions written from CLDR labels and keywords."""

from __future__ import annotations

from pipeline.sources.emoji.cldr import HAIR, TONES, Emoji, split_label, with_article
from pipeline.sources.errors import SourceError

MAX_WORDS = 30

_HAIR_PHRASES = {"beard": "a beard"}
_GROUP_PHRASES = {
    "smileys-emotion": "smileys and emotions",
    "people-body": "people and bodies",
    "component": "parts of people",
    "animals-nature": "animals and nature",
    "food-drink": "food and drink",
    "travel-places": "travel and places",
    "activities": "activities",
    "objects": "objects",
    "symbols": "symbols",
    "flags": "flags",
}


def join_words(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def short_caption(emoji: Emoji) -> str:
    """`woman: dark skin tone, red hair` -> `woman with red hair and dark skin tone`.

    Raises SourceError naming the row when its label leaves no words.
    """
    name, qualifiers = split_label(emoji.label)
    looks = [_HAIR_PHRASES.get(q, q) for q in qualifiers if q in HAIR and q != "bald"]
    if "bald" in qualifiers:
        name = f"bald {name}"
    if emoji.tones:
        names = list(dict.fromkeys(TONES[tone] for tone in emoji.tones))
        looks.append(f"{join_words(names)} skin tone{'s' if len(names) > 1 else ''}")
    rest = [q for q in qualifiers if q not in HAIR and q != "facing right" and not q.endswith(" skin tone")]
    if rest:
        name = _with_details(name, rest)
    if "facing right" in qualifiers:
        name = f"{name} facing right"
    if looks:
        name = f"{name} {'and' if ' with ' in name else 'with'} {join_words(looks)}"
    caption = " ".join(name.split())
    if not caption:
        raise SourceError(f"emoji {emoji.code}: label {emoji.label!r} leaves an empty caption")
    return caption


def _with_details(name: str, details: list[str]) -> str:
    words = join_words(details)
    return {"flag": f"flag of {words}", "family": f"family of {words}", "kiss": f"kiss between {words}"}.get(
        name, f"{name} {words}" if name == "keycap" else f"{name}, {words}"
    )


def long_caption(emoji: Emoji) -> str:
    """A sentence or two of at most MAX_WORDS words: the image, its kind, what it goes with."""
    subject = with_article(short_caption(emoji))
    kind = emoji.subgroup.replace("-", " ")
    opening = f"An emoji of {subject}, from the {_GROUP_PHRASES[emoji.group]} group, under {kind}."
    if emoji.tones == () and emoji.gender:
        opening = (
            f"An emoji of {subject} in default yellow, from the {_GROUP_PHRASES[emoji.group]} group, under {kind}."
        )
    known = subject.lower().split()
    tags = [tag.replace("’", "'") for tag in emoji.tags]
    tags = [tag for tag in tags if tag.lower() not in known][:5]
    while tags:
        caption = f"{opening} It suggests {join_words(tags)}."
        if len(caption.split()) <= MAX_WORDS:
            return caption
        tags.pop()
    return opening
