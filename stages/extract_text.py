"""extract_text: images and short captions -> data/texts: long captions from f_M, phrases of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.artifacts import ShardSet, sha256_file, write_table
from pipeline.artifacts.shards import MANIFEST
from pipeline.config import Params, load_params
from pipeline.encoders.embedding.captioning import captioning_job, captioning_rows
from pipeline.encoders.embedding.job import run_job
from pipeline.encoders.embedding.options import JobOptions
from pipeline.encoders.embedding.readers import PairReader
from pipeline.encoders.identity import mllm_identity
from pipeline.encoders.mllm.open import open_mllm
from pipeline.errors import run_stage
from pipeline.runtime import set_up
from pipeline.text.captions import captions_by_image, lacks_caption, merge_captions, takes_long
from pipeline.text.phrases import PhraseParser

IMAGES, PAIRS = Path("data/pairs/images"), Path("data/pairs/pairs")
GENERATED, TEXTS = Path("data/texts/generated"), Path("data/texts/pairs")


def main() -> None:
    params = load_params()
    set_up(params.runtime, params.seed)
    pairs, identity = ShardSet.open(PAIRS), identity_of(params)
    generated = generate_captions(params, pairs, identity)
    table = merge_captions(captions_by_image(pairs), generated, PhraseParser(params.captions.spacy_model))
    write_table(TEXTS, table, identity | {"spacy_model": params.captions.spacy_model})
    print(f"{TEXTS}: {len(generated)} long and {table.num_rows - len(generated)} short captions")


def identity_of(params: Params) -> dict[str, Any]:
    """Everything that the generated captions depend on."""
    section = params.captioner
    choice = {"long_share": params.captions.long_share, "seed": params.seed}
    return choice | mllm_identity(
        section,
        inputs={str(folder): sha256_file(folder / MANIFEST) for folder in (IMAGES, PAIRS)},
        caption_prompt=section.caption_prompt,
    )


def generate_captions(params: Params, pairs: ShardSet, identity: dict[str, Any]) -> list[dict[str, Any]]:
    """The long pairs of the images that train with one, or that came without a caption."""
    section, long_share = params.captioner, params.captions.long_share
    short = {
        image_id
        for image_id, captions in captions_by_image(pairs)
        if not (takes_long(image_id, long_share, params.seed) or lacks_caption(captions))
    }
    reader = PairReader(ShardSet.open(IMAGES), pairs, captioning_rows(section), skip=short)
    if not len(reader):
        return []
    job = captioning_job(open_mllm(section, params.jobs, params.runtime.device), section)
    run_job(reader, job, GENERATED, identity, JobOptions.from_params(section, params.jobs))
    return ShardSet.open(GENERATED).table().to_pylist()


if __name__ == "__main__":
    run_stage(main)
