"""The training loop: every model of the project goes through `train`.

What differs between models is a `Task`: it holds the data and turns example indices into a loss. The loop owns
everything else: order of the data, accumulation, precision, clipping, schedule, moving average, checkpoints, resuming,
the log.

Repeatability: the order of epoch e and the randomness of step s are functions of (seed, e) and (seed, s, micro-batch,
process). A resumed run so draws what an undisturbed one would have drawn.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.config import OptimiserParams
from pipeline.training.checkpoint import Checkpoint, Ema, TrainingState
from pipeline.training.graphed import GraphedTask, Recorded, average_gradients
from pipeline.training.meter import Meter
from pipeline.training.stopping import AgreedStop, heed_sigterm, stop
from pipeline.training.watch import Watch

DELAY = 2
"""Steps that a GPU may be behind: see `Watch`."""


class TrainingError(RuntimeError):
    """Training cannot go on; says at which step and what was kept."""


@dataclass(frozen=True)
class Run:
    """One training beside its task and its hyperparameters."""

    seed: int
    folder: Path
    """Where the checkpoint lives, and later the weights."""
    identity: dict[str, Any]
    """What must agree, beside the seed, for a checkpoint to be continued: parameters and data."""
    device: str = "auto"
    """The runtime parameter: auto, cpu or cuda."""
    title: str = "train"
    """Of the progress bar and of messages."""
    cuda_graph: bool = False
    """On a GPU: record a micro-batch as a CUDA graph. The task has to be a `GraphedTask`."""


class Task(Protocol):
    """What a model brings to the loop."""

    @property
    def model(self) -> nn.Module:
        """What is trained: its parameters with `requires_grad`."""

    def __len__(self) -> int:
        """Number of training examples."""

    def loss(
        self, model: nn.Module, indices: Tensor, generator: torch.Generator, device: torch.device
    ) -> tuple[Tensor, dict[str, Any]]:
        """Mean loss of some examples, and metrics to log.

        A task may also say its `flops_per_sample` (see `Meter`) and be a `GraphedTask`. If it has a `look_ahead`, it is
        given an iterator over what `loss` will be called with, before the first step: indices and the generator's seed.

        Args:
            model: `self.model`, possibly wrapped.
            indices: The examples [B].
            generator: Where every random number comes from; on the CPU.
            device: Where the model is.

        Returns:
            A scalar, and what to log.
        """


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed from its parts; stable across processes and versions."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@functools.lru_cache(maxsize=2)  # the epochs that one batch may span
def _epoch_order(examples: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(examples, generator=torch.Generator().manual_seed(derived_seed(seed, "epoch", epoch)))


def batch_indices(examples: int, batch_size: int, step: int, seed: int) -> Tensor:
    """The global batch of a step: consecutive slices of one shuffled epoch after another.

    Args:
        examples: In an epoch.
        batch_size: Over all processes.
        step: From 0.
        seed: Decides the order of every epoch.

    Returns:
        Indices [batch_size].
    """
    parts, position = [], step * batch_size
    while batch_size:
        epoch, offset = divmod(position, examples)
        part = _epoch_order(examples, seed, epoch)[offset : offset + batch_size]
        parts.append(part)
        position, batch_size = position + len(part), batch_size - len(part)
    return torch.cat(parts)


def learning_rate(params: OptimiserParams, step: int) -> float:
    """Linear warm-up, then constant or half a cosine down to zero."""
    if step < params.warmup_steps:
        return params.lr * (step + 1) / params.warmup_steps
    if params.schedule == "constant":
        return params.lr
    progress = (step - params.warmup_steps) / max(1, params.steps - params.warmup_steps)
    return params.lr * 0.5 * (1.0 + math.cos(math.pi * progress))


def make_accelerator(params: OptimiserParams, device: str) -> Accelerator:
    """`device` is the runtime parameter: auto, cpu or cuda."""
    AcceleratorState._reset_state()  # one process may train several models, each in its own precision
    precision = {"fp32": "no", "bf16": "bf16"}[params.precision]
    # Gradients live in the buckets that are sent: no second copy.
    views = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    return Accelerator(mixed_precision=precision, cpu=on_cpu, kwargs_handlers=[views])


@heed_sigterm
def train(task: Task, params: OptimiserParams, run: Run, meter: Meter | None = None) -> list[dict[str, float]]:
    """Train `task.model` in place for `params.steps` optimiser steps.

    An existing checkpoint of the same identity is continued. It stays until the caller has saved the weights in its
    place (`save_weights`), so that no kill loses them. On SIGTERM the step is finished and a checkpoint saved before
    SystemExit ends the process.

    Args:
        task: The model, and the loss of its examples.
        params: Optimiser, schedule and batch sizes.
        run: Seed, place and identity of this training.
        meter: Takes the throughput, for whoever wants to read it afterwards.

    Returns:
        The log: a row for every `params.log_every`th step.

    Raises:
        TrainingError: The loss stopped being finite; the last good checkpoint is kept. Or there is nothing to train,
            or the batch cannot be divided.
    """
    return _Training(task, params, run, meter).finish()


class _Training:
    """The state of one call of `train`."""

    def __init__(self, task: Task, params: OptimiserParams, run: Run, meter: Meter | None):
        self.task, self.params, self.run = task, params, run
        self.accelerator = accelerator = make_accelerator(params, run.device)
        trained = {name: parameter for name, parameter in task.model.named_parameters() if parameter.requires_grad}
        if not len(task) or not trained:
            given = f"{len(task)} examples and {len(trained)} trainable tensors"
            raise TrainingError(f"{run.title}: nothing to train, with {given}")
        self.trained, self.parameters = trained, list(trained.values())
        on_gpu = accelerator.device.type == "cuda"
        optimiser = torch.optim.AdamW(
            _decay_groups(trained, params.weight_decay),
            lr=params.lr,
            betas=(0.9, params.beta2),
            eps=params.eps,
            fused=on_gpu,
        )
        graphed = run.cuda_graph and on_gpu
        # evaluation_mode: not wrapped for several processes, whose gradients a graph cannot average
        self.model = accelerator.prepare_model(task.model, evaluation_mode=graphed)
        self.optimiser = accelerator.prepare_optimizer(optimiser)
        self.model.train()
        self.recorded = self._record() if graphed else None
        self.ema = Ema(trained, params.ema_decay) if params.ema_decay else None
        self.checkpoint = Checkpoint(Path(run.folder) / "checkpoint", {"seed": run.seed, **run.identity})
        self.state = TrainingState(task.model, trained, self.optimiser, self.ema)
        flops = getattr(task, "flops_per_sample", 0.0)
        self.meter = meter or Meter(flops, accelerator.device, accelerator.num_processes)
        self.stopping = AgreedStop(accelerator.num_processes)
        self.watch = Watch(self._refuse, DELAY if on_gpu else 0)

    def finish(self) -> list[dict[str, float]]:
        """All steps that are left, and then the moving average in the place of the weights."""
        start, log = self.checkpoint.load(self.state)
        params = self.params
        if look_ahead := getattr(self.task, "look_ahead", None):
            look_ahead(self._coming(start))
        progress = tqdm(
            range(start, params.steps),
            initial=start,
            total=params.steps,
            desc=self.run.title,
            mininterval=5.0,
            disable=not self.accelerator.is_main_process,
        )
        for step in progress:
            loss, norm, metrics = self._step(step)
            if step % params.log_every == 0 or step == params.steps - 1:
                self.watch.flush()
                values = {name: float(value) for name, value in metrics.items()}
                rate = learning_rate(params, step)
                row = {"step": step, "loss": float(loss), "lr": rate, "gradient_norm": float(norm), **values}
                log.append(row)
                progress.set_postfix({"loss": f"{row['loss']:.4f}", **self.meter.summary()})
            self._keep(step, log)
        if self.ema:
            self.ema.copy_to(self.trained)
        self.task.model.eval()
        return log

    def _step(self, step: int) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """One optimiser step: its loss, gradient norm and metrics. Nothing here waits for a GPU."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.params, step)
        indices = self._indices(step)
        loss, metrics = self._gradients(indices, step)
        if self.recorded is not None and self.accelerator.num_processes > 1:
            average_gradients(self.parameters, self.accelerator.num_processes)
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.params.clip_norm)
        self.watch.add(step, loss, norm)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=self.recorded is None)
        if self.ema:
            self.ema.update(self.trained)
        self.meter.step(len(indices))
        return loss, norm, metrics

    def _gradients(self, indices: Tensor, step: int) -> tuple[Tensor, dict[str, Any]]:
        """Forward and backward of one global batch [B]; gradients are left in the parameters."""
        micro_batches = self._micro_batches(indices)
        losses, metrics = list[Tensor](), dict[str, Any]()
        for number, micro in enumerate(micro_batches):
            generator = torch.Generator().manual_seed(self._micro_seed(step, number))
            loss, values = self._micro_gradients(micro, generator, number, len(micro_batches))
            losses.append(loss.detach())
            for name, value in values.items():
                value = value.detach() if isinstance(value, Tensor) else value
                metrics[name] = metrics.get(name, 0.0) + value
        count = len(micro_batches)
        mean = sum(losses, start=torch.zeros_like(losses[0])) / count
        return mean, {name: value / count for name, value in metrics.items()}

    def _micro_gradients(
        self, indices: Tensor, generator: torch.Generator, number: int, count: int
    ) -> tuple[Tensor, dict[str, Any]]:
        """The same of one micro-batch: the `number`th of `count`."""
        accelerator = self.accelerator
        if self.recorded is not None:
            return self.recorded.step(indices, generator, accelerator.device)
        last = number == count - 1
        with contextlib.nullcontext() if last else accelerator.no_sync(self.model), accelerator.autocast():
            loss, values = self.task.loss(self.model, indices, generator, accelerator.device)
        accelerator.backward(loss / count)
        return loss, values

    def _indices(self, step: int) -> Tensor:
        return batch_indices(len(self.task), self.params.batch_size, step, self.run.seed)

    def _micro_seed(self, step: int, number: int) -> int:
        return derived_seed(self.run.seed, "step", step, number, self.accelerator.process_index)

    def _coming(self, start: int) -> Iterator[tuple[Tensor, int]]:
        """This process's micro-batches from step `start` on, each with its seed."""
        for step in range(start, self.params.steps):
            for number, micro in enumerate(self._micro_batches(self._indices(step))):
                yield micro, self._micro_seed(step, number)

    def _micro_batches(self, indices: Tensor) -> list[Tensor]:
        """This process's share of a global batch, cut into micro-batches of equal size."""
        processes, size = self.accelerator.num_processes, self.params.batch_size
        if size % processes:
            raise TrainingError(f"batch_size {size} is not a multiple of the {processes} processes")
        share = indices[self.accelerator.process_index :: processes]
        micro = self.params.micro_batch_size or len(share)
        if len(share) % micro:
            given = f"a process's share of the batch, {len(share)}"
            raise TrainingError(f"{given}, is not a multiple of micro_batch_size {micro}")
        return list(share.split(micro))

    def _keep(self, step: int, log: list[dict[str, float]]) -> None:
        """Save a checkpoint where one is due, and stop when asked to."""
        after, stopping = step + 1, self.stopping.came()
        if stopping or (after % self.params.checkpoint_every == 0 and after < self.params.steps):
            self.watch.flush()  # nothing is kept of a step that was spoilt
            if self.accelerator.is_main_process:
                self.checkpoint.save(after, log, self.state)
        if stopping:
            kept = "the checkpoint is kept, run it again to go on"
            stop(f"{self.run.title}: stopped by SIGTERM after step {step}; {kept}")

    def _record(self) -> Recorded:
        """Micro-batches as graphs; all processes start from the same weights."""
        processes, params = self.accelerator.num_processes, self.params
        if processes > 1:
            for parameter in self.model.parameters():
                torch.distributed.broadcast(parameter.detach(), src=0)
        micro = params.micro_batch_size or params.batch_size // processes
        task = cast(GraphedTask, self.task)  # as `Run.cuda_graph` asks for
        return Recorded(task, self.model, micro * processes / params.batch_size, self.accelerator.autocast)

    def _refuse(self, step: int, loss: float, norm: float) -> None:
        kept = f"the checkpoint of step {self.checkpoint.step}" if self.checkpoint.step else "nothing"
        raise TrainingError(f"{self.run.title}: loss {loss}, gradient norm {norm} at step {step}; kept {kept}")


def _decay_groups(parameters: dict[str, nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Biases, norms and other vectors are not decayed."""
    matrices = [parameter for parameter in parameters.values() if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters.values() if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def log_csv(log: list[dict[str, float]]) -> str:
    """The log as CSV: step first, the same columns on every line."""
    columns = list(log[0]) if log else ["step", "loss"]
    return "\n".join([",".join(columns), *(",".join(f"{row[name]:g}" for name in columns) for row in log)]) + "\n"
