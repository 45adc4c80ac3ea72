"""What features show: a trained decoder, ready to be asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.artifacts import read_json
from pipeline.artifacts.weights import CONFIG
from pipeline.config import ImagineParams, Params
from pipeline.decoder.checkpoints import load_decoder
from pipeline.decoder.codec import Codec, open_codec
from pipeline.decoder.flow import Flow
from pipeline.decoder.model import Decoder
from pipeline.encoders.identity import mllm_identity
from pipeline.gpu.recording import record
from pipeline.runtime import device

FOLDER = Path("models/decoder")


class Imagination:
    """Decodes features to images.

    All begin at the same noise. So two images differ by what their features differ in, and one feature gives one image.

    Args:
        decoder: In evaluation mode, on the device.
        codec: What it was trained with.
        flow: Likewise.
        params: The solver's steps and guidance.
        seed: Of the noise.
    """

    def __init__(self, decoder: Decoder, codec: Codec, flow: Flow, params: ImagineParams, seed: int):
        self._decoder, self._codec, self._flow, self._params = decoder, codec, flow, params
        sizes = decoder.sizes
        noise = torch.randn(sizes.channels, sizes.side, sizes.side, generator=torch.Generator().manual_seed(seed))
        self._noise = noise.to(decoder.null.device)

    @classmethod
    def open(cls, params: Params, folder: str | Path = FOLDER) -> Imagination:
        """The decoder that a run's features go with.

        Args:
            params: Whose f_M the features are from.
            folder: Of the decoder.

        Raises:
            ArtifactError: It is missing or damaged, or was trained for another f_M.
        """
        where = device(params.runtime)
        decoder, config = load_decoder(folder, embedder=mllm_identity(params.embedder)["embedder"])
        codec = open_codec(config["checkpoint"], config["revision"], where)
        dtype = torch.bfloat16 if where.startswith("cuda") and config["checkpoint"] else torch.float32
        decoder.to(where, dtype)
        if params.retrieve.speed.on(where).cuda_graph:
            record(decoder)
        return cls(decoder, codec, Flow(config["shift"]), params.imagine, params.seed)

    @classmethod
    def open_fitting(cls, params: Params, folder: str | Path = FOLDER) -> Imagination | None:
        """As `open`; None where no decoder was trained for this run's f_M."""
        path = Path(folder) / CONFIG
        if not path.is_file() or read_json(path).get("embedder") != mllm_identity(params.embedder)["embedder"]:
            return None
        return cls.open(params, folder)

    @torch.no_grad()
    def pixels(self, z: np.ndarray) -> Tensor:
        """Decode features.

        Args:
            z: Features [N, d]; their length does not matter.

        Returns:
            uint8 [N, 3, H, W] on the CPU.
        """
        null, params = self._decoder.null, self._params
        unit = torch.nn.functional.normalize(torch.from_numpy(np.asarray(z, np.float32)), dim=1)  # [N, d]
        parts = []
        for some in unit.split(params.batch_size):
            noise = self._noise.expand(len(some), *self._noise.shape)
            some = some.to(null.device, null.dtype)
            x = self._flow.sample(self._decoder, some, noise, params.solver_steps, params.guidance_scale)
            parts.append(self._codec.decode(x).cpu())
        return torch.cat(parts)

    def images(self, z: np.ndarray) -> list[Image.Image]:
        """Features [N, d] as N images; see `pixels`."""
        return [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in self.pixels(z)]
