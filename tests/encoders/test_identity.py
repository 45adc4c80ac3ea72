"""What an identity follows: the weights and the parameters that affect an embedding."""

from __future__ import annotations

import dataclasses
import shutil

from pipeline.encoders.identity import fingerprint, mllm_identity


def test_identity_follows_the_weights_not_only_the_path(tiny_params, tmp_path):
    folder = tmp_path / "mllm"
    shutil.copytree(tiny_params.path, folder)
    assert fingerprint(str(folder)) == fingerprint(tiny_params.path)
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert fingerprint(str(other)) != fingerprint(str(folder))
    before = fingerprint(str(other))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x02")  # trained anew while the process lives
    assert fingerprint(str(other)) != before
    assert fingerprint("Qwen/Qwen2.5-VL-7B-Instruct") == ""
    assert mllm_identity(tiny_params) == mllm_identity(dataclasses.replace(tiny_params, backend="vllm"))


def test_max_side_is_part_of_the_identity_only_where_it_does_something(tiny_params):
    plain, reduced = (mllm_identity(dataclasses.replace(tiny_params, max_side=side)) for side in (0, 448))
    assert "max_side" not in plain["embedder"] and reduced["embedder"]["max_side"] == 448
