"""What `build_report` writes."""

import base64
import csv
import dataclasses
import io
import json
import re
import struct
from html.parser import HTMLParser

import pytest
from PIL import Image

from pipeline.artifacts import ArtifactError, ShardSet, read_json
from pipeline.report import build_report, changed_parameters
from pipeline.retrieval import read_rankings


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def written(built):
    return built.out


def test_every_file_is_there(written):
    assert sorted(files(written)) == [
        "figures/queries.png",
        "figures/recall.png",
        "index.html",
        "metrics.json",
        "plots/loss_prior.csv",
        "plots/recall.csv",
        "summary.json",
        "tables/results.md",
    ]


def test_metrics_have_the_shape_that_dvc_compares(written, built):
    metrics = read_json(written / "metrics.json")
    assert sorted(metrics) == ["emoji_cir", "emoji_cir_val", "orders"]
    assert sorted(metrics["emoji_cir"]) == ["fused_only", "fusion_diff", "my_own_method", "slerp"]
    row = metrics["emoji_cir"]["fusion_diff"]
    assert sorted(row) == ["circo", "cirr", "gender", "genecis", "mean", "role", "tone"]
    assert sorted(row["gender"]) == sorted(row["mean"]) == ["R@1", "R@10", "R@5", "R@50"]
    assert sorted(row["cirr"]) == ["R@1", "R@10", "R@5", "R@50", "R_subset@1", "R_subset@2", "R_subset@3"]
    assert sorted(row["circo"]) == ["mAP@10", "mAP@25", "mAP@5", "mAP@50"]
    assert sorted(row["genecis"]) == ["change_object", "focus_attribute", "mean"]
    assert "genecis" not in metrics["emoji_cir_val"]["fusion_diff"]
    assert sorted(metrics["orders"]) == ["fusion_diff_above_fused_only", "fusion_diff_above_slerp"]
    order = metrics["orders"]["fusion_diff_above_fused_only"]
    assert sorted(order) == ["difference", "high", "low"] and order["low"] <= order["difference"] <= order["high"]
    assert order["difference"] == pytest.approx(
        row["mean"]["R@10"] - metrics["emoji_cir"]["fused_only"]["mean"]["R@10"], abs=0.011
    )


def test_the_summary_fits_a_terminal(written):
    metrics, summary = (read_json(written / f"{name}.json") for name in ("metrics", "summary"))
    assert summary == {"R@10": {name: metrics["emoji_cir"][name]["mean"]["R@10"] for name in ("fusion_diff", "slerp")}}


def test_metrics_are_percentages_counted_from_the_rankings(written, built):
    main = built.benchmarks[0]
    queries = ShardSet.open(main.queries).table().to_pylist()
    rankings = read_rankings(main.rankings / "slerp").by_query
    role = [query for query in queries if query["category"] == "role"]
    hit = sum(
        any(target in rankings[query["query_id"]].ranked_ids[:5] for target in query["target_ids"]) for query in role
    )
    assert read_json(written / "metrics.json")["emoji_cir"]["slerp"]["role"]["R@5"] == round(100 * hit / len(role), 2)


def test_two_runs_give_the_same_bytes(written, built, tmp_path):
    build_report(dataclasses.replace(built, out=tmp_path / "again"))
    assert files(tmp_path / "again") == files(written)


def test_nothing_names_a_path_or_needs_the_network(written):
    page = (written / "index.html").read_text()
    for name, content in files(written).items():
        assert str(written.parent).encode() not in content, name
    assert not re.search(r"(src|srcset|href)=\"(?!data:|#|https://(github\.com|openmoji\.org|emojibase\.dev))", page)
    assert "url(" not in page and "@import" not in page and "fetch(" not in page


class Elements(HTMLParser):
    """Start tags and text, as a browser would see them."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data.strip())

    @property
    def explorer(self):
        """What the page's script reads."""
        return json.loads(next(text for text in self.text if text.startswith('{"methods"')))


def unpacked(text):
    return struct.unpack(f"<{len(base64.b64decode(text)) // 2}H", base64.b64decode(text))


def test_markup_in_texts_stays_inside_the_data(written):
    page = (written / "index.html").read_text()
    elements = Elements(page)
    scripts = [attributes for tag, attributes in elements.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}]
    assert "alert('modified')</" not in page
    queries = elements.explorer["queries"]
    assert {text for _, text, *_ in queries} == {"<script>alert('modified')</script> & \"greener\""}
    assert {description for _, _, description, *_ in queries} == {"", "a <b>man</b>"}


