"""A library that changes under a running server, which is killed and started again."""

import io
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import httpx
import pytest
from PIL import Image

from pipeline.app.search.library import Library
from pipeline.app.service.changes import target_of
from pipeline.app.service.problems import ServiceError
from tests.app.service.conftest import serving, starting
from tests.app.service.test_bad_requests import check


def picture(colour: str, side: int = 48) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "PNG")
    return buffer.getvalue()


def find(http, content: bytes, **fields) -> list[str]:
    """Ids of the images that look most like one."""
    search = {"text": "x", "method": "image_only", "top": 5, **fields}
    answer = http.post("/v1/search/upload", files={"image": content}, data={"search": json.dumps(search)})
    assert answer.status_code == 200, answer.text
    return [hit["id"] for hit in answer.json()["hits"]]


def add(http, *images: tuple[str, bytes], **form) -> httpx.Response:
    data = {name: value if isinstance(value, str) else json.dumps(value) for name, value in form.items()}
    return http.post("/v1/images", files=[("image", image) for image in images], data=data)


@pytest.fixture(scope="module")
def folder(project, tmp_path_factory) -> Path:
    """A library of its own, indexed like the project's."""
    folder = tmp_path_factory.mktemp("mine") / "photos"
    shutil.copytree(project / "photos", folder)
    return folder


@pytest.fixture(scope="module")
def http(project, folder):
    with (
        serving(project, "--no-page", gallery=str(folder)) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=60) as client,
    ):
        yield client


def test_what_is_added_is_found_and_what_is_removed_is_not(http, folder):
    before = http.get("/v1/info").json()["images"]
    metadata = {"new/red.png": {"year": 2024, "tag": "warm"}, "new/blue.png": {"year": 1999, "tag": "cold"}}
    answer = add(http, ("red.png", picture("red")), ("blue.png", picture("blue")), folder="new", metadata=metadata)
    assert answer.status_code == 200, answer.text
    assert [image["id"] for image in answer.json()["images"]] == ["new/red.png", "new/blue.png"]
    assert answer.json()["added"] == 2 and http.get("/v1/info").json()["images"] == before + 2
    assert find(http, picture("red"))[0] == "new/red.png" and (folder / "new/red.png").read_bytes() == picture("red")
    assert http.get("/v1/images/new/red.png").status_code == 200

    assert find(http, picture("red"), filter="year < 2000") == ["new/blue.png"]
    assert find(http, picture("red"), filter='tag == "warm" and year >= 2020') == ["new/red.png"]
    listed = http.get("/v1/images", params={"filter": "year > 0"}).json()
    assert listed["total"] == 2 and listed["images"][0]["fields"]["year"] == 2024
    assert http.get("/v1/info").json()["fields"]["year"] == "number"
    liked = find(http, picture("blue"), liked=["new/red.png"], liked_weight=5)
    assert liked[0] == "new/red.png"

    assert http.delete("/v1/images/new/red.png").json() == {"id": "new/red.png"}
    assert "new/red.png" not in find(http, picture("red")) and (folder / "new/red.png").is_file()
    check(http.get("/v1/images/new/red.png"), 404, "'new/red.png' is no image of this gallery")
    check(http.delete("/v1/images/new/red.png"), 404, "is no image")
    sent = {"references": [{"id": "new/red.png"}], "text": "x"}
    check(http.post("/v1/search", json=sent), 404, "references.0.id: 'new/red.png'")
    sent = {"references": [{"id": "new/blue.png"}], "text": "x", "disliked": ["new/red.png"]}
    check(http.post("/v1/search", json=sent), 404, "disliked: 'new/red.png'")
    assert http.delete("/v1/images/new/blue.png", params={"file": True}).status_code == 200
    assert not (folder / "new/blue.png").exists() and http.get("/v1/info").json()["images"] == before


def test_a_file_is_replaced_only_on_request(http, folder):
    assert add(http, ("own.png", picture("green"))).status_code == 200
    check(add(http, ("own.png", picture("yellow"))), 409, "'own.png' is there")
    assert (folder / "own.png").read_bytes() == picture("green")
    answer = add(http, ("own.png", picture("yellow")), replace="true").json()
    assert (answer["added"], answer["replaced"]) == (0, 1) and find(http, picture("yellow"))[0] == "own.png"


@pytest.mark.parametrize(
    "name",
    [
        *("../out.png", "/etc/x.png", "a/../../x.png", "./x.png", "a//x.png", "a\\x.png", ".hidden.png", ".cir/x.png"),
        *(
            "",
            "x/",
            "..",
            "x" * 500,
            "é" * 150 + ".png",
            "a\x07b/../c",
            "\u202ex.png",
            "more",
            "words.png/x.png",
            "a/.b/c",
        ),
    ],
)
def test_hostile_names_write_nothing(http, folder, name):
    def files() -> list[str]:
        return sorted(str(path) for path in folder.parent.rglob("*") if ".cir" not in path.parts)

    before = files()
    check(add(http, (name, picture("red"))))
    if name:
        check(add(http, ("x.png", picture("red")), folder=name if name != "more" else "more/"))
    assert files() == before


