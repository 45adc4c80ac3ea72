"""embed_gallery: every benchmark's images -> data/gallery/<benchmark>/<space>."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.artifacts import ShardSet, sha256_file
from pipeline.artifacts.shards import MANIFEST
from pipeline.config import load_params
from pipeline.diffcomp import load_diffcomp
from pipeline.diffcomp.checkpoints import backbone_identity, variant_identity
from pipeline.encoders.dual.open import load_dual_encoder
from pipeline.encoders.embedding.dual_gallery import embed_gallery
from pipeline.encoders.embedding.job import run_job
from pipeline.encoders.embedding.options import JobOptions
from pipeline.encoders.embedding.readers import ImageReader
from pipeline.encoders.embedding.vectors import embedding_job
from pipeline.encoders.identity import mllm_identity
from pipeline.encoders.image_source import ImageTable
from pipeline.encoders.mllm.open import open_mllm
from pipeline.errors import run_stage
from pipeline.retrieval.benchmarks import find_benchmarks
from pipeline.runtime import device, set_up

FOLDER, DIFFCOMP = Path("data/gallery"), Path("models/diffcomp")


def main() -> None:
    params = load_params()
    set_up(params.runtime, params.seed)
    encoder, variants = params.encoder, params.variants()
    benchmarks = [benchmark for benchmark in find_benchmarks() if benchmark.gallery == benchmark.name]
    keep = {FOLDER / benchmark.name / space for benchmark in benchmarks for space in ("fused", "clip", *variants)}
    for stale in set(FOLDER.glob("*/*")) - keep:
        shutil.rmtree(stale)

    job = embedding_job(open_mllm(encoder, params.runtime.device))
    for benchmark in benchmarks:
        made_of = mllm_identity(encoder, images=sha256_file(benchmark.images / MANIFEST))
        reader = ImageReader(ShardSet.open(benchmark.images))
        run_job(reader, job, FOLDER / benchmark.name / "fused", made_of, JobOptions.from_params(encoder))

    base = params.diffcomp
    clip = load_dual_encoder(base.backbone, base.pretrained)
    spaces = {"clip": (clip, backbone_identity(base.backbone, base.pretrained))}
    for name, variant in variants.items():
        model = load_diffcomp(DIFFCOMP / name, load_dual_encoder(variant.backbone, variant.pretrained))
        spaces[name] = (model.encoder, variant_identity(DIFFCOMP / name))
    for space, (dual, made_by) in spaces.items():
        dual.eval().to(device(params.runtime))
        for benchmark in benchmarks:
            made_of = made_by | {"images": sha256_file(benchmark.images / MANIFEST), "batch_size": encoder.batch_size}
            embed_gallery(
                dual, ImageTable(benchmark.images), FOLDER / benchmark.name / space, made_of, encoder.batch_size
            )


if __name__ == "__main__":
    run_stage(main)
