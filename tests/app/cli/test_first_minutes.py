"""From a clone to a searched folder of one's own, with a CLIP that lies on the disk."""

from __future__ import annotations

import json
import resource
import shlex

from tests.app.conftest import write_photos
from tests.encoders.dual.random_models import save_clip
from tests.stages.test_smoke import copy_project, run

AROUND_THE_INSTALLATION = 2
"""`git clone ... && cd ...` and `source .venv/bin/activate`."""


def test_at_most_five_commands_and_two_minutes(tables, tmp_path):
    project, photos = tmp_path / "clone", tmp_path / "my photos"
    project.mkdir()
    copy_project(project)
    write_photos(photos, tables["benchmarks/emoji_cir/images"].slice(0, 12))
    encoder, first = save_clip(tmp_path / "clip"), min(photos.glob("*_*.png"))
    commands = [
        f"cir index '{photos}' --encoder {encoder}",
        f"cir search --gallery '{photos}' --image '{first}' --text 'as a drawing' --json",
    ]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = [run(project, *shlex.split(command)) for command in commands]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert AROUND_THE_INSTALLATION + len(commands) <= 5
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 120
    assert "12 images" in said[0]
    answer = json.loads(said[1].splitlines()[0])
    assert answer["method"] == "slerp" and len(answer["hits"]) == 10
