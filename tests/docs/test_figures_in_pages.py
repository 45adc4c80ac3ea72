"""Figures in the pages are those of the committed results."""

from __future__ import annotations

import csv
import json
import re
import statistics

import pytest

from bench.index import table as index_table
from bench.own_data import table as own_data_table
from pipeline.app.cli.model_sizes import describe_models
from pipeline.config import load_profile
from tests.committed import committed
from tests.docs.committed_figures import bench, cells, committed_seeds, numbers
from tests.docs.pages import ROOT, TEXTS

RESULTS = TEXTS["docs/results.md"]
PERFORMANCE = TEXTS["docs/performance.md"]


def test_the_results_table_is_the_reports():
    table = committed("reports/tables/results.md").split("\n\n")[2]
    assert table.startswith("| method |") and table in RESULTS


def test_the_orders_are_the_metrics():
    orders = json.loads(committed("reports/metrics.json"))["orders"]
    rows = re.findall(r"^\| `(\w+)` \| ([+-][\d.]+) \[([+-][\d.]+), ([+-][\d.]+)\] \| (\w+) \|", RESULTS, re.M)
    found = {name: [float(number) for number in numbers] for name, *numbers, _ in rows}
    assert found == {
        name: pytest.approx([order["difference"], order["low"], order["high"]], abs=0.051)
        for name, order in orders.items()
    }
    assert {name: verdict for name, *_, verdict in rows} == {
        name: "holds" if order["low"] > 0 else "fails" if order["high"] < 0 else "open"
        for name, order in orders.items()
    }


def test_the_table_of_indexes_is_the_measured_one():
    assert index_table(bench("index")) in TEXTS["docs/indexes.md"]


def test_the_table_of_training_on_own_data_is_the_measured_one():
    page, measured = TEXTS["docs/tutorials/train-on-your-data.md"], bench("own_data")
    assert own_data_table(measured) in page
    assert f"{measured['images']:,} emoji" in page


def test_embeddings_and_captions():
    measured = bench("embedding")
    gme = "embed_gpu_gme-Qwen2-VL-2B-Instruct"
    for row, part in (
        ("GME-Qwen2-VL-2B, images with a sentence", gme),
        ("the same, with captions of 80 words", f"{gme}_80_words"),
        ("Qwen2.5-VL-3B, images with a sentence", "embed_gpu"),
        ("Qwen2.5-VL-3B, captions of 120 tokens", "generate_gpu"),
    ):
        goal, *rates = (float(cell) for cell in cells("docs/performance.md", row))
        assert rates == [measured[part][f"{name}_per_second"] for name in ("job", "engine", "bare")]
        assert rates[0] >= goal and measured[part]["torch_threads"] == 2  # as `lab` and `paper`
    for number in (
        measured["reader"]["rows_per_second_first_opening_included"],
        measured["reader"]["rows_per_second_later_opening_included"],
        measured["million"]["peak_memory_mib"],
        measured["embed_gpu"]["prepared_per_second"],
    ):
        assert min(abs(shown - number) for shown in numbers(PERFORMANCE)) <= 0.5, number


def test_training_of_the_prior():
    bf16, fp8, ragged, peer = (row["samples_per_second"] for row in bench("prior_training")["rows"])
    _, ours, ours_fp8, theirs = cells("docs/performance.md", "Stage 1, samples a second")
    assert [numbers(cell)[0] for cell in (ours, ours_fp8, theirs)] == [round(bf16), round(fp8), round(peer)]
    assert numbers(cells("docs/performance.md", "the same, texts of 20 to 220 tokens")[1]) == [round(ragged)]
    one, four = (bench(f"prior_training_{count}")["rows"] for count in ("1_gpu", "4_gpus"))
    shown = cells("docs/performance.md", "weak scaling, one to four H200")[1:3]
    for cell, alone, together in zip(shown, one, four, strict=True):
        share, *rates = numbers(cell)
        assert rates == [round(alone["samples_per_second"]), round(together["samples_per_second"])]
        assert share == pytest.approx(25 * together["samples_per_second"] / alone["samples_per_second"], abs=0.06)


def test_captions_encoded_while_training():
    lines = [
        "stored",
        *(
            f"encoded {how}, {tokens} tokens"
            for how in ("in bfloat16", "with products of 8 bits")
            for tokens in ("120", "20 to 220")
        ),
    ]
    for name, row in zip(lines, bench("prior_training_texts")["rows"], strict=True):
        samples, peak, *alone = (numbers(cell) for cell in cells("docs/performance.md", name)[0:3])
        assert samples == [round(row["samples_per_second"])] and peak == [row["peak_memory_gib"]]
        assert alone == [[round(row["texts_per_second_alone"])] if "texts_per_second_alone" in row else []]


