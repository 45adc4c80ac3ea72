"""DiffComp in the report: ablations beside the paper's figures, orders in words, and what the model sees."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.artifacts import ArtifactError, read_json, write_json
from pipeline.experiments.ablation.tables import read_tables
from pipeline.report import build_report
from pipeline.report.ablations import Point, ablation_chart, ablation_table, findings, read_ablations, read_trials
from pipeline.report.diffcomp_view import ALIGNED, MASKED, QUERIES, DiffCompView, ImageMap
from pipeline.report.figures import map_strip
from tests.report.conftest import make_inputs

TABLES = Path(__file__).parents[2] / "ablations/tables.yaml"
CSS = {
    "none": 50.0,
    "css": 52.0,
    "psm": 49.0,
    "dac": 50.5,
    "css+psm": 53.0,
    "css+dac": 55.0,
    "psm+dac": 51.0,
    "css+psm+dac": 54.0,
}
"""The full model is second here; the paper's order of PSM and DAC is turned round."""


def metrics(value):
    return {"R@1": value - 20, "R@5": value - 10, "R@10": value, "R@50": value + 20, "mAP@5": value - 15}


def cell(row, setting, seed, value, masked=0.2):
    return {
        "row": row,
        "setting": setting,
        "seed": seed,
        "identity": f"{row} {setting} {seed}",
        "device": "cpu",
        "scores": {
            "emoji_cir_val": {"mean": metrics(value + 10)},
            "emoji_cir": {"mean": metrics(value), "tone": metrics(1.0)},
        },
        "training": {"cos_aligned": 0.3, "cos_masked": masked, "loss": 1.0},
    }


