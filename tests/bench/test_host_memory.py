"""bench/host_memory.py: the line is the right one, and every stage's path runs over a few made-up pairs."""

from __future__ import annotations

import json

import pytest

from bench import host_memory
from bench.host_memory import PAPER_ROWS, line_through, measured, write_source


def test_the_line_gives_bytes_a_row_and_what_the_papers_rows_need():
    peaks = [{"rows": rows, "peak_mib": 500 + rows * 300 / 2**20} for rows in (250_000, 500_000, 1_000_000)]
    found = line_through(peaks)
    assert found["bytes_a_row"] == pytest.approx(300, abs=0.1)
    assert found["paper_gib"] == pytest.approx((500 * 2**20 + PAPER_ROWS * 300) / 2**30, abs=0.01)


def test_memory_that_does_not_grow_stays():
    peaks = [{"rows": rows, "peak_mib": peak} for rows, peak in ((1_000, 520.0), (2_000, 512.0))]
    assert line_through(peaks) == {"bytes_a_row": 0.0, "paper_gib": round(520 / 1024, 2)}


def test_every_stage_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(host_memory, "STEPS", 1)
    write_source(tmp_path / "data/raw/cc3m", 120)
    for name in host_memory.STAGES:
        assert measured(name)["peak_mib"] > 0
    rows = json.loads((tmp_path / "data/texts/pairs/manifest.json").read_text())["rows"]
    assert 120 < rows <= 240, "long captions and short ones"
