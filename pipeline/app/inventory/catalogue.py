"""Licences of the checkpoints and data sets that profiles name, as their owners state them.

What is not listed is not known here. Sizes of checkpoints are in `pipeline.encoders.hub`, of sources in
`pipeline.sources.web.web_pairs`.
"""

from __future__ import annotations

CHECKPOINTS = {
    "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct": "Apache-2.0",
    "Qwen/Qwen2-VL-2B-Instruct": "Apache-2.0",
    "Qwen/Qwen2.5-VL-3B-Instruct": "Qwen Research License",
    "Qwen/Qwen2.5-VL-7B-Instruct": "Apache-2.0",
    "Qwen/Qwen2.5-VL-72B-Instruct": "Qwen License",
    "Qwen/Qwen3-VL-2B-Instruct": "Apache-2.0",
    "Qwen/Qwen3-VL-Embedding-2B": "Apache-2.0",
    "google/t5-v1_1-large": "Apache-2.0",
    "city96/t5-v1_1-xxl-encoder-bf16": "Apache-2.0",
    "google/t5-v1_1-xxl": "Apache-2.0",
    "google-t5/t5-large": "Apache-2.0",
    "openai": "MIT",
}
"""Hub name, or tag of open_clip, -> licence."""
DATA = {
    "cc3m": "free use of the captions; every image is its owner's",
    "cc12m": "free use of the captions; every image is its owner's",
    "sa1b": "SA-1B Dataset Research License",
    "journeydb": "CC BY-NC-SA 4.0",
    "hqedit": "CC BY-NC 4.0",
    "fashioniq": "CDLA; every image is its owner's",
    "circo": "CC BY-NC 4.0; images of COCO",
}
"""Source or benchmark -> licence."""
