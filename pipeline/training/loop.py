"""The training loop: every model of the project goes through `train`.

What differs between models is a `Task`: it holds the data and turns example indices into a loss.
The loop owns everything else: order of the data, accumulation, precision, clipping, schedule,
moving average, checkpoints, resuming, the log.

Repeatability: the order of epoch e and the randomness of step s are functions of (seed, e) and
(seed, s, micro-batch, process), so a resumed run draws what an undisturbed one would have drawn.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.config import OptimiserParams
from pipeline.training.checkpoint import Checkpoint, Ema
from pipeline.training.graphed import Recorded, average_gradients
from pipeline.training.meter import Meter
from pipeline.training.stopping import heed_sigterm, sigterm_came, stop
from pipeline.training.watch import Watch

DELAY = 2
"""Steps that a GPU may be behind: see `Watch`."""


class TrainingError(RuntimeError):
    """Training cannot go on; says at which step and what was kept."""


class Task(Protocol):
    """What a model brings to the loop."""

    model: nn.Module
    """Its parameters with `requires_grad` are trained."""

    def __len__(self) -> int:
        """Number of training examples."""

    def loss(
        self, model: nn.Module, indices: Tensor, generator: torch.Generator, device: torch.device
    ) -> tuple[Tensor, dict[str, Any]]:
        """Mean loss of the examples `indices` [B] and metrics to log.

        `model` is `self.model`, possibly wrapped; every random draw comes from `generator` (CPU).
        A task may also say its `flops_per_sample` (see `Meter`), and be a `GraphedTask`.
        """


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed from its parts; stable across processes and versions."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@functools.lru_cache(maxsize=2)  # the epochs that one batch may span
def _epoch_order(examples: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(examples, generator=torch.Generator().manual_seed(derived_seed(seed, "epoch", epoch)))


def batch_indices(examples: int, batch_size: int, step: int, seed: int) -> Tensor:
    """The global batch of `step`: consecutive slices of one shuffled epoch after another [batch_size]."""
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


def _micro_batches(indices: Tensor, params: OptimiserParams, accelerator: Accelerator) -> list[Tensor]:
    """This process's share of a global batch, cut into micro-batches of equal size."""
    processes = accelerator.num_processes
    if params.batch_size % processes:
        raise TrainingError(f"batch_size {params.batch_size} is not a multiple of the {processes} processes")
    share = indices[accelerator.process_index :: processes]
    micro = params.micro_batch_size or len(share)
    if len(share) % micro:
        raise TrainingError(
            f"a process's share of the batch, {len(share)}, is not a multiple of micro_batch_size {micro}"
        )
    return list(share.split(micro))


def make_accelerator(params: OptimiserParams, device: str) -> Accelerator:
    """`device` is the runtime parameter: auto, cpu or cuda."""
    AcceleratorState._reset_state()  # one process may train several models, each in its own precision
    precision = {"fp32": "no", "bf16": "bf16"}[params.precision]
    views = DistributedDataParallelKwargs(
        gradient_as_bucket_view=True
    )  # gradients live in the buckets that are sent: no second copy
    return Accelerator(
        mixed_precision=precision, cpu=device == "cpu" or not torch.cuda.is_available(), kwargs_handlers=[views]
    )


