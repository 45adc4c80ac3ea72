"""A search as the query of the page's address, and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode


@dataclass(frozen=True)
class Link:
    """What an address says. A field that is "" is not in it."""

    image: str = ""
    """The id of the reference in the gallery."""
    text: str = ""
    negative: str = ""
    method: str = ""
    second_method: str = ""


NAMES = {"image": "image", "text": "text", "not": "negative", "method": "method", "with": "second_method"}
"""Parameter of the address -> field of `Link`."""


def address_of(link: Link) -> str:
    """The address relative to the page; "" for an uploaded reference, which no other visitor has."""
    if not link.image:
        return ""
    found = {name: getattr(link, field) for name, field in NAMES.items()}
    return "?" + urlencode({name: value for name, value in found.items() if value})


def read_address(query: Mapping[str, str], methods: Collection[str], nothing: str) -> Link:
    """What an address asks for.

    Args:
        query: The parameters of the address, which anyone may have written.
        methods: The methods that can be searched with. Others are passed over.
        nothing: The value of the second method for none.
    """
    found = {field: str(query.get(name, "")) for name, field in NAMES.items()}
    if found["method"] not in methods:
        found["method"] = ""
    if found["second_method"] not in (*methods, nothing):
        found["second_method"] = ""
    return Link(**found)