def write(folder: Path, name: str, cells: list) -> None:
    write_json(
        folder / f"{name}.json",
        {
            "table": name,
            "profile": "offline",
            "made_of": {},
            "diffcomp": {"steps": 200, "lr": 1e-4, "eta": 0.7},
            "cells": cells,
        },
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    spread = (-0.1, 0.0, 0.1)
    write(
        tmp_path,
        "modules",
        [
            cell(row, "", seed, value + spread[seed], 0.4 if row == "dac" else 0.2)
            for row, value in CSS.items()
            for seed in range(3)
        ],
    )
    write(
        tmp_path,
        "eta",
        [cell(row, "", seed, value) for row, value in (("0.1", 50.0), ("0.5", 54.0), ("0.9", 48.0)) for seed in (0, 1)],
    )
    return tmp_path


def test_a_table_has_means_spreads_and_the_papers_figures(folder):
    modules, eta = read_ablations(folder, TABLES)
    table = ablation_table(modules)
    assert table.columns == (
        "Emoji-CIR",
        "Emoji-CIR: R@1",
        "Emoji-CIR: R@5",
        "Emoji-CIR: R@50",
        "Emoji-CIR: mAP@5",
        "Emoji-CIR, validation split",
        "paper: FashionIQ R@10",
        "paper: CIRR R@1",
    )
    by_row = {row.method: [cell.text for cell in row.cells] for row in table.rows}
    assert by_row["css"] == [
        *("52.0 ± 0.1", "32.0 ± 0.1", "42.0 ± 0.1", "72.0 ± 0.1", "37.0 ± 0.1"),
        *("62.0 ± 0.1", "30.1", "29.5"),
    ]
    assert [row.method for row in table.rows if row.cells[0].mark == "best"] == ["css+dac"]
    assert modules.missing == 0 and "3 seeds" in table.caption
    assert eta.recipe == "steps 200, lr 0.0001"
    assert ablation_table(eta).rows[1].cells[0].text == "54.0 ± 0.0"


def test_the_sentences_count_what_the_figures_say(folder):
    modules, eta = read_ablations(folder, TABLES)
    said = findings(modules)
    paper = {name: row.paper["FashionIQ R@10"] for name, row in read_tables(TABLES)["modules"].rows.items()}
    names = list(CSS)
    pairs = [(a, b) for number, a in enumerate(names) for b in names[number + 1 :] if paper[a] != paper[b]]
    agreeing = [(a, b) for a, b in pairs if (CSS[a] < CSS[b]) == (paper[a] < paper[b])]
    assert f"of {len(pairs)} pairs of rows, {len(agreeing)} lie in the paper's order (FashionIQ R@10)." in said[0]
    assert f"{len(pairs)} differ by more than 2 standard errors, {len(agreeing)} of them" in said[0]
    assert "Highest is CSS + DAC (55.0 ± 0.1), in the paper CSS + PSM + DAC." in said[0]
    assert "CSS + PSM + DAC lies above 6 of the 7 others; not above CSS + DAC (+1.0)." in said[0]
    assert "in 7 of 8 configurations" in said[1]
    assert findings(eta)[0].startswith("Emoji-CIR: highest at 0.5 (54.0 ± 0.0), in the paper at 0.7. Lowest at 0.9")


def test_a_clear_difference_needs_several_seeds():
    near, far, alone = Point((50.0, 51.0, 49.0)), Point((54.0, 55.0, 53.0)), Point((60.0,))
    assert (
        far.clearly_differs(near)
        and not near.clearly_differs(Point((51.0, 52.0, 50.0)))
        and not alone.clearly_differs(near)
    )
    assert near.spread == pytest.approx(1.0) and alone.spread == 0.0 and alone.text == "60.0"
    # 4 apart with standard deviations of 1 and three seeds: 4 > 2 sqrt(1/3 + 1/3) = 1.63, and 1 is not


def test_nothing_there_is_nothing_shown(tmp_path):
    assert read_ablations(tmp_path / "nowhere", TABLES) == [] and read_trials(tmp_path / "nowhere") == []
    write(tmp_path, "modules", [])
    assert read_ablations(tmp_path, TABLES) == []


def test_wrong_files_are_named(tmp_path):
    write_json(tmp_path / "modules.json", {"cells": [{"row": "css"}], "diffcomp": {}})
    with pytest.raises(ArtifactError, match="modules.json: not an ablation"):
        read_ablations(tmp_path, TABLES)
    (tmp_path / "trials.yaml").write_text("tried: nothing\n")
    with pytest.raises(ArtifactError, match="trials.yaml: not a list"):
        read_trials(tmp_path)


def test_the_page_shows_them(folder, tmp_path):
    (folder / "trials.yaml").write_text(
        "- {tried: swapped <patches>, validation: 61.2}\n- {tried: other phrases, reading: worse}\n"
    )
    image = Image.new("RGB", (64, 64), "red")
    values = np.linspace(0, 1, 16).reshape(4, 4)
    cosines = {ALIGNED: np.full(9, 0.3), MASKED: np.full(9, 0.1), QUERIES: np.full(5, 0.15)}
    masks = [ImageMap(image, values, "a <b>red</b> square")] * 4
    view = DiffCompView(masks, [ImageMap(image, values, "but blue")], cosines)
    inputs = dataclasses.replace(
        make_inputs(tmp_path / "made"), ablations=folder, diffcomp_view=view, definitions=TABLES
    )
    build_report(inputs)
    page = (inputs.out / "index.html").read_text()
    assert "Modules on and off (Table 8)" in page and "swapped &lt;patches&gt;" in page and "What DiffComp sees" in page
    assert "The masked pairs lie below the aligned ones; the queries lie nearer to the masked pairs." in page
    assert read_json(inputs.out / "metrics.json")["diffcomp"]["similarity"] == {
        ALIGNED: 0.3,
        MASKED: 0.1,
        QUERIES: 0.15,
    }
    order = read_json(inputs.out / "metrics.json")["diffcomp"]["order"]
    assert order == {"masked left of aligned": 1.0, "gap to queries": pytest.approx(0.05 / 0.15, abs=1e-4)}
    assert "| CSS + PSM + DAC | <u>54.0 ± 0.1</u> |" in (inputs.out / "tables/ablations.md").read_text()
    for name in ("masks", "kept"):
        assert Image.open(inputs.out / f"figures/{name}.png").width > 100


def test_maps_and_charts_are_drawn_alike(folder):
    image = Image.new("RGB", (40, 64), "white")
    seen = [
        ImageMap(image, np.full((2, 2), 0.5), "even"),
        ImageMap(image, np.array([[0.0, 1.0], [0.0, 0.0]]), "uneven"),
    ]
    ends = ("none", "all")
    assert map_strip(seen, ends) == map_strip(seen, ends) != map_strip(seen, ends, (0.0, 2.0))
    assert map_strip(seen, ends) != map_strip(seen, ("none", "most"))
    figure = ablation_chart(read_ablations(folder, TABLES)[1])
    lines = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].lines}
    assert lines["Emoji-CIR"] == [[0.1, 50.0], [0.5, 54.0], [0.9, 48.0]]
