"""A small made-up benchmark: coloured squares, three kinds of queries, three methods."""

import io
import random
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from pipeline.artifacts import schemas, write_table
from pipeline.report import Benchmark, ReportInputs
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
            rows.append({
                "query_id": f"{kind}-{number}", "reference_id": reference, "modifications": [HOSTILE], "target_ids": others[: 1 + number % 2],
                "subset_ids": others[:6], "category": kind, "shared_concept": "",
            })
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
            rankings.append(Ranking(row["query_id"], tuple(ranked), tuple(float(-n) for n in range(len(ranked))), tuple(subset)))
        write_rankings(folder / method, method, rankings, {"method": method})


@pytest.fixture
def inputs(tmp_path) -> ReportInputs:
    data = tmp_path / "data"
    images = [{"image_id": name, "bytes": square(number), "width": 24, "height": 24} for number, name in enumerate(NAMES)]
    write_table(data / "images", pa.Table.from_pylist(images, schema=schemas.IMAGES), {})
    for name, kinds in (("queries", ["gender", "role", "tone"]), ("genecis_queries", ["focus_attribute", "change_object"])):
        rows = query_rows(kinds)
        write_table(data / name, pa.Table.from_pylist(rows, schema=schemas.QUERIES), {})
        write_answers(data / name.replace("queries", "rankings"), rows)
    (data / "log.csv").write_text("step,loss,lr\n" + "".join(f"{step},{2 / (step + 1)},0.0001\n" for step in range(0, 50, 10)))
    main = Benchmark("emoji_cir", data / "queries", data / "rankings", data / "images", data / "genecis_queries", data / "genecis_rankings")
    return ReportInputs(
        [main, Benchmark("emoji_cir_val", data / "queries", data / "rankings")], tmp_path / "reports", "smoke",
        changed={"prior.lr": (1e-4, 2e-5)}, losses={"prior": data / "log.csv"}, descriptions={"gender-0": "a <b>man</b>"},
        bootstrap=50, sample_queries=12,
    )
