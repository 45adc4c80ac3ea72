"""The readers of the four public benchmarks: over every row of the real annotations, and over miniatures."""

import dataclasses
import io
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from bench.rehearsal import benchmarks as miniature
from pipeline.artifacts import ArtifactError
from pipeline.artifacts.images import EncodedImages
from pipeline.config import DataParams
from pipeline.sources.benchmarks import READERS, BenchmarkError, read_annotations
from pipeline.sources.benchmarks.fashioniq import CATEGORIES, join_captions
from pipeline.sources.benchmarks.genecis import crop_of
from pipeline.sources.benchmarks.tables import images_table, public_tables, queries_table
from tests.sections import section


@pytest.fixture(scope="session")
def annotations(shared):
    if not (shared / "benchmarks").is_dir():
        pytest.skip("../shared has no benchmarks")
    return shared / "benchmarks"


def raw(path):
    return json.loads(path.read_text())


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_row_of_fashioniq(annotations, category):
    found = {one.name: one for one in read_annotations("fashioniq", annotations / "fashioniq", "val")}[
        f"fashioniq_{category}_val"
    ]
    rows = raw(annotations / "fashioniq/captions" / f"cap.{category}.val.json")
    assert found.gallery == tuple(raw(annotations / "fashioniq/image_splits" / f"split.{category}.val.json"))
    assert len(found.queries) == len(rows) > 1900
    for number, (query, row) in enumerate(zip(found.queries, rows, strict=True)):
        assert (query.query_id, query.reference, query.targets) == (
            f"{category}/{number}",
            row["candidate"],
            (row["target"],),
        )
        assert (list(query.captions), query.shared_concept) == (row["captions"], category)
    assert all(text for row in queries_table(found, "both")["modifications"].to_pylist() for text in row)


@pytest.mark.parametrize(("split", "rows"), [("val", 4181), ("test1", 4148)])
def test_every_row_of_cirr(annotations, split, rows):
    [found] = read_annotations("cirr", annotations / "cirr", split)
    assert len(found.queries) == rows and found.has_targets == (split == "val")
    assert found.gallery == tuple(raw(annotations / "cirr/image_splits" / f"split.rc2.{split}.json"))
    for query, row in zip(found.queries, raw(annotations / "cirr/captions" / f"cap.rc2.{split}.json"), strict=True):
        assert (query.query_id, query.reference, query.captions) == (
            str(row["pairid"]),
            row["reference"],
            (row["caption"],),
        )
        assert len(query.subset) == 5 and {*query.subset, query.reference} == set(row["img_set"]["members"])
        assert query.targets == ((row["target_hard"],) if split == "val" else ()) and query.shared_concept == ""


@pytest.mark.parametrize(("split", "rows"), [("val", 220), ("test", 800)])
def test_every_row_of_circo(annotations, split, rows):
    [found] = read_annotations("circo", annotations / "circo", split)
    assert len(found.queries) == rows and found.gallery is None and found.has_targets == (split == "val")
    for query, row in zip(found.queries, raw(annotations / "circo/annotations" / f"{split}.json"), strict=True):
        assert (query.query_id, query.reference) == (str(row["id"]), str(row["reference_img_id"]))
        assert query.shared_concept == row["shared_concept"]
        if split == "val":
            assert query.targets[0] == str(row["target_img_id"]) and set(query.targets) == {
                str(one) for one in row["gt_img_ids"]
            }
            assert list(query.aspects) == row["semantic_aspects"]


def test_every_row_of_genecis_object_tasks(annotations):
    found = read_annotations("genecis", annotations / "genecis", "val")
    assert [one.name for one in found] == ["genecis_focus_object", "genecis_change_object"]
    for one, task in zip(found, ("focus_object", "change_object"), strict=True):
        rows = raw(annotations / "genecis" / f"{task}.json")
        for number, (query, row) in enumerate(zip(one.queries, rows, strict=True)):
            candidates = {str(image["val_image_id"]) for image in [row["target"], *row["gallery"]]}
            assert (query.query_id, query.captions, query.category) == (f"{task}/{number}", (row["condition"],), task)
            assert query.targets == (str(row["target"]["val_image_id"]),) and set(query.subset) == candidates
            assert len(query.subset) == len(candidates) and query.reference == str(row["reference"]["val_image_id"])


