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
    from huggingface_hub import snapshot_download

    for need in wanted:
        if need.there or not need.hub:
            continue
        files = WEIGHTS if need.hub == need.name else OPEN_CLIP_WEIGHTS
        try:
            yield need, snapshot_download(need.hub, revision=need.revision or None, allow_patterns=files)
        except (OSError, ValueError) as error:  # what huggingface_hub and its client raise are both
            why = (str(error) or type(error).__name__).splitlines()[0]
            raise ArtifactError(f"{need.used_by} {need.name!r}: cannot be fetched ({why})") from None
