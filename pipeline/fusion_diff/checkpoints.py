"""Trained priors and Control-Adapters on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.artifacts import load_weights, save_weights, sha256_file
from pipeline.artifacts.model_files import WEIGHTS, read_config
from pipeline.artifacts.weights import Origin
from pipeline.config import DiffusionParams, as_dict, section_from_dict
from pipeline.fusion_diff.control import ControlAdapter
from pipeline.fusion_diff.diffusion import Diffusion
from pipeline.fusion_diff.prior import Prior, PriorSizes


def save_prior(
    folder: str | Path,
    prior: Prior,
    diffusion: DiffusionParams,
    learned: dict[str, Any],
    log: str = "",
    origin: Origin | None = None,
) -> None:
    """Save a prior with its sizes and its diffusion process.

    Args:
        folder: Replaced as a whole.
        prior: The trained model.
        diffusion: The process that it was trained for.
        learned: Whose embeddings and texts it learned.
        log: The training log as CSV.
        origin: See `save_weights`.
    """
    config = {"sizes": vars(prior.sizes), "diffusion": as_dict(diffusion), **learned}
    save_weights(folder, prior.state_dict(), config, log, origin)


def load_prior(folder: str | Path, **expected: Any) -> tuple[Prior, Diffusion]:
    """Load a trained prior.

    Args:
        folder: Where `save_prior` put it.
        **expected: Fields of its configuration that must have these values.

    Returns:
        The prior in evaluation mode, and its diffusion process.

    Raises:
        ArtifactError: The files are damaged, or a field of `expected` differs; names it.
    """
    config = read_config(folder, "prior", "sizes", "diffusion")
    sizes = PriorSizes(**config["sizes"])
    prior = Prior(sizes)
    load_weights(folder, prior, expected)
    return prior.eval(), Diffusion(section_from_dict(DiffusionParams, config["diffusion"], str(folder)), sizes.dim)


def save_control(
    folder: str | Path,
    adapter: ControlAdapter,
    prior_folder: str | Path,
    log: str = "",
    origin: Origin | None = None,
) -> None:
    """Save an adapter with the hash of the prior that it belongs to.

    Args:
        folder: Replaced as a whole.
        adapter: The trained adapter.
        prior_folder: Where the prior lies that it was trained beside.
        log: The training log as CSV.
        origin: See `save_weights`.
    """
    save_weights(folder, adapter.state_dict(), {"prior": prior_hash(prior_folder)}, log, origin)


def load_control(folder: str | Path, prior: Prior, prior_folder: str | Path) -> ControlAdapter:
    """Load a trained adapter.

    Args:
        folder: Where `save_control` put it.
        prior: The prior that it steers.
        prior_folder: Where that prior was loaded from.

    Returns:
        The adapter in evaluation mode.

    Raises:
        ArtifactError: The files are damaged, it was trained beside another prior, or Stage 2 was skipped.
    """
    read_config(folder, "Control-Adapter")
    adapter = ControlAdapter(prior)
    load_weights(folder, adapter, {"prior": prior_hash(prior_folder)})
    return adapter.eval()


def prior_hash(folder: str | Path) -> str:
    """SHA-256 of a prior's weights."""
    return sha256_file(Path(folder) / WEIGHTS)
