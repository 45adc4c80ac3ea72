"""Trained models as repositories of a hub: written with their cards, and loaded again."""
