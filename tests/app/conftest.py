"""A small project as `dvc repro` leaves it: shipped backbones, untrained models, the images of the fixture."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pyarrow as pa
import pytest
import torch
import yaml
from PIL import Image

from pipeline.app.search.galleries import BenchmarkGallery, open_gallery
from pipeline.app.search.indexing import index_folder
from pipeline.app.search.library import Library
from pipeline.app.search.searcher import Searcher
from pipeline.artifacts import schemas, write_table
from pipeline.config import DataParams, Params, as_dict, load_params, load_profile
from pipeline.diffcomp import DiffComp, save_diffcomp
from pipeline.encoders.dual.open import load_dual_encoder
from pipeline.encoders.identity import mllm_identity, text_encoder_identity
from pipeline.fusion_diff import ControlAdapter, Prior, PriorSizes
from pipeline.fusion_diff.checkpoints import save_control, save_prior
from pipeline.retrieval import build_index
from pipeline.sources.emoji import build_tables
from tests.sections import section

ROOT = Path(__file__).parents[2]
FIXTURE = ROOT / "tests/fixtures/emoji"


@pytest.fixture(scope="session")
def tables() -> dict[str, pa.Table]:
    sizes = {
        "triplets": 60,
        "triplets_all": 200,
        "queries_per_kind": 20,
        "val_queries_per_kind": 5,
        "val_distractors": 10,
    }
    return build_tables(section(DataParams, fixture=str(FIXTURE), **sizes), seed=0)


@pytest.fixture(scope="session")
def make_bomb():
    """Width, height -> a PNG of a few bytes whose header promises this size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    def make(width: int, height: int) -> bytes:
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        return (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(b"\0" * 100))
            + chunk(b"IEND", b"")
        )

    return make


@pytest.fixture(scope="session")
def project(tables, tmp_path_factory) -> Path:
    """The project's folder. `photos` in it is an indexed folder with the benchmark's images."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "models").mkdir()
    (folder / "models/backbones").symlink_to(ROOT / "models/backbones")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        params = small_params()
        Path("params.yaml").write_text(yaml.safe_dump(as_dict(params)))
        write_untrained_models(params)
        for name in ("images", "queries"):
            write_table(f"data/benchmarks/emoji_cir/{name}", tables[f"benchmarks/emoji_cir/{name}"], {})
        write_photos(Path("photos"), tables["benchmarks/emoji_cir/images"])
        index_folder(Path("photos"), params)
        for space, identity in Library.open("photos").spaces.items():
            write_table(f"data/gallery/{space}", library_vectors("photos", space), identity)
            build_index(f"data/gallery/{space}", f"data/index/emoji_cir/{space}", params.index)
        write_training_captions()
    yield folder


def small_params() -> Params:
    params = load_profile("smoke", ROOT / "conf")
    params.prior.width, params.prior.depth, params.retrieve.hypotheses = 32, 2, 2
    params.diffcomp_variants = {"diffcomp": {}}
    return params


def write_untrained_models(params: Params) -> None:
    torch.manual_seed(0)
    sizes = PriorSizes.from_params(params.prior, 256, params.text_encoder.dim, params.text_encoder.max_tokens)
    prior = Prior(sizes)
    for parameter in prior.parameters():  # a new prior's gates are closed: it would sample zeros
        torch.nn.init.normal_(parameter, std=0.1)
    save_prior(
        "models/prior",
        prior,
        params.prior.diffusion,
        {**mllm_identity(params.embedder), **text_encoder_identity(params.text_encoder, params.embedder)},
    )
    adapter = ControlAdapter(prior)
    for layer in (adapter.zero_in, *adapter.zero_out):
        torch.nn.init.normal_(layer.weight, std=0.1)
    save_control("models/control", adapter, "models/prior")
    save_diffcomp("models/diffcomp/diffcomp", DiffComp(load_dual_encoder(params.diffcomp.backbone), params.diffcomp))


def write_photos(folder: Path, images: pa.Table) -> None:
    for number, row in enumerate(images.to_pylist()):
        path = folder / ("more" if number % 3 else "") / f"{row['image_id'].replace('/', '_')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(row["bytes"])
    (folder / "words.png").write_text("these are words")


def library_vectors(library: str | Path, space: str) -> pa.Table:
    """A library's vectors as a gallery's, `schemas.embeddings`."""
    opened = Library.open(library)
    rows = [
        {"id": name, "vector": vector}
        for _, ids, vectors in opened.vectors(space)
        for name, vector in zip(ids, vectors, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=schemas.embeddings(opened.dim(space)))


def write_training_captions() -> None:
    rows = library_vectors("photos", "fused").to_pylist()[:8]
    write_table("data/fused/pairs", pa.Table.from_pylist(rows, schema=schemas.embeddings(256)), {})
    pairs = [
        {
            "pair_id": row["id"],
            "image_id": row["id"],
            "caption": f"<i>caption</i> {number}",
            "caption_kind": "short",
            "phrases": [],
        }
        for number, row in enumerate(rows)
    ]
    write_table("data/texts/pairs", pa.Table.from_pylist(pairs, schema=schemas.PAIRS), {})


@pytest.fixture
def in_project(project, monkeypatch) -> Path:
    monkeypatch.chdir(project)
    return project


@pytest.fixture(scope="session")
def shared_searcher(project) -> Searcher:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        searcher = Searcher(load_params(), open_gallery("photos"))
        searcher.warm(["fusion_diff", "diffcomp", "slerp"])
    return searcher


@pytest.fixture
def searcher(in_project, shared_searcher) -> Searcher:
    """Over the folder of photos, with its models loaded."""
    return shared_searcher


@pytest.fixture
def benchmark_gallery(in_project) -> BenchmarkGallery:
    return BenchmarkGallery()


@pytest.fixture
def reference(searcher) -> Image.Image:
    return searcher.gallery.image(searcher.gallery.ids[0])


@pytest.fixture
def photo(in_project) -> str:
    """The path of one of the photos."""
    return str(sorted(Path("photos").rglob("t*.png"))[0].resolve())
