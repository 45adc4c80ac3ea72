"""The page that `cir serve` has on its own process, in a real browser, with the server's key as a password."""

import pytest

from tests.app.page.test_in_browser import Visitor, browser  # noqa: F401 - a fixture
from tests.app.service.conftest import serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(project):
    pytest.importorskip("gradio", reason="the extra `demo` is not installed")
    with serving(project, CIR_API_KEY="secret") as address:
        yield address


def test_a_visitor_with_the_key_searches(url, browser, photo, tmp_path):  # noqa: F811
    context = browser.new_context(http_credentials={"username": "anyone", "password": "secret"})
    page, outside = context.new_page(), []
    page.set_default_timeout(90_000)
    page.on("request", lambda sent: None if sent.url.startswith((url, "data:", "blob:")) else outside.append(sent.url))
    page.goto(url)
    assert page.url.rstrip("/").endswith("/demo")
    visitor = Visitor(page, "served", tmp_path)
    visitor.search_with(photo, "as a farmer")
    assert page.locator("#first-results img").count() >= 10 and outside == []
    context.close()
