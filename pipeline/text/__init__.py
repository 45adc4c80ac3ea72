"""Phrases and captions."""
