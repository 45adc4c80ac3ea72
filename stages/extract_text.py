"""extract_text: pictures and short captions -> data/texts: long captions from f_M, phrases of both."""

from __future__ import annotations

from pathlib import Path

from pipeline.app.errors import run_stage
from pipeline.artifacts import ShardSet, sha256_file
from pipeline.artifacts.shards import MANIFEST
from pipeline.config import load_params
from pipeline.encoders.job import run_job
from pipeline.encoders.mllm import identity, open_mllm
from pipeline.encoders.readers import PairReader
from pipeline.runtime import set_up
from pipeline.text.captions import caption_job, captioning
from pipeline.text.phrases import PhraseParser

IMAGES, PAIRS, TEXTS = Path("data/pairs/images"), Path("data/pairs/pairs"), Path("data/texts")


def main() -> None:
    params = load_params()
    set_up(params.runtime, params.seed)
    encoder = params.encoder
    made_of = identity(
        encoder, inputs={str(folder): sha256_file(folder / MANIFEST) for folder in (IMAGES, PAIRS)},
        chat_template=encoder.chat_template, caption_prompt=encoder.caption_prompt, max_new_tokens=encoder.max_new_tokens,
        batch_size=encoder.batch_size, spacy_model=params.captions.spacy_model,
    )
    reader = PairReader(ShardSet.open(IMAGES), ShardSet.open(PAIRS), captioning(encoder))
    job = caption_job(open_mllm(encoder, params.runtime.device), encoder, PhraseParser(params.captions.spacy_model))
    manifest = run_job(reader, job, TEXTS, made_of, encoder.batch_size, max_rejected_share=encoder.max_rejected_share)
    print(f"{TEXTS}: {manifest.rows} captions")


if __name__ == "__main__":
    run_stage(main)