@heed_sigterm
def train(
    task: Task,
    params: OptimiserParams,
    *,
    seed: int,
    folder: str | Path,
    identity: dict[str, Any],
    device: str = "auto",
    title: str = "train",
    meter: Meter | None = None,
) -> list[dict[str, float]]:
    """Train `task.model` in place for `params.steps` optimiser steps and return the log.

    folder: where the checkpoint lives; an existing one with the same `identity` is continued. It stays
        until the caller has saved the weights in its place (`save_weights`), so that no kill loses them.
    identity: what must agree, beside the seed, for a checkpoint to be continued (parameters, data).
    meter: takes the throughput, for whoever wants to read it afterwards.
    Raises TrainingError when the loss stops being finite: the last good checkpoint is kept. On SIGTERM
    the step is finished and a checkpoint saved before SystemExit ends the process.
    """
    accelerator = make_accelerator(params, device)
    trained = {name: parameter for name, parameter in task.model.named_parameters() if parameter.requires_grad}
    if not len(task) or not trained:
        raise TrainingError(
            f"{title}: nothing to train, with {len(task)} examples and {len(trained)} trainable tensors"
        )
    optimiser = torch.optim.AdamW(
        _decay_groups(trained, params.weight_decay),
        lr=params.lr,
        betas=(0.9, params.beta2),
        eps=params.eps,
        fused=accelerator.device.type == "cuda",
    )
    graphed = getattr(task, "graphed", False) and accelerator.device.type == "cuda"
    model = accelerator.prepare_model(task.model, evaluation_mode=graphed)  # evaluation_mode: not for several processes
    optimiser = accelerator.prepare_optimizer(optimiser)
    model.train()
    recorded = _recorded(task, model, params, accelerator) if graphed else None
    ema = Ema(trained, params.ema_decay) if params.ema_decay else None
    checkpoint = Checkpoint(Path(folder) / "checkpoint", {"seed": seed, **identity})
    start, log = checkpoint.load(task.model, trained, optimiser, ema)
    progress = tqdm(
        range(start, params.steps),
        initial=start,
        total=params.steps,
        desc=title,
        mininterval=5.0,
        disable=not accelerator.is_main_process,
    )
    meter = meter or Meter(getattr(task, "flops_per_sample", 0.0), accelerator.device, accelerator.num_processes)

    def refuse(step: int, loss: float, norm: float) -> None:
        kept = f"the checkpoint of step {checkpoint.step}" if checkpoint.step else "nothing"
        raise TrainingError(f"{title}: loss {loss}, gradient norm {norm} at step {step}; kept {kept}")

    watch = Watch(refuse, DELAY if accelerator.device.type == "cuda" else 0)
    for step in progress:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(params, step)
        indices = batch_indices(len(task), params.batch_size, step, seed)
        loss, metrics = _step(task, model, indices, params, accelerator, seed, step, recorded)
        if graphed and accelerator.num_processes > 1:
            average_gradients(list(trained.values()), accelerator.num_processes)
        norm = accelerator.clip_grad_norm_(list(trained.values()), params.clip_norm)
        watch.add(step, loss, norm)
        optimiser.step()
        optimiser.zero_grad(set_to_none=not graphed)
        if ema:
            ema.update(trained)
        meter.step(len(indices))
        if step % params.log_every == 0 or step == params.steps - 1:
            watch.flush()
            values = {name: float(value) for name, value in metrics.items()}
            log.append(
                {
                    "step": step,
                    "loss": float(loss),
                    "lr": learning_rate(params, step),
                    "gradient_norm": float(norm),
                    **values,
                }
            )
            progress.set_postfix(loss=f"{float(loss):.4f}", **meter.summary())
        stopping, due = sigterm_came(), (step + 1) % params.checkpoint_every == 0 and step + 1 < params.steps
        if due or stopping:
            watch.flush()  # nothing is kept of a step that was spoilt
            if accelerator.is_main_process:
                checkpoint.save(step + 1, log, task.model, trained, optimiser, ema)
        if stopping:
            stop(f"{title}: stopped by SIGTERM after step {step}; the checkpoint is kept, run it again to go on")
    if ema:
        ema.copy_to(trained)
    task.model.eval()
    return log


def _recorded(task: Any, model: nn.Module, params: OptimiserParams, accelerator: Accelerator) -> Recorded:
    """Micro-batches of `_step` as graphs; all processes start from the same weights."""
    if accelerator.num_processes > 1:
        for parameter in model.parameters():
            torch.distributed.broadcast(parameter.detach(), src=0)
    micro = params.micro_batch_size or params.batch_size // accelerator.num_processes
    return Recorded(task, model, micro * accelerator.num_processes / params.batch_size, accelerator.autocast)


def _step(
    task: Task,
    model: nn.Module,
    indices: Tensor,
    params: OptimiserParams,
    accelerator: Accelerator,
    seed: int,
    step: int,
    recorded: Recorded | None = None,
) -> tuple[Tensor, dict[str, Any]]:
    """Forward and backward of one global batch; gradients are left in the parameters. Nothing here waits for a GPU."""
    micro_batches = _micro_batches(indices, params, accelerator)
    total, metrics = 0.0, {}
    for number, micro in enumerate(micro_batches):
        generator = torch.Generator().manual_seed(derived_seed(seed, "step", step, number, accelerator.process_index))
        last = number == len(micro_batches) - 1
        if recorded is not None:
            loss, values = recorded(task.inputs(micro, generator, accelerator.device))
        else:
            with contextlib.nullcontext() if last else accelerator.no_sync(model), accelerator.autocast():
                loss, values = task.loss(model, micro, generator, accelerator.device)
            accelerator.backward(loss / len(micro_batches))
        total = total + loss.detach()
        for name, value in values.items():
            metrics[name] = metrics.get(name, 0.0) + (value.detach() if isinstance(value, Tensor) else value)
    count = len(micro_batches)
    return total / count, {name: value / count for name, value in metrics.items()}


def _decay_groups(parameters: dict[str, nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Biases, norms and other vectors are not decayed."""
    matrices = [parameter for parameter in parameters.values() if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters.values() if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def log_csv(log: list[dict[str, float]]) -> str:
    """The log as CSV: step first, the same columns on every line."""
    columns = list(log[0]) if log else ["step", "loss"]
    return "\n".join([",".join(columns), *(",".join(f"{row[name]:g}" for name in columns) for row in log)]) + "\n"