def test_the_page_holds_every_query_with_its_answers(written, built):
    data = Elements((written / "index.html").read_text()).explorer
    assert [method["key"] for method in data["methods"]] == ["slerp", "fused_only", "fusion_diff", "my_own_method"]
    assert data["kinds"] == ["Gender", "Role", "Tone"] and len(data["queries"]) == 36
    kinds = unpacked(data["kind"])
    assert kinds[:6] == (0, 1, 2, 0, 1, 2) and sorted(kinds) == sorted([0, 1, 2] * 12)
    ids = [name for name, _ in data["pictures"]]
    by_reference = {}
    for query in ShardSet.open(built.benchmarks[0].queries).table().to_pylist():
        by_reference.setdefault((query["reference_id"], tuple(query["target_ids"])), query)
    answers = unpacked(data["answers"])
    assert len(answers) == 36 * 4 * 10
    for method, name in enumerate(["slerp", "fused_only", "fusion_diff", "my_own_method"]):
        rankings = read_rankings(built.benchmarks[0].rankings / name).by_query
        ranks = unpacked(data["ranks"][method])
        for number, (reference, _, _, targets, more) in enumerate(data["queries"]):
            query = by_reference[ids[reference], tuple(ids[target] for target in targets)]
            ranked = rankings[query["query_id"]].ranked_ids
            shown = answers[(number * 4 + method) * 10 :][:10]
            assert more == 0 and [ids[entry & 0x7FFF] for entry in shown] == list(ranked[:10])
            assert [bool(entry & 0x8000) for entry in shown] == [one in query["target_ids"] for one in ranked[:10]]
            places = [place for place, one in enumerate(ranked, start=1) if one in query["target_ids"]]
            assert ranks[number] == min(places, default=0)


def test_a_page_without_room_shows_fewer_queries_and_counts_them_all(inputs):
    build_report(dataclasses.replace(inputs, page_megabytes=0.008))
    data = Elements((inputs.out / "index.html").read_text()).explorer
    assert 0 < len(data["queries"]) < 36
    assert len(unpacked(data["kind"])) == len(unpacked(data["ranks"][0])) == 36
    assert len(unpacked(data["answers"])) == len(data["queries"]) * 40
    assert {index for query in data["queries"] for index in query[3]} <= set(range(len(data["pictures"])))


def test_the_page_says_what_was_run_and_what_came_of_it(written):
    page = Elements((written / "index.html").read_text())
    text = re.sub(r"\s+", " ", " ".join(page.text))
    assert "prior.lr" in page.text and "2e-05" in page.text
    assert "best at 1 with 60.5; this run uses 0." in text and "other weights" not in text
    order = read_json(written / "metrics.json")["orders"]["fusion_diff_above_fused_only"]
    assert order["low"] > 0
    interval = f"(95% interval: {order['low']:.1f} to {order['high']:.1f})."
    assert f"Finds a target for {order['difference']:.1f} more of a hundred queries {interval}" in page.text


def test_a_sweep_of_other_weights_is_marked(inputs):
    build_report(dataclasses.replace(inputs, weights={"prior": "c" * 64, "control": "b" * 64}))
    assert "Made with other weights than this run" in (inputs.out / "index.html").read_text()
    (inputs.sweeps / "guidance_scale.csv").write_text("guidance_scale,kind,recall\n1,mean,2\n")
    with pytest.raises(ArtifactError, match="guidance_scale.csv: not a sweep"):
        build_report(inputs)


def test_plots_are_plain_tables(written):
    rows = list(csv.DictReader((written / "plots" / "recall.csv").open()))
    assert list(rows[0]) == ["method", "K", "recall"] and len(rows) == 4 * 10
    assert [float(row["recall"]) for row in rows[:10]] == sorted(float(row["recall"]) for row in rows[:10])
    assert list(csv.DictReader((written / "plots" / "loss_prior.csv").open()))[1] == {
        "step": "10",
        "loss": "0.181818",
        "lr": "0.0001",
    }
    for name in ("queries", "recall"):
        content = (written / "figures" / f"{name}.png").read_bytes()
        assert b"Software" not in content and Image.open(io.BytesIO(content)).width > 1000


def test_missing_answers_logs_and_images_are_named(inputs, tmp_path):
    main = inputs.benchmarks[0]
    (tmp_path / "bad.csv").write_text("step,lr\n1,2\n")
    cases = [
        (dataclasses.replace(inputs, losses={"prior": tmp_path / "none.csv"}), "none.csv: no such training log"),
        (dataclasses.replace(inputs, losses={"prior": tmp_path / "bad.csv"}), "no column 'loss'"),
        (dataclasses.replace(inputs, benchmarks=[]), "needs a benchmark with images"),
        (
            dataclasses.replace(inputs, benchmarks=[dataclasses.replace(main, queries=main.genecis_queries)]),
            "queries have no ranked list",
        ),
        (
            dataclasses.replace(inputs, benchmarks=[dataclasses.replace(main, rankings=tmp_path / "nowhere")]),
            "nowhere: no rankings",
        ),
    ]
    for broken, message in cases:
        with pytest.raises(ArtifactError, match=message):
            build_report(broken)
    assert not inputs.out.exists()


def test_changed_parameters():
    profile = {"seed": 0, "prior": {"lr": 1e-4, "depth": 4}}
    assert changed_parameters({"seed": 0, "prior": {"lr": 2e-5, "depth": 4}}, profile) == {"prior.lr": (1e-4, 2e-5)}
    assert changed_parameters(profile, profile) == {}
