"""Emoji-CIR: emoji by three teams of artists, labelled by CLDR, as pairs, triplets and benchmarks.

Read in order: `fetch` and `images` (packages), `cldr` and `captions` (labels), `split` (what is held
out), `edits` and `wordings` (what may change, and how it is said), `triplets`, `queries` and
`genecis` (the tables), `build` (all of it).
"""

from pipeline.sources.emoji.emoji_cir import build_tables
from pipeline.sources.emoji.fetch import SourceError

__all__ = ["SourceError", "build_tables"]
