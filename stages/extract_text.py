"""extract_text: images and short captions -> data/texts: long captions from f_M, phrases for DiffComp."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pipeline.artifacts import Manifest, ShardSet, ShardWriter, schemas, sha256_file
from pipeline.artifacts.shards import MANIFEST
from pipeline.config import Params, as_dict, load_params
from pipeline.encoders.embedding.captioning import captioning_job, captioning_rows
from pipeline.encoders.embedding.job import run_job
from pipeline.encoders.embedding.options import JobOptions
from pipeline.encoders.embedding.readers import PairReader
from pipeline.encoders.identity import mllm_identity
from pipeline.encoders.mllm.open import open_mllm
from pipeline.errors import run_stage
from pipeline.runtime import set_up
from pipeline.text.captions import (
    Captions,
    captions_by_image,
    in_share,
    is_learned,
    lacks_caption,
    merged_rows,
    takes_long,
    write_texts,
)
from pipeline.text.phrases import ParallelParser, PhraseParser

IMAGES, PAIRS = Path("data/pairs/images"), Path("data/pairs/pairs")
GENERATED, TEXTS = Path("data/texts/generated"), Path("data/texts/pairs")


def main() -> None:
    params = load_params()
    set_up(params.runtime, params.seed)
    pairs, identity = ShardSet.open(PAIRS), identity_of(params)
    generated = generate_captions(params, pairs, identity)
    rows = merged_rows(captions_by_image(pairs), _rows(generated))
    total = write_rows(params, rows, identity).rows
    long = generated.rows if generated else 0
    print(f"{TEXTS}: {long} long and {total - long} short captions")


def identity_of(params: Params) -> dict[str, Any]:
    """Everything that the generated captions depend on."""
    section = params.captioner
    choice: dict[str, Any] = {"long_share": params.captions.long_share, "seed": params.seed}
    if params.prior.data.sources:
        choice["long_of"] = params.prior.data.sources
    return choice | mllm_identity(
        section,
        inputs={str(folder): sha256_file(folder / MANIFEST) for folder in (IMAGES, PAIRS)},
        caption_prompt=section.caption_prompt,
    )


def generate_captions(params: Params, pairs: ShardSet, identity: dict[str, Any]) -> ShardSet | None:
    """The long pairs of the images that train with one, or that came without a caption; None: no image does."""
    section = params.captioner
    short = {
        image_id for image_id, captions in captions_by_image(pairs) if not is_captioned(image_id, captions, params)
    }
    reader = PairReader(ShardSet.open(IMAGES), pairs, captioning_rows(section), skip=short)
    if not len(reader):
        return None
    job = captioning_job(open_mllm(section, params.jobs, params.runtime.device), section)
    run_job(reader, job, GENERATED, identity, JobOptions.from_params(section, params.jobs))
    return ShardSet.open(GENERATED)


def is_captioned(image_id: str, captions: Captions, params: Params) -> bool:
    """Whether f_M captions an image: one that Stage 1 learns from with a long caption, or that has no other."""
    long = is_learned(image_id, params.prior.data) and takes_long(image_id, params.captions.long_share, params.seed)
    return long or lacks_caption(captions)


def write_rows(params: Params, rows: Iterator[dict[str, Any]], identity: dict[str, Any]) -> Manifest:
    """All pairs, with the phrases of those that DiffComp learns from. Shards of a run that broke off are kept."""
    model, processes = params.captions.spacy_model, params.captions.processes
    identity = identity | {"spacy_model": model, "phrases_of": as_dict(params.diffcomp.data)}
    unfinished = not (TEXTS / MANIFEST).is_file()  # a finished set may be of other code: it is made anew
    writer = ShardWriter(TEXTS, schemas.PAIRS, identity, resume=unfinished)
    with ParallelParser(model, processes) if processes > 1 else nullcontext(PhraseParser(model)) as parser:
        return write_texts(rows, writer, parser, lambda row: in_share(row, params.diffcomp.data))


def _rows(pairs: ShardSet | None) -> Iterator[dict[str, Any]]:
    for table in pairs.shards() if pairs else ():
        yield from table.to_pylist()


if __name__ == "__main__":
    run_stage(main)
