"""The count of what a reader passes over."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.sources.web.samples import Sample


class PassedOver:
    """What a reader leaves out that is no image: counted by reason, so that millions of files are a few lines.

    Args:
        place: What the ids in the list begin with: the archive's, or the source's.
    """

    def __init__(self, place: str):
        self._place = place
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, name: str, reason: str) -> None:
        """Count one file."""
        count, first = self._found.get(reason, (0, name))
        self._found[reason] = (count + 1, first)

    def samples(self) -> Iterator[Sample]:
        """One sample a reason, under the name of the first file."""
        for reason, (count, first) in self._found.items():
            more = f" (and {count - 1} more)" if count > 1 else ""
            yield Sample(f"{self._place}/{printable(first)}", reason=f"{reason}{more}", is_image=False)


def printable(name: str) -> str:
    """A name that can be written: what is not UTF-8 is spelled out."""
    return name if name.isprintable() else ascii(name)[1:-1]
