"""The names of methods for `--help`, which loads none of the models' libraries.

`pipeline.query.registry` is the authority; a test holds these names to it.
"""

from __future__ import annotations

FUSION_DIFF = ("fused_only", "description", "fused_description", "stage1_only", "fusion_diff")
TRAINING_FREE = ("image_only", "text_only", "image_text", "slerp")
VARIANTS = ("diffcomp_row1", "diffcomp", "diffcomp_relative")
"""Those of the default parameters."""
CIREVL = "cirevl"


def listed() -> str:
    """The default parameters' methods, for a help text."""
    return ", ".join((*FUSION_DIFF, *TRAINING_FREE, *VARIANTS, CIREVL))
