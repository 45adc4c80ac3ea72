"""The files in the folder of a trained model. Their names alone need no torch."""

WEIGHTS, CONFIG, LOG = "model.safetensors", "config.json", "training.csv"
SKIPPED = "skipped.json"
"""Stands in the folder of a model that was not trained, and says why."""
