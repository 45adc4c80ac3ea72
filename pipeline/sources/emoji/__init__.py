"""Emoji-CIR: emoji by three teams of artists, labelled by CLDR, as pairs, triplets and benchmarks.

Read in order: `fetch` and `artwork` (packages), `cldr` and `captions` (labels), `split` (what is held
out), `edits` and `wordings` (what may change, and how it is said), `triplets`, `queries` and
`genecis` (the tables), `emoji_cir` (all of it).
"""

from pipeline.sources.emoji.emoji_cir import build_tables

__all__ = ["build_tables"]
