"""The server as a process of its own, over the folder of photos."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.app.page.conftest import on_a_free_port

ROOT = Path(__file__).parents[3]


def starting(project: Path, *options: str, gallery: str = "photos", **environment: str) -> tuple[subprocess.Popen, str]:
    """`cir serve` in a project, ready to answer, and its address."""
    pytest.importorskip("prometheus_client", reason="the extra `serve` is not installed")

    def start(port: int) -> tuple[subprocess.Popen, int]:
        command = [sys.executable, "-m", "pipeline.app.cli.main", "serve", "--gallery", gallery, "--port", str(port)]
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        variables = {**os.environ, "PYTHONPATH": paths, **environment}
        process = subprocess.Popen([*command, *options], cwd=project, env=variables, stdout=subprocess.PIPE, text=True)
        if not process.stdout.readline().startswith("http"):
            process.wait()
            raise OSError("the port was taken")
        return process, port

    process, port = on_a_free_port(start)
    url = f"http://127.0.0.1:{port}"
    for _ in range(100):
        try:
            httpx.get(f"{url}/health", trust_env=False)
            break
        except httpx.TransportError:
            time.sleep(0.1)
    return process, url


@contextmanager
def serving(project: Path, *options: str, gallery: str = "photos", **environment: str) -> Iterator[str]:
    """`cir serve` until the end of the block; gives its address."""
    process, url = starting(project, *options, gallery=gallery, **environment)
    try:
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) in (0, -signal.SIGTERM)


@pytest.fixture(scope="session")
def url(project):
    with serving(project) as address:
        yield address


@pytest.fixture(scope="session")
def http(url):
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        yield client
