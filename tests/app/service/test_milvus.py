"""A library that a server searches in Milvus, as `compose.yaml` has it: the environment names where."""

import shutil

import httpx
import pytest

from tests.app.service.conftest import serving
from tests.app.service.test_changes import add, find, picture


@pytest.mark.slow
def test_a_library_in_milvus(project, tmp_path, milvus_server):
    shutil.copytree(project / "photos", tmp_path / "photos")
    options = {"gallery": str(tmp_path / "photos"), "CIR_MILVUS": milvus_server}
    with (
        serving(project, "--no-page", **options) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=60) as http,
    ):
        red, blue = picture("red"), picture("blue")
        assert add(http, ("red.png", red), metadata={"red.png": {"year": 2024}}).status_code == 200
        assert add(http, ("blue.png", blue), metadata={"blue.png": {"year": 1999}}).status_code == 200
        assert find(http, red)[0] == "red.png" and find(http, red, filter="year < 2000") == ["blue.png"]
        assert http.delete("/v1/images/red.png").status_code == 200
        assert "red.png" not in find(http, red) and find(http, blue)[0] == "blue.png"
        by_id = http.post("/v1/search", json={"references": [{"id": "blue.png"}], "text": "in red", "method": "slerp"})
        assert by_id.status_code == 200 and "blue.png" not in [hit["id"] for hit in by_id.json()["hits"]]
    with (
        serving(project, "--no-page", gallery=options["gallery"]) as url,  # the same library in memory
        httpx.Client(base_url=url, trust_env=False, timeout=60) as http,
    ):
        in_memory = find(http, blue)
    with (
        serving(project, "--no-page", **options) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=60) as http,
    ):
        assert find(http, blue) == in_memory
