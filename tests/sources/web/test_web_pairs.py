"""Web-scale sources in their owners' layouts, made small here, damaged members included."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from pipeline.artifacts import ShardSet
from pipeline.config import DataParams, ParameterError, PriorDataParams, WebParams
from pipeline.encoders.embedding.readers import ImageStore, PairReader, training_rows, triplet_images
from pipeline.sources.errors import SourceError
from pipeline.sources.web import build
from pipeline.sources.web.archives import webdataset
from pipeline.sources.web.folder import csv_folder
from stages import prepare
from tests.sections import plain_values, section


def make_image(seed, kind="JPEG", size=(24, 20)):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def tar(path: Path, files: list[tuple[str, bytes]], compress: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if compress else "w") as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def img2dataset(number, caption, content=None):
    """One sample as img2dataset writes it."""
    key = f"{number:09d}"
    facts = {
        "caption": caption,
        "url": f"http://example.org/{number}.jpg",
        "key": key,
        "status": "success",
        "error_message": None,
    }
    return [
        (f"{key}.jpg", make_image(number) if content is None else content),
        (f"{key}.json", json.dumps(facts).encode()),
        (f"{key}.txt", caption.encode()),
    ]


def edits(folder: Path, rows: list[tuple[bytes, bytes, str, str]], name="train-00000-of-00001.parquet") -> None:
    """HQ-Edit's hub release: `datasets` stores an image as a struct of bytes and path."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    names = ["input", "edit", "inverse_edit", "output"]
    schema = pa.schema([(column, pa.string()) for column in names] + [("input_image", image), ("output_image", image)])
    values = [
        {
            "input": f"A scene {n}.",
            "edit": edit,
            "inverse_edit": inverse,
            "output": f"A changed\nscene {n}.",
            "input_image": {"bytes": before, "path": None},
            "output_image": {"bytes": after, "path": None},
        }
        for n, (before, after, edit, inverse) in enumerate(rows)
    ]
    (folder / "data").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(values, schema), folder / "data" / name)


@pytest.fixture
def raw(tmp_path):
    """A raw folder whose edits are there: two, one of which has no inverse."""
    both = (make_image(900), make_image(901), "make it snow", "stop the snow")
    edits(tmp_path / "raw" / "hqedit", [both, (make_image(902), make_image(903), "x", "")])
    return tmp_path / "raw"


UNTOLD = "an edit without an instruction"
"""Of the edits in `raw` one has no inverse, which is listed."""


def built(raw, *pairs, share=0.0, **more):
    web = section(WebParams, pairs=list(pairs), edits=["hqedit"], max_rejected_share=share)
    params = section(DataParams, sources="web", raw=str(raw), web=web, **more)
    build(params, 0, raw.parent / "data")
    folder = raw.parent / "data"
    rejected = pq.read_table(folder / "pairs" / "rejected.parquet").to_pylist()
    return (
        folder,
        ShardSet.open(folder / "pairs/pairs").table().to_pylist(),
        {row["image_id"]: row["reason"] for row in rejected if UNTOLD not in row["reason"]},
    )


def captions(rows):
    return {row["image_id"]: row["caption"] for row in rows}


@pytest.mark.parametrize("name", ["cc3m", "cc12m"])
def test_img2dataset_archives_give_pairs_in_order_with_their_images(raw, name):
    tar(raw / name / "00001.tar", img2dataset(10000, "a  late\none"))
    tar(raw / name / "00000.tar", img2dataset(0, "a dog") + img2dataset(1, "a cat"))
    (raw / name / "00000_stats.json").write_text("{}")
    (raw / name / "00000.parquet").write_bytes(b"what img2dataset notes of its downloads")
    folder, rows, rejected = built(raw, name)
    assert (
        captions(rows)
        == {
            f"{name}/00000/000000000": "a dog",
            f"{name}/00000/000000001": "a cat",
            f"{name}/00001/000010000": "a late one",
        }
        and not rejected
    )
    images = ShardSet.open(folder / "pairs/images")
    table = images.table().to_pylist()
    assert [row["bytes"] for row in table[:3]] == [make_image(0), make_image(1), make_image(10000)]
    assert {(row["width"], row["height"]) for row in table} == {(24, 20)}
    reader = PairReader(images, ShardSet.open(folder / "pairs/pairs"), training_rows(section(PriorDataParams)))
    assert [row.text for row in reader.rows(0)] == ["a dog", "a cat", "a late one"]


