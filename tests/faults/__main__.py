"""Kills, full disks and read-only folders for the long stages, and whether a rerun ends as if nothing had been.

    python -m tests.faults --kills 50 --seed 7

prints the seed, one line a trial, and a summary as JSON; its status is 1 if any result was lost or differs.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from tests.faults import kinds, mounts, stages
from tests.faults.stages import OUTPUTS, ROWS, STEPS, hashes, log, run, work

ALWAYS, MEGABYTE = 10**9, 2**20
_MORE = 0.4
"""How likely a rerun is disturbed as well."""


class Harness:
    """The undisturbed project, and trials against it."""

    def __init__(self, folder: Path, names: list[str], seed: int):
        self.whole, self.folder, self.random = folder / "whole", folder, random.Random(seed)
        self.seconds: dict[str, float] = {}
        self.operations: dict[str, int] = {}
        self.work: dict[str, Counter] = {}
        self.kills, self.failures, self.repeated = Counter(), [], Counter()
        stages.preload()
        stages.new_project(self.whole)
        last = max(map(list(OUTPUTS).index, names))
        for name in list(OUTPUTS)[: last + 1]:
            (self.whole / stages.WORK).unlink(missing_ok=True)
            began = time.perf_counter()
            stages.check(run(name, self.whole, kinds.count_operations), name, self.whole)
            self.seconds[name] = time.perf_counter() - began
            self.operations[name] = (self.whole / kinds.COUNT).stat().st_size
            self.work[name] = self._work(self.whole)
            print(
                f"undisturbed {name}: {self.seconds[name]:.1f} s, {self.operations[name]} file operations", flush=True
            )
        self.expected = self._state(self.whole)

    def project(self, name: str, folder: Path | None = None) -> Path:
        """A project in which just this stage has not run."""
        folder = folder or self.folder / name
        if not (folder / "params.yaml").exists():
            shutil.copytree(self.whole, folder, symlinks=True, dirs_exist_ok=True)
        for path in (folder / OUTPUTS[name], folder / "models/.made"):
            shutil.rmtree(path, ignore_errors=True)
        (folder / stages.WORK).unlink(missing_ok=True)
        return folder

    def kill(self, name: str) -> None:
        """Kill one stage, perhaps again and again, then let it finish and compare."""
        project, killed = self.project(name), 0
        story = []
        while not killed or self.random.random() < _MORE:
            how, options = self._death(name)
            status = run(name, project, **options)
            if status == 0:
                story.append(f"{how}: too late")
                if killed:
                    break
                project = self.project(name)
                continue
            killed += 1
            story.append(how)
            self.kills[how.split()[0]] += 1
            if status not in (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM):
                self._fail(name, story, f"ended with {status}: {log(project)[-500:]}")
        self._finish(name, project, story, killed)

    def _death(self, name: str) -> tuple[str, dict]:
        if self.random.random() < 0.5:
            operation = self.random.randint(1, self.operations[name])
            return f"operation {operation}", {"prepare": kinds.kill_before_operation(operation)}
        number = self.random.choice((signal.SIGKILL, signal.SIGTERM))
        seconds = self.random.uniform(0, self.seconds[name])
        return f"{number.name} at {seconds:.2f} s", {"watch": kinds.kill_after(seconds, number)}

    def refuse(self, name: str) -> None:
        """No file may grow beyond some bytes; the disk refuses from some operation on, as full and as read-only."""
        largest = max(path.stat().st_size for path in (self.whole / OUTPUTS[name]).rglob("*") if path.is_file())
        most, operation = self.random.randint(200, largest - 1), self.random.randint(1, self.operations[name] // 2)
        for how, prepare in (
            (f"files of {most} bytes", kinds.small_files(most)),
            (f"full from operation {operation}", kinds.fail_at_operation(operation, errno.ENOSPC)),
            (f"read-only from operation {operation}", kinds.fail_at_operation(operation, errno.EROFS)),
        ):
            project = self.project(name)
            self._refused(name, project, how, run(name, project, prepare))
            self._finish(name, project, [how], 1)

    def mount(self, name: str) -> bool:
        """A disk that is really full, and one that is really read-only; False where none can be mounted."""
        largest = max(path.stat().st_size for path in (self.whole / OUTPUTS[name]).rglob("*") if path.is_file())
        with mounts.disk(self.folder / "disk", 512 * MEGABYTE) as mounted:
            if not mounted:
                return False
            project = self.project(name, self.folder / "disk")
            room = self.random.randint(0, largest - 1)
            (project / "ballast").write_bytes(bytes(mounts.free(project) - room))
            for how, prepare, repair in (
                (f"a full disk ({room} bytes left)", lambda: None, lambda: (project / "ballast").unlink()),
                (
                    "a read-only disk",
                    lambda: mounts.set_writable(project, False),
                    lambda: mounts.set_writable(project, True),
                ),
            ):
                self.project(name, project)
                prepare()
                status = run(name, project, elsewhere=self.folder)
                repair()
                self._refused(name, self.folder, how, status)
                self._finish(name, project, [how], 1)
        return True

    def _refused(self, name: str, where: Path, how: str, status: int) -> None:
        said = log(where)
        if status != 1 or "Traceback" in said or not said.strip().splitlines()[-1].startswith("error: "):
            self._fail(name, [how], f"status {status}, and not one clear line: {said[-1500:]}")

    def _finish(self, name: str, project: Path, story: list[str], disturbed: int) -> None:
        status = run(name, project)
        if status:
            return self._fail(name, story, f"the rerun ended with {status}: {log(project)[-1500:]}")
        found = self._state(project)
        differing = sorted(
            path for path in found.keys() | self.expected.keys() if found.get(path) != self.expected.get(path)
        )
        if differing:
            return self._fail(name, story, f"differing: {differing}")
        for kind, most in (("step", STEPS), ("row", ROWS)):
            again = self._work(project)[kind] - self.work[name][kind]
            self.repeated[kind] = max(self.repeated[kind], -(-again // disturbed))
            if again > disturbed * most:
                return self._fail(name, story, f"{again} {kind}s were repeated after {disturbed} disturbances")
        print(f"{name}: {'; '.join(story)}: same", flush=True)

    def _fail(self, name: str, story: list[str], reason: str) -> None:
        self.failures.append(f"{name}: {'; '.join(story)}: {reason}")
        print(f"FAILED {self.failures[-1]}", flush=True)

    @staticmethod
    def _state(project: Path) -> dict[str, str]:
        return {
            path: value
            for path, value in hashes(project).items()
            if path.startswith(("data/", "models/")) and "/.made/" not in path
        }

    @staticmethod
    def _work(project: Path) -> Counter:
        return Counter(line.split()[0] for line in work(project))


def main(
    kills: Annotated[int, typer.Option(help="How many kills, at random moments of random long stages.")] = 50,
    seed: Annotated[int | None, typer.Option(help="Decides all; default: a new one, printed.")] = None,
    stage: Annotated[list[str] | None, typer.Option(help=f"Only this one (repeatable): {', '.join(OUTPUTS)}.")] = None,
    disks: Annotated[
        int, typer.Option(help="How many of the stages, the last ones, also meet full and read-only disks.")
    ] = len(OUTPUTS),
) -> None:
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    print(f"seed {seed}", flush=True)
    names = stage or list(OUTPUTS)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        harness = Harness(Path(folder), names, seed)
        turn = 0
        while sum(harness.kills.values()) < kills:
            harness.kill(names[turn % len(names)])
            turn += 1
        mounted = []
        for name in names[max(0, len(names) - disks) :]:
            harness.refuse(name)
            mounted.append(harness.mount(name))
    summary = {
        "seed": seed,
        "stages": names,
        "kills": dict(harness.kills),
        "most steps repeated a kill": harness.repeated["step"],
        "most rows repeated a kill": harness.repeated["row"],
        "disks": len(mounted) * 3,
        "mounted disks": 2 * sum(mounted),
        "lost or differing": len(harness.failures),
    }
    print(json.dumps(summary))
    sys.exit(1 if harness.failures else 0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # none to lose in a fork
    typer.run(main)
