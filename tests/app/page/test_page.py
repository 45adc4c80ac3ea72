"""The demo: its answers, its server, and the page in a real browser."""

import json
import os
import shutil
import socket
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.app.page.events import NONE, Answers, friendly, region_of
from pipeline.app.page.image_files import ImageFiles

gradio_client = pytest.importorskip("gradio_client", reason="the extra `demo` is not installed")
SCRIPT = "<script>document.title = 'taken over'</script><img src=x onerror=\"document.title = 'taken over'\">"


@pytest.fixture
def answers(searcher) -> Answers:
    return Answers(searcher)


@pytest.fixture
def photo(in_project) -> str:
    return str(sorted(Path("photos").rglob("t*.png"))[0].resolve())


@pytest.fixture
def form(photo) -> dict:
    return {
        "reference": photo,
        "reference_id": "",
        "text": "as a chef",
        "negative": "",
        "concept": "",
        "method": "fusion_diff",
        "other": "diffcomp",
        "guidance": 1.0,
        "control": 1.0,
        "hypotheses": 2,
        "top": 6,
        "region": None,
    }


# The answers, without a server ------------------------------------------------------------------


def test_two_methods_side_by_side(answers, form):
    results = answers.search(form)
    first, second = results.panels
    assert results.message == "" and first.shown and second.shown
    assert len(first.pictures) == len(first.ids) == 6 and "Fusion-Diff" in first.title and "sample" in first.title
    assert "&lt;i&gt;caption" in first.why and "<i>" not in first.why and first.heat is None
    assert second.heat is not None and "1 - alpha" in second.why
    alone = answers.search(form | {"other": NONE}).panels
    assert alone[0].shown and not alone[1].shown
    same = answers.search(form | {"other": "fusion_diff"}).panels
    assert not same[1].shown


def test_an_untouched_guidance_is_the_parameters(answers, form, monkeypatch):
    retrieve = answers.searcher.params.retrieve
    for parameter, moved_to, refused in ((0.0, 0.0, False), (0.0, 2.0, False), (1.5, 0.0, True)):
        monkeypatch.setattr(retrieve, "guidance_scale", parameter)
        message = answers.search(form | {"negative": "a moon", "guidance": moved_to}).message
        assert ("guidance scale above 0" in message) == refused == bool(message)


def test_a_region_is_used_where_it_means_something(answers, form):
    layer = Image.new("RGBA", (480, 480))
    layer.paste((217, 72, 31, 255), (0, 0, 480, 300))
    plain, painted = answers.search(form), answers.search(form | {"region": {"layers": [layer]}})
    assert painted.panels[0].ids == plain.panels[0].ids and "left out" in painted.panels[0].title
    assert "left out" not in painted.panels[1].title
    assert np.asarray(painted.panels[1].heat).tolist() != np.asarray(plain.panels[1].heat).tolist()


def test_what_is_painted_becomes_a_region():
    layer = Image.new("RGBA", (100, 50))
    layer.paste((1, 1, 1, 255), (0, 0, 50, 50))
    region = np.asarray(region_of({"layers": [layer, Image.new("RGBA", (100, 50))]}, (10, 5)))
    assert region.tolist() == [[255] * 5 + [0] * 5] * 5
    assert region_of({"layers": [Image.new("RGBA", (9, 9))]}, (4, 4)) is None and region_of(None, (4, 4)) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"reference": None}, "no reference image yet"),
        ({"reference": "/no/such.png"}, "no such file"),
        ({"text": ""}, "the modification is empty"),
        ({"text": None}, "the modification is empty"),
        ({"text": "x" * 5_000}, "5,000 characters"),
        ({"negative": "x" * 5_000}, "the negative text has 5,000"),
        ({"method": SCRIPT}, "&lt;script&gt;"),
    ],
)
def test_bad_input_is_a_friendly_sentence(answers, form, changes, reason):
    results = answers.search(form | changes)
    assert reason in results.message and 'role="alert"' in results.message and "<script" not in results.message
    assert not any(panel.shown for panel in results.panels)
    assert answers.search(form).message == ""


def test_images_that_are_none_and_images_too_large(answers, form, make_bomb):
    Path("bomb.png").write_bytes(make_bomb(10_000, 5_000))
    assert "50.0 megapixels" in answers.search(form | {"reference": "bomb.png"}).message
    assert "no image in a known format" in answers.search(form | {"reference": "photos/words.png"}).message


def test_our_own_mistakes_stay_in_the_log(caplog):
    message = friendly(lambda: {}["secret detail"])
    assert "secret" not in message and "Something went wrong here" in message
    assert "secret detail" in caplog.text