def test_host_memory():
    report = bench("host_memory")
    for name, stage in report["stages"].items():
        first, _, kind = name.partition(": ")
        row = "`" + first + "`" + (f", {kind}" if kind else "")
        most, paper = stage["measured"][-1], round(stage["paper_gib"], 1)
        assert most["rows"] == 1_000_000 and stage["paper_gib"] < report["most_gib"]
        assert [numbers(cell)[0] for cell in cells("docs/scaling.md", row)] == [
            *(round(value) for value in (most["peak_mib"], stage["bytes_a_row"])),
            paper,
        ]


def test_sampling():
    plain, fp8 = bench("sampling")["rows"], bench("sampling_fp8")["rows"]
    half, half_fp8 = bench("sampling_half_guided")["rows"], bench("sampling_fp8_half_guided")["rows"]
    _, *alone = cells("docs/performance.md", "14 steps with guidance and control, batch 1")
    rows = (plain[0], fp8[0], plain[3])
    assert [numbers(cell)[0] for cell in alone] == [pytest.approx(row["median_ms"], abs=0.051) for row in rows]
    _, *batch = cells("docs/performance.md", "batch 32, queries a second")
    assert [float(cell) for cell in batch] == [row["queries_per_second"] for row in (plain[1], fp8[1], plain[4])]
    guided = re.findall(r"^\| the same, guidance on half of the steps \| +\| ([^|]+) \| ([^|]+) \|", PERFORMANCE, re.M)
    found = [[numbers(cell)[0] for cell in row] for row in guided]
    assert found[0] == pytest.approx([half[0]["median_ms"], half_fp8[0]["median_ms"]], abs=0.051)
    assert found[1] == [half[1]["queries_per_second"], half_fp8[1]["queries_per_second"]]


def test_recall_of_the_quick_ways():
    shown = {
        "plain fp32": "plain fp32",
        "bf16": "bf16",
        "`fp8`": "fp8",
        "guidance 2.5, bf16": "bf16, guided",
        "guidance 2.5, `fp8`": "fp8, guided",
        "guidance 2.5 on half of the steps, bf16": "bf16, half of the steps guided",
        "guidance 2.5 on half of the steps, `fp8`": "fp8, half of the steps guided",
    }
    rows = {(row["sampled"], row["trained"]): row["recall_at_10"] for row in bench("recall")["rows"]}
    for label, sampled in shown.items():
        expected = [rows[sampled, trained] for trained in ("bf16", "fp8")]
        found = [float(cell) for cell in cells("docs/performance.md", label)]
        assert found == pytest.approx(expected, abs=0.051)


def test_costs_of_diffcomp():
    added = bench("diffcomp")["encoding"]["local_blocks"]
    found = [numbers(cell)[0] for cell in cells("docs/performance.md", "time")]
    assert found == pytest.approx([100 * added[k]["added"] for k in ("1", "2", "24")], abs=0.5)
    operations = bench("diffcomp_operations")["css_added"]
    found = [numbers(cell)[0] for cell in cells("docs/performance.md", "operations")]
    assert found == pytest.approx([100 * operations[k] for k in ("1", "2", "24")], abs=0.5)
    training = bench("diffcomp")["training"]
    for part in ("diffcomp", "diffcomp_checkpointed"):
        shown = f"{training[part]['seconds']:.2f} s and {training[part]['peak_gib']:.1f} GiB"
        assert shown in PERFORMANCE.replace("\n", " ")


def sweep(name: str) -> dict[float, float]:
    """Value -> mean R@10."""
    rows = csv.DictReader(committed(f"reports/sweeps/{name}.csv").splitlines())
    return {float(row[name]): float(row["recall"]) for row in rows if row["kind"] == "mean"}


def test_sweeps():
    for name in ("control_scale", "guidance_scale", "solver_steps"):
        values = sweep(name)
        row = next(
            line for line in TEXTS["docs/sweeps-and-ablations.md"].splitlines() if line.startswith(f"| `{name}` |")
        )
        low, high = (float(cell) for cell in row.split("|")[2:4])
        best = [float(number) for number in row.split("|")[4].split(",")]
        assert (low, high) == (
            pytest.approx(min(values.values()), abs=0.06),
            pytest.approx(max(values.values()), abs=0.06),
        )
        assert best == [value for value in values if values[value] == max(values.values())]


def ablated(table: str) -> dict[str, str]:
    """Row -> mean R@10 on the held-out team ± standard deviation over seeds, as a page shows it."""
    found: dict[str, list[float]] = {}
    for cell in json.loads(committed(f"reports/ablations/{table}.json"))["cells"]:
        found.setdefault(cell["row"], []).append(cell["scores"]["emoji_cir"]["mean"]["R@10"])
    return {row: f"{statistics.mean(scores):.1f} ± {statistics.stdev(scores):.1f}" for row, scores in found.items()}


