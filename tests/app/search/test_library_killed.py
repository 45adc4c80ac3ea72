"""A process that adds images is killed (SIGKILL): what it had acknowledged is there, whole, and is found."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest

from pipeline.app.search.library import Library
from pipeline.config import IndexParams
from tests.sections import section

AT_ONCE = 7
ADDS = """
import json, sys
import numpy as np
from pathlib import Path
from pipeline.app.search.library import Library
from pipeline.app.search.library_index import open_library_index
from pipeline.app.search.library_rows import Entry
from pipeline.config import IndexParams

folder, params, at_once = Path(sys.argv[1]), IndexParams(**json.loads(sys.argv[2])), int(sys.argv[3])
library, index, random = Library.create(folder / "library", folder), None, np.random.default_rng()
while True:
    count = len(library)
    if count:
        index = index or open_library_index(library, "clip", params)
        found = index.search(np.eye(1, 16, dtype=np.float32), 10_000)[0][0]
        assert set(found) == set(library.ids) and len(found) == count, (len(found), count)
    print(count, flush=True)  # so many were added, and are found
    names = [f"{count + number}.png" for number in range(at_once)]
    library.store_vectors("clip", names, random.normal(size=(at_once, 16)).astype(np.float32))
    library.commit([Entry(name, name, 1) for name in names], spaces={"clip": {"model": "a"}})
"""


@pytest.mark.parametrize("kind", ["hnsw", "milvus"])
def test_what_was_acknowledged_is_there_after_a_kill(kind, tmp_path):
    if kind == "milvus":
        pytest.importorskip("milvus_lite", reason="the extra `milvus` is not installed")
    params = section(IndexParams, kind=kind, uri=str(tmp_path / "milvus.db"), ef_search=10_000)
    command = [sys.executable, "-c", ADDS, str(tmp_path), json.dumps(vars(params)), str(AT_ONCE)]
    wait, acknowledged = random.Random(0), 0
    for _ in range(4):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            first = process.stdout.readline()
            assert first and int(first) >= acknowledged, process.stderr.read()
            time.sleep(wait.uniform(0.05, 0.5))
            process.send_signal(signal.SIGKILL)
            whole_lines = (first + process.stdout.read()).rpartition("\n")[0]
        assert process.returncode == -signal.SIGKILL, "it ended by itself"
        acknowledged = int(whole_lines.split()[-1])
        library = Library.open(tmp_path / "library")
        assert len(library) >= acknowledged and len(library) % AT_ONCE == 0  # a change is whole, or not there at all
        assert sum(len(ids) for _, ids, _ in library.vectors("clip")) == len(library)
        library.close()
    assert acknowledged
