"""Licences of the checkpoints and data sets that profiles name, where a card or a repository was read that states one.

Of the rest, `cir models` says that the licence is not known. Sizes of checkpoints are in `pipeline.encoders.hub`, of
sources in `pipeline.sources.web.web_pairs`.
"""

from __future__ import annotations

CHECKPOINTS = {
    "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct": "Apache-2.0",
    "Qwen/Qwen2.5-VL-3B-Instruct": "a Qwen licence of its own, in the file LICENSE",
    "Qwen/Qwen2.5-VL-7B-Instruct": "Apache-2.0",
    "Qwen/Qwen2.5-VL-72B-Instruct": "a Qwen licence of its own, in the file LICENSE",
    "Qwen/Qwen3-VL-Reranker-2B": "Apache-2.0",
    "Salesforce/blip-itm-large-coco": "BSD-3-Clause",
    "city96/t5-v1_1-xxl-encoder-bf16": "no licence stated (google/t5-v1_1-xxl, whose encoder it is: Apache-2.0)",
    "google/t5-v1_1-xxl": "Apache-2.0",
    "openai": "MIT",
    "laion2b_s39b_b160k": "MIT",
}
"""Hub name, or tag of open_clip, -> licence."""
SHIPPED = {f"models/backbones/{name}": "Apache-2.0, as this repository" for name in ("mllm", "clip", "reranker")}
"""Folder of a model that comes with the repository -> licence."""
DATA = {
    "cc3m": "the conceptual-captions licence of its repository; every image is its owner's",
    "cc12m": "free for any purpose, with thanks to Google; every image is its owner's",
    "sa1b": "SA-1B Dataset Research License",
    "hqedit": "CC BY-NC 4.0",
    "fashioniq": "Community Data License Agreement; every image is its owner's",
    "cirr": "MIT for the annotations; the images are under NLVR2's terms",
}
"""Source or benchmark -> licence."""
