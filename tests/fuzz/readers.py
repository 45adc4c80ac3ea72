"""Every reader of outside data: what it is given, damaged, and how it is called."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from torch import nn

from bench.rehearsal import benchmarks as miniature
from pipeline.app.scoring.predictions import read_predictions
from pipeline.app.search.folder_files import FoundFile, describe_file
from pipeline.app.search.galleries import SIDE
from pipeline.app.search.indexing import decode_reduced
from pipeline.app.search.reference import find_reference
from pipeline.artifacts import ShardSet, load_weights, save_weights, schemas, sha256_file, write_table
from pipeline.artifacts.decoding import decode as decode_image
from pipeline.artifacts.decoding import measure
from pipeline.artifacts.images import EncodedImages, image_columns
from pipeline.artifacts.shards import MANIFEST
from pipeline.config import IndexParams, load_params
from pipeline.encoders.embedding.readers import ImageReader
from pipeline.encoders.embedding.rows import EncoderRow, UnreadableRowError, decode
from pipeline.encoders.image_source import ImageTable
from pipeline.errors import is_user_error
from pipeline.retrieval import Index, build_index, read_queries
from pipeline.retrieval.benchmarks import BENCHMARKS
from pipeline.retrieval.gallery_vectors import vectors
from pipeline.sources.benchmarks import read_annotations
from pipeline.sources.benchmarks.tables import images_table, queries_table
from pipeline.sources.emoji.artwork import NOTO_TEAM, read_team, to_png
from pipeline.sources.emoji.cldr import read_emoji
from pipeline.sources.emoji.fetch import LABELS
from pipeline.sources.web.archives import journeydb, webdataset
from pipeline.sources.web.folder import csv_folder
from pipeline.sources.web.hqedit import hqedit
from pipeline.sources.web.samples import checked
from tests.fuzz import texts_and_ids
from tests.fuzz.damage import damaged_bytes, damaged_json, damaged_text
from tests.fuzz.samples import SVG, encoded_images, tarball
from tests.sections import section

NO_GALLERY = SimpleNamespace(ids=[], id_of=lambda path: None)
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Reader:
    """`read` gets what `cases` draws and a folder; it may only raise named errors."""

    cases: st.SearchStrategy
    read: Callable[[Any], None]


def readers(folder: Path) -> dict[str, Reader]:
    """By name; each writes its cases below `folder`."""
    whole = encoded_images()
    lists = {"1": [2, 3], "2": [3, 4], "version": "rc2", "metric": "recall"}
    made = {
        "image from people": Reader(damaged_bytes(whole), lambda content: decode_image(content, SIDE)),
        "image, read in every way": Reader(damaged_bytes(whole), _every_way(folder / "ways")),
        "captions": Reader(texts_and_ids.damaged_captions(), texts_and_ids.read_captions),
        "texts in any encoding": Reader(texts_and_ids.damaged_encoded(), texts_and_ids.read_text),
        "ids of paths": Reader(texts_and_ids.paths(), texts_and_ids.read_paths),
        "ids of a table": Reader(texts_and_ids.batches_of_ids(), texts_and_ids.read_ids),
        "image of a job": Reader(damaged_bytes(whole), _job_image),
        "image of a package": Reader(damaged_bytes([*whole[:3], SVG]), lambda content: to_png(content, 16, "one")),
        "parameters": Reader(
            damaged_text((ROOT / "params.yaml").read_text()), _file(folder / "params.yaml", load_params)
        ),
        "predictions": Reader(damaged_json(lists), _predictions(folder / "lists.json")),
    }
    makers = (
        _benchmark_readers,
        _package_readers,
        _web_readers,
        _shard_readers,
        _image_tables,
        _index_reader,
        _weights_readers,
    )
    for make in makers:
        made |= make(folder)
    return made


def _file(path: Path, read: Callable[[Path], Any]) -> Callable[[bytes], None]:
    def reading(content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        read(path)

    return reading


def _job_image(content: bytes) -> None:
    with contextlib.suppress(UnreadableRowError):  # the job keeps the row aside, with the reason
        decode(EncoderRow("one", "", content))


def _every_way(folder: Path) -> Callable[[bytes], None]:
    """The embedding job, the dual encoders, a search and an index agree: equal pixels, or an error for all."""
    folder.mkdir()
    file = folder / "one.png"

    def read(content: bytes) -> None:
        file.write_bytes(content)
        row = {"image_id": "one", "bytes": content, "width": 1, "height": 1}
        write_table(folder / "images", pa.Table.from_pylist([row], schema=schemas.IMAGES), {})
        images = ShardSet.open(folder / "images")
        ways = (
            lambda: next(map(decode, ImageReader(images).rows(0))).image,
            lambda: ImageTable(images.folder).image("one"),
            lambda: find_reference(str(file), NO_GALLERY)[0],
            lambda: decode_reduced(EncoderRow("one", "", content)).image,
        )
        first, *others = [_pixels_or_error(way) for way in ways]
        for other in others:
            assert (first is None) == (other is None) and (first is None or np.array_equal(first, other))
        listed = describe_file(folder, FoundFile(file))["reason"]
        assert not listed or first is None, f"cir index leaves out what can be decoded: {listed}"
        if first is not None:
            assert measure(content) == (first.shape[1], first.shape[0])

    return read


def _pixels_or_error(read: Callable[[], Any]) -> np.ndarray | None:
    try:
        return np.asarray(read())
    except Exception as error:
        assert is_user_error(error) or isinstance(error, UnreadableRowError), repr(error)
        return None


def _predictions(path: Path) -> Callable[[bytes], None]:
    def read(content: bytes) -> None:
        for benchmark in ("cirr", "circo", "genecis"):
            try:
                _file(path, lambda file: read_predictions([file], BENCHMARKS[benchmark]))(content)  # noqa: B023
            except ValueError as error:
                last = error
            else:
                last = None
        if last:
            raise last

    return read


def _benchmark_readers(folder: Path) -> dict[str, Reader]:
    """Annotations and image lists, and an image that they name; each file damaged in turn."""
    made = {}
    for benchmark, root in miniature.write_all(folder / "benchmarks", queries=2).items():
        split = {"fashioniq": "val", "cirr": "val", "circo": "val", "genecis": "val"}[benchmark]
        files = sorted(path for path in root.rglob("*.json") if "test" not in path.name)
        cases = st.one_of(*(st.tuples(st.just(path), damaged_json(json.loads(path.read_text()))) for path in files))
        images = sorted(root.rglob("*.[jp][pn]g"))[:2]
        cases |= st.one_of(*(st.tuples(st.just(path), damaged_bytes([path.read_bytes()])) for path in images))
        made[f"{benchmark} folder"] = Reader(cases, _benchmark(benchmark, root, split))
    return made


def _benchmark(benchmark: str, root: Path, split: str) -> Callable[[tuple[Path, bytes]], None]:
    def read(case: tuple[Path, bytes]) -> None:
        path, content = case
        before = path.read_bytes()
        path.write_bytes(content)
        try:
            for found in read_annotations(benchmark, root, split):
                queries_table(found, "both" if benchmark == "fashioniq" else "")
                table = images_table(root, found)
                for name in table["path"].to_pylist():
                    assert Path(name).resolve().is_relative_to(root.resolve()), (
                        f"{name} lies outside of the benchmark's folder"
                    )
                for encoded in EncodedImages(table.slice(0, 3)):
                    assert encoded
        finally:
            path.write_bytes(before)

    return read


def _package_readers(folder: Path) -> dict[str, Reader]:
    labels = [
        {
            "label": "woman firefighter: light skin tone",
            "hexcode": "1F469-200D-1F692",
            "group": 1,
            "subgroup": 25,
            "tags": ["fire"],
        },
        {
            "label": "red heart",
            "hexcode": "2764",
            "group": 0,
            "subgroup": 11,
            "skins": [{"label": "a", "hexcode": "1", "tone": [1, 2]}],
        },
    ]
    names = {"groups": {"0": "smileys-emotion", "1": "people-body"}, "subgroups": {"25": "person-role", "11": "heart"}}
    place = folder / "packages"
    place.mkdir()
    whole = {"en/data.json": json.dumps(labels).encode(), "meta/groups.json": json.dumps(names).encode()}
    both = st.one_of(
        damaged_json(labels).map(lambda content: tarball({**whole, "en/data.json": content})),
        damaged_json(names).map(lambda content: tarball({**whole, "meta/groups.json": content})),
    )
    packed = damaged_bytes(
        [tarball({f"img/google/64/{number}.png": png for number, png in enumerate(encoded_images()[:3])})]
    )
    both |= damaged_bytes([tarball(whole)])
    return {
        "labels of a package": Reader(both, _file(place / LABELS.tarball, lambda path: read_emoji(place))),
        "images' package": Reader(
            packed, _file(place / NOTO_TEAM.package.tarball, lambda path: read_team(NOTO_TEAM, place))
        ),
    }


def _web_readers(folder: Path) -> dict[str, Reader]:
    whole = encoded_images()
    facts = [b'{"caption": "a hat"}', b"[]", b"{", json.dumps({"caption": ["a", 1]}).encode()]
    archives = [
        tarball({"0.jpg": image, "0.txt": b"a cat\xff", "1.png": image, "1.json": fact, "1.jpg": b""})
        for image, fact in zip(whole, facts, strict=False)
    ]
    annotation = {"img_path": "./0.jpg", "Task2": {"Caption": "a cat"}, "prompt": "cat"}
    edit = {"bytes": whole[0], "path": None}
    row = {"input": "a", "edit": "b", "inverse_edit": "c", "output": "d", "input_image": edit, "output_image": edit}
    tables = [
        row,
        {**row, "edit": 3},
        {**row, "input_image": whole[0]},
        {**row, "input_image": None},
        {**row, "output": ["d"]},
    ]
    place, names = folder / "web", ("archives", "journeydb", "csv", "hqedit")
    for name in names:
        (place / name).mkdir(parents=True)
    (place / "journeydb/000.tgz").write_bytes(archives[0])
    (place / "csv/0.png").write_bytes(whole[0])

    def reading(read: Callable[[Path, str], Any], name: str, file: str) -> Callable[[bytes], None]:
        return _file(place / name / file, lambda path: [checked(sample) for sample in read(place / name, name)])

    def read_edits(path: Path) -> None:
        for both, _ in hqedit(place / "hqedit", "hqedit"):
            for sample in both:
                checked(sample)

    return {
        "webdataset": Reader(damaged_bytes(archives), reading(webdataset, "archives", "0.tar")),
        "annotations of JourneyDB": Reader(damaged_json(annotation), reading(journeydb, "journeydb", "0.jsonl")),
        "images of a CSV": Reader(
            damaged_text("image,caption\n0.png,a cat\n../1.png,\n0.png,again\n"),
            reading(csv_folder, "csv", "0.csv"),
        ),
        "HQ-Edit": Reader(
            damaged_bytes([_parquet([one]) for one in tables]), _file(place / "hqedit/0.parquet", read_edits)
        ),
    }


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def _resealed(folder: Path, name: str, content: bytes) -> None:
    """Put `content` in a file's place and its hash into the manifest, so that only the content tells of the damage."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / MANIFEST).read_text())
    for shard in manifest["shards"]:
        if shard["name"] == name:
            shard["sha256"] = sha256_file(folder / name)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def _gallery(folder: Path) -> Path:
    rows = np.eye(6, 4, dtype=np.float32) + np.eye(6, 4, -4, dtype=np.float32)
    table = [{"id": f"row {number}", "vector": vector} for number, vector in enumerate(rows)]
    write_table(folder, pa.Table.from_pylist(table, schema=schemas.embeddings(4)), {"model": "one"}, rows_per_shard=4)
    return folder


