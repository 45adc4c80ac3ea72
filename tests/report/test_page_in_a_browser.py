"""The page in a real browser: what a reader clicks, types and sees."""

import os
import shutil

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def browser():
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium is installed")
    with driver.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield opened
        opened.close()


@pytest.fixture
def page(browser, built):
    """The page at desktop width; at the end there was no error, dialog or request beside the file itself."""
    opened, wrong = browser.new_page(viewport={"width": 1280, "height": 900}), []
    opened.set_default_timeout(90_000)
    opened.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    address = (built.out / "index.html").as_uri()
    opened.on(
        "request", lambda request: None if request.url.startswith((address, "data:")) else wrong.append(request.url)
    )
    opened.goto(address)
    yield opened
    opened.close()
    assert wrong == []


def outcomes(page) -> list[str]:
    while page.locator("#more").is_visible():
        page.locator("#more").click()
    return [card.get_attribute("data-outcome") for card in page.locator("article.query").all()]


def hits(page, method: str) -> int:
    """Queries whose shown rank is ten or better in this method's row."""
    ranks = page.locator(f'.answer[data-method="{method}"] .who span').all_inner_texts()
    return sum(rank.startswith("#") and int(rank[1:]) <= 10 for rank in ranks)


def test_two_methods_side_by_side(page):
    assert page.locator("#first").input_value() == "2" and page.locator("#count").inner_text() == "36 of 36 queries"
    found = outcomes(page)
    assert len(found) == 36 and set(found) <= {"both", "first", "second", "neither"}
    assert hits(page, "fusion_diff") == found.count("both") + found.count("first")
    assert hits(page, "my_own_method") == found.count("both") + found.count("second")
    page.get_by_role("button", name="Only Fusion-Diff (C)").click()
    assert outcomes(page) == ["first"] * found.count("first")
    page.get_by_role("button", name="Gender", exact=True).click()
    assert set(outcomes(page)) <= {"first"}
    assert {card.get_attribute("data-kind") for card in page.locator("article.query").all()} <= {"0"}
    page.get_by_role("button", name="All kinds").click()
    page.get_by_role("button", name="Any outcome").click()
    page.get_by_role("button", name="Top 1", exact=True).click()
    assert outcomes(page).count("both") <= found.count("both")
    page.get_by_label("answers of every method").check()
    assert page.locator("article.query").first.locator(".answer[data-method]").count() == 4


def test_one_method_alone(page):
    page.locator("#second").select_option(label="no other")
    found = outcomes(page)
    assert set(found) == {"hit", "miss"} and hits(page, "fusion_diff") == found.count("hit")
    page.get_by_role("button", name="Misses").click()
    assert outcomes(page) == ["miss"] * found.count("miss")
    page.get_by_label("Words in the query").fill("no such words")
    assert page.locator("#count").inner_text() == "0 of 36 queries" and page.get_by_text("No query fits").is_visible()
    page.get_by_label("Words in the query").fill("GREENER modified")
    assert len(outcomes(page)) == found.count("miss")


def test_hostile_text_is_shown_and_not_executed(page):
    assert page.locator(".says").first.inner_text() == "<script>alert('modified')</script> & \"greener\""
    assert page.locator("article script").count() == 0


def test_a_table_says_when_it_goes_on_to_the_right(page):
    table = page.locator(".scroll").first
    hint = page.locator(".more-hint").first
    table.evaluate("table => table.style.width = '100px'")
    hint.wait_for(state="visible")
    table.evaluate("table => table.scrollLeft = 10_000")
    hint.wait_for(state="hidden")
    table.evaluate("table => table.scrollLeft = 0")
    hint.wait_for(state="visible")
    table.evaluate("table => table.style.width = '2000px'")
    hint.wait_for(state="hidden")


def test_the_keyboard_reaches_everything(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the results"
    kind = page.get_by_role("button", name="Role", exact=True)
    kind.focus()
    page.keyboard.press("Enter")
    assert (
        page.evaluate("document.activeElement.textContent") == "Role"
    )  # the focus stays though the bars are drawn anew
    assert kind.get_attribute("aria-pressed") == "true" and page.locator("#count").inner_text() == "12 of 36 queries"
    unnamed = page.evaluate("[...document.images].filter((image) => !image.alt).length")
    assert unnamed == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_no_way_but_down(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in background[4:-1].split(",")) < 200) == (scheme == "dark")
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
