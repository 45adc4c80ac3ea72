"""Names beside the ids of emoji."""

import unicodedata
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.app.search.names import emoji_names, with_name
from pipeline.artifacts import write_table

FIXTURE = Path(__file__).parents[2] / "fixtures/emoji"


def images_of(tmp_path: Path, **identity) -> Path:
    write_table(tmp_path / "images", pa.table({"image_id": ["twemoji/1f600"]}), identity)
    return tmp_path / "images"


def test_single_characters_are_called_as_unicode_calls_them(tmp_path):
    names = emoji_names(images_of(tmp_path, source="emoji-cir", data={"fixture": str(FIXTURE), "raw": "data/raw"}))
    single = {code: name for code, name in names.items() if "-" not in code}
    same = [code for code, name in single.items() if unicodedata.name(chr(int(code, 16)), "").lower() == name.lower()]
    assert len(same) > 0.3 * len(single) > 5  # CLDR has names of its own for the others
    assert any("skin tone" in name for name in names.values())


@pytest.mark.parametrize(
    "identity",
    [
        {},
        {"source": "cirr"},
        {"source": "emoji-cir", "data": {"fixture": "", "raw": "gone"}},
    ],
)
def test_images_without_names_have_none(tmp_path, identity):
    assert emoji_names(images_of(tmp_path, **identity)) == {}


def test_the_id_stays_beside_the_name():
    assert with_name("twemoji/1f473", "person wearing turban") == "person wearing turban (twemoji/1f473)"
    assert with_name("holiday/beach.jpg", "") == "holiday/beach.jpg"