def _other_shards() -> list[bytes]:
    """Parquet files of other tables."""
    import pyarrow.parquet as pq

    made = []
    for schema in (
        schemas.IMAGES,
        schemas.QUERIES,
        schemas.embeddings(3),
        pa.schema([("id", pa.int64()), ("vector", pa.string())]),
    ):
        buffer = io.BytesIO()
        pq.write_table(schema.empty_table(), buffer)
        made.append(buffer.getvalue())
    return made


def _shard_readers(folder: Path) -> dict[str, Reader]:
    shards = _gallery(folder / "gallery")
    manifest, first = (shards / MANIFEST).read_bytes(), (shards / "part-00000.parquet").read_bytes()

    def read() -> None:
        for _, rows in vectors(ShardSet.open(shards)):
            assert np.isfinite(rows).all()
        ShardSet.open(shards, {"model": "one"}).table(["id", "vector"])

    def read_shard(content: bytes) -> None:
        (shards / MANIFEST).write_bytes(manifest)
        _resealed(shards, "part-00000.parquet", content)
        read()

    def read_manifest(content: bytes) -> None:
        (shards / "part-00000.parquet").write_bytes(first)
        (shards / MANIFEST).write_bytes(content)
        read()

    return {
        "shard": Reader(damaged_bytes([first]) | st.sampled_from(_other_shards()), read_shard),
        "manifest": Reader(damaged_json(json.loads(manifest)), read_manifest),
    }


