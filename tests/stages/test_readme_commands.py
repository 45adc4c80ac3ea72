"""Every command of the README, in order, in a fresh copy of what is in Git."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

from pipeline.artifacts import ShardSet
from tests.stages.test_smoke import ROOT, copy_project, run

README = (ROOT / "README.md").read_text(encoding="utf-8")
STANDS_FOR = {
    "git clone <this repository> composed-image-retrieval && cd composed-image-retrieval": "",
    "make repro": "dvc exp run -S profile=smoke && git add -A && git commit -qm 'my run'",
    "make test": "",
    "source .venv/bin/activate": "",
    "dvc exp run -S prior.lr=2e-5": "dvc exp run -S profile=smoke -S prior.lr=2e-5",
    "cir check --profile lab": "cir check --profile lab | grep '^profile lab: '",
    "dvc exp run -S profile=lab": "dvc exp run -f -S profile=lab --dry check_parameters",
}
"""What is run for commands that install, take hours or are done already. All others run as they are."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def digests(project: Path) -> dict[str, str]:
    """Model -> its hash."""
    found = sorted((project / "models").rglob("*.safetensors"))
    return {path.relative_to(project).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def test_every_command_in_order(tmp_path):
    project = tmp_path / "composed-image-retrieval"
    project.mkdir()
    copy_project(project)
    commands = [line.partition("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    assert set(STANDS_FOR) <= set(commands)
    models, said = {}, {}
    for command in commands:
        if stand := STANDS_FOR.get(command, command):
            said[command] = run(project, "bash", "-ec", stand)
        if command == "make repro":
            models["committed"] = digests(project)
        if "--temp" in command:
            assert digests(project) == models["committed"]
        if command == "dvc exp run -S prior.lr=2e-5":
            models["experiment"] = digests(project)
    assert models["experiment"] != models["committed"] == digests(project)
    assert all(len(line) <= 80 for line in said["dvc metrics diff"].splitlines())

    images = ShardSet.open(project / "data/benchmarks/emoji_cir/images").table().slice(0, 6).to_pylist()
    (project / "photos").mkdir()
    for number, image in enumerate(images):
        (project / f"photos/{number}.png").write_bytes(image["bytes"])
    (project / "dog.jpg").write_bytes(images[0]["bytes"])  # a PNG all the same: content tells
    run(project, "cir", "index", "photos")
    (code,) = blocks("python")
    printed = run(project, sys.executable, "-c", code)
    assert Path(printed.splitlines()[-1]).parent == project / "photos"
