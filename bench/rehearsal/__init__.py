"""A profile's whole graph on one machine, with random weights of the real sizes and a little data in the real layouts.

It says what the profile takes before anybody downloads a checkpoint: `python -m bench.rehearsal --profile lab`.
"""

import pipeline  # noqa: F401  (what it declares for torchvision comes before any library that imports that)
