"""extract_text: images and short captions -> data/texts: long captions from f_M, phrases of all."""

from __future__ import annotations

from pathlib import Path

from pipeline.artifacts import ShardSet, sha256_file, write_table
from pipeline.artifacts.shards import MANIFEST
from pipeline.config import load_params
from pipeline.encoders.embedding.job import job_options, run_job
from pipeline.encoders.embedding.readers import PairReader, captions_by_image
from pipeline.encoders.mllm.interface import identity, open_mllm
from pipeline.errors import run_stage
from pipeline.runtime import set_up
from pipeline.text.captions import caption_job, captioning, merged, takes_long, without_caption
from pipeline.text.phrases import PhraseParser

IMAGES, PAIRS = Path("data/pairs/images"), Path("data/pairs/pairs")
GENERATED, TEXTS = Path("data/texts/generated"), Path("data/texts/pairs")


def main() -> None:
    params = load_params()
    set_up(params.runtime, params.seed)
    encoder = params.encoder
    images, pairs = ShardSet.open(IMAGES), ShardSet.open(PAIRS)
    choice = {"long_share": params.captions.long_share, "seed": params.seed}
    made_of = choice | identity(
        encoder,
        inputs={str(folder): sha256_file(folder / MANIFEST) for folder in (IMAGES, PAIRS)},
        chat_template=encoder.chat_template,
        caption_prompt=encoder.caption_prompt,
        max_new_tokens=encoder.max_new_tokens,
        batch_size=encoder.batch_size,
    )
    short = {
        image_id
        for image_id, found in captions_by_image(pairs)
        if not (takes_long(image_id, **choice) or without_caption(found))
    }
    reader = PairReader(images, pairs, captioning(encoder), skip=short)
    generated = []
    if len(reader):
        job = caption_job(open_mllm(encoder, params.runtime.device), encoder)
        run_job(reader, job, GENERATED, made_of, encoder.batch_size, **job_options(encoder))
        generated = ShardSet.open(GENERATED).table().to_pylist()
    table = merged(captions_by_image(pairs), generated, PhraseParser(params.captions.spacy_model))
    write_table(TEXTS, table, made_of | {"spacy_model": params.captions.spacy_model})
    print(f"{TEXTS}: {len(generated)} long and {table.num_rows - len(generated)} short captions")


if __name__ == "__main__":
    run_stage(main)