@pytest.fixture
def small(tmp_path) -> DataParams:
    folders = miniature.write_all(tmp_path / "raw")
    params = section(DataParams, benchmarks=list(folders))
    for name, folder in folders.items():
        setattr(params, name, dataclasses.replace(getattr(params, name), folder=str(folder)))
    return params


def test_all_splits_stand_side_by_side(small):
    tables = {name: (table, identity) for name, table, identity in public_tables(small)}
    assert sorted({name.split("/")[0] for name in tables}) == [
        "circo_test",
        "circo_val",
        "cirr_test1",
        "cirr_val",
        "fashioniq_dress_val",
        "fashioniq_shirt_val",
        "fashioniq_toptee_val",
        "genecis_change_attribute",
        "genecis_change_object",
        "genecis_focus_attribute",
        "genecis_focus_object",
    ]
    assert tables["circo_val/images"] == tables["circo_test/images"]  # one gallery, embedded once
    assert (
        tables["circo_val/aspects"][0]["aspects"].to_pylist()[1] == ["addition", "negation"]
        and "circo_test/aspects" not in tables
    )
    private = {name for name, (_, identity) in tables.items() if identity.get("private_targets")}
    assert private == {"cirr_test1/queries", "circo_test/queries"}
    assert tables["fashioniq_dress_val/queries"][0]["modifications"].to_pylist()[:2] == [
        ["is solid red and has a hat", "has a hat and is solid red"],
        ["is solid red", "is solid red"],
    ]
    images = tables["cirr_val/images"][0]
    assert images["width"].to_pylist() == [12] * miniature.IMAGES and not images["path"][0].as_py().startswith("/")
    assert Image.open(io.BytesIO(EncodedImages(images)[3])).size == (12, 10)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("forward", ("is red and has a hat",)),
        ("reversed", ("has a hat and is red",)),
        ("both", ("is red and has a hat", "has a hat and is red")),
    ],
)
def test_both_captions_are_joined(order, expected):
    assert join_captions(("is red. ", " has a hat?"), order) == expected


