"""The little that only the browser can do: what things mean while the pointer rests on them, and the page's address."""

from __future__ import annotations

import json
from collections.abc import Mapping

_TITLES = """() => {
  const components = COMPONENTS, methods = METHODS;
  document.addEventListener("mouseover", event => {
    const entry = event.target.closest("[role=option]");
    if (entry) { entry.title = methods[entry.innerText.replace("✓", "").trim()] ?? ""; return; }
    for (let part = event.target.closest("[id]"); part; part = part.parentElement?.closest("[id]"))
      if (components[part.id]) { part.title = components[part.id]; return; }
  });
}"""
"""Menus and closed accordions are drawn when they are opened: titles are set when the pointer comes."""

SHOW_ANSWER = """() => {
  const link = document.querySelector("#message a"), message = document.querySelector("#message");
  history.replaceState(null, "", link ? link.getAttribute("href") : location.pathname);
  const top = message.getBoundingClientRect().top, hidden = document.querySelector("#bar").offsetHeight;
  if (top < hidden || top > innerHeight / 2) message.scrollIntoView({behavior: "smooth"});
}"""
"""Script for after a search: the page's address becomes that of the search, and the answer comes into sight."""


def titles(components: Mapping[str, str], methods: Mapping[str, str]) -> str:
    """Script that explains components and the menus' entries on hover.

    Args:
        components: HTML id -> text.
        methods: What an entry reads -> text.
    """
    return _TITLES.replace("COMPONENTS", json.dumps(components)).replace("METHODS", json.dumps(methods))