def test_ablation_of_the_modules():
    found, page = ablated("modules"), TEXTS["docs/sweeps-and-ablations.md"]
    assert f"| {' | '.join(found)} |" in page and f"| {' | '.join(found.values())} |" in page


def test_what_holds_of_diffcomp():
    page, rows = "docs/methods/diffcomp.md", committed_seeds("diffcomp")["emoji_cir"]["rows"]
    for claim, method, others in (
        ("DiffComp above its row 1", "diffcomp", ["diffcomp row1"]),
        ("DiffComp above slerp, and above image + text", "diffcomp", ["slerp", "image text"]),
        ("relatives above row 1", "diffcomp_relative", ["diffcomp row1"]),
        ("relatives above slerp, and above image + text", "diffcomp_relative", ["slerp", "image text"]),
    ):
        for found in (rows[method][f"R@10 over {other}"] for other in others):
            verdict = "holds" if found["low"] > 0 else "fails" if found["high"] < 0 else "open"
            assert cells(page, claim) == [f"{found['value']:+.1f} [{found['low']:.1f}, {found['high']:.1f}]", verdict]
    for claim, table, first, others in (
        ("a text weight of 0.8 is no collapse", "lambda_base", "0.8", ["0.6"]),
        ("Table 8: CSS + PSM + DAC is highest", "modules", "css+psm+dac", ["css+dac"]),
        ("Table 9: the grid of 4 x 4 is highest", "grids", "4", ["8"]),
        ("Table 10: phrases above random masks, crops and CAM", "masks", "psm", ["random", "crop", "cam"]),
        ("Table 10: phrases above nouns and the sentence", "masks", "psm", ["noun", "sentence"]),
        ("Table 10: straight-through above hard, soft and Gumbel", "masks", "psm", ["hard", "sigmoid", "gumbel"]),
        ("Figure 1: the peak at a masked share of 0.7", "eta", "0.7", ["0.9"]),
        ("Figure 2: the peak at a local weight of 0.4", "phi", "0.4", ["0.2", "0.6"]),
    ):
        found = ablated(table)
        shown = re.findall(r"[\d.]+ ± [\d.]+", cells(page, claim)[0])
        assert shown == [found[row] for row in (first, *others)]
        beaten = any(float(found[row].split()[0]) > float(found[first].split()[0]) for row in others)
        assert cells(page, claim)[1].startswith("fails") == (beaten and "collapse" not in claim)
    order = json.loads(committed("reports/metrics.json"))["diffcomp"]["order"]
    share, gap = order["masked left of aligned"], order["gap to queries"]
    assert cells(page, "Figure 4: masked pairs left of the aligned ones")[0] == f"{100 * share:.0f}% of the pairs"
    assert f"{gap:.2f} of the aligned" in cells(page, "Figure 4: masked pairs near the queries")[0]


def test_rows_over_training_seeds():
    rows = committed_seeds("diffcomp")["emoji_cir"]["rows"]
    page = TEXTS["docs/sweeps-and-ablations.md"]
    for label, method in (
        ("row 1", "diffcomp_row1"),
        ("DiffComp", "diffcomp"),
        ("relatives, with the paper's DAC", "diffcomp_combined"),
        ("relatives", "diffcomp_relative"),
    ):
        row = rows[method]
        cells = [f"{row['R@10']['value']:.1f} ± {statistics.stdev(row['seeds']):.1f}"]
        for other in ("diffcomp row1", "slerp"):
            found = row.get(f"R@10 over {other}")
            cells.append(f"{found['value']:+.1f} [{found['low']:.1f}, {found['high']:.1f}]" if found else "")
        assert f"| {label} | {' | '.join(cells)} |".replace("|  |", "| |") in page


def test_students_beside_their_teacher():
    tables = json.loads(committed("reports/seeds/student.json"))["benchmarks"]
    page, settings = TEXTS["docs/methods/fusion-diff.md"], ("temperature 1, guidance 2.5", "temperature 0, guidance 2")
    for anchor in ("0", "0.5"):
        for label, method in (
            ("teacher, 14 guided steps", "teacher"),
            ("the same solver in 2 guided steps", "teacher in 2 steps"),
            ("student, two passes", "student, two passes"),
            ("student, one pass", "student, one pass"),
        ):
            cells = []
            for setting in settings:
                row = tables[f"Emoji-CIR, validation split, {setting}, anchor {anchor}"]["rows"][method]
                deviation = statistics.stdev(row["seeds"])
                cells.append(f"{row['R@10']['value']:.1f}" + (f" ± {deviation:.1f}" if deviation else ""))
                found = row.get("R@10 over teacher")
                cells.append(f"{found['value']:+.1f} [{found['low']:.1f}, {found['high']:.1f}]" if found else "")
            assert f"| {anchor} | {label} | {' | '.join(cells)} |".replace("|  |", "| |") in page


