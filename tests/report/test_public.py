"""Official figures and published rows in a report."""

import dataclasses
import re

import pyarrow as pa
import pytest

from pipeline.artifacts import read_json, schemas, write_table
from pipeline.report import PublicSplitPaths, build_report
from pipeline.report.public import PUBLISHED, markdown, public_report
from pipeline.retrieval import Ranking, write_rankings
from pipeline.retrieval.benchmarks import BENCHMARKS
from pipeline.retrieval.benchmarks.circo import ASPECTS

NAMES = [f"i{number}" for number in range(60)]


def part(folder, benchmark, split, category="", private=False, methods=("slerp", "cirevl")):
    name = f"{benchmark}_{category or split}"
    rows = [
        {
            "query_id": f"{name}/{n}",
            "reference_id": NAMES[n],
            "modifications": ["x"],
            "category": category,
            "shared_concept": "",
            "target_ids": [] if private else [NAMES[n + 20], NAMES[n + 1]],
            "subset_ids": NAMES[n + 18 : n + 23],
        }
        for n in range(10)
    ]
    identity = {"benchmark": benchmark, "split": split, "private_targets": private}
    write_table(folder / name / "queries", pa.Table.from_pylist(rows, schema=schemas.QUERIES), identity)
    write_table(
        folder / name / "aspects",
        pa.Table.from_pylist(
            [{"query_id": row["query_id"], "aspects": ["addition"]} for row in rows[:4]], schema=schemas.ASPECTS
        ),
        identity,
    )
    for method in methods:
        rankings = [
            Ranking(row["query_id"], tuple(NAMES[n + 10 :]), tuple(range(50 - n)), tuple(row["subset_ids"]))
            for n, row in enumerate(rows)
        ]
        write_rankings(folder / name / "rankings" / method, method, rankings, {"space": "clip"})
    return PublicSplitPaths(
        name,
        BENCHMARKS[benchmark],
        split,
        folder / name / "queries",
        folder / name / "rankings",
        folder / name / "aspects",
        private,
    )


@pytest.fixture
def parts(tmp_path):
    fashion = [part(tmp_path, "fashioniq", "val", category) for category in ("dress", "shirt", "toptee")]
    genecis = [
        part(tmp_path, "genecis", "val", "focus_object"),
        part(tmp_path, "genecis", "val", "change_object", methods=["slerp"]),
    ]
    cirr = [part(tmp_path, "cirr", "test1", private=True), part(tmp_path, "cirr", "val")]
    return [part(tmp_path, "circo", "val"), *cirr, *fashion, *genecis]


def test_each_split_is_scored_by_its_own_protocol(parts):
    report = public_report(parts, {"clip": "ViT-L-14"})
    assert list(report.metrics) == ["fashioniq_val", "cirr_val", "circo_val", "genecis_val"]
    # The target is eleventh, second in CIRR without nine others before it, and third of five in the subset.
    assert report.metrics["fashioniq_val"]["slerp"]["mean"] == {"R@10": 0.0, "R@50": 100.0}
    assert (
        report.metrics["cirr_val"]["slerp"]["R_subset@2"] == 0.0
        and report.metrics["cirr_val"]["slerp"]["R_subset@3"] == 100.0
    )
    circo = report.metrics["circo_val"]["slerp"]
    assert circo["mAP@10"] == 0.0 and circo["mAP@25"] == round(100 / 11 / 2, 2) and circo["R@25"] == 100.0
    assert circo[ASPECTS] == {"addition": 0.0}
    assert list(report.metrics["genecis_val"]) == ["slerp"]  # cirevl did not answer every task
    assert set(report.metrics["genecis_val"]["slerp"]) == {"focus_object", "change_object", "object", "mean"}


def test_published_rows_stand_beside_ours(parts):
    tables = {table.title: table for table in public_report(parts, {"clip": "ViT-L-14"}).comparisons}
    assert list(tables) == ["FashionIQ, val", "CIRR, test1", "CIRR, val", "CIRCO, val", "GeneCIS, val"]
    circo = tables["CIRCO, val"]
    assert circo.rows[0].method == "Slerp" and circo.rows[0].backbone == "ViT-L-14" and circo.rows[0].ours
    published = {(row.method, row.source): row for row in circo.rows if not row.ours}
    assert published["DiffComp", "DiffComp, supplement, Table 7"].cells[:4] == ("24.43", "25.52", "26.66", "27.31")
    assert published["CIReVL", "Fusion-Diff, Table 1 (test)"].backbone == "ViT-G/14"
    assert published["DiffComp, grid 4x4", "DiffComp, supplement, Table 9 (split not named)"].cells == (
        "16.20",
        *["–"] * 7,
    )
    assert not tables["CIRR, test1"].rows and "data/retrieved/cirr_test1/submissions" in tables["CIRR, test1"].caption
    text = markdown(list(tables.values()))
    assert "| **Slerp** | ViT-L-14 | this run |" in text and text.count("### ") == 5
    assert all(len(row.cells) == len(table.columns) for table in tables.values() for row in table.rows)


def test_the_report_holds_both_kinds(inputs, parts):
    build_report(dataclasses.replace(inputs, public=parts, backbones={"clip": "ViT-L-14"}))
    metrics = read_json(inputs.out / "metrics.json")
    assert {"emoji_cir", "fashioniq_val", "circo_val"} <= set(metrics) and "cirr_test1" not in metrics
    assert "CIRCO, val" in (inputs.out / "index.html").read_text()
    assert "### FashionIQ, val" in (inputs.out / "tables" / "results.md").read_text()


def test_every_published_figure_is_in_the_paper(shared):
    texts = {"Fusion-Diff": "fusion-diff.txt", "DiffComp, supplement": "diffcomp-supplement.txt"}
    for table in read_json(PUBLISHED):
        text = (shared / "papers" / texts[table["paper"]]).read_text()
        start = re.search(rf"^{table['table']}\. ", text, re.MULTILINE).start()
        lines = [
            line.replace("<u>", "").replace("</u>", "").split("\t") for line in text[start : start + 6000].splitlines()
        ]
        rows = [[float(cell) for cell in line if re.fullmatch(r"\d+\.\d+", cell)] for line in lines]
        for method, _, *values in table["rows"]:
            wanted = [value for value in values if value is not None]
            assert any(wanted == row[at : at + len(wanted)] for row in rows for at in range(len(row))), (
                table["table"],
                method,
            )
        assert all(len(row) == 2 + len(table["metrics"]) for row in table["rows"])
