"""The official protocols against loops and arrays of their own, on random rankings over all the real annotations."""

import json
import random

import numpy as np
import pytest

from pipeline.app.scoring.official import score
from pipeline.app.scoring.predictions import Predictions
from pipeline.retrieval.benchmarks.circo import ASPECTS
from pipeline.sources.benchmarks import read_annotations


@pytest.fixture(scope="session")
def real(shared):
    if not (shared / "benchmarks").is_dir():
        pytest.skip("../shared has no benchmarks")
    return shared / "benchmarks"


def load(path):
    return json.loads(path.read_text())


def helped(ranked, target, rng):
    """A random list with its target near the front in half of the cases, so that no recall is zero."""
    if rng.random() < 0.5 and target in ranked:
        ranked.remove(target)
        ranked.insert(rng.randrange(12), target)
    return ranked


def approx(expected):
    return pytest.approx(expected, abs=1e-9, rel=0)


@pytest.mark.parametrize("seed", [0, 1])
def test_circo_on_every_row(real, seed):
    """As the benchmark's own evaluation script computes it, from the file's fields."""
    rng, rows = random.Random(seed), load(real / "circo/annotations/val.json")
    pool = sorted({image_id for row in rows for image_id in row["gt_img_ids"]})
    lists = {}
    for row in rows:
        near = rng.sample(row["gt_img_ids"], rng.randrange(1 + len(row["gt_img_ids"])))
        ids = near + [image_id for image_id in rng.sample(pool, 120) if image_id not in near]
        mixed = ids[:20]
        rng.shuffle(mixed)
        lists[str(row["id"])] = (mixed + ids[20:])[:50]
    found = score(
        read_annotations("circo", real / "circo", "val"),
        Predictions({name: list(map(str, ids)) for name, ids in lists.items()}),
    )

    precision, recall, by_aspect = {k: [] for k in (5, 10, 25, 50)}, {k: [] for k in (5, 10, 25, 50)}, {}
    for row in rows:
        ranked = np.array(lists[str(row["id"])])
        right = np.isin(ranked, row["gt_img_ids"])
        at = np.cumsum(right) * right / np.arange(1, len(ranked) + 1)
        for k in precision:
            precision[k].append(at[:k].sum() / min(len(row["gt_img_ids"]), k))
            recall[k].append((ranked[:k] == row["target_img_id"]).sum())
        for aspect in row["semantic_aspects"]:
            by_aspect.setdefault(aspect, []).append(at[:10].sum() / min(len(row["gt_img_ids"]), 10))
    for k in precision:
        assert found[f"mAP@{k}"] == approx(100 * np.mean(precision[k])) and found[f"mAP@{k}"] > 1
        assert found[f"R@{k}"] == approx(100 * np.mean(recall[k]))
    assert len(by_aspect) == 9
    assert found[ASPECTS] == {aspect: approx(100 * np.mean(values)) for aspect, values in by_aspect.items()}


def test_cirr_on_every_row(real):
    rng, rows = random.Random(2), load(real / "cirr/captions/cap.rc2.val.json")
    names = list(load(real / "cirr/image_splits/split.rc2.val.json"))
    lists = {}
    for row in rows:
        members = [name for name in row["img_set"]["members"] if name != row["target_hard"]]
        ranked = list(dict.fromkeys([*rng.sample(names, 70), *rng.sample(members, 5), row["target_hard"]]))
        lists[str(row["pairid"])] = helped(ranked, row["target_hard"], rng)
    found = score(read_annotations("cirr", real / "cirr", "val"), Predictions(lists))

    hits, within = np.zeros((len(rows), 50), bool), np.zeros((len(rows), 5), bool)
    for number, row in enumerate(rows):
        ranked = [name for name in lists[str(row["pairid"])] if name != row["reference"]]
        hits[number] = np.array(ranked[:50]) == row["target_hard"]
        within[number] = np.array([name for name in ranked if name in row["img_set"]["members"]]) == row["target_hard"]
    expected = {f"R@{k}": 100 * hits[:, :k].any(axis=1).mean() for k in (1, 5, 10, 50)}
    expected |= {f"R_subset@{k}": 100 * within[:, :k].any(axis=1).mean() for k in (1, 2, 3)}
    assert list(found) == list(expected) and found == {key: approx(value) for key, value in expected.items()}


def test_fashioniq_on_every_row(real):
    rng, lists, expected = random.Random(3), {}, {}
    for category in ("dress", "shirt", "toptee"):
        gallery = load(real / "fashioniq/image_splits" / f"split.{category}.val.json")
        at = []
        for number, row in enumerate(load(real / "fashioniq/captions" / f"cap.{category}.val.json")):
            ranked = helped(rng.sample(gallery, 60), row["target"], rng)
            lists[f"{category}/{number}"] = ranked
            at.append(ranked.index(row["target"]) if row["target"] in ranked else 99)
        expected[category] = {f"R@{k}": 100 * sum(rank < k for rank in at) / len(at) for k in (10, 50)}
    expected["mean"] = {
        key: sum(expected[category][key] for category in ("dress", "shirt", "toptee")) / 3 for key in ("R@10", "R@50")
    }
    found = score(read_annotations("fashioniq", real / "fashioniq", "val"), Predictions(lists))
    assert found == {name: {key: approx(value) for key, value in entry.items()} for name, entry in expected.items()}


def test_genecis_on_every_row(real):
    rng, lists, expected = random.Random(4), {}, {}
    for task in ("focus_object", "change_object"):
        ranks = []
        for number, row in enumerate(load(real / "genecis" / f"{task}.json")):
            target = row["target"]["val_image_id"]
            ranked = sorted({target, *(image["val_image_id"] for image in row["gallery"])}, key=lambda _: rng.random())
            lists[f"{task}/{number}"] = [str(image_id) for image_id in ranked]
            ranks.append(ranked.index(target))
        expected[task] = {f"R@{k}": 100 * np.mean([rank < k for rank in ranks]) for k in (1, 2, 3)}
    average = {
        key: (expected["focus_object"][key] + expected["change_object"][key]) / 2 for key in ("R@1", "R@2", "R@3")
    }
    found = score(read_annotations("genecis", real / "genecis", "val"), Predictions(lists))
    assert set(found) == {"focus_object", "change_object", "object", "mean"}
    for name, entry in {**expected, "object": average, "mean": average}.items():
        assert found[name] == {key: approx(value) for key, value in entry.items()}
