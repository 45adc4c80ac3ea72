"""train_diffcomp: captioned pictures and the CLIP backbone -> models/diffcomp/<variant>."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import PartialState

from pipeline.app.errors import run_stage
from pipeline.artifacts import ShardSet, sha256_file
from pipeline.artifacts.files import settle_only
from pipeline.artifacts.shards import MANIFEST
from pipeline.artifacts.weights import Origin
from pipeline.config import DiffCompParams, Params, as_dict, load_params
from pipeline.diffcomp import DiffComp, DiffCompTask, save_diffcomp
from pipeline.diffcomp.files import backbone_identity
from pipeline.diffcomp.tuning import fine_tune
from pipeline.encoders.carriers import carrier_words
from pipeline.encoders.dual import load_dual_encoder
from pipeline.encoders.pictures import Pictures
from pipeline.encoders.text import locate
from pipeline.runtime import set_up
from pipeline.text.phrases import nouns
from pipeline.training.loop import log_csv

IMAGES, TEXTS, FOLDER = Path("data/pairs/images"), Path("data/texts/pairs"), Path("models/diffcomp")


def main() -> None:
    params = load_params()
    set_up(params.runtime, params.seed)
    variants = params.variants()
    settle_only(FOLDER, variants)
    rows = [row for row in ShardSet.open(TEXTS).table().to_pylist() if row["caption_kind"] == "short"]
    pictures = Pictures(IMAGES)
    for name, variant in variants.items():
        train_variant(FOLDER / name, variant, params, rows, pictures)


def train_variant(folder: Path, variant: DiffCompParams, params: Params, rows: list[dict], pictures: Pictures) -> None:
    identity = {
        "diffcomp": as_dict(variant), "seed": params.seed, "images": sha256_file(IMAGES / MANIFEST), "texts": sha256_file(TEXTS / MANIFEST),
        "text_encoder": params.text_encoder.path, **backbone_identity(variant.backbone, variant.pretrained),
    }
    code = ("artifacts", "diffcomp", "encoders", "runtime", "text", "training")
    origin = Origin(Path("models/.made", f"{folder.name}.json"), identity, code)
    if origin.made(folder):
        return
    torch.manual_seed(params.seed)  # a variant does not depend on those before it
    model = DiffComp(load_dual_encoder(variant.backbone, variant.pretrained), variant)
    captions, phrases = [row["caption"] for row in rows], [row["phrases"] for row in rows]
    guides = nouns(captions, params.captions) if variant.granularity == "noun" else None
    pixels = pictures.pixels([row["image_id"] for row in rows], model.encoder.image_size)
    words = carrier_words(captions, locate(params.text_encoder.path)) if variant.carriers else []
    task = DiffCompTask(model, pixels, captions, phrases, guides, words)
    log = fine_tune(task, seed=params.seed, folder=folder, identity=identity, device=params.runtime.device, title=folder.name)
    if PartialState().is_main_process:
        save_diffcomp(folder, model, log_csv(log), origin)


if __name__ == "__main__":
    run_stage(main)