def _image_tables(folder: Path) -> dict[str, Reader]:
    place = folder / "images"
    rows = [{"image_id": "one", "bytes": encoded_images()[0], "width": 20, "height": 16}]
    queries = [{"query_id": "q", "reference_id": "one", "modifications": ["red"], "target_ids": ["one"]}]
    write_table(place, pa.Table.from_pylist(rows, schema=schemas.IMAGES), {})
    asked = folder / "queries"
    write_table(asked, pa.Table.from_pylist(queries, schema=schemas.QUERIES), {})
    name = "part-00000.parquet"

    def read_images(content: bytes) -> None:
        _resealed(place, name, content)
        image_columns(ShardSet.open(place))
        found = ImageTable(place)
        for image_id in found.ids:
            found.image(image_id)

    def read_asked(content: bytes) -> None:
        _resealed(asked, name, content)
        read_queries(asked)

    others = st.sampled_from(_other_shards())
    return {
        "images table": Reader(damaged_bytes([(place / name).read_bytes()]) | others, read_images),
        "queries table": Reader(damaged_bytes([(asked / name).read_bytes()]) | others, read_asked),
    }


def _index_reader(folder: Path) -> dict[str, Reader]:
    gallery, place = _gallery(folder / "indexed"), folder / "index"
    build_index(gallery, place, section(IndexParams, recall_queries=0))

    def read(content: bytes) -> None:
        (place / MANIFEST).write_bytes(content)
        Index.open(place, gallery).search(np.eye(2, 4, dtype=np.float32), 2)

    return {"index manifest": Reader(damaged_json(json.loads((place / MANIFEST).read_text())), read)}


def _weights_readers(folder: Path) -> dict[str, Reader]:
    place = folder / "weights"
    save_weights(place, nn.Linear(3, 2).state_dict(), {"sizes": {"width": 3}})
    weights, config = (place / "model.safetensors").read_bytes(), (place / "config.json").read_text()

    def read_weights(content: bytes) -> None:
        (place / "model.safetensors").write_bytes(content)
        sealed = json.loads(config) | {"sha256": sha256_file(place / "model.safetensors")}
        (place / "config.json").write_text(json.dumps(sealed))
        load_weights(place, nn.Linear(3, 2), {"sizes": {"width": 3}})

    def read_config(content: bytes) -> None:
        (place / "model.safetensors").write_bytes(weights)
        (place / "config.json").write_bytes(content)
        load_weights(place, nn.Linear(3, 2), {"sizes": {"width": 3}})

    return {
        "weights": Reader(damaged_bytes([weights]), read_weights),
        "weights' configuration": Reader(damaged_json(json.loads(config)), read_config),
    }