def test_picking_from_the_gallery(answers, searcher):
    pictures, ids = answers.picks("", 0)
    assert len(pictures) == len(ids) == 24 and set(answers.picks("", 1)[1]).isdisjoint(ids)
    found = answers.picks(searcher.gallery.ids[5].upper(), 0)[1]
    assert found == [searcher.gallery.ids[5]] and answers.picks("nothing is called so", 3) == ([], [])


# Over HTTP --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def url(project, shared_searcher, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.setenv("GRADIO_TEMP_DIR", str(cache))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        from pipeline.app.page.layout import launch

        page = on_a_free_port(lambda port: launch(shared_searcher, port=port, wait=False))
        yield page.local_url
        page.close()


def on_a_free_port(start):
    """A port is only known to be free until somebody else takes it."""
    for _ in range(10):
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        try:
            return start(port)
        except OSError as error:
            taken = error
    raise taken


def visitor(url: str, folder: Path | bool = False):
    """Downloads the answers' images into `folder`, if one is given."""
    return gradio_client.Client(url, verbose=False, download_files=folder, httpx_kwargs={"timeout": 300})


def ask(client, photo: str, text: str) -> tuple:
    return client.predict(
        gradio_client.handle_file(photo),
        text,
        "",
        "",
        "fusion_diff",
        "diffcomp",
        1.0,
        1.0,
        2,
        6,
        None,
        api_name="/search",
    )


def test_twenty_visitors_at_once_are_all_answered(url, photo, tmp_path):
    """With whole images, though all of them are shown the same files."""
    clients = [visitor(url, tmp_path / str(number)) for number in range(4)]
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda number: ask(clients[number % 4], photo, f"visitor {number}"), range(20)))
    assert [f"visitor {number}" in answer[0] for number, answer in enumerate(found)] == [True] * 20
    galleries = [[part for part in answer if isinstance(part, list)] for answer in found]
    assert all([len(gallery) for gallery in both] == [6, 6] for both in galleries)
    for path in {item["image"] for both in galleries for gallery in both for item in gallery}:
        with Image.open(path) as picture:
            picture.load()


OUTSIDE = [
    "/etc/passwd",
    "{project}/params.yaml",
    "{project}/photos/words.png",
    "../../../../etc/passwd",
    "{repository}/README.md",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_file_outside_the_gallery_is_served(url, project, path):
    path = path.format(project=project, repository=Path(__file__).parents[3])
    for prefix in ("gradio_api/file=", "file=", "gradio_api/file/"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}{prefix}{path}")
        assert refused.value.code in (403, 404)


@pytest.mark.parametrize("path", [".cir/nothing.png", "../params.yaml", "{first}"])
def test_a_path_that_was_not_uploaded_is_no_reference(url, project, photo, shared_searcher, path):
    """Sent over plain HTTP: the client of gradio would upload the file first."""
    file = {
        "path": str(project / "photos" / path.format(first=shared_searcher.gallery.ids[0])),
        "meta": {"_type": "gradio.FileData"},
    }
    body = json.dumps({"data": [file, "x", "", "", "slerp", NONE, 1.0, 1.0, 2, 6, None]}).encode()
    call = urllib.request.Request(f"{url}gradio_api/call/search", body, {"Content-Type": "application/json"})
    try:
        event = json.loads(urllib.request.urlopen(call).read())["event_id"]
        answer = urllib.request.urlopen(f"{url}gradio_api/call/search/{event}").read().decode()
    except urllib.error.HTTPError as refused:
        answer = f"event: error {refused.code}"
    assert "event: error" in answer or "this reference cannot be used: there is no such file" in answer
    assert "as a chef" in ask(visitor(url), photo, "as a chef")[0]


def test_it_listens_on_this_machine_alone(url):
    assert url.startswith("http://127.0.0.1:")


def test_a_kept_image_is_written_once(tmp_path):
    files, picture = ImageFiles(tmp_path), Image.new("RGB", (64, 64), "red")
    with ThreadPoolExecutor(8) as pool:
        kept = set(pool.map(lambda _: files.keep(picture), range(40)))
    [path] = map(Path, kept)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path] and not path.stat().st_mode & 0o077
    inode, _ = path.stat().st_ino, os.utime(path, (0, 0))
    assert files.keep(picture) == str(path) and path.stat().st_ino == inode and path.stat().st_mtime > 0
    assert np.array_equal(Image.open(path), picture) and files.keep(
        Image.new("RGB", (64, 64), "blue"), "webp"
    ).endswith(".webp")


# In a browser -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    """Chromium: the one that PATH or CHROMIUM names, or playwright's own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = (
        os.environ.get("CHROMIUM")
        or shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    with playwright.sync_playwright() as engine:
        try:
            started = engine.chromium.launch(executable_path=program, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"there is no Chromium: {str(error).splitlines()[0]}")
        yield started
        started.close()


