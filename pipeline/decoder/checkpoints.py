"""Trained decoders on disk, in half precision, and the checkpoint that a large one starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import SanaTransformer2DModel

from pipeline.artifacts import ArtifactError, load_weights, save_weights
from pipeline.artifacts.model_files import read_config
from pipeline.artifacts.weights import Origin
from pipeline.config import DecoderParams
from pipeline.decoder.codec import load_part
from pipeline.decoder.model import Decoder, DecoderSizes

NOTED = ("checkpoint", "revision", "shift")
"""Parameters that decoding needs."""


def new_decoder(params: DecoderParams, dim: int) -> Decoder:
    """A decoder to train: at random, or with the weights of SANA's checkpoint in its transformer.

    Args:
        params: Its sizes, and the checkpoint.
        dim: d, the width of z.

    Raises:
        ArtifactError: The checkpoint cannot be loaded, or its sizes are others; names one.
    """
    decoder = Decoder(DecoderSizes.from_params(params, dim))
    if params.checkpoint:
        sana = load_part(SanaTransformer2DModel, "transformer", params.checkpoint, params.revision)
        for name, value in decoder.sizes.sana().items():
            if name != "sample_size" and sana.config[name] != value:  # it has no positions, so any size will do
                raise ArtifactError(
                    f"decoder.checkpoint {params.checkpoint!r}: {name} is {sana.config[name]!r}, "
                    f"and the parameters of decoder ask for {value!r}"
                )
        decoder.transformer.load_state_dict(sana.state_dict())
    return decoder


def save_decoder(
    folder: str | Path,
    decoder: Decoder,
    params: DecoderParams,
    learned: dict[str, Any],
    log: str = "",
    origin: Origin | None = None,
) -> None:
    """Save a decoder in half precision, which images do not tell from full precision.

    Args:
        folder: Replaced as a whole.
        decoder: The trained model.
        params: Its checkpoint, and the noise that it was trained with.
        learned: Whose features it decodes.
        log: The training log as CSV.
        origin: See `save_weights`.
    """
    state = {name: tensor.half() for name, tensor in decoder.state_dict().items()}
    noted = {name: getattr(params, name) for name in NOTED}
    save_weights(folder, state, {"sizes": vars(decoder.sizes), **noted, **learned}, log, origin)


def load_decoder(folder: str | Path, **expected: Any) -> tuple[Decoder, dict[str, Any]]:
    """Load a trained decoder.

    Args:
        folder: Where `save_decoder` put it.
        **expected: Fields of its configuration that must have these values.

    Returns:
        The decoder in evaluation mode and float32, and its configuration.

    Raises:
        ArtifactError: The files are damaged, or a field of `expected` differs; names it.
    """
    config = read_config(folder, "decoder", "sizes", *NOTED)
    decoder = Decoder(DecoderSizes(**config["sizes"]))
    return decoder.eval(), load_weights(folder, decoder, expected)
