"""Training stages on all GPUs of a machine: the stage starts itself in several processes.

torch's elastic agent starts them, tells them of each other, and ends all of them when one fails. Several hosts are
started from outside, by `accelerate launch`: the processes that it starts do not start others.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, record
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from pipeline.config import ParameterError, RuntimeParams, load_params
from pipeline.runtime import device


def on_all_gpus(main: Callable[[], None]) -> Callable[[], None]:
    """A stage's `main`, in as many processes as `runtime.gpus` says.

    Args:
        main: The stage. Its module is run again by each of the processes.

    Returns:
        A function without arguments. With one process it is `main` itself that runs, in this one.
    """

    def run() -> None:
        if "RANK" in os.environ:
            return record(main)()  # which notes an error for the process that started this one
        count = process_count(load_params().runtime)
        if count == 1:
            return main()
        return _launch(sys.modules[main.__module__].__spec__.name, count)  # type: ignore[union-attr]  # run by -m

    return run


def process_count(runtime: RuntimeParams) -> int:
    """How many processes a training stage starts.

    Args:
        runtime: `gpus` is a number or auto. On a CPU auto is one process, and a number is taken as it is.

    Raises:
        ParameterError: There are not so many GPUs.
    """
    where = device(runtime)
    if where == "cpu" and runtime.device == "cpu":
        return 1 if runtime.gpus == "auto" else int(runtime.gpus)
    visible = torch.cuda.device_count() if where == "cuda" else int(where != "cpu")  # cuda:N names one
    if runtime.gpus == "auto":
        return max(1, visible)
    if int(runtime.gpus) > max(1, visible):
        raise ParameterError(f"runtime.gpus: {runtime.gpus} GPUs are asked for, and {visible} can be used")
    return int(runtime.gpus)


def _launch(module: str, count: int) -> None:
    """Run a module in several processes. The console shows the first one.

    Raises:
        SystemExit: A process failed, and the message of the one that failed first was printed.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # it logs a failure over forty lines
    with tempfile.TemporaryDirectory() as folder:
        quiet = {rank: Std.ALL if rank else Std.NONE for rank in range(count)}
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=module,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder, redirects=quiet),
        )
        try:
            elastic_launch(config, sys.executable)("-m", module)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            if rank and _reason(Path(folder), rank) != _reason(Path(folder), 0):  # the first process has not said it
                print(_last_line(Path(folder), rank), file=sys.stderr)
            raise SystemExit(failure.exitcode if failure.exitcode > 0 else 1) from None
        except SignalException as error:
            raise SystemExit(128 + error.sigval) from None


def _reason(folder: Path, rank: int) -> str | None:
    """The error that a process noted as it failed; None: it noted none."""
    for path in folder.rglob(f"{rank}/error.json"):
        reason: str = json.loads(path.read_text())["message"]["message"]
        return reason
    return None


def _last_line(folder: Path, rank: int) -> str:
    """The last line of what a process wrote to standard error."""
    for path in folder.rglob(f"{rank}/stderr.log"):
        lines = path.read_text().split("\n")
        return f"process {rank}: {next((line for line in reversed(lines) if line), 'it ended without a message')}"
    return f"process {rank} ended without a message"
