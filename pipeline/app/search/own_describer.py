"""A multimodal LLM of one's own that describes targets, for CIReVL over photographs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.config import ParameterError, Params, load_profile
from pipeline.query import cirevl

ASKED_AS = "lab"
"""The profile whose prompts and templates a general model is asked with."""


def check_describer(text: str) -> None:
    """Raise ParameterError for the value of `--describer` that is neither a folder nor a hub name."""
    if not (Path(text).is_dir() or (text.count("/") == 1 and all(text.split("/")))):
        raise ParameterError(f"describer: {text!r} is no folder and no hub name such as Qwen/Qwen2.5-VL-3B-Instruct")


def check_described(method: str, params: Params) -> None:
    """Raise ParameterError for CIReVL where nothing describes targets. It names the option that mends it."""
    if method == cirevl.NAME and not params.describer.path:
        raise ParameterError(f"method: {method} needs a multimodal LLM to describe targets; --describer names one")


def with_describer(params: Params, name: str, conf: str | Path = "conf") -> Params:
    """Parameters whose descriptions and captions a model of one's own writes.

    Args:
        params: All other parameters.
        name: A folder, or a hub name.
        conf: Holds the profile `ASKED_AS`.

    Returns:
        New parameters. Nothing is loaded.

    Raises:
        ParameterError: The name is neither.
    """
    check_describer(name)
    asked = load_profile(ASKED_AS, conf)
    return replace(
        params,
        describer=replace(asked.describer, backend="transformers", path=name, revision="", batch_size=1),
        captioner=replace(asked.captioner, backend="transformers", path=name, revision="", batch_size=1),
        reranker=replace(asked.reranker, backend="transformers", path=name, revision="", batch_size=1),
        retrieve=replace(params.retrieve, edit_prompt=asked.retrieve.edit_prompt),
    )
