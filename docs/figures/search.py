"""Draw `docs/images/search.png`, the first answers of one `cir search`. Run it after `make repro`:

    cir search --image twemoji/2764 --text "in brown" --method fusion_diff --method diffcomp_relative --top 6 --json \
        | python docs/figures/search.py
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pyarrow.parquet as parquet
from matplotlib.figure import Figure
from PIL import Image

IMAGES = Path("data/benchmarks/emoji_cir/images")
OUT = Path(__file__).parents[1] / "images/search.png"
LABELS = {"fusion_diff": ("Fusion-Diff", ""), "diffcomp_relative": ("DiffComp", "relatives: ")}
REFERENCE, TARGET = "twemoji/2764", "twemoji/1f90e"
FRAME, GREEN, GREY = "#c9c5bd", "#1a9a46", "#5b6475"


def gallery() -> dict[str, Image.Image]:
    """Image id -> image, of the benchmark's gallery."""
    rows = [row for path in sorted(IMAGES.glob("*.parquet")) for row in parquet.read_table(path).to_pylist()]
    return {row["image_id"]: Image.open(io.BytesIO(row["bytes"])).convert("RGB") for row in rows}


def show(figure: Figure, box: tuple[float, float, float], image: Image.Image, colour: str = FRAME) -> None:
    """An image with a frame; the box is left, bottom and side in inches."""
    width, height = figure.get_size_inches()
    left, bottom, side = box
    axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
    axes.imshow(image.resize((256, 256), Image.Resampling.LANCZOS))
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=1 if colour == FRAME else 3)


def main() -> None:
    searches, images = [json.loads(line) for line in sys.stdin], gallery()
    figure = Figure(figsize=(9.6, 2.9), dpi=150, facecolor="white")

    def write(left: float, bottom: float, text: str, **style: object) -> None:
        figure.text(left / 9.6, bottom / 2.9, text, **{"color": "#1d2330", "fontsize": 12, **style})

    show(figure, (0.3, 1.15, 1.1), images[REFERENCE])
    write(0.3, 2.42, "Query", fontweight="bold")
    write(0.3, 0.75, f"“{searches[0]['text']}”")
    for row, search in enumerate(searches):
        bottom = 1.65 - 1.4 * row
        label, variant = LABELS[search["method"]]
        write(2.0, bottom + 0.55, label, fontweight="bold")
        write(2.0, bottom + 0.28, f"{variant}first six answers", color=GREY, fontsize=8)
        for place, found in enumerate(search["hits"]):
            name = found["id"]
            show(figure, (3.6 + 0.98 * place, bottom, 0.86), images[name], GREEN if name == TARGET else FRAME)
    figure.savefig(OUT)


if __name__ == "__main__":
    main()
