"""What every test shares."""

import os
import shutil
from importlib.util import find_spec

if find_spec("triton") is not None and shutil.which("nvidia-smi") is None:
    os.environ.setdefault(
        "TRITON_INTERPRET", "1"
    )  # kernels run without a GPU; Triton has to know before anything imports it

os.environ.setdefault("GOMP_SPINCOUNT", "0")  # test processes share the cores: a thread that waits gives its core away

# isort: split
import pipeline  # noqa: F401  (what it declares for torchvision comes before any library that imports that)

# isort: split
import socket
import subprocess
import sys
import time
from pathlib import Path

import hypothesis
import pytest
import torch

from pipeline.artifacts.table_ids import TableIds
from pipeline.compat.numerics import use_portable_products

use_portable_products()  # as every stage does: numbers of tests with and without one can be compared

# Examples are drawn the same way every time, and no deadline: the machine may be busy.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=30)
hypothesis.settings.load_profile("repeatable")


LONG = (
    "tests/stages/test_smoke.py",
    "tests/app/page/test_in_browser.py",
    "tests/app/search/test_controls_on_emoji.py",
    "tests/stages/test_public_smoke.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Where several processes share the files, the long ones begin first, so that none is waited for at the end."""
    if hasattr(config, "workerinput"):
        items.sort(
            key=lambda item: next((place for place, name in enumerate(LONG) if item.nodeid.startswith(name)), len(LONG))
        )


@pytest.fixture(autouse=True, scope="session")
def _one_torch_thread():
    """Several test processes share the cores, and sums do not depend on their number."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """A folder beside the checkout with material that is not ours to ship. Tests that want it skip without it."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("there is no folder ../shared")
    return folder


@pytest.fixture
def repeated_ids(monkeypatch):
    """Tables with repeated ids can be written, as a stranger's tool may write them: for the tests of readers."""
    monkeypatch.setattr(TableIds, "check", lambda self, table: None)


@pytest.fixture(scope="session")
def milvus_file(tmp_path_factory) -> str:
    """A file of Milvus Lite, of which a process has one."""
    pytest.importorskip("pymilvus", reason="the extra `milvus` is not installed")
    pytest.importorskip("milvus_lite", reason="the extra `milvus` is not installed")
    return str(tmp_path_factory.mktemp("milvus") / "milvus.db")


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory):
    """The address of Milvus Lite's own server, a process of its own."""
    pytest.importorskip("pymilvus", reason="the extra `milvus` is not installed")
    pytest.importorskip("milvus_lite", reason="the extra `milvus` is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["-m", "milvus_lite.cmdline", "server", "--data-dir", str(tmp_path_factory.mktemp("milvus_server"))]
    command = [sys.executable, *words, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
        process.terminate()


@pytest.fixture(params=["file", "server"])
def milvus(request) -> str:
    """Where Milvus is: a test runs against a file, and against a server's process."""
    return request.getfixturevalue(f"milvus_{request.param}")