def test_links_do_not_lead_out(http, folder, tmp_path):
    (folder / "link").symlink_to(tmp_path, target_is_directory=True)
    check(add(http, ("x.png", picture("red")), folder="link"), 422, "leads out of the folder")
    assert list(tmp_path.iterdir()) == []
    (folder / "same").symlink_to("more", target_is_directory=True)
    check(add(http, ("x.png", picture("red")), folder="same"), 422, "its own name is 'more/x.png'")
    (folder / "circle").symlink_to("circle")
    check(add(http, ("x.png", picture("red")), folder="circle"), 422, "links in a circle")


def test_what_is_no_image_is_not_written_over(http, folder):
    os.mkfifo(folder / "pipe.png")
    for replace in ("false", "true"):
        check(add(http, ("pipe.png", picture("red")), replace=replace), 422, "no regular file")
        check(add(http, ("metadata.csv", picture("red")), replace=replace), 422, "keeps something else")
    os.unlink(folder / "pipe.png")


def test_a_library_among_the_images_is_not_written_over(tmp_path):
    library = Library.create(tmp_path / "photos/lib", tmp_path / "photos")
    for name in ("lib/library.sqlite", "lib/x.png"):
        with pytest.raises(ServiceError, match="keeps something else"):
            target_of(name, library)
    assert target_of("more/x.png", library) == tmp_path / "photos/more/x.png"


def test_a_file_that_cannot_be_written_is_named(http, folder):
    (folder / "gone.png").write_bytes(picture("red"))
    assert add(http, ("gone.png", picture("red"))).status_code == 200
    (folder / "gone.png").unlink()
    (folder / "gone.png").mkdir()
    assert http.delete("/v1/images/gone.png", params={"file": True}).status_code == 200
    (folder / "gone.png").rmdir()


@pytest.mark.parametrize(
    "fields",
    [
        {"year": 10**400},
        {"year": -(2**63)},
        {"x": float("nan")},
        {"": 1},
        {"a\0": 1},
        {"a\\b": 1},
        {"a" * 200: 1},
        {"path": "x"},
    ],
)
def test_metadata_that_no_filter_could_read(http, fields):
    check(add(http, ("odd.png", picture("red")), metadata={"odd.png": fields}), 422)
    assert http.get("/v1/images", params={"limit": 1000}).status_code == 200


def test_one_wrong_image_adds_none(http, folder):
    before = http.get("/v1/info").json()["images"]
    good, wrong = ("good.png", picture("red", 20)), ("wrong.png", b"words")
    check(add(http, good, wrong), 422, "image 'wrong.png': the image cannot be decoded")
    check(add(http, good, good), 422, "'good.png' comes twice")
    check(add(http, good, metadata={"other.png": {"a": 1}}), 422, "metadata: 'other.png' is none of the images")
    check(add(http, good, metadata={"good.png": {"size": "late"}}), 422, "size")
    check(add(http, good, metadata="{"), 422, "metadata: ")
    check(add(http, good, metadata={"good.png": {"a": [1]}}), 422, "metadata")
    check(add(http, good, metadata='{"good.png": {"a": 1e999}}'), 422, "the field 'a' cannot be inf")
    check(add(http, good, metadata={"good.png": {"a" * 101: 1}}), 422, "metadata")
    check(add(http, good, metadata={"good.png": {"a": "x" * 10_001}}), 422, "metadata")
    check(add(http, good, metadata={"good.png": {str(number): 1 for number in range(101)}}), 422, "metadata")
    check(add(http), 422, "image: ")
    assert http.get("/v1/info").json()["images"] == before and not (folder / "good.png").exists()


@pytest.mark.parametrize("filter_", ["nothing == 1", "year", 'year == "x"', "(" * 3_000, "year == 1; DROP", "size > "])
def test_wrong_filters_are_named(http, filter_):
    add(http, ("dated.png", picture("pink")), metadata={"dated.png": {"year": 2000}}, replace="true")
    search = {"text": "x", "method": "image_only", "filter": filter_}
    check(http.post("/v1/search/upload", files={"image": picture("red")}, data={"search": json.dumps(search)}), 422)
    check(http.get("/v1/images", params={"filter": filter_}), 422, "filter")


def test_a_benchmark_does_not_change(project):
    with (
        serving(project, "--no-page", gallery="emoji_cir") as url,
        httpx.Client(base_url=url, trust_env=False, timeout=60) as http,
    ):
        image_id = http.get("/v1/images").json()["images"][0]["id"]
        check(add(http, ("x.png", picture("red"))), 409, "a benchmark, which does not change")
        check(http.delete(f"/v1/images/{image_id}"), 409, "does not change")
        sent = {"references": [{"id": image_id}], "text": "x", "filter": "year > 1"}
        check(http.post("/v1/search", json=sent), 422, "filter: the images of emoji_cir have no metadata")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_server_has_lost_nothing_that_it_acknowledged(project, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(project / "photos", folder)
    acknowledged = []
    process, url = starting(project, "--no-page", gallery=str(folder))
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
        for number in range(200):
            if number == 7:
                os.kill(process.pid, signal.SIGKILL)
            try:
                name = f"n{number}.png"
                if add(http, (name, picture(f"rgb({number * 5 % 256},{number * 31 % 256},7)"))).status_code == 200:
                    acknowledged.append(name)
            except httpx.TransportError:
                break
    process.wait()
    assert len(acknowledged) >= 7 and set(acknowledged) <= set(Library.open(folder).ids)
    with (
        serving(project, "--no-page", gallery=str(folder)) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=60) as http,
    ):
        for name in acknowledged:
            assert find(http, (folder / name).read_bytes())[0] == name
