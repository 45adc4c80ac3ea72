"""The table of docs/scaling.md: python -m bench.rehearsal.table fills it from reports/bench/rehearsal.json."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

REPORT, PAGE = Path("reports/bench/rehearsal.json"), Path("docs/scaling.md")
EARLIER = " †"
BEGIN, END = "<!-- rehearsal -->\n", "<!-- end of rehearsal -->"


def table(report: dict[str, Any]) -> str:
    """Markdown: for each profile its stages with what was measured, and the whole profile's hours and terabytes."""
    parts = []
    for profile, entry in report.items():
        whole, machine = entry["whole"], entry["hardware"]
        where = machine["gpu"] or machine["cpu"]
        if "card_gib" in entry:
            where += f", of whose memory {entry['card_gib']:g} GiB were left to it"
        gpus = f"{whole['gpus']} GPU{'s' * (whole['gpus'] > 1)}"
        lines = [
            f"**`{profile}`**, measured on one {where}; the last two columns are for the whole profile on {gpus}.",
            "",
            "| stage | seconds here | rows or samples a second | GPU GiB | host GiB | hours | TB |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for name, facts in entry["stages"].items():
            if "error" in facts:
                lines.append(f"| `{name}` | {facts['seconds']:.0f} | failed | | | | |")
                continue
            rate, all_of_it = _rate(facts["bars"]), whole["stages"][name]
            memory = f"{facts['peak_gpu_gib']:.1f} | {facts['peak_host_gib']:.1f}"
            sums = f"{all_of_it['hours']:,.1f} | {all_of_it['terabytes']:,.2f}"
            mark = EARLIER * bool(facts.get("of_an_earlier_run"))
            lines.append(f"| `{name}`{mark} | {facts['seconds']:.0f} | {rate} | {memory} | {sums} |")
        lines.append(f"| all | | | | | {whole['hours']:,.1f} | {whole['terabytes']:,.2f} |")
        earlier = any(facts.get("of_an_earlier_run") for facts in entry["stages"].values())
        note = f" Stages with {EARLIER.strip()} are of an earlier run." * earlier
        lines += ["", f"The slowest is `{whole['slowest']}`." + _cut(entry["models"]) + note]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _rate(bars: dict[str, dict[str, float]]) -> str:
    """Of the work that took longest."""
    longest = max(bars.values(), key=lambda bar: bar["seconds"], default={"rows_per_second": 0.0})
    rate = longest.get("samples_per_second") or longest["rows_per_second"]
    return f"{rate:,.1f}" if rate else ""


def _cut(models: dict[str, Any]) -> str:
    cut = {name: facts["layers_share"] for name, facts in models.items() if facts["layers_share"] < 1}
    return "".join(
        f" Of {name} {share:.0%} of the layers were made, and its hours are scaled by their number."
        for name, share in cut.items()
    )


def fill(page: str, report: dict[str, Any]) -> str:
    """The page with the table between its two marks."""
    return re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}{table(report)}{END}", page, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(), json.loads(REPORT.read_text())))
