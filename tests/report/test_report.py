"""What `build_report` writes."""

import csv
import dataclasses
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from pipeline.artifacts import ArtifactError, ShardSet, read_json
from pipeline.report import build_report, changed_parameters
from pipeline.retrieval import read_rankings


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def written(inputs):
    build_report(inputs)
    return inputs.out


def test_every_file_is_there(written):
    assert sorted(files(written)) == [
        "figures/queries.png", "figures/recall.png", "index.html", "metrics.json", "plots/loss_prior.csv", "plots/recall.csv",
        "tables/results.md",
    ]


def test_metrics_have_the_shape_that_dvc_compares(written, inputs):
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
    assert sorted(metrics["orders"]) == ["fusion_diff_above_fused_only"]
    order = metrics["orders"]["fusion_diff_above_fused_only"]
    assert sorted(order) == ["difference", "high", "low"] and order["low"] <= order["difference"] <= order["high"]
    assert order["difference"] == pytest.approx(row["mean"]["R@10"] - metrics["emoji_cir"]["fused_only"]["mean"]["R@10"], abs=0.011)


def test_metrics_are_percentages_counted_from_the_rankings(written, inputs):
    main = inputs.benchmarks[0]
    queries = ShardSet.open(main.queries).table().to_pylist()
    rankings = read_rankings(main.rankings / "slerp").by_query
    role = [query for query in queries if query["category"] == "role"]
    hit = sum(any(target in rankings[query["query_id"]].ranked_ids[:5] for target in query["target_ids"]) for query in role)
    assert read_json(written / "metrics.json")["emoji_cir"]["slerp"]["role"]["R@5"] == round(100 * hit / len(role), 2)


def test_two_runs_give_the_same_bytes(written, inputs, tmp_path):
    build_report(dataclasses.replace(inputs, out=tmp_path / "again"))
    assert files(tmp_path / "again") == files(written)


def test_nothing_names_a_path_or_needs_the_network(written, tmp_path):
    page = (written / "index.html").read_text()
    for name, content in files(written).items():
        assert str(tmp_path).encode() not in content, name
    assert not re.search(r"(src|srcset|href)=\"(?!data:|#|https://(github\.com|openmoji\.org|emojibase\.dev))", page)
    assert "url(" in page and not re.search(r"url\((?!data:image/png;base64,)", page)


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


def test_markup_in_texts_is_shown_and_not_executed(written):
    page = Elements((written / "index.html").read_text())
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "<script>alert('modified')</script> & \"greener\"" in page.text
    assert "a <b>man</b>" in page.text


def test_the_page_shows_sampled_queries_with_targets_marked(written, inputs):
    page = Elements((written / "index.html").read_text())
    articles = [attributes for tag, attributes in page.tags if tag == "article"]
    assert len(articles) == 36 and {article["data-outcome"] for article in articles} == {"hit", "miss"}
    assert {article["data-kind"] for article in articles} == {"0", "1", "2"}
    rows = [attributes["data-method"] for tag, attributes in page.tags if tag == "div" and "data-method" in attributes]
    assert rows[:4] == ["slerp", "fused_only", "fusion_diff", "my_own_method"]
    shown = [attributes for tag, attributes in page.tags if tag == "span" and attributes.get("role") == "img"]
    marked = [item for item in shown if item["aria-label"].endswith("(target)")]
    assert marked and all("target" in item["class"].split() for item in marked)
    assert any(tag == "code" for tag, _ in page.tags) and "prior.lr" in page.text


def test_a_small_sample_holds_hits_and_misses(inputs):
    build_report(dataclasses.replace(inputs, sample_queries=2))
    page = Elements((inputs.out / "index.html").read_text())
    outcomes = [(attributes["data-kind"], attributes["data-outcome"]) for tag, attributes in page.tags if tag == "article"]
    assert outcomes == [(kind, outcome) for kind in "012" for outcome in ("hit", "miss")]


def test_plots_are_plain_tables(written):
    rows = list(csv.DictReader((written / "plots" / "recall.csv").open()))
    assert list(rows[0]) == ["method", "K", "recall"] and len(rows) == 4 * 10
    assert [float(row["recall"]) for row in rows[:10]] == sorted(float(row["recall"]) for row in rows[:10])
    assert list(csv.DictReader((written / "plots" / "loss_prior.csv").open()))[1] == {"step": "10", "loss": "0.181818", "lr": "0.0001"}
    for name in ("queries", "recall"):
        content = (written / "figures" / f"{name}.png").read_bytes()
        assert b"Software" not in content and Image.open(io.BytesIO(content)).width > 1000


def test_missing_answers_logs_and_pictures_are_named(inputs, tmp_path):
    main = inputs.benchmarks[0]
    (tmp_path / "bad.csv").write_text("step,lr\n1,2\n")
    cases = [
        (dataclasses.replace(inputs, losses={"prior": tmp_path / "none.csv"}), "none.csv: no such training log"),
        (dataclasses.replace(inputs, losses={"prior": tmp_path / "bad.csv"}), "no column 'loss'"),
        (dataclasses.replace(inputs, benchmarks=[]), "needs a benchmark with pictures"),
        (dataclasses.replace(inputs, benchmarks=[dataclasses.replace(main, queries=main.genecis_queries)]), "queries have no ranked list"),
        (dataclasses.replace(inputs, benchmarks=[dataclasses.replace(main, rankings=tmp_path / "nowhere")]), "nowhere: no rankings"),
    ]
    for broken, message in cases:
        with pytest.raises(ArtifactError, match=message):
            build_report(broken)
    assert not inputs.out.exists()


def test_changed_parameters():
    profile = {"seed": 0, "prior": {"lr": 1e-4, "depth": 4}}
    assert changed_parameters({"seed": 0, "prior": {"lr": 2e-5, "depth": 4}}, profile) == {"prior.lr": (1e-4, 2e-5)}
    assert changed_parameters(profile, profile) == {}
