"""Figures of libraries, decoding, reranking and peers in the pages are those of the committed results."""

from __future__ import annotations

import json
import re

import pytest

from tests.docs.committed_figures import bench, cells, numbers
from tests.docs.pages import ROOT, TEXTS

PERFORMANCE = TEXTS["docs/performance.md"]
LIMITS = (0, 0.006, 0.051, 0.051)
"""Rounding of images, cosine, R@1, R@10."""


def test_what_a_change_of_a_library_costs():
    found, page = bench("library"), TEXTS["docs/tutorials/your-photographs.md"]
    shares = ("add_named_files", "add_by_looking_through_the_folder", "nothing_to_do")
    expected = [round(100 * found[name]["share_of_a_whole_index"], 1) for name in shares]
    said = page.partition("## What a change costs")[2].partition("JPEG")[0].replace("\n", " ")
    assert re.findall(r"([\d.]+)%", said) == [str(share) for share in expected]
    assert expected[0] <= 2 and expected[1] <= 2  # the aim
    assert f"`{found['command']}`" in page and (found["images"], found["added"]) == (10_000, 100)
    for name, kind in found["kinds"].items():
        row = [f"{kind['follows_an_addition_s']:.2f}", f"{kind['recall@10']:.3f}"]
        assert cells("docs/tutorials/your-photographs.md", name) == row
        assert kind["recall@10"] >= 0.99 or not name.startswith("milvus")


def test_the_decoders_fidelity_is_the_shipped_ones():
    found = json.loads((ROOT / "models/decoder/fidelity.json").read_text())["benchmarks"]
    names = {
        "decoded": "decoded",
        "another image's feature": "shuffled",
        "nearest training image": "nearest_training_image",
    }
    for team, measured in (("validation", found["emoji_cir_val"]), ("held-out team", found["emoji_cir"])):
        for row, name in names.items():
            shown = [float(cell.replace(",", "")) for cell in cells("docs/methods/decoder.md", f"{team}, {row}")]
            facts = measured[name]
            exact = [measured["images"], facts["cosine"], facts["R@1"], facts["R@10"]]
            assert shown == [pytest.approx(number, abs=limit) for number, limit in zip(exact, LIMITS, strict=True)]


def test_how_long_a_command_takes_cold():
    measured = [facts["median_s"] for facts in bench("cold")["commands"].values()]
    shown = numbers(cells("docs/performance.md", "`cir` from the start of its process to its end")[0].split(":")[1])
    assert all(min(abs(number - seconds) for seconds in measured) <= 0.051 for number in shown[:4])


def test_how_long_decoding_takes():
    measured = bench("decoder_offline")
    for number in (measured["decode_one_s"], measured["decode_batch_s"]):
        assert f"{number:.1f} s" in TEXTS["docs/methods/decoder.md"]
    large, page = bench("decoder_paper"), TEXTS["docs/performance.md"]
    for row, number in (
        ("| one image, s | 0.3 | {:.2f} |", large["decode_one_s"]),
        ("| eight images, s | | {:.2f} |", large["decode_batch_s"]),
        ("| a training step of eight images, s | | {:.3f} |", large["training_step_s"]),
    ):
        assert row.format(number) in page
    assert large["batch"] == 8 and f"{large['decode_one_s']:.2f} s" in TEXTS["docs/methods/decoder.md"]


def test_how_many_pairs_a_large_model_verifies():
    measured = bench("reranking")["figures"]["transformers"]
    shown = numbers(" ".join(cells("docs/methods/reranking.md", "`transformers`")))
    assert [facts["side"] for facts in measured] == [256, 384, 512]
    assert shown == [facts["pairs_s"] for facts in measured]


def test_how_long_a_student_samples():
    """Rows of the bench: the teacher, the student's one and two passes, the peer; each for 1 query and for 32."""
    rows = [row for row in bench("sampling_student")["rows"] if "batch" in row]
    order = ("1 of its passes", "2 of its passes", "guidance and control", "PixArt")
    for start, batch, figure, rounding in (
        ("one query, ms", 1, "median_ms", 0.051),
        ("32 queries at once, a second", 32, "queries_per_second", 0.51),
    ):
        found = [next(row[figure] for row in rows if name in row["model"] and row["batch"] == batch) for name in order]
        shown = numbers(" ".join(cells("docs/performance.md", start)[1:]))
        assert shown == pytest.approx(found, abs=rounding)


@pytest.mark.parametrize("name, start", [("emoji_cir_val", "Validation, 284"), ("emoji_cir", "Held-out team, 768")])
def test_verified_recalls_are_the_committed_ones(name, start):
    found = bench("verified")["benchmarks"][name]
    assert start.endswith(f" {found['queries']}")
    for recall, change in found["change"].items():
        row = cells("docs/methods/reranking.md", f"{start} | {recall}")[1:]
        shown = [float(number) for number in re.findall(r"-?\d+\.\d", " ".join(row))]
        expected = [
            found["before"][recall],
            found["after"][recall],
            *(change[k] for k in ("difference", "low", "high")),
        ]
        assert shown == pytest.approx(expected, abs=0.051)


def test_ldre_on_validation_is_the_committed_figure():
    row = next(row for row in bench("ldre_validation")["rows"] if row["method"] == "ldre")
    assert float(cells("docs/methods/peers/index.md", "[LDRE](ldre.md)")[2]) == pytest.approx(
        row["R@10"]["value"], abs=0.051
    )


def test_training_times_on_two_cores_are_the_committed_ones():
    page = TEXTS["docs/methods/peers/index.md"]
    seconds = {row["method"]: sum(row["seconds"]) for row in bench("peers_two_cores")["rows"] if row["seconds"]}
    assert f"takes {sum(seconds.values()):,.0f} seconds" in page and len(seconds) == 7
    shown = dict(re.findall(r"(\w+) (\d+)[,.]", page[page.index("peers_two_cores.json`): ") :].split("Other")[0]))
    assert {name.lower(): float(value) for name, value in shown.items()} == {
        name.replace("_", ""): pytest.approx(value, abs=0.51) for name, value in seconds.items()
    }
