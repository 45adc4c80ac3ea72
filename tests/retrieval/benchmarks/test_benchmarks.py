"""The benchmarks' protocols by hand and against published tables, their registry, and their folders."""

import pytest

from pipeline.artifacts import ArtifactError, write_json
from pipeline.retrieval.benchmarks import BENCHMARKS, PUBLIC_BENCHMARKS, GroundTruth, find_benchmarks
from pipeline.retrieval.benchmarks.circo import ASPECTS
from pipeline.retrieval.submissions import PredictionError
from pipeline.sources.benchmarks import READERS

CIRR, CIRCO, FASHIONIQ, GENECIS = (BENCHMARKS[name] for name in ("cirr", "circo", "fashioniq", "genecis"))


def truth(targets, references=(), categories=(), subsets=(), aspects=None):
    return GroundTruth(targets, references, categories, subsets, aspects)


def test_every_public_benchmark_has_a_reader():
    assert list(PUBLIC_BENCHMARKS) == list(READERS) and set(BENCHMARKS) - set(READERS) == {"emoji_cir"}
    for name, reader in READERS.items():
        assert BENCHMARKS[name].server_split in ("", *reader.splits)


def test_which_protocols_leave_the_reference_in():
    assert {name for name, benchmark in BENCHMARKS.items() if not benchmark.excludes_reference} == {
        "fashioniq",
        "circo",
    }


def test_genecis_grouped_averages_are_those_of_the_papers_table():
    """DiffComp's own row: its table of tasks gives its table of averages, up to their rounding."""
    tasks = {"focus_attribute": 21.55, "change_attribute": 16.44, "focus_object": 14.34, "change_object": 15.45}
    published = {"focus": 17.95, "change": 15.95, "attribute": 19.00, "object": 14.90}
    rankings, names = [], []
    for task, percent in tasks.items():
        for number in range(2000):
            rankings.append(["t", "x"] if number < 20 * percent else ["x", "t"])
            names.append(task)
    found = GENECIS.score(truth([["t"]] * len(names), categories=names), subset_ranked=rankings)
    for group, value in published.items():
        assert found[group]["R@1"] == pytest.approx(value, abs=0.04)


def test_fashioniq_by_hand():
    everything = {"R@10": 100.0, "R@50": 100.0}
    found = FASHIONIQ.score(truth([["b"]], categories=["dress"]), [["a", "b"]])
    assert found == {"dress": everything, "mean": everything}


def test_cirr_by_hand():
    """The reference "r" stands in front of the target in the gallery and, as a stranger, in the subset."""
    recall = {"R@1": 100.0, "R@5": 100.0, "R@10": 100.0, "R@50": 100.0}
    within = {"R_subset@1": 0.0, "R_subset@2": 100.0, "R_subset@3": 100.0}
    query = truth([["t"]], ["r"], subsets=[["t", "x", "y"]])
    assert CIRR.score(query, [["r", "t"]], [["r", "x", "t"]]) == recall | within
    assert CIRR.score(query, [["r", "t"]]) == recall and CIRR.remark(recall)
    assert CIRR.score(query, subset_ranked=[["r", "x", "t"]]) == within and not CIRR.remark(within)


def test_cirr_counts_fifty_images_besides_the_reference():
    others = [str(number) for number in range(49)]
    query = truth([["t"]], ["r"])
    assert CIRR.score(query, [["r", *others, "t"]])["R@50"] == 100.0
    assert CIRR.score(query, [["r", *others, "x", "t"]])["R@50"] == 0.0


def test_circo_by_hand():
    """Two of seven truths at ranks 1 and 4: (1 + 1/2) / 5 at K = 5, over 7 from K = 10 on."""
    truths = ["b", "a", *"uvwyz"]  # the first target is the one at rank 4
    found = CIRCO.score(truth([truths], aspects=[["addition"]]), [["a", "p", "q", "b", *"cdefgh"]])
    assert found["mAP@5"] == pytest.approx(100 * 1.5 / 5)
    assert found["mAP@10"] == pytest.approx(100 * 1.5 / 7) == found["mAP@50"]
    assert found["R@5"] == 100.0 and found[ASPECTS] == {"addition": found["mAP@10"]}
    assert CIRCO.details == {ASPECTS}


def test_a_header_that_is_wrong_is_rejected():
    content = {"version": "rc2", "metric": "recall_subset", "1": ["a"]}
    assert CIRR.read_header(content) and content == {"1": ["a"]}
    assert not CIRR.read_header(content)
    with pytest.raises(PredictionError, match="not 'rc2' and recall or recall_subset"):
        CIRR.read_header({"version": "rc1", "metric": "recall"})


def test_a_server_wants_fifty_images():
    lists = {"7": [str(number) for number in range(50)]}
    assert CIRCO.server_files("me", lists, {}, {}) == {"me.json": {"7": list(range(50))}}
    with pytest.raises(PredictionError, match="1 queries have fewer than 50 images, or one twice, the first is '7'"):
        CIRCO.server_files("me", {"7": lists["7"][1:]}, {}, {})
    assert FASHIONIQ.server_files("me", lists, {}, {}) == {}


def write_benchmark(folder, images, **identity):
    write_json(folder / "images" / "manifest.json", {"images": images})
    write_json(folder / "queries" / "manifest.json", {"identity": identity})


def test_folders_know_their_benchmark_and_share_galleries(tmp_path):
    write_benchmark(tmp_path / "circo_test", "coco", benchmark="circo", split="test", private_targets=True)
    write_benchmark(tmp_path / "circo_val", "coco", benchmark="circo", split="val")
    write_benchmark(tmp_path / "emoji_cir", "emoji", source="emoji-cir")
    test, val, emoji = find_benchmarks(tmp_path)
    assert (test.benchmark, val.benchmark, emoji.benchmark) == (CIRCO, CIRCO, BENCHMARKS["emoji_cir"])
    assert (test.gallery, val.gallery, emoji.gallery) == ("circo_test", "circo_test", "emoji_cir")
    assert test.private and not val.private and emoji.query_sets == ["queries"]


def test_a_folder_of_an_unknown_benchmark(tmp_path):
    write_benchmark(tmp_path / "x", "x", benchmark="x")
    with pytest.raises(ArtifactError, match="'x' is not one of the benchmarks"):
        _ = find_benchmarks(tmp_path)[0].benchmark
    with pytest.raises(ArtifactError, match="no benchmark is there"):
        find_benchmarks(tmp_path / "none")
