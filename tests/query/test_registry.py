"""The registry: adding a method is one entry, and everything else finds it."""

import json
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline.app.cli.main import app
from pipeline.app.search.galleries import open_gallery
from pipeline.app.search.searcher import Searcher
from pipeline.artifacts import ShardSet, schemas, write_table
from pipeline.config import ParameterError, load_profile
from pipeline.config.peers import DescribedName, PeerName
from pipeline.query import dual, registry
from pipeline.report import BenchmarkPaths, ReportInputs, build_report
from stages import build_index, embed_gallery, retrieve, train_diffcomp
from tests.query import toy

ROOT = Path(__file__).parents[2]


@pytest.fixture
def with_toy(workspace, monkeypatch):
    """A workspace with a benchmark, the dual encoders' methods, and the toy."""
    added = registry.Registered(toy, lambda: toy)  # the one entry
    monkeypatch.setattr(registry, "FAMILIES", {dual.NAME: registry.FAMILIES[dual.NAME], toy.NAME: added})
    train_diffcomp.main()
    rows = [
        {
            "query_id": f"q{number}",
            "reference_id": reference,
            "modifications": ["with a hat"],
            "target_ids": [target],
            "subset_ids": [],
            "category": "tone",
            "shared_concept": "a thing",
        }
        for number, (reference, target) in enumerate((("red ball", "red cat"), ("green dog", "green hat")))
    ]
    write_table("data/benchmarks/emoji_cir/images", ShardSet.open("data/pairs/images").table(), {})
    write_table("data/benchmarks/emoji_cir/queries", pa.Table.from_pylist(rows, schema=schemas.QUERIES), {})
    for stage in (embed_gallery, build_index, retrieve):
        stage.main()
    return workspace


def test_a_new_method_is_ranked_reported_and_searched(with_toy):
    out = Path("data/retrieved/emoji_cir")
    ranked = ShardSet.open(out / "rankings/mean_colour")
    assert ranked.identity["space"] == "colours" and ranked.rows == 2
    # The colours of the fixture's images run from one to the next: a neighbour's is nearest.
    assert ranked.table().to_pylist()[0]["ranked_ids"][0] == "red cat"

    benchmark = BenchmarkPaths(
        "emoji_cir",
        Path("data/benchmarks/emoji_cir/queries"),
        out / "rankings",
        Path("data/benchmarks/emoji_cir/images"),
    )
    build_report(ReportInputs([benchmark], Path("reports"), "smoke", bootstrap=5))
    assert "mean_colour" in json.loads(Path("reports/metrics.json").read_text())["emoji_cir"]
    assert "| Mean colour |" in Path("reports/tables/results.md").read_text()
    page = Path("reports/index.html").read_text()
    assert "Mean colour" in page and "the reference&#39;s mean colour" in page

    assert "mean_colour" in Searcher(with_toy, open_gallery("emoji_cir")).methods
    words = ["search", "--image", "red ball", "--text", "with a hat", "--gallery", "emoji_cir", "--json"]
    found = CliRunner().invoke(app, [*words, "--method", "mean_colour"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["hits"][0]["id"] == "red cat"
    unknown = CliRunner().invoke(app, [*words, "--method", "magic"])
    assert unknown.exit_code == 1 and "'magic' is not one of " in unknown.output
    assert "mean_colour" in unknown.output


def test_a_region_that_the_new_method_does_not_take_is_rejected(with_toy):
    Image.new("L", (32, 32), 255).save("mask.png")
    words = ["search", "--image", "red ball", "--text", "x", "--gallery", "emoji_cir", "--method", "mean_colour"]
    result = CliRunner().invoke(app, [*words, "--region", "mask.png"])
    assert result.exit_code == 1 and "region: mean_colour takes none" in result.output


def test_every_configured_method_has_a_family_and_a_space():
    params = load_profile("offline", ROOT / "conf")
    assert not [method for method in registry.methods(params).values() if method.group == "Peers"]  # none by default
    params.peers.train, params.peers.described = list(get_args(PeerName)), list(get_args(DescribedName))
    found = registry.methods(params)
    assert set(registry.labelled_methods()) == set(found)
    params.roles.methods = ["slerp"]
    found = registry.methods(params)
    families = [method.family for method in found.values()]
    assert list(dict.fromkeys(families)) == list(registry.FAMILIES)  # a family's methods stand together
    assert families == sorted(families, key=list(registry.FAMILIES).index)
    assert set(registry.spaces(registry.Models(params))) == {method.space for method in found.values()}
    with pytest.raises(ParameterError, match=f"'magic' is not one of {', '.join(found)}"):
        registry.find_method("magic", params)


def test_labels_and_places_in_tables_are_unique():
    found = list(registry.labelled_methods().values())
    assert len({method.label for method in found}) == len({method.order for method in found}) == len(found)
    assert found == sorted(found, key=lambda method: method.order)


def test_a_search_offers_the_featured_methods_first():
    found = registry.by_interest(registry.labelled_methods().values())
    featured = sum(method.featured for method in found)
    assert 0 < featured < len(found) and all(method.featured for method in found[:featured])
    assert [method.order for method in found[:featured]] == sorted(method.order for method in found[:featured])
    assert [method.order for method in found[featured:]] == sorted((m.order for m in found[featured:]), reverse=True)
