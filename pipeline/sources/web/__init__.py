"""Pairs and edit triplets at web scale, in the layouts that their owners publish."""

from pipeline.sources.web.web_pairs import build

__all__ = ["build"]
