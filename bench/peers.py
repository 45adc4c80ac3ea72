"""Train the peers with several seeds and score them beside the training-free rows: python -m bench.peers

It wants what `dvc repro embed_gallery` makes, and writes `reports/peers/scores.json`, which the report shows. A peer
that is trained already is not trained again, and a training that was cut off goes on. LDRE and OSrCIR, which are not
trained, are asked once.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
import typer
from torch import Tensor

from bench.machine import hardware
from pipeline.artifacts import ShardSet, read_json, write_json
from pipeline.artifacts.model_files import WEIGHTS
from pipeline.config import ParameterError, Params, load_params
from pipeline.config.peers import DescribedName
from pipeline.encoders.batching import encode_in_batches
from pipeline.encoders.dual.interface import ImageTextEncoder
from pipeline.encoders.embedding.dual_gallery import encode_images
from pipeline.encoders.image_source import ImageTable
from pipeline.errors import report_user_errors
from pipeline.peers import PEERS, Peer, load_peer
from pipeline.peers.corpus import Corpus
from pipeline.query.models import Models
from pipeline.query.reasoning import METHODS as DESCRIBED
from pipeline.query.reasoning_family import load as load_described
from pipeline.retrieval.baselines import image_only, slerp, text_only
from pipeline.retrieval.benchmarks import find_benchmarks
from pipeline.retrieval.bootstrap import Interval, mean_interval, paired_difference
from pipeline.retrieval.gallery_vectors import vectors
from pipeline.retrieval.protocols import hits
from pipeline.retrieval.queries import Query, read_queries
from pipeline.retrieval.spaces import CLIP
from pipeline.runtime import device, set_up
from stages.train_peers import train_peer

KNOWN = (*PEERS, *(method.name for method in DESCRIBED))
"""The methods that have a row beside the training-free ones."""
SCRATCH, OUT = Path("data/peers"), Path("reports/peers/scores.json")
BASELINES = {"image_only": image_only, "text_only": text_only, "slerp": slerp}
RECALLS = (1, 5, 10)
DIFFERENCE = 10
"""K of the paired differences."""
TRAINING, DEVIATION = "training, s", f"R@{DIFFERENCE}, deviation over seeds"
Hits = dict[int, np.ndarray]
"""K -> each query's hit, or its share of hits over seeds, [Q]."""


@dataclass
class Runs:
    """What is known of one method: an entry a seed, or a single one where nothing is trained."""

    hits: list[Hits] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """Of the trainings, as far as they were timed."""
    devices: set[str] = field(default_factory=set)
    """That they ran on."""


@dataclass(frozen=True)
class Gallery:
    """A benchmark's images, as one encoder sees them."""

    ids: list[str]
    vectors: np.ndarray
    """[N, D]."""

    def of(self, queries: Sequence[Query]) -> np.ndarray:
        """The references' vectors, [Q, D]."""
        rows = {image_id: row for row, image_id in enumerate(self.ids)}
        return self.vectors[[rows[query.reference_id] for query in queries]]

    def hits(self, vectors: np.ndarray, queries: Sequence[Query]) -> Hits:
        """Exact search with query vectors [Q, D]; the reference is no answer to its own query."""
        depth = max(RECALLS)
        best = np.argsort(-(vectors @ self.vectors.T), axis=1, kind="stable")[:, : depth + 1]
        ranked = [
            [self.ids[row] for row in rows if self.ids[row] != query.reference_id][:depth]
            for rows, query in zip(best, queries, strict=True)
        ]
        return {k: hits(ranked, [query.target_ids for query in queries], k) for k in RECALLS}


