"""What features show: the figure, the table and the metrics."""

import dataclasses
import io

import pyarrow as pa
import pytest
from PIL import Image

from pipeline.artifacts import ArtifactError, read_json, schemas, write_table
from pipeline.report import build_report
from pipeline.report.imagined import Features, compared, fidelity_rows
from pipeline.report.metrics import RankedQueries

SCORES = {"cosine": 0.5, "R@1": 25.0, "R@10": 75.0}
FIDELITY = {"benchmarks": {"emoji_cir": {"images": 1200, "decoded": SCORES, "shuffled": SCORES}}}
FIDELITY["benchmarks"]["emoji_cir"]["nearest_training_image"] = SCORES


class Plain:
    """Decodes a feature to a plain image whose red is its first number."""

    def __init__(self):
        self.seen = []

    def images(self, z):
        self.seen.append(z)
        return [Image.new("RGB", (16, 16), (int(one[0]), 0, 0)) for one in z]


def write_vectors(folder, values):
    rows = [{"id": name, "vector": [float(value), 0.0]} for name, value in values.items()]
    write_table(folder, pa.Table.from_pylist(rows, schema=schemas.embeddings(2)), {})
    return folder


@pytest.fixture
def features(inputs, tmp_path):
    queries = RankedQueries.read(inputs.benchmarks[0].queries, inputs.benchmarks[0].rankings).queries
    asked = write_vectors(tmp_path / "asked", {query.query_id: row for row, query in enumerate(queries)})
    sampled = write_vectors(tmp_path / "sampled", {query.query_id: 100 + row for row, query in enumerate(queries)})
    gallery = write_vectors(tmp_path / "gallery", {f"square-{number:02d}": 200 + number for number in range(30)})
    return Features(Plain(), 2, asked, sampled, gallery)


def test_each_query_has_its_three_features(inputs, features):
    queries = RankedQueries.read(inputs.benchmarks[0].queries, inputs.benchmarks[0].rankings).queries
    for query, images in zip(queries[3:5], features.decoded(queries[3:5]), strict=True):
        row, target = queries.index(query), int(query.target_ids[0].split("-")[1])
        assert [image.getpixel((0, 0))[0] for image in images] == [row, 100 + row, 200 + target]


def test_a_missing_vector_is_named(features, inputs):
    query = RankedQueries.read(inputs.benchmarks[0].queries, inputs.benchmarks[0].rankings).queries[0]
    with pytest.raises(ArtifactError, match="asked: there is no vector of 'unknown'"):
        features.decoded([dataclasses.replace(query, query_id="unknown")])


def test_the_report_has_a_figure_a_table_and_the_metrics(inputs, features):
    build_report(dataclasses.replace(inputs, features=features, fidelity=FIDELITY))
    figure = Image.open(io.BytesIO((inputs.out / "figures" / "imagined.png").read_bytes()))
    assert figure.width > figure.height  # two queries
    assert [len(z) for z in features.imagination.seen] == [6]
    page = (inputs.out / "index.html").read_text()
    assert "What the features show" in page and "<td>1,200</td>" in page
    assert read_json(inputs.out / "metrics.json")["decoder"] == FIDELITY["benchmarks"]


def test_without_a_decoder_nothing_is_shown(inputs):
    build_report(inputs)
    assert not (inputs.out / "figures" / "imagined.png").exists()
    assert "What the features show" not in (inputs.out / "index.html").read_text()
    assert "decoder" not in read_json(inputs.out / "metrics.json")


def test_fusion_diff_is_compared_with_cirevl_and_the_best_peer():
    names = ["slerp", "cirevl", "fused_only", "fusion_diff", "diffcomp"]
    answers = RankedQueries([], dict.fromkeys(names, []))
    recall = dict(zip(names, (20.0, 30.0, 90.0, 95.0, 40.0), strict=True))
    assert compared(answers, recall) == ["cirevl", "diffcomp"]
    assert compared(RankedQueries([], {"fusion_diff": []}), recall) == []


def test_the_table_names_what_stands_for_an_image():
    rows = fidelity_rows(FIDELITY)
    assert [row[2] for row in rows] == ["decoded from z", "nearest training image", "decoded from another's z"]
    assert rows[0] == ["emoji_cir", "1,200", "decoded from z", "0.50", "25.0", "75.0"]
    assert fidelity_rows({}) == []
