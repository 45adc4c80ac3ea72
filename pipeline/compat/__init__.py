"""A CPU build of torch beside PyPI's torchvision, which expects CUDA operators.

`open_clip`, `timm` and the image processors of `transformers` import torchvision. Its Python side
registers fake kernels for `torchvision::nms` and fails where the compiled operators are missing.
Nothing here calls these operators, so declaring their two schemas is enough.

Libraries also start Python processes of their own; vLLM inspects models in one. So the folder of
`sitecustomize.py` goes in front of `PYTHONPATH`, and every child process runs the same hook.
"""

import os
from pathlib import Path

from pipeline.compat.sitecustomize import install_torchvision_hook

_FOLDER = str(Path(__file__).parent)


def install() -> None:
    """Hook this process and the Python processes that it will start. Can be called again without effect."""
    install_torchvision_hook()
    paths = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if _FOLDER not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([_FOLDER, *paths])
