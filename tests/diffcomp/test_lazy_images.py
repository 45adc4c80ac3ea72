"""Images that are decoded as batches are made train what images in memory do, bit for bit."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from pipeline.artifacts import ArtifactError, schemas, write_table
from pipeline.artifacts.archives import place_in
from pipeline.config import DiffCompParams
from pipeline.diffcomp import DiffComp, DiffCompTask
from pipeline.diffcomp.tuning import fine_tune
from pipeline.encoders.image_source import ImageTable
from pipeline.encoders.training_images import LazyImages, training_images
from pipeline.training import Run
from tests.sections import section

IDS = [f"i{number}" for number in range(6)]
CAPTIONS = ["a red ball", "a cat with a hat", "a dog", "a dog", "a blue hat", "a red dog with a ball"]
TAR = Path("00000.tar")


@pytest.fixture
def table(tmp_path, monkeypatch) -> ImageTable:
    """Six images that lie in a tar below the working folder."""
    monkeypatch.chdir(tmp_path)
    draws, rows = np.random.default_rng(0), []
    with tarfile.open(TAR, "w") as archive:
        for name in IDS:
            content = io.BytesIO()
            Image.fromarray(draws.integers(0, 256, (40, 48, 3), np.uint8)).save(content, "PNG")
            member = tarfile.TarInfo(f"{name}.png")
            member.size = len(content.getvalue())
            archive.addfile(member, io.BytesIO(content.getvalue()))
    with tarfile.open(TAR) as archive:
        for name, member in zip(IDS, archive, strict=True):
            place = place_in(TAR, member.offset_data, member.size)
            rows.append({"image_id": name, "bytes": None, "width": 48, "height": 40, **place._asdict()})
    write_table("images", pa.Table.from_pylist(rows, schemas.IMAGE_MEMBERS), {})
    return ImageTable("images", IDS)


@pytest.fixture
def make_task(make_encoder, table):
    def make(images, **values):
        params = {"image_layers": 3, "text_layers": 2, "steps": 5, "batch_size": 4, "augment": True, **values}
        model = DiffComp(make_encoder(), section(DiffCompParams, **params))
        return DiffCompTask(model, images, CAPTIONS, [[] for _ in IDS])

    return make


def weights_of(task: DiffCompTask, folder: Path) -> torch.Tensor:
    fine_tune(task, Run(0, folder, {}, "cpu"))
    return torch.cat([parameter.detach().flatten() for parameter in task.model.parameters()])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("values", [{"micro_batch_size": 2}, {"fill": "relative", "relatives": 2}], ids=str)
def test_lazy_images_train_the_same_bits(make_task, table, tmp_path, workers, values):
    found = []
    for name, limit in (("memory", 2**30), ("lazy", 0)):
        images = training_images(table, IDS, 32, workers, in_memory=limit)
        assert isinstance(images, LazyImages) == (name == "lazy")
        found.append(weights_of(make_task(images, **values), tmp_path / name))
    assert torch.equal(*found)


def test_workers_make_the_batches_that_are_expected_and_no_other(table):
    lazy, plain = (training_images(table, IDS, 32, 1, in_memory=limit) for limit in (0, 2**30))
    batches = [(torch.tensor([0, 1]), 3), (torch.tensor([4, 2]), 4), (torch.tensor([5, 3]), 5)]
    lazy.expect(iter(batches), vary=False)
    for rows, seed in batches:
        other = torch.Generator().manual_seed(seed + 100)
        assert lazy.take(rows, other) is None and lazy.take(rows.flip(0), torch.Generator().manual_seed(seed)) is None
        assert torch.equal(lazy.take(rows, torch.Generator().manual_seed(seed)), plain[rows])
    assert lazy.take(rows, torch.Generator().manual_seed(seed)) is None, "there is none left"
    assert torch.equal(lazy[torch.tensor([5, 0])], plain[torch.tensor([5, 0])])


def test_only_a_bounded_number_of_batches_is_asked_for(table):
    asked = []

    def batches():
        for seed in range(1_000):
            asked.append(seed)
            yield torch.tensor([0]), seed

    images = LazyImages(table, IDS, 32, 1)
    images.expect(batches(), vary=False)
    images.take(torch.tensor([0]), torch.Generator().manual_seed(0))
    assert len(asked) <= 4


@pytest.mark.parametrize("workers", [0, 1])
def test_a_tar_that_vanished_is_one_line(make_task, table, tmp_path, workers):
    images = LazyImages(table, IDS, 32, workers)
    task = make_task(images, masking="random")
    TAR.unlink()
    images._table = ImageTable("images", IDS)  # one that has not opened it yet
    with pytest.raises(ArtifactError, match=r"^00000\.tar: the archive is gone since the stage prepare") as error:
        fine_tune(task, Run(0, tmp_path / "run", {}, "cpu"))
    assert "\n" not in str(error.value)