class Scorer:
    """The queries of one benchmark and the backbone's view of its images."""

    def __init__(self, params: Params, benchmark: str):
        (found,) = [folder for folder in find_benchmarks() if folder.name == benchmark]
        self.params, self.images, self.corpus = params, found.images, Corpus(params)
        embedded = ShardSet.open(Path("data/gallery") / found.gallery / CLIP)
        self.queries = read_queries(found.path / "queries")
        self.kinds = [query.category or "all" for query in self.queries]
        ids, rows = zip(*vectors(embedded), strict=True)
        self.gallery = Gallery([image_id for part in ids for image_id in part], np.concatenate(rows))

    def baselines(self) -> dict[str, Hits]:
        """The training-free rows."""
        images = self.gallery.of(self.queries)
        texts = self.corpus.text_features([query.text for query in self.queries]).numpy()
        weights = {"slerp": (self.params.retrieve.slerp,)}
        return {
            name: self.gallery.hits(compose(images, texts, *weights.get(name, ())), self.queries)
            for name, compose in BASELINES.items()
        }

    def peer(self, peer: Peer) -> Hits:
        """A trained peer in its own space."""
        gallery = self.gallery if peer.encoder is self.corpus.encoder else self._embedded(peer.encoder)
        images, texts = torch.from_numpy(gallery.of(self.queries)), [query.text for query in self.queries]

        def compose(rows: Sequence[int]) -> Tensor:
            return peer.compose(images[list(rows)].to(peer.encoder.mean.device), [texts[row] for row in rows])

        rows, size = range(len(texts)), self.params.retrieve.batch_size
        return gallery.hits(encode_in_batches(compose, rows, size, "queries"), self.queries)

    def described(self, name: str) -> Hits:
        """A method that describes the target in words, and is not trained."""
        params = replace(self.params, peers=replace(self.params.peers, described=[cast(DescribedName, name)]))
        answers = load_described(Models(params)).answer(self.queries, ImageTable(self.images))
        return self.gallery.hits(answers[name].vectors, self.queries)

    def _embedded(self, encoder: ImageTextEncoder) -> Gallery:
        table = ImageTable(self.images)
        encode: Callable[[Sequence[str]], Tensor] = lambda ids: encode_images(encoder, table, ids)  # noqa: E731
        return Gallery(table.ids, encode_in_batches(encode, table.ids, self.params.embedder.batch_size, "gallery"))


def train_timed(folder: Path, corpus: Corpus) -> None:
    """Train a peer, unless it is there already. Seconds and device are noted beside its folder."""
    start = time.perf_counter()
    if train_peer(folder, corpus):
        note = {"seconds": round(time.perf_counter() - start, 1), "device": machine(corpus.params)}
        write_json(folder.with_suffix(".json"), note)


def machine(params: Params) -> str:
    """What trains, in words."""
    if device(params.runtime).startswith("cuda"):
        return f"one {torch.cuda.get_device_name()}"
    found = hardware()
    return f"{found['cores']} cores of {found['cpu']}"


def trained_runs(scorer: Scorer, seeds: Sequence[int], names: Sequence[str], train: bool) -> dict[str, Runs]:
    """Every peer's runs.

    Args:
        scorer: Scores them.
        seeds: The trainings' seeds.
        names: The peers.
        train: Whether to train those that are not there.
    """
    found = {name: Runs() for name in names}
    for seed in seeds:
        params = replace(scorer.params, seed=seed)
        set_up(params.runtime, seed)
        corpus = Corpus(params)
        for name in names:
            folder, runs = SCRATCH / str(seed) / name, found[name]
            if train:
                train_timed(folder, corpus)
            if (folder / WEIGHTS).is_file():
                peer = load_peer(folder, name, scorer.corpus.encoder, params).to(device(params.runtime))
                runs.hits.append(scorer.peer(peer))
            if (note := folder.with_suffix(".json")).is_file():
                told = read_json(note)
                runs.seconds.append(told["seconds"])
                runs.devices.add(told["device"])
    return {name: runs for name, runs in found.items() if runs.hits}


