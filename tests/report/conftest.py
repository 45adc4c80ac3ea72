"""A small made-up benchmark: coloured squares, three kinds of queries, three methods."""

import io
import random
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from pipeline.artifacts import schemas, write_json, write_table
from pipeline.report import BenchmarkPaths, ReportInputs, build_report
from pipeline.retrieval import Ranking, write_rankings

NAMES = [f"square-{number:02d}" for number in range(30)]
HOSTILE = "<script>alert('modified')</script> & \"greener\""
STRENGTH = {"slerp": 0.2, "fused_only": 0.3, "fusion_diff": 0.7, "my_own_method": 0.5}


def square(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 24), (8 * number, 255 - 8 * number, 120)).save(buffer, "PNG")
    return buffer.getvalue()


def query_rows(kinds):
    rng, rows = random.Random(0), []
    for kind in kinds:
        for number in range(12):
            reference, *others = rng.sample(NAMES, 8)
            rows.append(
                {
                    "query_id": f"{kind}-{number}",
                    "reference_id": reference,
                    "modifications": [HOSTILE],
                    "target_ids": others[: 1 + number % 2],
                    "subset_ids": others[:6],
                    "category": kind,
                    "shared_concept": "",
                }
            )
    return rows


def write_answers(folder: Path, rows, methods=STRENGTH):
    rng = random.Random(1)
    for method in methods:
        rankings = []
        for row in rows:
            rest = [name for name in NAMES if name != row["reference_id"] and name not in row["target_ids"]]
            ranked = rng.sample(rest, 20)
            if rng.random() < STRENGTH[method]:
                ranked.insert(rng.randrange(5), row["target_ids"][0])
            subset = rng.sample(row["subset_ids"], 6)
            rankings.append(
                Ranking(row["query_id"], tuple(ranked), tuple(float(-n) for n in range(len(ranked))), tuple(subset))
            )
        write_rankings(folder / method, method, rankings, {"method": method})


def write_similarities(folder: Path, rows):
    rng = random.Random(2)
    scores = [
        {
            "query_id": row["query_id"],
            "method": method,
            "target": rng.gauss(0.5 + STRENGTH[method], 0.1),
            "other": rng.gauss(0.9, 0.1),
        }
        for method in STRENGTH
        for row in rows
    ]
    write_table(folder, pa.Table.from_pylist(scores, schema=schemas.SIMILARITIES), {})


@pytest.fixture
def inputs(tmp_path) -> ReportInputs:
    return make_inputs(tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> ReportInputs:
    """Inputs whose report is written: to be looked at, not to be changed."""
    made = make_inputs(tmp_path_factory.mktemp("report"))
    build_report(made)
    return made


def make_inputs(folder: Path) -> ReportInputs:
    data = folder / "data"
    images = [
        {"image_id": name, "bytes": square(number), "width": 24, "height": 24} for number, name in enumerate(NAMES)
    ]
    write_table(data / "images", pa.Table.from_pylist(images, schema=schemas.IMAGES), {})
    for name, kinds in (
        ("queries", ["gender", "role", "tone"]),
        ("genecis_queries", ["focus_attribute", "change_object"]),
    ):
        rows = query_rows(kinds)
        write_table(data / name, pa.Table.from_pylist(rows, schema=schemas.QUERIES), {})
        write_answers(data / name.replace("queries", "rankings"), rows)
        if name == "queries":
            write_similarities(data / "similarities", rows)
    (data / "sweeps").mkdir()
    (data / "sweeps" / "guidance_scale.csv").write_text(
        "guidance_scale,kind,recall,low,high\n0,mean,40.0,30.0,50.0\n0,role,41.0,30.0,50.0\n1,mean,60.5,50.0,70.0\n1,role,62.0,50.0,70.0\n"
    )
    write_json(
        data / "sweeps" / "guidance_scale.json", {"benchmark": "emoji_cir_val", "prior": "a" * 64, "control": "b" * 64}
    )
    (data / "log.csv").write_text(
        "step,loss,lr\n" + "".join(f"{step},{2 / (step + 1)},0.0001\n" for step in range(0, 50, 10))
    )
    main = BenchmarkPaths(
        "emoji_cir",
        data / "queries",
        data / "rankings",
        data / "images",
        data / "genecis_queries",
        data / "genecis_rankings",
        data / "similarities",
    )
    return ReportInputs(
        [main, BenchmarkPaths("emoji_cir_val", data / "queries", data / "rankings")],
        folder / "reports",
        "smoke",
        changed={"prior.lr": (1e-4, 2e-5)},
        losses={"prior": data / "log.csv"},
        descriptions={"gender-0": "a <b>man</b>"},
        sweeps=data / "sweeps",
        weights={"prior": "a" * 64, "control": "b" * 64},
        used={"guidance_scale": 0.0},
        bootstrap=50,
    )
