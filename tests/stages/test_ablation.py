"""Ablations: cells are trained once and kept, and scored as the retrieve stage scores."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline.artifacts import ArtifactError, ShardSet, read_json, schemas, write_table
from pipeline.config import ParameterError, load_params
from pipeline.diffcomp import DiffComp, load_diffcomp
from pipeline.encoders.dual.open import load_dual_encoder
from pipeline.encoders.embedding.dual_gallery import embed_gallery
from pipeline.encoders.image_source import ImageTable
from pipeline.experiments.ablation import data, run
from pipeline.experiments.ablation.data import BenchmarkScorer, masking_nouns
from pipeline.experiments.ablation.run import run_tables
from pipeline.experiments.ablation.tables import cells_of, read_tables
from pipeline.query import dual_family
from pipeline.query.models import Models
from pipeline.report.diffcomp_view import ALIGNED, MASKED, QUERIES, SHOWN, open_view
from pipeline.retrieval import Index, build_index, rank_queries, read_queries
from pipeline.retrieval.protocols import recall_by_category
from stages import train_diffcomp

ROOT = Path(__file__).parents[2]
OUT = Path("reports/ablations")
TABLES = """
modules:
  title: Modules
  settings: {plain: {lambda_query: 0.0}, moved: {lambda_query: 0.3}}
  full: full
  rows:
    none: {label: nothing, changes: {css: false, psm: false, dac: false}, paper: {R@10: 29.5}}
    full: {label: everything}