def rows_of(scorer: Scorer, found: dict[str, Runs]) -> list[dict[str, Any]]:
    """The table's rows, the best first: recall, and the paired differences of a peer's from the training-free rows'."""
    fixed, samples = scorer.baselines(), scorer.params.report.bootstrap
    means = {name: {k: np.mean([one[k] for one in runs.hits], axis=0) for k in RECALLS} for name, runs in found.items()}
    rows = []
    for name, own in (fixed | means).items():
        row: dict[str, Any] = {f"R@{k}": _shown(mean_interval(own[k], scorer.kinds, samples)) for k in RECALLS}
        for other, theirs in fixed.items():
            first, second = own[DIFFERENCE], theirs[DIFFERENCE]
            difference = paired_difference(first, second, scorer.kinds, samples)
            row[_column(other)] = None if name in fixed else _shown(difference)
        rows.append({"method": name} | row | _by_seed(found.get(name, Runs()), scorer.kinds))
    return sorted(rows, key=lambda row: -row[f"R@{DIFFERENCE}"]["value"])


def _by_seed(runs: Runs, kinds: Sequence[str]) -> dict[str, Any]:
    values = [mean_interval(one[DIFFERENCE], kinds, 1).estimate for one in runs.hits]
    several = len(values) > 1
    return {
        "seeds": [round(value, 2) for value in values],
        "seconds": runs.seconds,
        DEVIATION: {"value": round(statistics.stdev(values), 2)} if several else None,
        TRAINING: {"value": round(statistics.mean(runs.seconds), 1)} if runs.seconds else None,
    }


def caption_of(benchmark: str, seeds: str, found: dict[str, Runs]) -> str:
    """What the rows are, in words."""
    counts = {len(runs.hits) for name, runs in found.items() if name in PEERS}
    kept = f"{counts.pop()} seeds" if len(counts) == 1 and counts != {1} else f"seed {seeds}"
    devices = sorted({name for runs in found.values() for name in runs.devices})
    trained = f"Trained on {' and '.join(devices)}. " if devices else ""
    return (
        f"On {benchmark}, the mean over query kinds and {kept}, in percent, with 95% intervals over queries. "
        f"Differences are paired. {trained}Made by `python -m bench.peers`."
    )


def _column(other: str) -> str:
    return f"R@{DIFFERENCE} over {other.replace('_', ' ')}"


def _shown(interval: Interval) -> dict[str, float]:
    return {
        "value": round(interval.estimate, 2),
        "low": round(interval.low, 2),
        "high": round(interval.high, 2),
    }


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@report_user_errors()
def main(
    seeds: Annotated[str, typer.Option(help="Seeds of the trainings, with commas.")] = "0,1,2",
    methods: Annotated[str, typer.Option(help="Methods, with commas.")] = ",".join(KNOWN),
    benchmark: Annotated[str, typer.Option(help="What they are scored on.")] = "emoji_cir",
    only_score: Annotated[bool, typer.Option("--only-score", help="Train nothing; score what is there.")] = False,
    out: Annotated[Path, typer.Option(help="The result.")] = OUT,
) -> None:
    """Train, score, and write the JSON."""
    names = methods.split(",")
    if unknown := [name for name in names if name not in KNOWN]:
        raise ParameterError(f"--methods: {unknown} are not among {', '.join(KNOWN)}")
    params = load_params()
    set_up(params.runtime, params.seed)
    scorer, trained = Scorer(params, benchmark), [name for name in names if name in PEERS]
    found = trained_runs(scorer, [int(seed) for seed in seeds.split(",")], trained, not only_score)
    set_up(params.runtime, params.seed)
    found |= {name: Runs([scorer.described(name)]) for name in names if name not in PEERS}
    columns = [*(f"R@{k}" for k in RECALLS), *(_column(other) for other in BASELINES), DEVIATION, TRAINING]
    rows, caption = rows_of(scorer, found), caption_of(benchmark, seeds, found)
    write_json(out, {"caption": caption, "columns": columns, "rows": rows, "profile": params.profile})
    for row in rows:
        print(row["method"], *(row[f"R@{k}"]["value"] for k in RECALLS), row["seeds"], row["seconds"])


if __name__ == "__main__":
    app()
