"""How long a warm search takes: python -m benchmarks.search [--gallery FOLDER]. Prints JSON, seconds by part and method."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from pipeline.app.gallery import open_gallery
from pipeline.app.requests import Request
from pipeline.app.searcher import Searcher
from pipeline.config import load_params
from pipeline.runtime import set_up


def main(gallery: Annotated[str, typer.Option(help="As for `cir search`.")] = "", repeats: int = 10) -> None:
    params = load_params()
    set_up(params.runtime, params.seed)
    searcher = Searcher(params, open_gallery(gallery or None))
    ids, found = searcher.gallery.ids, {}
    for method in searcher.methods:
        searcher.warm([method])
        runs = []
        for number in range(repeats):
            request = Request(searcher.gallery.picture(ids[number * len(ids) // repeats]), "make it red", method)
            start = time.perf_counter()
            answer = searcher.search(request)
            runs.append((time.perf_counter() - start, answer.seconds))
        (first, parts), slowest = runs[0], max(seconds for seconds, _ in runs)
        rounded = {part: round(seconds, 3) for part, seconds in parts.items()}
        found[method] = {"first": round(first, 3), "slowest": round(slowest, 3), "parts_of_the_first": rounded}
    print(json.dumps({"pictures": len(ids), "threads": params.runtime.threads, "methods": found}, indent=2))


if __name__ == "__main__":
    typer.run(main)