def reference_crop(image, box, dilation=0.7):
    """GeneCIS' rule, written out: grow, cut, centre on black."""
    width, height = box[2], box[3]
    left, top = max(0, box[0] - dilation * width), max(0, box[1] - dilation * height)
    part = image.crop((left, top, min(image.width, left + 1.7 * width), min(image.height, top + 1.7 * height)))
    square = Image.new("RGB", (max(part.size),) * 2)
    square.paste(part, ((square.width - part.width) // 2, (square.height - part.height) // 2))
    return square


def test_an_object_is_cut_out_as_genecis_does_it(small):
    folder = Path(small.genecis.folder)
    Image.effect_noise((40, 30), 80).convert("RGB").save(folder / "VG_100K" / "504.jpg", quality=95)
    [found] = read_annotations("genecis", folder, "focus_attribute")
    table = images_table(folder, found)
    number = next(number for number, name in enumerate(found.gallery) if name == "504@4,4.5,10,8")
    assert table["crop"][number].as_py() == crop_of((4, 4.5, 10, 8), 40, 30) == [0, 0, 17, 14]
    cut = Image.open(io.BytesIO(EncodedImages(table)[number]))
    expected = reference_crop(Image.open(folder / "VG_100K" / "504.jpg").convert("RGB"), (4, 4.5, 10, 8))
    assert (cut.size, cut.tobytes()) == (expected.size, expected.tobytes())


@pytest.mark.parametrize(
    ("benchmark", "images", "message"),
    [
        (
            "fashioniq",
            "images",
            r"fashioniq_dress_val: 56 of 56 images are missing below \S+ \(B0{9}, B0{8}1, B0{8}2, \.\.\.\)",
        ),
        ("cirr", "dev", "cirr_val: 56 of 56 images are missing"),
        ("circo", "COCO2017_unlabeled", r"circo_val: \d+ of \d+ images are missing"),
        ("genecis", "VG_100K_2", r"genecis_focus_attribute: \d+ of 20 images are missing"),
    ],
)
def test_missing_images_are_one_message(small, benchmark, images, message):
    shutil.rmtree(Path(getattr(small, benchmark).folder) / images)
    small.benchmarks = [benchmark]
    with pytest.raises(BenchmarkError, match=message) as caught:
        list(public_tables(small))
    assert READERS[benchmark].images_source in str(caught.value) and "http" in str(caught.value)


def test_images_that_cannot_be_read_or_are_gone(small):
    folder = Path(small.cirr.folder)
    [found] = read_annotations("cirr", folder, "val")
    table = images_table(folder, found)
    (folder / "dev/dev-3-0-img0.png").unlink()
    with pytest.raises(ArtifactError, match="dev-3-0-img0.png: the image is gone"):
        EncodedImages(table)[3]
    (folder / "dev/dev-3-0-img0.png").write_bytes(b"no picture")
    with pytest.raises(BenchmarkError, match="1 of 56 images cannot be read, the first is .*dev-3-0-img0.png"):
        images_table(folder, found)


CAPTIONS = "captions/cap.rc2.val.json"
WRONG = [
    (
        "cirr",
        CAPTIONS,
        lambda rows: rows[1].pop("caption"),
        r"cap\.rc2\.val\.json: row 1: 'caption' is missing or not a text",
    ),
    ("cirr", CAPTIONS, lambda rows: rows[2].update(pairid="7"), "row 2: 'pairid' is missing or not a whole number"),
    ("cirr", CAPTIONS, lambda rows: rows[2].update(pairid=100), "query '100' occurs twice"),
    (
        "cirr",
        CAPTIONS,
        lambda rows: rows[0].update(target_hard="x"),
        "'100' names image 'x', which is not in the gallery",
    ),
    ("cirr", CAPTIONS, lambda rows: rows.clear(), "has no queries"),
    ("fashioniq", "captions/cap.dress.val.json", lambda rows: rows[0]["captions"].pop(), "row 0: 1 captions, not 2"),
    (
        "circo",
        "annotations/val.json",
        lambda rows: rows[3].update(gt_img_ids=[1]),
        "row 3: 'gt_img_ids' repeats an image or lacks",
    ),
    (
        "genecis",
        "focus_object.json",
        lambda rows: rows[1].update(gallery=[rows[1]["reference"]]),
        "row 1: its gallery holds the reference",
    ),
    (
        "genecis",
        "focus_attribute.json",
        lambda rows: rows[0]["target"]["instance_bbox"].pop(),
        "'target': 'instance_bbox' has 3 numbers",
    ),
]


def stray_files(folder: Path) -> None:
    """Beside every file what macOS, Windows and a second download leave."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        for name in (f"._{path.name}", ".DS_Store", "Thumbs.db", f"{path.stem} (1){path.suffix}"):
            (path.parent / name).write_bytes(b"\0\x05\x16\x07 no image")


@pytest.mark.parametrize("benchmark", READERS)
@pytest.mark.parametrize("with_list", [True, False])
def test_files_that_systems_leave_beside_the_images_change_nothing(small, benchmark, with_list):
    folder = Path(getattr(small, benchmark).folder)
    if not with_list:  # CIRCO's gallery is then what lies in the folder
        for path in folder.rglob("image_info_unlabeled2017.json"):
            path.unlink()
    params = dataclasses.replace(small, benchmarks=[benchmark])
    before = [(name, table.to_pylist()) for name, table, _ in public_tables(params)]
    stray_files(folder)
    assert [(name, table.to_pylist()) for name, table, _ in public_tables(params)] == before


@pytest.mark.parametrize(("benchmark", "file", "change", "message"), WRONG)
def test_a_wrong_row_is_named(small, benchmark, file, change, message):
    path = Path(getattr(small, benchmark).folder) / file
    rows = raw(path)
    change(rows)
    path.write_text(json.dumps(rows))
    with pytest.raises(BenchmarkError, match=message):
        read_annotations(benchmark, getattr(small, benchmark).folder, "val")


def test_what_cannot_be_asked_for(small, tmp_path):
    for arguments, message in (
        (("coco", tmp_path, "val"), "'coco' is not one of the benchmarks"),
        (("cirr", tmp_path / "none", "val"), "no such folder; CIRR's annotations are at https"),
        (("cirr", tmp_path, "val"), "no such annotation file"),
        (("cirr", small.cirr.folder, "train"), "'train' is not one of its splits"),
    ):
        with pytest.raises(BenchmarkError, match=message):
            read_annotations(*arguments)
    small.benchmarks, small.cirr.splits = ["cirr"], ["test1"]
    with pytest.raises(BenchmarkError, match="the targets of cirr_test1 are private, so nothing can be scored"):
        list(public_tables(small))
