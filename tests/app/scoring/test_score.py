"""`cir score` and `cir submit`, on miniatures of the four benchmarks."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.rehearsal import benchmarks as miniature
from pipeline.app.cli.main import app
from pipeline.retrieval import Ranking, write_rankings

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folders(tmp_path):
    return miniature.write_all(tmp_path / "raw")


def cir(*arguments, fails=False):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert (result.exit_code != 0) == fails, result.output
    return result.stderr.strip() if fails else result.stdout


def scored(benchmark, folders, *files, split="val", fails=False):
    options = [part for file in files for part in ("--predictions", file)]
    return cir("score", benchmark, "--annotations", folders[benchmark], "--split", split, *options, fails=fails)


def load(path):
    return json.loads(path.read_text())


def circo_lists(folders, split="val", depth=50):
    rng, numbers = (
        random.Random(0),
        [int(path.stem) for path in sorted((folders["circo"] / "COCO2017_unlabeled/unlabeled2017").glob("*"))],
    )
    return {str(row["id"]): rng.sample(numbers, depth) for row in load(folders["circo"] / f"annotations/{split}.json")}


def cirr_lists(folders, split="val", depth=miniature.IMAGES):
    rng, names = random.Random(0), list(load(folders["cirr"] / f"image_splits/split.rc2.{split}.json"))
    return {
        str(row["pairid"]): rng.sample(names, depth) for row in load(folders["cirr"] / f"captions/cap.rc2.{split}.json")
    }


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def test_circo_prints_percent(folders, tmp_path):
    lists = circo_lists(folders)
    for row in load(folders["circo"] / "annotations/val.json"):
        ids = lists[str(row["id"])]
        rest = [image_id for image_id in ids if image_id not in row["gt_img_ids"]]
        lists[str(row["id"])] = (row["gt_img_ids"] + rest)[:50]
    found = json.loads(scored("circo", folders, write(tmp_path / "p.json", lists)))
    assert found["mAP@5"] == found["mAP@50"] == found["R@5"] == 100.0
    assert found["mAP@10 by aspect"] == {"addition": 100.0, "negation": 100.0}


def test_fashioniq_and_genecis_may_come_in_several_files(folders, tmp_path):
    files = []
    for category in ("dress", "shirt", "toptee"):
        gallery = load(folders["fashioniq"] / f"image_splits/split.{category}.val.json")
        rows = load(folders["fashioniq"] / f"captions/cap.{category}.val.json")
        files.append(
            write(tmp_path / f"{category}.json", {f"{category}/{number}": gallery[:50] for number in range(len(rows))})
        )
    found = json.loads(scored("fashioniq", folders, *files))
    assert list(found) == ["dress", "shirt", "toptee", "mean"] and set(found["mean"]) == {"R@10", "R@50"}
    assert "8 queries have no prediction, the first is 'shirt/0'" in scored("fashioniq", folders, files[0], fails=True)
    assert "queries are answered by another file already" in scored(
        "fashioniq", folders, files[0], files[0], fails=True
    )

    rows = load(folders["genecis"] / "focus_object.json")
    lists = {
        f"focus_object/{n}": [image["val_image_id"] for image in [row["target"], *row["gallery"]]]
        for n, row in enumerate(rows)
    }
    path, everything = write(tmp_path / "g.json", lists), dict.fromkeys(("R@1", "R@2", "R@3"), 100.0)
    assert json.loads(scored("genecis", folders, path, split="focus_object")) == {
        "focus_object": everything,
        "mean": everything,
    }
    assert "queries have no prediction, the first is 'focus_attribute/0'" in scored(
        "genecis", folders, path, fails=True
    )


def test_cirr_takes_full_lists_or_both_files_of_its_server(folders, tmp_path):
    full = write(tmp_path / "full.json", cirr_lists(folders))
    found = json.loads(scored("cirr", folders, full))
    assert list(found) == ["R@1", "R@5", "R@10", "R@50", "R_subset@1", "R_subset@2", "R_subset@3"]
    options = ("--annotations", folders["cirr"], "--split", "val", "--predictions", full, "--out", tmp_path / "out")
    out = cir("submit", "cirr", *options).split()
    assert [Path(path).name for path in out] == ["submission.recall.json", "submission.recall_subset.json"]
    assert json.loads(scored("cirr", folders, *out)) == found
    assert list(json.loads(scored("cirr", folders, out[1]))) == ["R_subset@1", "R_subset@2", "R_subset@3"]


def test_the_servers_files(folders, tmp_path):
    lists = cirr_lists(folders, "test1")
    path = write(tmp_path / "p.json", lists)
    cir("submit", "cirr", "--annotations", folders["cirr"], "--predictions", path, "--out", tmp_path, "--name", "me")
    recall, subset = load(tmp_path / "me.recall.json"), load(tmp_path / "me.recall_subset.json")
    rows = load(folders["cirr"] / "captions/cap.rc2.test1.json")
    assert (recall.pop("version"), recall.pop("metric")) == ("rc2", "recall")
    assert (subset.pop("version"), subset.pop("metric")) == ("rc2", "recall_subset")
    assert list(recall) == list(subset) == [str(row["pairid"]) for row in rows]
    for row in rows:
        without = [name for name in lists[str(row["pairid"])] if name != row["reference"]]
        assert recall[str(row["pairid"])] == without[:50]
        assert subset[str(row["pairid"])] == [name for name in without if name in row["img_set"]["members"]][:3]

    lists = circo_lists(folders, "test", 56)
    cir(
        "submit",
        "circo",
        "--annotations",
        folders["circo"],
        "--predictions",
        write(tmp_path / "p.json", lists),
        "--out",
        tmp_path,
    )
    assert load(tmp_path / "submission.json") == {name: ids[:50] for name, ids in lists.items()}


def test_rankings_that_the_pipeline_wrote(folders, tmp_path):
    lists = cirr_lists(folders, depth=50)
    rows = {str(row["pairid"]): row for row in load(folders["cirr"] / "captions/cap.rc2.val.json")}
    groups = {
        name: tuple(other for other in row["img_set"]["members"] if other != row["reference"])
        for name, row in rows.items()
    }
    rankings = [Ranking(name, tuple(ids), tuple(range(50)), groups[name]) for name, ids in lists.items()]
    write_rankings(tmp_path / "mine", "mine", rankings, {})
    assert len(json.loads(scored("cirr", folders, tmp_path / "mine"))) == 7


def changed(**changes):
    return lambda lists: lists.update(changes)


CIRCO_REFUSALS = [
    (changed(**{"99": [1], "98": [2]}), "2 predicted queries are not in the annotations, the first is '99'"),
    (lambda lists: lists.pop("2"), "1 queries have no prediction, the first is '2'"),
    (
        lambda lists: lists["1"].__setitem__(1, lists["1"][0]),
        "1 queries have a list that names an image twice, the first is '1: ",
    ),
    (
        lambda lists: lists["1"].__setitem__(4, -3),
        "1 queries have a list with an image that is not in the gallery, the first is '1: -3'",
    ),
    (lambda lists: lists["3"].pop(), "1 queries have too few images, the first is '3: 49 of 50'"),
    (lambda lists: lists["0"].__setitem__(0, "100000"), "1 lists hold something else than numbers, the first is '0'"),
    (lambda lists: lists["0"].__setitem__(0, True), "1 lists hold something else than numbers, the first is '0'"),
    (changed(**{"1": "no list", "2": {}}), "2 queries have no list of image ids, the first is '1'"),
]


@pytest.mark.parametrize(("change", "message"), CIRCO_REFUSALS)
@pytest.mark.parametrize("command", ["score", "submit"])
def test_lists_that_are_rejected(folders, tmp_path, command, change, message):
    lists = circo_lists(folders, "val" if command == "score" else "test")
    change(lists)
    path = write(tmp_path / "p.json", lists)
    options = ("--annotations", folders["circo"], "--predictions", path) + (
        () if command == "score" else ("--out", tmp_path / "out")
    )
    error = cir(command, "circo", *options, fails=True)
    assert message in error and error.startswith("error: ") and "\n" not in error
    assert not (tmp_path / "out").exists()


def test_more_that_is_rejected(folders, tmp_path):
    lists = cirr_lists(folders)
    lists["101"][3] = "dev-999-0-img0"
    assert "the first is '101: dev-999-0-img0'" in scored(
        "cirr", folders, write(tmp_path / "p.json", lists), fails=True
    )
    assert "not 'rc2' and recall" in scored(
        "cirr", folders, write(tmp_path / "p.json", {"version": "rc1", "metric": "recall"}), fails=True
    )
    assert "4 queries have no prediction" in scored("cirr", folders, write(tmp_path / "p.json", {}), fails=True)
    assert "not a JSON object" in scored("cirr", folders, write(tmp_path / "p.json", []), fails=True)
    (tmp_path / "p.json").write_text('{"0": [1], "0": [2]}')
    assert "1 keys occur twice, the first is '0'" in scored("circo", folders, tmp_path / "p.json", fails=True)
    (tmp_path / "p.json").write_text("{")
    assert "not JSON" in scored("circo", folders, tmp_path / "p.json", fails=True)
    assert "no such file" in scored("circo", folders, tmp_path / "none.json", fails=True)
    path = write(tmp_path / "p.json", circo_lists(folders, "test"))
    assert "circo_test: the targets of this split are private" in scored(
        "circo", folders, path, split="test", fails=True
    )
    few = write(tmp_path / "few.json", cirr_lists(folders, "test1", 51))
    error = cir(
        "submit", "cirr", "--annotations", folders["cirr"], "--predictions", few, "--out", tmp_path / "out", fails=True
    )
    assert "do not hold all members of every group" in error
    error = cir(
        "submit",
        "genecis",
        "--annotations",
        folders["genecis"],
        "--predictions",
        few,
        "--out",
        tmp_path / "out",
        fails=True,
    )
    assert "'genecis' has no evaluation server; cirr and circo have" in error and not (tmp_path / "out").exists()


def test_cocos_own_list_settles_what_an_image_is(folders, tmp_path):
    path, lists = (
        folders["circo"] / "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json",
        circo_lists(folders),
    )
    numbers = sorted({image_id for ids in circo_lists(folders, depth=miniature.IMAGES).values() for image_id in ids})
    miniature.dump(path, {"images": [{"id": image_id} for image_id in numbers]})
    scored("circo", folders, write(tmp_path / "p.json", lists))
    lists["2"][7] = 1
    assert "the first is '2: 1'" in scored("circo", folders, write(tmp_path / "p.json", lists), fails=True)


def test_scoring_needs_no_torch(folders, tmp_path):
    write(tmp_path / "p.json", circo_lists(folders))
    words = ["score", "circo", "--annotations", str(folders["circo"]), "--predictions", str(tmp_path / "p.json")]
    command = f"""
import sys
from pipeline.app.cli.main import app
try:
    app({words})
except SystemExit as ended:
    assert not ended.code and not {{"torch", "transformers", "spacy", "faiss"}} & set(sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["mAP@5"] >= 0