def test_fusion_diff_over_training_seeds():
    page, benchmarks = "docs/methods/fusion-diff.md", committed_seeds("fusion_diff")
    rows = [benchmarks[name]["rows"] for name in ("emoji_cir", "emoji_cir_val")]
    for label, method in (("Stage 1 only (B)", "stage1_only"), ("Fusion-Diff (C)", "fusion_diff")):
        scores = [(row[method]["R@10"]["value"], statistics.stdev(row[method]["seeds"])) for row in rows]
        shown = [f"{mean:.1f} ± {spread:.1f}" for mean, spread in scores]
        assert f"| {label} | {' | '.join(shown)} |" in TEXTS[page]
    assert all(text in RESULTS for text in shown)
    for label, other in (
        ("fused only (A)", "fused only"),
        ("Stage 1 only (B)", "stage1 only"),
        ("CIReVL", "cirevl"),
        ("the fused description", "fused description"),
    ):
        found = [row["fusion_diff"][f"R@10 over {other}"] for row in rows]
        assert cells(page, f"C over {label}") == [
            f"{one['value']:+.1f} [{one['low']:.1f}, {one['high']:.1f}]" for one in found
        ]


def test_sizes_of_fusion_diff():
    offline, paper = (describe_models(load_profile(name, ROOT / "conf")) for name in ("offline", "paper"))
    page = "docs/methods/fusion-diff.md"
    for label, count in (
        ("parameters of the prior", lambda sizes: sizes["prior"]["parameters"]),
        ("trained parameters of the adapter", lambda sizes: sizes["control_adapter"]["trainable"]),
    ):
        assert [numbers(cell)[0] for cell in cells(page, label)] == [count(offline), count(paper)]
    assert [numbers(cell)[0] for cell in cells(page, "$d$")] == [offline["prior"]["dim"], paper["prior"]["dim"]]
    shown = [numbers(cell) for cell in cells(page, "width, heads, blocks")]
    assert shown == [[sizes["prior"][name] for name in ("width", "heads", "depth")] for sizes in (offline, paper)]


OWN_DATA = "docs/tutorials/train-on-your-data.md"


def test_the_sizes_of_the_profiles_are_their_models():
    """In the table of which size one needs."""
    lines = [line for line in TEXTS[OWN_DATA].splitlines() if line.startswith("| ")]
    row = {name: line for line in lines for name in ("offline", "lab", "paper") if f"`profile={name}`" in line}
    for name, line in row.items():
        sizes = describe_models(load_profile(name, ROOT / "conf"))
        found = {
            sizes["prior"]["parameters"],
            sizes["control_adapter"]["trainable"],
            sizes["diffcomp"]["diffcomp"]["trainable"],
            sizes["dual_encoder"]["parameters"],
        }
        shown = {float(number) for number in re.findall(r"([\d.]+)M", line)}
        digits = 1 if name == "offline" else 0
        assert {round(count / 1e6, digits) for count in found} <= shown, name
    assert row.keys() == {"offline", "lab", "paper"}


def test_rates_in_the_table_of_sizes_are_the_measured_ones():
    one, four = (bench(f"prior_training_{number}")["rows"][0] for number in ("1_gpu", "4_gpus"))
    rates = f"{one['samples_per_second']:,.0f} samples a second on one GPU, {four['samples_per_second']:,.0f} on four"
    assert f"{rates}, {one['peak_memory_gib']} GiB on each" in TEXTS[OWN_DATA]
    slerp = bench("folder")["methods"]["slerp"]
    assert f"{slerp['cpu_s']:.0f} s of processor time, {slerp['peak_mib']} MiB" in TEXTS[OWN_DATA]


def test_the_cost_of_diffcomp_on_the_small_backbone():
    measured, page = bench("diffcomp_small"), "docs/performance.md"
    for start, k, step in (("k = 1", "1", "diffcomp_k1"), ("k = L = 6", "6", "diffcomp")):
        added, steps = measured["encoding"]["local_blocks"][k]["added"], measured["training"][step]["times_plain"]
        assert cells(page, start) == [f"+{100 * added:.1f}%", f"{steps:.2f} plain steps"]
    plain, masked = measured["attention"]["plain"], measured["attention"]["masked"]
    assert f"through all blocks take {masked['times_plain']:.2f} times as long" in PERFORMANCE
    assert all("flash" in name for name in plain["operators"]) and all("math" in name for name in masked["operators"])
