"""One loop for all models."""

from pipeline.training.loop import Run, Task, TrainingError, train

__all__ = ["Run", "Task", "TrainingError", "train"]
