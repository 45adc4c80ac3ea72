"""The scripts of the pipeline's stages."""

import pipeline  # noqa: F401  (what it sets for numeric libraries comes before they are loaded)
