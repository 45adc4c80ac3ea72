"""How long a warm search takes, and the page's answers.

    python -m bench.search [--gallery FOLDER]

The models are those that `dvc repro` trained. Each method is asked for other references in a process that is
warm; then the page answers over HTTP, two methods side by side: one visitor after the other, and twenty at once.
`reports/bench/search.json` has seconds of the clock and, where one process does all the work, of the processor.
"""

from __future__ import annotations

import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from bench.machine import hardware, versions
from pipeline.app.search.galleries import open_gallery
from pipeline.app.search.requests import Request
from pipeline.app.search.searcher import Searcher
from pipeline.artifacts import write_json
from pipeline.config import load_params
from pipeline.runtime import set_up

TEXT = "make it red"
VISITORS = 20


def warm_searches(searcher: Searcher, repeats: int) -> dict[str, Any]:
    """Method -> seconds of the first search after warming up, of the slowest, the median, and the first one's parts."""
    ids, found = searcher.gallery.ids, {}
    for method in searcher.methods:
        searcher.warm([method])
        runs = []
        for number in range(repeats):
            request = Request(searcher.gallery.image(ids[number * len(ids) // repeats]), TEXT, method)
            start, spent = time.perf_counter(), time.process_time()
            answer = searcher.search(request)
            runs.append((time.perf_counter() - start, time.process_time() - spent, answer.seconds))
        seconds, processor = [run[0] for run in runs], [run[1] for run in runs]
        found[method] = {
            "first": round(seconds[0], 3),
            "slowest": round(max(seconds), 3),
            "median": round(median(seconds), 3),
            "median_cpu_s": round(median(processor), 3),
            "parts_of_the_first": {part: round(s, 3) for part, s in runs[0][2].items()},
        }
    return found


def page_answers(searcher: Searcher, repeats: int) -> dict[str, Any]:
    """Seconds from the button to both methods' answers, asked as a browser does, without the drawing."""
    with TemporaryDirectory() as cache:
        os.environ |= {"GRADIO_TEMP_DIR": cache, "GRADIO_ANALYTICS_ENABLED": "False"}
        from gradio_client import Client, handle_file

        from pipeline.app.page.server import launch

        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        page, ids = launch(searcher, port=port), searcher.gallery.ids
        first, second = searcher.methods[:2]
        retrieve, references = searcher.params.retrieve, []
        for number in range(repeats):
            references.append(str(Path(cache) / f"reference{number}.png"))
            searcher.gallery.image(ids[number * len(ids) // repeats]).save(references[-1])
        clients = [
            Client(page.local_url, verbose=False, download_files=False, httpx_kwargs={"timeout": 600}) for _ in range(4)
        ]

        def ask(number: int) -> tuple[float, bool]:
            text, start = f"{TEXT} {number}", time.perf_counter()
            answer = clients[number % len(clients)].predict(
                handle_file(references[number % repeats]),
                text,
                "",
                "",
                first,
                second,
                retrieve.guidance_scale,
                retrieve.control_scale,
                retrieve.hypotheses,
                12,
                None,
                api_name="/search",
            )
            return time.perf_counter() - start, text in answer[0] and sum(
                isinstance(part, list) and len(part) > 0 for part in answer
            ) == 2

        ask(0)
        spent = time.process_time()
        alone = [ask(number) for number in range(repeats)]
        spent = time.process_time() - spent
        start = time.perf_counter()
        with ThreadPoolExecutor(VISITORS) as pool:
            together = list(pool.map(ask, range(VISITORS)))
        whole = time.perf_counter() - start
        page.close()
    seconds = [one for one, _ in alone]
    return {
        "methods": [first, second],
        "median": round(median(seconds), 3),
        "slowest": round(max(seconds), 3),
        "cpu_s_an_answer": round(spent / repeats, 3),
        f"{VISITORS}_at_once": {"answered": sum(right for _, right in together), "seconds": round(whole, 2)},
    }


def main(
    gallery: Annotated[str, typer.Option(help="As for `cir search`.")] = "",
    repeats: Annotated[int, typer.Option(min=2)] = 10,
    threads: Annotated[int, typer.Option(help="As for `cir search`.", min=1)] = 1,
    out: Annotated[Path, typer.Option(help="The result.")] = Path("reports/bench/search.json"),
) -> None:
    params = load_params()
    params.runtime.threads = threads
    set_up(params.runtime, params.seed)
    load = [round(value, 1) for value in os.getloadavg()[:2]]
    searcher = Searcher(params, open_gallery(gallery or None))
    result = {
        "command": "python -m bench.search",
        "profile": params.profile,
        "pictures": len(searcher.gallery.ids),
        "threads": params.runtime.threads,
        "hardware": hardware(),
        "versions": versions("torch", "faiss-cpu"),
        "load_at_start": load,
        "warm_search": warm_searches(searcher, repeats),
    }
    if find_spec("gradio") and len(searcher.methods) > 1:
        result["page"] = page_answers(searcher, repeats)
    write_json(out, result)
    typer.echo(json.dumps(result, indent=2))


if __name__ == "__main__":
    typer.run(main)