eta: {title: Share, parameter: eta, values: [0.3, 0.7], peak: 0.7}
"""


def noise(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def ready(workspace):
    """Two seeds over a benchmark of forty images and twelve queries of two kinds."""
    ids = [f"picture {number:02d}" for number in range(40)]
    images = [{"image_id": name, "bytes": noise(number), "width": 32, "height": 32} for number, name in enumerate(ids)]
    rows = [
        {
            "query_id": f"q{number}",
            "reference_id": ids[number],
            "modifications": ["with a hat"],
            "target_ids": [ids[3 * number]],
            "subset_ids": [],
            "category": "tone" if number % 3 else "hair",
            "shared_concept": "",
        }
        for number in range(1, 13)
    ]
    write_table("data/benchmarks/val/images", pa.Table.from_pylist(images, schema=schemas.IMAGES), {})
    write_table("data/benchmarks/val/queries", pa.Table.from_pylist(rows, schema=schemas.QUERIES), {})
    Path("tables.yaml").write_text(TABLES)
    workspace.ablations.benchmarks, workspace.ablations.seeds = ["val"], [0, 1]
    return workspace


def cells(name: str) -> list[dict]:
    return read_json(OUT / f"{name}.json")["cells"]


def test_a_table_is_every_row_in_every_setting_with_every_seed(ready, monkeypatch):
    trained = []
    monkeypatch.setattr(run, "run_cell", lambda cell, params, key: trained.append(cell) or measured(len(trained)))
    run_tables(["modules", "eta"], read_tables("tables.yaml"), ready)
    assert [(cell["row"], cell["setting"], cell["seed"]) for cell in cells("modules")] == [
        (row, setting, seed) for row in ("none", "full") for setting in ("plain", "moved") for seed in (0, 1)
    ]
    first = trained[0].variant
    assert (first.css, first.psm, first.dac, first.lambda_query, first.eta) == (False, False, False, 0.0, 0.7)
    assert [(cell["row"], cell["seed"]) for cell in cells("eta")] == [("0.3", 0), ("0.3", 1), ("0.7", 0), ("0.7", 1)]
    # eta 0.7 is the full model in the plain setting: one training serves both tables
    assert len(trained) == 8 + 2 and [cell["scores"] for cell in cells("eta")[2:]] == [
        cell["scores"] for cell in cells("modules")[4:6]
    ]


def measured(number: int) -> dict:
    return {"scores": {"val": {"mean": {"R@10": float(number)}}}, "training": {"loss": 1.0}, "device": "cpu"}


def test_what_holds_is_kept_and_what_failed_is_named(ready, monkeypatch):
    trained, broken = [], [True]

    def fake(cell, params, key):
        if broken[0] and cell.row == "full" and cell.seed == 1:
            raise ValueError("lost its way")
        trained.append(key)
        return measured(len(trained))

    monkeypatch.setattr(run, "run_cell", fake)
    tables = read_tables("tables.yaml")
    with pytest.raises(
        ArtifactError, match="2 of 8 cells failed, the first is modules full plain with seed 1: lost its way"
    ):
        run_tables(["modules"], tables, ready)
    assert len(cells("modules")) == 6
    broken[0] = False
    run_tables(["modules"], tables, ready)
    assert len(trained) == len(set(trained)) == 8
    whole = (OUT / "modules.json").read_bytes()
    ready.diffcomp.log_every, ready.diffcomp.checkpoint_every = 7, 7  # what changes no result
    run_tables(["modules"], tables, ready)
    assert len(trained) == 8 and read_json(OUT / "modules.json")["cells"] == cells("modules")
    ready.ablations.seeds = [1]
    run_tables(["modules"], tables, ready)
    assert (
        len(trained) == 8
        and {cell["seed"] for cell in cells("modules")} == {1}
        and whole != (OUT / "modules.json").read_bytes()
    )
    ready.ablations.recipe = {"lr": 0.5}
    run_tables(["modules"], tables, ready)
    assert len(trained) == 12 and read_json(OUT / "modules.json")["diffcomp"]["lr"] == 0.5


def test_a_cell_is_the_stage_s_own_training(ready):
    """The same weights as `train_diffcomp` makes, scored as FAISS and the protocol score them."""
    ready.ablations.seeds, ready.ablations.recipe = [0], {"eta": 0.7}
    run_tables(["eta"], read_tables("tables.yaml"), ready)
    [measured] = [cell["scores"]["val"] for cell in cells("eta") if cell["row"] == "0.7"]
    train_diffcomp.main()
    folder, pictures = Path("data/benchmarks/val"), ImageTable("data/benchmarks/val/images")
    queries = read_queries(folder / "queries")
    model = load_diffcomp("models/diffcomp/diffcomp", load_dual_encoder(ready.diffcomp.backbone))
    embed_gallery(model.encoder, pictures, "data/gallery/val", {}, 7)
    build_index("data/gallery/val", "data/index/val", ready.index)
    vectors = dual_family.load(Models(ready)).answer(queries, pictures, methods=["diffcomp"])["diffcomp"].vectors
    ranked = [one.ranked_ids for one in rank_queries(Index.open("data/index/val"), queries, vectors, 50)]
    expected = recall_by_category(
        ranked, [query.target_ids for query in queries], [query.category for query in queries], (1, 5, 10, 50)
    )
    assert measured.keys() == expected.keys()
    for kind, values in expected.items():
        assert {name: measured[kind][name] for name in values} == pytest.approx(values, abs=0.001)
    assert 0 < measured["mean"]["R@10"] < 100
    kinds = [measured[kind]["mAP@5"] for kind in measured if kind != "mean"]
    assert measured["mean"]["mAP@5"] == pytest.approx(sum(kinds) / len(kinds), abs=0.001)
    assert {"cos_aligned", "cos_masked", "masked_share"} <= cells("eta")[0]["training"].keys()
    assert not list(Path("data/ablations").rglob("*/*"))


def test_the_reference_is_never_an_answer(ready):
    model = DiffComp(load_dual_encoder(ready.diffcomp.backbone), ready.diffcomp).eval()
    scorer = BenchmarkScorer("val", 32)
    only = [query for query in scorer.queries if query.query_id == "q1"]
    scorer.queries = [type(only[0])(**{**vars(only[0]), "target_ids": (only[0].reference_id,)})]
    assert scorer.scores(model, 5)["mean"]["R@10"] == 0.0


def test_a_benchmarks_protocol_may_leave_the_reference_in_and_words_a_query_twice(ready):
    folder = Path("data/benchmarks/val/queries")
    table = ShardSet.open(folder).table()
    texts = [["with a hat", "a red ball"]] * table.num_rows
    table = table.set_column(2, table.schema.field("modifications"), pa.array(texts, pa.list_(pa.string())))
    write_table(folder, table, {"benchmark": "fashioniq", "wordings": "both"})
    model = DiffComp(load_dual_encoder(ready.diffcomp.backbone), ready.diffcomp).eval()
    scorer = BenchmarkScorer("val", 32)
    first, second = ([query.worded(number) for query in scorer.queries] for number in (0, 1))
    gallery = scorer._gallery_vectors(model, 5)
    of_one = [scorer._query_vectors(model, queries, 5) @ gallery.T for queries in (first, second)]
    assert np.abs(of_one[0] - of_one[1]).max() > 1e-3
    np.testing.assert_allclose(scorer._query_scores(model, gallery, 5), sum(of_one) / 2, atol=1e-6)
    assert scorer.scores(model, 5) == BenchmarkScorer("val", 32, in_memory=0).scores(model, 5), "decoded each time"
    scorer.queries = [replace(query, target_ids=(query.reference_id,)) for query in scorer.queries]
    assert scorer.scores(model, 5)["mean"]["R@50"] == 100.0, "the reference is in the gallery"


def test_nouns_are_parsed_once(ready, monkeypatch):
    captions = [row["caption"] for row in data.short_rows()]
    first = masking_nouns(captions, ready.captions)
    assert first[0] == ["ball"] and len(first) == 12
    monkeypatch.setattr("pipeline.text.phrases.nouns", None)
    assert masking_nouns(captions, ready.captions) == first == ShardSet.open(data.NOUNS).table()["phrases"].to_pylist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {rows: {b: {changes: {etaa: 1}}}}", "a.b.etaa"),
        ("a: {rows: {b: {change: {}}}}", "rows.b.change"),
        ("a: {rows: {}}", "no rows"),
        ("a: {full: c, rows: {b: {}}}", "'c' is none of them"),
    ],
)
def test_a_wrong_table_is_named(ready, text, message):
    Path("tables.yaml").write_text(text)
    with pytest.raises(ParameterError, match=message):
        cells_of("a", read_tables("tables.yaml"), ready)
    with pytest.raises(ParameterError, match="'colours' is not one of modules"):
        cells_of("colours", read_tables(ROOT / "ablations/tables.yaml"), ready)


def test_the_tables_are_those_of_the_supplement(monkeypatch):
    monkeypatch.chdir(ROOT)
    tables, params = read_tables(), load_params()
    counts = {name: len(cells_of(name, tables, params)) // len(params.ablations.seeds) for name in tables}
    assert counts == {"modules": 8, "grids": 5, "masks": 9, "eta": 7, "lambda_base": 7, "phi": 6}
    rows = {
        cell.row: (cell.variant.css, cell.variant.psm, cell.variant.dac) for cell in cells_of("modules", tables, params)
    }
    assert len(set(rows.values())) == 8 and rows["css+psm+dac"] == (True, True, True)
    encoder = load_dual_encoder(params.diffcomp.backbone)
    for cell in (cell for name in tables for cell in cells_of(name, tables, params)):
        DiffComp(encoder, cell.variant)  # every configuration fits the shipped backbone


def test_the_report_shows_the_trained_model(ready):
    train_diffcomp.main()
    folder = Path("data/benchmarks/val")
    view = open_view(ready, folder / "queries", folder / "images")
    assert {name: len(values) for name, values in view.similarities.items()} == {ALIGNED: 12, MASKED: 12, QUERIES: 12}
    assert len(view.masks) == len(view.kept) == SHOWN and {seen.values.shape for seen in (*view.masks, *view.kept)} == {
        (4, 4)
    }
    texts = {seen.text for seen in view.masks}
    assert texts <= {row["caption"] for row in data.short_rows()} and len(texts) == SHOWN
    assert view.means == open_view(ready, folder / "queries", folder / "images").means
    del ready.diffcomp_variants["diffcomp"]
    assert open_view(ready, folder / "queries", folder / "images") is None
