"""What a reference that is not there is answered with."""

import pytest

from pipeline.app.search.reference import RequestError, find_reference

NAMES = {
    "a/2764": "red heart",
    "a/1f495": "two hearts",
    "a/1f1": "blue heart",
    "a/1f2": "heart on fire",
    "a/1f3": "dog",
}


class Named:
    """A gallery of names alone."""

    ids = list(NAMES)

    def name_of(self, image_id: str) -> str:
        return NAMES[image_id]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("Heart", "image Heart: there is no such file; the gallery has red heart (a/2764), blue heart (a/1f1), "),
        ("a/27645", "image a/27645: there is no such file, and the gallery has no such image"),
        ("heart.png", "image heart.png: there is no such file"),
        ("", "image (none): there is no such file"),
        ("folder", "image folder: a folder; name one image of it"),
    ],
)
def test_images_that_are_called_so_are_named(tmp_path, monkeypatch, named, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(RequestError) as found:
        find_reference(named, Named())
    said = str(found.value)
    assert said.startswith(message) if message.endswith(", ") else said == message
    assert said.count("(a/") <= 3
