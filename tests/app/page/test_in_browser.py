"""The demo page in a real browser, on a desktop and on a phone. SCREENSHOTS names a folder for images of it."""

import json
import os
import shutil
from pathlib import Path

import pytest

from pipeline.app.page.words import CONTROLS, METHODS

pytest.importorskip("gradio", reason="the extra `demo` is not installed")
SCRIPT = "<script>document.title = 'taken over'</script><img src=x onerror=\"document.title = 'taken over'\">"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
VIEWPORTS = {"desktop": {"width": 1360, "height": 900}, "phone": {"width": 390, "height": 844}}

LOADED = """selector => {
  const images = [...document.querySelectorAll(selector)];
  const image = images.find(image => !(image.complete && image.naturalWidth));
  (image ?? images[0])?.scrollIntoView({block: "center"});
  return images.length > 0 && !image;
}"""
"""Scrolls to every such image until all are loaded: Gradio loads them lazily, without a size while out of sight."""

IN_SIGHT = """() => {
  const shown = document.querySelector("#message .cir-query").getBoundingClientRect();
  return shown.top >= document.querySelector("#bar").getBoundingClientRect().bottom && shown.bottom <= innerHeight;
}"""
"""Whether query and reference stand on the screen, below the bar."""

FRAMES = """() => {
  const tiles = [...document.querySelectorAll("#first-results button")].filter(tile => !tile.matches(":hover"));
  return [...new Set(tiles.map(tile => getComputedStyle(tile).borderColor + getComputedStyle(tile).boxShadow))];
}"""
"""The different frames of the results that the pointer does not rest on."""

CUT = """() => [...document.querySelectorAll(".caption-label, #first .grid-wrap, #second .grid-wrap")]
  .filter(label => label.scrollHeight > label.clientHeight + 1 || label.scrollWidth > label.clientWidth + 1)
  .map(label => label.innerText)"""
"""Captions and grids that do not fit their places."""

OVER_BAR = """() => {
  const edge = document.querySelector("#bar").getBoundingClientRect().right;
  const parts = [...document.querySelectorAll("#bar *")];
  return parts.filter(part => part.getBoundingClientRect().right > edge + 0.5).length;
}"""
"""How many parts of the bar stand over its right edge."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser():
    """Chromium: the one that CHROMIUM or PATH names, or playwright's own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    installed = (path for path in map(shutil.which, PROGRAMS) if path)
    program = os.environ.get("CHROMIUM") or next(installed, None)
    with playwright.sync_playwright() as engine:
        try:
            started = engine.chromium.launch(executable_path=program, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"there is no Chromium: {str(error).splitlines()[0]}")
        yield started
        started.close()


class Visitor:
    """What a person does on the page, and what it says."""

    def __init__(self, page, name: str, screenshots: Path):
        self.page, self.name, self.screenshots = page, name, screenshots

    def upload(self, path: Path | str) -> None:
        field = self.page.locator("#reference input[type=file]")
        field.wait_for(state="attached")
        field.set_input_files(str(path))

    def search(self, text: str) -> None:
        self.page.locator("#text textarea, #text input").fill(text)
        self.page.locator("#search").click()

    def search_with(self, photo: str, text: str) -> None:
        """Upload, search, and wait for the results."""
        self.upload(photo)
        self.page.locator("#reference img").wait_for()
        self.search(text)
        self.page.locator("#message .cir-query", has_text=text).wait_for()
        self.see("#first-results img")

    def wait_for_alert(self, place: str, text: str) -> None:
        self.page.locator(f"{place} .cir-message", has_text=text).wait_for()

    def see(self, selector: str) -> None:
        self.page.wait_for_function(LOADED, arg=selector, polling=200)

    def paint(self) -> None:
        """A stroke of the brush in the middle of the editor."""
        canvas = self.page.locator("#editor canvas").first
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x - 30, y - 30)
        self.page.mouse.down()
        self.page.mouse.move(x + 40, y + 40, steps=6)
        self.page.mouse.up()

    def screenshot(self, what: str) -> None:
        self.page.screenshot(path=self.screenshots / f"{self.name}-{what}.png", full_page=True)


@pytest.fixture(params=VIEWPORTS)
def visitor(request, url, browser, tmp_path):
    """A visitor with a new page, which must ask nothing of any other server and fit the screen's width."""
    viewport, outside = VIEWPORTS[request.param], []

    def note(sent) -> None:
        if not sent.url.startswith((url, "data:", "blob:")):
            outside.append(sent.url)

    page = browser.new_page(viewport=viewport)
    page.set_default_timeout(90_000)
    page.on("request", note)
    page.goto(url)
    yield Visitor(page, request.param, Path(os.environ.get("SCREENSHOTS", tmp_path)))
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert outside == []
    page.close()


def test_a_search_without_a_reference(visitor):
    visitor.page.locator("#search").click()
    visitor.wait_for_alert("#message", "no reference image yet")


