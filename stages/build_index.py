"""build_index: gallery vectors -> data/index/<benchmark>/<space>."""

from __future__ import annotations

from pathlib import Path

from pipeline.artifacts import ArtifactError
from pipeline.artifacts.shards import MANIFEST
from pipeline.config import load_params
from pipeline.errors import run_stage
from pipeline.retrieval import build_index
from pipeline.retrieval.index import RECALL
from pipeline.runtime import set_up

GALLERY, FOLDER = Path("data/gallery"), Path("data/index")


def main() -> None:
    params = load_params()
    set_up(params.runtime, params.seed)
    spaces = sorted(path.parent for path in GALLERY.glob(f"*/*/{MANIFEST}"))
    if not spaces:
        raise ArtifactError(f"{GALLERY}: there are no vectors; `dvc repro embed_gallery` makes them")
    for space in spaces:
        where = space.relative_to(GALLERY)
        manifest = build_index(space, FOLDER / where, params.index, params.runtime.threads, params.seed)
        print(f"{where!s:36s}{manifest['rows']:8d} vectors of {manifest['dim']}, recall@10 {manifest.get(RECALL)}")


if __name__ == "__main__":
    run_stage(main)
