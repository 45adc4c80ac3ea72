"""Gallery vectors of a dual encoder: cut off anywhere, the same batches and the same bytes."""

import contextlib

import pytest
import torch

from pipeline.encoders.embedding.dual_gallery import embed_gallery


class CutOff(BaseException):
    """Stands for a killed process."""


class Encoder:
    """A vector tells which batch it was made in, as rounding does with real ones."""

    dim, image_size, fit = 2, 4, "crop"

    def __init__(self, batches=None):
        self.left, self.seen = batches, []

    def normalise(self, pixels):
        return pixels

    def encode_image(self, pixels):
        if self.left == 0:
            raise CutOff
        self.left = None if self.left is None else self.left - 1
        self.seen += pixels.tolist()
        return torch.stack([pixels.float(), torch.full((len(pixels),), float(pixels.sum()))], 1)


class Numbers:
    ids = [str(number) for number in range(23)]

    def __len__(self):
        return len(self.ids)

    def pixels(self, image_ids, size, fit):
        return torch.tensor([int(name) for name in image_ids])


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("batches", range(9))
def test_cut_off_behind_any_batch_it_ends_with_the_same_bytes(tmp_path, batches):
    whole, cut, resumed, again = Encoder(), Encoder(batches), Encoder(), Encoder()
    embed_gallery(whole, Numbers(), tmp_path / "whole", {}, 3, rows_per_shard=8)
    with contextlib.suppress(CutOff):
        embed_gallery(cut, Numbers(), tmp_path / "cut", {}, 3, rows_per_shard=8)
    embed_gallery(resumed, Numbers(), tmp_path / "cut", {}, 3, rows_per_shard=8)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    assert len(cut.seen) + len(resumed.seen) <= 23 + 8  # at most one shard twice
    embed_gallery(again, Numbers(), tmp_path / "cut", {}, 3, rows_per_shard=8)
    assert not again.seen