def test_uploads_that_cannot_be_used(visitor, make_bomb, tmp_path):
    mistakes = ((b"these are words", "in no known format"), (make_bomb(10_000, 8_000), "10000 x 8000 pixels, at most"))
    for number, (content, reason) in enumerate(mistakes):
        path = tmp_path / f"wrong{number}.png"
        path.write_bytes(content)
        visitor.upload(path)
        visitor.wait_for_alert("#reference-note", reason)
        visitor.screenshot(f"mistake{number}")
        visitor.page.locator("#reference").get_by_label("Remove Image").click()
        visitor.page.locator("#reference-note .cir-message").wait_for(state="detached")


def test_markup_in_a_text_stays_text(visitor, photo):
    visitor.search_with(photo, SCRIPT)
    assert visitor.page.title() == "Composed image retrieval"
    assert visitor.page.locator("#message script, #message img[src=x]").count() == 0


def test_a_search_shows_results_and_explanations(visitor, photo):
    visitor.search_with(photo, "as a farmer")
    for part in ("first-results", "second-results", "second-heat-map", "reference"):
        visitor.see(f"#{part} img")
    assert "nearest to the sampled targets" in visitor.page.locator("#first-explanation").inner_text()
    visitor.screenshot("results")
    assert visitor.page.evaluate(CUT) == []
    assert visitor.page.evaluate(OVER_BAR) == 0


def test_a_result_continues_the_chain_and_back_returns(visitor, photo, searcher):
    """A click on a result searches on from there, the query in sight. Its address and Back lead to a search again."""
    page = visitor.page
    visitor.search_with(photo, "as a farmer")
    assert "image=" not in page.url and page.locator("#back").is_disabled()
    uploaded = page.locator("#message img").get_attribute("src")
    page.locator("#first-results button").nth(5).click()
    page.wait_for_url("**/?image=*")
    note = page.locator("#reference-note").inner_text()
    assert note.removeprefix("from the gallery: ").strip() in searcher.gallery.ids
    page.wait_for_function(IN_SIGHT)
    page.mouse.move(0, 0)
    page.wait_for_function(f"({FRAMES})().length === 1")  # the clicked tile's frame fades
    chained = page.url
    page.locator("#text textarea, #text input").fill("as a chef")
    page.keyboard.press("Enter")
    page.locator("#message .cir-query", has_text="as a chef").wait_for()
    visitor.screenshot("chain")
    page.locator("#back").click()
    page.wait_for_url(chained)
    page.locator("#back").click()
    page.wait_for_function("src => document.querySelector('#message img').src === src", arg=uploaded)
    assert page.locator("#back").is_disabled()
    page.goto(chained)
    page.locator("#message .cir-query", has_text="as a farmer").wait_for()
    visitor.see("#first-results img")


def test_words_explain_controls_and_methods_on_hover(visitor):
    page = visitor.page
    page.locator("#search").hover()
    page.locator(f"#search[title={json.dumps(CONTROLS['search'])}]").wait_for()  # set by a script as the page loads
    page.locator("#method input").click()
    for label, words in (("CIReVL", METHODS["cirevl"]), ("Description", METHODS["description"])):
        entry = page.get_by_role("option", name=label, exact=True)
        entry.hover()
        assert entry.get_attribute("title") == words
    page.get_by_role("option", name="CIReVL", exact=True).click()
    page.locator("#method", has_text=METHODS["cirevl"]).wait_for()


def test_a_painted_region_reaches_the_search(visitor, photo):
    visitor.search_with(photo, "as a farmer")
    page = visitor.page
    page.locator("#region > button").click()
    page.locator("#editor canvas").first.wait_for()
    for attempt in range(10):  # nothing in the page says when the editor is ready to be painted on
        visitor.paint()
        page.locator("#negative textarea, #negative input").fill(f"a moon {attempt}")
        page.locator("#search").click()
        page.locator("#message .cir-query", has_text=f"without a moon {attempt}").wait_for()
        if page.locator("#first", has_text="This method takes no region").count():
            return
    pytest.fail("ten strokes of the brush, and no region")


def test_a_suggestion_becomes_the_reference(visitor, searcher):
    wanted, page = searcher.gallery.ids[3], visitor.page
    page.wait_for_function("document.querySelectorAll('#suggestions img').length > 1")  # a folder has no examples
    page.locator("#pick textarea, #pick input").first.fill(wanted.upper())
    page.wait_for_function("document.querySelectorAll('#suggestions img').length === 1")
    visitor.see("#suggestions img")
    page.locator("#suggestions button").first.click()
    page.locator("#reference-note", has_text=f"from the gallery: {wanted}").wait_for()


def test_a_text_that_is_too_long_and_a_search_after_it(visitor, photo):
    visitor.search_with(photo, "as a farmer")
    visitor.search("x" * 5_000)
    visitor.wait_for_alert("#message", "5,000 characters")
    visitor.search("as a chef")
    visitor.page.locator("#message .cir-query", has_text="as a chef").wait_for()