LOADED = """selector => {
  const images = [...document.querySelectorAll(selector)];
  const image = images.find(image => !(image.complete && image.naturalWidth));
  (image ?? images[0])?.scrollIntoView({block: "center"});
  return images.length > 0 && !image;
}"""


def see(page, selector: str) -> None:
    """Scroll to every such image until all are there: Gradio's load lazily, and have no size while they are far out of sight."""
    page.wait_for_function(LOADED, arg=selector, polling=200)


def paint(page) -> None:
    canvas = page.locator("#editor canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 30, y - 30)
    page.mouse.down()
    page.mouse.move(x + 40, y + 40, steps=6)
    page.mouse.up()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "width", "height"), [("desktop", 1360, 900), ("phone", 390, 844)])
def test_a_visit(url, browser, photo, searcher, make_bomb, tmp_path, name, width, height):
    """Upload, search, go on from an answer, paint a region, and every kind of mistake. SCREENSHOTS names a folder for images of it."""
    shots = Path(os.environ.get("SCREENSHOTS", tmp_path))
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(90_000)
    outside = []
    page.on(
        "request",
        lambda request: outside.append(request.url) if not request.url.startswith((url, "data:", "blob:")) else None,
    )
    page.goto(url)

    def message() -> str:
        return page.locator("#message .cir-message").inner_text()

    # Mistakes first: nothing given, then a text file called .png, then a bomb.
    page.locator("#go").click()
    page.locator("#message .cir-message").wait_for()
    assert "no reference image yet" in message()
    upload = page.locator("#reference input[type=file]")
    mistakes = ((b"these are words", "no image in a known format"), (make_bomb(10_000, 5_000), "50.0 megapixels"))
    for number, (content, reason) in enumerate(mistakes):
        wrong = tmp_path / f"wrong{number}.png"
        wrong.write_bytes(content)
        upload.set_input_files(str(wrong))
        page.locator("#trail .cir-message", has_text=reason).wait_for()
        page.screenshot(path=shots / f"{name}-mistake{number}.png")
        page.locator("#reference").get_by_label("Remove Image").click()
        upload.wait_for(state="attached")
        page.locator("#trail .cir-message").wait_for(state="detached")

    # A search, with HTML in its text.
    upload.set_input_files(photo)
    page.locator("#reference img").wait_for()
    page.locator("#text textarea").fill(SCRIPT)
    page.locator("#go").click()
    see(page, "#first-answers img")
    assert SCRIPT in page.locator("#message .cir-asked").inner_text() and page.title() == "Composed image retrieval"
    assert page.locator("#message script, #message img").count() == 0
    see(page, "#second-heat img")
    assert "nearest to the sampled target" in page.locator("#first-why").inner_text()

    # The second answer becomes the reference.
    page.locator("#first-answers button").nth(1).click()
    page.locator("#trail", has_text="from the gallery").wait_for()
    chosen = page.locator("#trail").inner_text().removeprefix("from the gallery: ").strip()
    assert chosen in searcher.gallery.ids
    page.locator("#text textarea").fill("as a chef")
    started = time.monotonic()
    page.locator("#go").click()
    page.locator("#message .cir-asked", has_text="as a chef").wait_for()
    print(f"{name}: answered in {time.monotonic() - started:.2f} s")

    # A region painted on it.
    page.locator("#region > button").click()
    page.locator("#editor canvas").first.wait_for()
    for attempt in range(10):  # nothing in the page says when the editor is ready to be painted on
        paint(page)
        page.locator("#negative textarea, #negative input").fill(f"a moon {attempt}")
        page.locator("#go").click()
        page.locator("#message .cir-asked", has_text=f"without a moon {attempt}").wait_for()
        if page.locator("#first", has_text="The region means nothing to this method").count():
            break
    else:
        pytest.fail("ten strokes of the brush, and no region")

    # Another reference, by a part of its name.
    picked = next(image_id for image_id in searcher.gallery.ids if image_id != chosen)
    page.locator("#pick > button").click()
    page.locator("#pick textarea, #pick input").first.fill(picked.upper())
    page.wait_for_function("document.querySelectorAll('#picks img').length === 1")
    see(page, "#picks img")
    page.locator("#picks button").first.click()
    page.locator("#trail", has_text=f"from the gallery: {picked}").wait_for()

    # Too long a text, and the server is still up.
    page.locator("#text textarea").fill("x" * 5_000)
    page.locator("#go").click()
    page.locator("#message .cir-message", has_text="5,000 characters").wait_for()
    page.locator("#text textarea").fill("as a farmer")
    page.locator("#go").click()
    page.locator("#message .cir-asked", has_text="as a farmer").wait_for()
    for part in ("first-answers", "second-answers", "second-heat", "reference"):
        see(page, f"#{part} img")
    page.screenshot(path=shots / f"{name}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert outside == [], json.dumps(outside)
    page.close()
