"""A search as the page's address."""

from urllib.parse import parse_qsl

import pytest

from pipeline.app.page.links import Link, address_of, read_address

METHODS = ("fusion_diff", "slerp")


@pytest.mark.parametrize(
    "link",
    [
        Link("twemoji/2764", "in brown", "", "fusion_diff", "slerp"),
        Link("twemoji/2764", "in brown & blue? #1 100 %", "a “man”", "slerp", "none"),
        Link("über/das Meer.jpg", "<b>at night</b>", "+", "", ""),
    ],
)
def test_an_address_leads_back_to_its_search(link):
    query = dict(parse_qsl(address_of(link).removeprefix("?")))
    assert read_address(query, METHODS, "none") == link


def test_an_upload_has_no_address():
    assert address_of(Link("", "in brown", "", "slerp", "none")) == ""


def test_unknown_methods_in_an_address_are_passed_over():
    query = {"image": "twemoji/2764", "text": "in brown", "method": "<script>", "with": "gone", "other": "1"}
    assert read_address(query, METHODS, "none") == Link("twemoji/2764", "in brown")
