"""One loop for all models."""

from pipeline.training.loop import Task, TrainingError, train

__all__ = ["Task", "TrainingError", "train"]