def test_a_caption_is_taken_from_the_json_where_there_is_no_text_and_left_open_where_there_is_none(raw):
    tar(
        raw / "cc3m/00000.tar",
        img2dataset(0, "told in json")[:2] + img2dataset(1, "")[:1] + [("2.jpg", make_image(2)), ("2.json", b"[]")],
    )
    _, rows, rejected = built(raw, "cc3m")
    assert list(captions(rows).values()) == ["told in json", "", ""] and not rejected


def test_sa1b_archives_have_masks_and_no_captions(raw):
    masks = json.dumps(
        {"image": {"image_id": 1, "width": 24, "height": 20}, "annotations": [{"bbox": [0, 0, 1, 1]}]}
    ).encode()
    files = [
        (f"./sa_{n}.{kind}", content) for n in (1, 2) for kind, content in (("jpg", make_image(n)), ("json", masks))
    ]
    tar(raw / "sa1b/sa_000000.tar", files)
    _, rows, _ = built(raw, "sa1b")
    assert captions(rows) == {"sa1b/sa_000000/sa_1": "", "sa1b/sa_000000/sa_2": ""}


def test_journeydb_annotations_meet_their_images(raw):
    lines = [
        {"img_path": "./000/aa.jpg", "prompt": "castle --v 4", "Task2": {"Caption": "A castle at dusk."}},
        {"img_path": "./001/bb.jpg", "prompt": "a boat", "Task2": None},
    ]
    folder = raw / "journeydb"
    for part, key, seed in (("000", "aa", 1), ("001", "bb", 2)):
        tar(folder / f"imgs/{part}.tgz", [(f"./{part}/{key}.jpg", make_image(seed))], compress=True)
    annotations = folder / "train_anno_realease_repath.jsonl"
    annotations.write_text("\n".join(json.dumps(line) for line in lines))
    _, rows, _ = built(raw, "journeydb")
    assert captions(rows) == {"journeydb/000/aa.jpg": "A castle at dusk.", "journeydb/001/bb.jpg": "a boat"}
    annotations.write_text('{"prompt": "no path"}\n')
    with pytest.raises(SourceError, match="repath.jsonl: line 1 is no annotation"):
        built(raw, "journeydb")


def test_a_folder_with_a_csv(raw):
    folder = raw / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/a.png").write_bytes(make_image(1, "PNG"))
    (folder / "b.jpg").write_bytes(make_image(2))
    (raw / "secret.jpg").write_bytes(make_image(3))
    named = [
        ("deep/a.png", "an a, with comma"),
        ("b.jpg", ""),
        ("b.jpg", "again"),
        ("gone.jpg", "x"),
        ("../secret.jpg", "y"),
    ]
    with (folder / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), *named])
    _, rows, rejected = built(raw, "folder", share=0.5)
    assert captions(rows) == {"folder/deep/a.png": "an a, with comma", "folder/b.jpg": "again"}
    assert "folder/b.jpg" not in rejected and "not there" in rejected["folder/gone.jpg"]
    assert "no path within the folder" in rejected["folder/../secret.jpg"]
    (folder / "captions.csv").write_text("file,caption\n")
    with pytest.raises(SourceError, match="no column 'image'"):
        built(raw, "folder")


def test_edits_become_two_triplets_whose_images_are_found(raw):
    tar(raw / "cc3m/00000.tar", img2dataset(0, "a dog"))
    folder, rows, _ = built(raw, "cc3m", triplets=2)
    triplets = ShardSet.open(folder / "triplets/all")
    first, inverse, alone = triplets.table().to_pylist()
    place = "hqedit/data/train-00000-of-00001/000000"
    assert first == {
        "triplet_id": f"{place}/edit",
        "reference_id": f"{place}/input",
        "target_id": f"{place}/output",
        "instruction": "make it snow",
        "target_description": "A changed scene 0.",
        "shared_concept": "",
    }
    assert (inverse["reference_id"], inverse["instruction"]) == (f"{place}/output", "stop the snow")
    assert inverse["target_description"] == "A scene 0."
    untold = pq.read_table(folder / "pairs/rejected.parquet").to_pylist()
    assert [row["image_id"] for row in untold] == [place.replace("000000", "000001")] and UNTOLD in untold[0]["reason"]
    assert alone["instruction"] == "x" and ShardSet.open(folder / "triplets/sampled").rows == 2
    store = ImageStore(ShardSet.open(folder / "pairs/images"), triplet_images(triplets))
    assert store[f"{place}/output"] == make_image(901)
    assert [row["image_id"] for row in rows] == ["cc3m/00000/000000000"], "an edit's pictures are no pairs"


