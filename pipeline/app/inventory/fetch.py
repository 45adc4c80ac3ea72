"""Fetching a profile's checkpoints from their hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pipeline.app.inventory.needs import OPEN_CLIP_WEIGHTS, WEIGHTS, Need
from pipeline.artifacts import ArtifactError


def fetch(wanted: Iterable[Need]) -> Iterator[tuple[Need, str]]:
    """Fetch what a hub holds and is not there; an interrupted download continues where it stopped.

    Args:
        wanted: Checkpoints and data; what no hub holds is passed over.

    Yields:
        Each checkpoint and the folder that it is in now.

    Raises:
        ArtifactError: The hub cannot be reached, or has no such revision.
    """
    for need in wanted:
        if need.there or not need.hub:
            continue
        files = list(need.files) or (WEIGHTS if need.hub == need.name else OPEN_CLIP_WEIGHTS)
        yield need, fetch_repository(need.hub, need.revision, files, f"{need.used_by} {need.name!r}")


def fetch_repository(hub: str, revision: str = "", files: list[str] | None = None, called: str = "") -> str:
    """Fetch one repository of a hub.

    Args:
        hub: Its name.
        revision: A commit; "": the newest.
        files: Patterns of the files that are wanted; None: `WEIGHTS`.
        called: What an error calls it; "": by its name.

    Returns:
        The folder that it is in now.

    Raises:
        ArtifactError: The hub cannot be reached, or has no such revision.
    """
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(hub, revision=revision or None, allow_patterns=files or WEIGHTS)
    except (OSError, ValueError) as error:  # what huggingface_hub and its client raise are both
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise ArtifactError(f"{called or repr(hub)}: cannot be fetched ({why})") from None
