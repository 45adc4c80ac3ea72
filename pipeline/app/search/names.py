"""Names for people beside the ids of the default benchmark, whose ids are code points."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.artifacts import ShardSet
from pipeline.sources.emoji.artwork import normal_code
from pipeline.sources.emoji.fetch import LABELS, read_members
from pipeline.sources.errors import SourceError


def emoji_names(images: Path) -> dict[str, str]:
    """The names that Unicode gives the characters of a benchmark of emoji.

    Args:
        images: The benchmark's shard set of images. It notes the folder of the packages that it was made from.

    Returns:
        Code -> name, such as `1f473-200d-2642` -> `man wearing turban`. Nothing for images of another source, and
        nothing where the packages are gone: a search needs no names.
    """
    identity = ShardSet.open(images, verify=False).manifest.identity
    if identity.get("source") != "emoji-cir":
        return {}
    package = Path(identity["data"]["fixture"] or identity["data"]["raw"]) / LABELS.tarball
    try:
        # Not by `read_emoji`: a first answer need not wait until all labels are parsed.
        rows = json.loads(read_members(package, "en/", ".json")["data"])
        named = [row for group in rows for row in (group, *group.get("skins", ()))]
        return {normal_code(row["hexcode"]): row["label"] for row in named}
    except (SourceError, AttributeError, LookupError, TypeError, ValueError):
        return {}


def with_name(image_id: str, name: str) -> str:
    """`man wearing turban (twemoji/1f473-200d-2642)`; the id alone where there is no name."""
    return f"{name} ({image_id})" if name else image_id
