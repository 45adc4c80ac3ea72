"""CITATION.cff, CHANGELOG.md, the pre-commit hooks and the workflows agree with the project."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def load(path: str | Path) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_the_citation_is_complete():
    citation = load("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    for entry in (citation, *citation["references"]):
        assert all("name" in author or {"family-names", "given-names"} <= set(author) for author in entry["authors"])


def test_the_citation_names_the_methods_of_the_readme():
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    for reference in load("CITATION.cff")["references"]:
        assert f"*{reference['title']}*" in readme


def test_the_changelog_has_the_version_and_what_is_new():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE)
    assert versions[0] == "Unreleased" and PROJECT["version"] in versions
    kinds = set(re.findall(r"^### (\w+)", changelog, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_hooks_run_what_lint_runs():
    hooks = {hook["id"]: hook for repo in load(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]}
    assert {shlex.split(hook["entry"])[0] for hook in hooks.values()} == {"ruff", "mypy"}
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    for name in ("ruff check", "ruff format", "mypy"):
        assert name in lint and any(hook["entry"].startswith(name) for hook in hooks.values())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_the_workflows_call_targets_of_make(path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    steps = [step for job in load(path)["jobs"].values() for step in job["steps"]]
    called = {step["run"].split()[1] for step in steps if step.get("run", "").startswith("make ")}
    assert called and called <= targets


def test_workflows_test_the_supported_pythons():
    matrix = load(".github/workflows/test.yml")["jobs"]["test"]["strategy"]["matrix"]["python-version"]
    assert matrix == ["3.11", "3.12"] and PROJECT["requires-python"] == ">=3.11,<3.13"
