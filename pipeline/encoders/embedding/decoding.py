"""From a row to an input that f_M takes: everything that can be done for one row alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pipeline.config import MllmParams
from pipeline.encoders.embedding.rows import EncoderRow, UnreadableRowError, decode
from pipeline.encoders.mllm.interface import Embedder, Generator, MakeInput, MllmInput, Task, preparer

DecodeRow = Callable[[EncoderRow], MllmInput]
"""A row -> its input, or UnreadableRowError."""


def row_decoder(mllm: Embedder | Generator, task: Task, decode_row: DecodeRow | None = None) -> DecodeRow:
    """How a job decodes its rows for a model.

    Args:
        mllm: The model. Where it can, it prepares the input too.
        task: The call that the input is for.
        decode_row: None: `rows.decode`, reduced to the section's `max_side` where the model has parameters. It may
            be called in another process.

    Returns:
        A row -> its input. It raises UnreadableRowError with the reason, and threads may call it.
    """
    params = getattr(mllm, "params", None)
    max_side = params.max_side if isinstance(params, MllmParams) else 0
    return partial(_decode_and_prepare, decode_row or partial(decode, max_side=max_side), preparer(mllm, task))


def _decode_and_prepare(decode_row: DecodeRow, prepare: Callable[[MakeInput], MllmInput], row: EncoderRow) -> MllmInput:
    """One row's input; what the model rejects is unreadable too."""
    try:
        return prepare(partial(decode_row, row))
    except UnreadableRowError:
        raise
    except ValueError as error:
        raise UnreadableRowError(f"the encoder does not take it: {' '.join(str(error).split())}") from None
