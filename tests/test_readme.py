"""README.md: its length, its graph, and its results are those of the last committed run."""

from __future__ import annotations

import json
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import yaml

from tests.committed import committed

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
METHODS = {
    "Image only": "image_only",
    "Text only": "text_only",
    "Slerp": "slerp",
    "CIReVL": "cirevl",
    "Fused description": "fused_description",
    "Fusion-Diff (C)": "fusion_diff",
    "DiffComp": "diffcomp",
    "DiffComp, relatives": "diffcomp_relative",
}


def drawing():
    """The script that draws the graph."""
    spec = spec_from_file_location("stages_figure", ROOT / "docs/figures/stages.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_short():
    assert len(README.splitlines()) <= 150


def test_the_results_are_the_metrics():
    metrics = json.loads(committed("reports/metrics.json"))["emoji_cir"]
    block = re.search("<!-- results:begin -->(.*)<!-- results:end -->", README, re.DOTALL)[1]
    rows = re.findall(r"^\| ([^|]+) \| ([\d.]+) \| ([\d.]+) \[[\d., ]+\] \| ([\d.]+) \|$", block, re.MULTILINE)
    found = {METHODS[label]: [float(number) for number in numbers] for label, *numbers in rows}
    assert found == {
        method: pytest.approx([metrics[method]["mean"][f"R@{k}"] for k in (1, 10, 50)], abs=0.051)
        for method in METHODS.values()
    }


def test_the_intervals_are_the_reports():
    table = committed("reports/tables/results.md").split("\n\n")[2].replace("**", "").replace("<u>", "")
    reported = dict(re.findall(r"^\| ([^|]+) \|.*?(\[[\d., ]+\])", table.replace("</u>", ""), re.MULTILINE))
    shown = dict(re.findall(r"^\| ([^|]+) \| [\d.]+ \| [\d.]+ (\[[\d., ]+\])", README, re.MULTILINE))
    assert shown == {label: reported[label] for label in METHODS}


def test_the_graph_is_that_of_dvc():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    made_by = {}
    for name, stage in stages.items():
        for out in (*stage.get("outs", ()), *stage.get("metrics", ()), *stage.get("plots", ())):
            made_by[out if isinstance(out, str) else next(iter(out))] = name
    needs = {
        name: {maker for dep in stage["deps"] for out, maker in made_by.items() if touch(dep, out)} - {name}
        for name, stage in stages.items()
    }

    def behind(name: str) -> set[str]:
        return needs[name].union(*(behind(other) for other in needs[name]))

    direct = {
        (other, name)
        for name in stages
        for other in needs[name]
        if not any(other in behind(via) for via in needs[name])
    }
    assert set(drawing().edges()) == direct


def touch(one: str, other: str) -> bool:
    """Whether one path is the other, or lies in it."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def test_the_drawn_graph_is_the_same():
    assert (ROOT / "docs/images/stages.svg").read_text(encoding="utf-8") == drawing().drawing()
