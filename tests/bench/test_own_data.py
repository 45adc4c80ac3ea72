"""The benchmark of training on a folder and a CSV measures the commands that the page gives."""

import re

from bench.own_data import STAGES, commands, own_params, table
from tests.docs.pages import ROOT, TEXTS

PAGE = TEXTS["docs/tutorials/train-on-your-data.md"]


def test_its_parameters_are_those_of_the_page():
    shown = dict(re.findall(r"-S '?(data[\w.]*)=(\[\w*\]|\w+)", PAGE))
    data = own_params("smoke").data
    assert shown == {
        "data.sources": data.sources,
        "data.web.pairs": f"[{','.join(data.web.pairs)}]",
        "data.web.edits": "[]",
        "data.benchmarks": "[cirr]",  # the last one that is named: with a benchmark, the report follows
    }
    assert data.web.edits == data.benchmarks == []


def test_its_steps_are_stages_and_commands_that_exist():
    assert all((ROOT / f"stages/{stage}.py").is_file() for stage in STAGES)
    assert [step for step in commands("a.png") if step.startswith("cir ")] == ["cir index", "cir search"]


def test_a_report_as_a_table():
    steps = {
        "cir search": {"seconds": 2.4, "processor_seconds": 4.4, "peak_gib": 0.5},
        "prepare": {"seconds": 1.2, "processor_seconds": 1.0, "peak_gib": 0.26},
    }
    assert table({"steps": steps}).splitlines()[2:] == [
        "| `prepare` | 1 | 1 | 0.3 |",
        "| `cir search` | 2 | 4 | 0.5 |",
        "| all | 4 | 5 | 0.5 |",
    ]