def test_damaged_members_are_listed_with_their_reasons_and_the_rest_is_kept(raw):
    files = img2dataset(0, "fine") + img2dataset(1, "empty", b"") + img2dataset(2, "no picture", b"<html>404</html>")
    tar(raw / "cc3m/00000.tar", files + img2dataset(0, "again"))
    tar(raw / "cc3m/00001.tar", img2dataset(3, "whole") + img2dataset(4, "lost", make_image(4, "PNG", (200, 200))))
    cut = (raw / "cc3m/00001.tar").read_bytes()
    (raw / "cc3m/00001.tar").write_bytes(cut[: len(cut) // 2])
    (raw / "cc3m/00002.tar").write_bytes(b"this is no archive at all" * 100)
    edits(raw / "hqedit", [(make_image(1), b"", "broken", "broken"), (make_image(2), make_image(3), "fine", "")])
    folder, rows, rejected = built(raw, "cc3m", share=0.9)
    assert captions(rows) == {"cc3m/00000/000000000": "fine", "cc3m/00001/000000003": "whole"}
    assert "no bytes" in rejected["cc3m/00000/000000001"] and "HTML page" in rejected["cc3m/00000/000000002"]
    assert "second image" in rejected["cc3m/00000/000000000"]
    assert "00001.tar is damaged" in rejected["cc3m/00001/"] and "00002.tar is damaged" in rejected["cc3m/00002/"]
    assert [row["instruction"] for row in ShardSet.open(folder / "triplets/all").table().to_pylist()] == ["fine"]
    with pytest.raises(SourceError, match=r"max_rejected_share is 0.1"):
        built(raw, "cc3m", share=0.1)


def test_a_damaged_edits_file_is_an_error_naming_it(raw):
    tar(raw / "cc3m/00000.tar", img2dataset(0, "a dog"))
    path = raw / "hqedit/data/train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(SourceError, match="train-00000-of-00001.parquet: not readable as Parquet"):
        built(raw, "cc3m")


def test_a_damaged_compressed_archive_ends_where_it_breaks_off(raw):
    (raw / "journeydb").mkdir()
    (raw / "journeydb/a.jsonl").write_text("")
    tar(raw / "journeydb/000.tgz", [(f"000/{n}.jpg", make_image(n)) for n in range(4)], compress=True)
    content = gzip.decompress((raw / "journeydb/000.tgz").read_bytes())
    (raw / "journeydb/000.tgz").write_bytes(gzip.compress(content, mtime=0)[:-900])
    _, rows, rejected = built(raw, "journeydb", share=0.5)
    assert 0 < len(rows) < 4 and "is damaged" in rejected.pop("journeydb/000.tgz")
    assert set(rejected) <= {f"journeydb/000/{len(rows)}.jpg"}, "the one that breaks off"


def test_the_same_sources_give_the_same_bytes(raw):
    tar(raw / "cc3m/00000.tar", img2dataset(0, "a dog") + img2dataset(1, "a cat"))
    contents = []
    for _ in range(2):
        folder, _, _ = built(raw, "cc3m")
        contents.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
    assert contents[0] == contents[1]


def test_all_that_is_missing_is_named_at_once_with_its_size_and_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = plain_values(data={"sources": "web", "benchmarks": ["genecis"], "genecis": {"tasks": []}})
    Path("params.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setattr(prepare, "public_tables", lambda data: ())
    with pytest.raises(SourceError) as caught:
        prepare.main()
    text = str(caught.value)
    assert text.startswith("data.web: 5 of 5 sources are not there") and "\n" not in text
    for part in (
        "data/raw/cc12m must hold",
        "about 331 GB",
        "data/raw/hqedit must hold the Parquet files of the hub release",
    ):
        assert part in text
    assert not Path("data/pairs").exists()
    Path("params.yaml").write_text(yaml.safe_dump(plain_values(data={"sources": "web"})))
    with pytest.raises(ParameterError, match="emoji_cir is made of"):
        prepare.main()


def test_archives_and_names_that_stumble_are_refused_one_by_one(tmp_path):
    """What fuzzing found: a gzip header that breaks off, and a name that no file can have."""
    (tmp_path / "0.tar").write_bytes(b"\x1f\x8b\x08")
    (tmp_path / "0.csv").write_bytes(b"image,caption\n\0,a\n")
    assert ["damaged" in sample.reason for sample in webdataset(tmp_path, "wds")] == [True]
    assert ["is not there" in sample.reason for sample in csv_folder(tmp_path, "csv") if sample.is_image] == [True]
