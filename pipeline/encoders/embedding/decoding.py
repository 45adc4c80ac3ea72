"""From rows to inputs that f_M takes: everything that can be done for one row alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from pipeline.config import MllmParams
from pipeline.encoders.embedding.rows import EncoderRow, UnreadableRowError, decode
from pipeline.encoders.mllm.interface import Embedder, Generator, MllmInput, Prepare, Task, made_each, preparer

DecodeRow = Callable[[EncoderRow], MllmInput]
"""A row -> its input. It raises UnreadableRowError."""
DecodeRows = Callable[[Sequence[EncoderRow]], list[MllmInput | UnreadableRowError]]
"""Rows -> for each its input, or why there is none."""


def rows_decoder(mllm: Embedder | Generator, task: Task, decode_row: DecodeRow | None = None) -> DecodeRows:
    """How a job decodes its rows for a model.

    Args:
        mllm: The model. Where it can, it prepares the inputs too.
        task: The call that the inputs are for.
        decode_row: None: `rows.decode`, reduced to the section's `max_side` where the model has parameters. It may
            be called in another process.

    Returns:
        What decodes rows. Threads may call it.
    """
    params = getattr(mllm, "params", None)
    max_side = params.max_side if isinstance(params, MllmParams) else 0
    return partial(_decode_and_prepare, decode_row or partial(decode, max_side=max_side), preparer(mllm, task))


def decode_rows(rows: Sequence[EncoderRow]) -> list[MllmInput | UnreadableRowError]:
    """Decode rows for an encoder that is no f_M."""
    return _decode_and_prepare(decode, made_each, rows)


def _decode_and_prepare(
    decode_row: DecodeRow, prepare: Prepare, rows: Sequence[EncoderRow]
) -> list[MllmInput | UnreadableRowError]:
    """Each row's input; what the model rejects is unreadable too."""
    return [
        _unreadable(found) if isinstance(found, ValueError) else found
        for found in prepare([partial(decode_row, row) for row in rows])
    ]


def _unreadable(error: ValueError) -> UnreadableRowError:
    """Why there is no input, as the row's fault."""
    if isinstance(error, UnreadableRowError):
        return error
    return UnreadableRowError(f"the encoder does not take it: {' '.join(str(error).split())}")
