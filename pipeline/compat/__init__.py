"""The one place that lets a CPU build of torch live with PyPI's (CUDA) torchvision.

`open_clip`, `timm` and the image processors of `transformers` import torchvision, whose Python
side registers fake kernels for `torchvision::nms` and fails where the compiled operators are
missing. Nothing here calls these operators, so declaring their two schemas is enough.

Libraries also start Python processes of their own (vLLM inspects models in one), so the folder of
`sitecustomize.py` goes in front of `PYTHONPATH` and every child runs the same hook.
"""

import os
from pathlib import Path

from pipeline.compat.sitecustomize import install_torchvision_hook

_FOLDER = str(Path(__file__).parent)


def install() -> None:
    """Hook this process and the Python processes it will start. Safe to call twice."""
    install_torchvision_hook()
    paths = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if _FOLDER not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([_FOLDER, *paths])
