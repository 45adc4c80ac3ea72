"""Published models by their names on a hub, or from folders that `cir export` has written."""

from __future__ import annotations

from pathlib import Path

from pipeline.app.release.export import BACKBONE
from pipeline.artifacts import ArtifactError, read_json
from pipeline.artifacts.model_files import CONFIG, WEIGHTS
from pipeline.decoder import checkpoints as decoders
from pipeline.decoder.model import Decoder
from pipeline.diffcomp import DiffComp
from pipeline.diffcomp import load_diffcomp as load_variant
from pipeline.diffcomp.checkpoints import saved_params
from pipeline.encoders.dual.open import load_dual_encoder
from pipeline.fusion_diff import ControlledPrior, Diffusion, Prior, checkpoints


def load_prior(name: str | Path, revision: str | None = None) -> tuple[Prior, Diffusion]:
    """Load a diffusion prior.

    Args:
        name: A folder, or a name on a hub such as `team/prior`.
        revision: A commit, tag or branch of the hub.

    Returns:
        The prior in evaluation mode, and its diffusion process.

    Raises:
        ArtifactError: There is no such model, it is damaged, or it is no prior.
    """
    return checkpoints.load_prior(_folder(name, revision, "diffusion"))


def load_controlled_prior(name: str | Path, prior: str | Path, revision: str | None = None) -> ControlledPrior:
    """Load a Control-Adapter beside its prior.

    Args:
        name: As for `load_prior`.
        prior: The prior that it was trained beside, likewise.
        revision: Of the adapter.

    Returns:
        Both as one model, in evaluation mode.

    Raises:
        ArtifactError: There is no such model, it is damaged, or it belongs to another prior.
    """
    where = _folder(prior, None, "diffusion")
    loaded, _ = checkpoints.load_prior(where)
    return ControlledPrior(loaded, checkpoints.load_control(_folder(name, revision, "prior"), loaded, where)).eval()


def load_diffcomp(name: str | Path, revision: str | None = None) -> DiffComp:
    """Load a DiffComp variant with its encoder.

    Args:
        name: As for `load_prior`.
        revision: Likewise.

    Returns:
        The variant in evaluation mode.

    Raises:
        ArtifactError: There is no such model, it is damaged, or it is no DiffComp.
    """
    folder = _folder(name, revision, "diffcomp")
    params = saved_params(folder)
    own = folder / BACKBONE
    backbone = str(own) if own.is_dir() else params.backbone
    encoder = load_dual_encoder(backbone, params.pretrained, params.image_size)
    return load_variant(folder, encoder)


def load_decoder(name: str | Path, revision: str | None = None) -> Decoder:
    """Load a decoder of joint embeddings.

    Args:
        name: As for `load_prior`.
        revision: Likewise.

    Returns:
        The decoder in evaluation mode.

    Raises:
        ArtifactError: There is no such model, it is damaged, or it is no decoder.
    """
    return decoders.load_decoder(_folder(name, revision, "shift"))[0]


def _folder(name: str | Path, revision: str | None, field: str) -> Path:
    """Where a model lies, downloaded where it is a hub's, after a look at what kind of model it is."""
    folder = Path(name)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(str(name), revision=revision, allow_patterns=[WEIGHTS, CONFIG, "*/*"]))
        except (OSError, ValueError) as error:  # what huggingface_hub and its client raise are both
            why = (str(error) or type(error).__name__).splitlines()[0]
            raise ArtifactError(f"{name}: no such folder, and no hub gave it ({why})") from None
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict) or field not in config:
        raise ArtifactError(f"{folder / CONFIG}: {field!r} is missing: this is another kind of model")
    return folder
