"""Text conditions: ragged token states, stored or encoded on demand, and the checks of what a model is fed."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

TextBatch = tuple[Tensor, Tensor | None]
"""Token states [B, T, text_dim] and mask [B, T] bool, True at tokens; None: no padding."""
TEXT_MULTIPLE = 40
"""Batches of fixed shape have a multiple of so many tokens a text."""

UNCHECKED = 2
"""Encoded batches that a GPU may be behind before their numbers are looked at: enough to keep it busy."""


class Texts(Protocol):
    """Where a training takes the token states of its N texts from."""

    def __len__(self) -> int: ...

    @property
    def dim(self) -> int:
        """Width of the token states."""

    @property
    def longest(self) -> int:
        """The most tokens that a text may have."""

    @property
    def mean_tokens(self) -> float:
        """Tokens of a text, on average or as far as known."""

    def batch(self, indices: Tensor, device: torch.device | str = "cpu", multiple: int = 1) -> TextBatch:
        """See `TextConditions.batch`."""


class Vectors(Protocol):
    """Where a training takes its N vectors from: a tensor, or the rows of a mapped file."""

    @property
    def ndim(self) -> int: ...

    @property
    def shape(self) -> torch.Size: ...

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Tensor) -> Tensor:
        """The vectors at indices [B]: [B, d]."""


class TextConditions:
    """Token states of N texts in one flat tensor, padded only as a batch is made.

    Args:
        states: [S, text_dim], the texts after each other.
        offsets: [N + 1] integers; text i is states[offsets[i] : offsets[i + 1]].
        ids: Name the rows in errors.

    Raises:
        ValueError: A text has no token or a number that is not finite; names its row.
    """

    def __init__(self, states: Tensor, offsets: Tensor, ids: Sequence[str] | None = None):
        if states.ndim != 2 or offsets.ndim != 1 or len(offsets) < 1:
            shapes = f"states {tuple(states.shape)} and offsets {tuple(offsets.shape)}"
            raise ValueError(f"text conditions: {shapes}, expected [S, dim] and [N + 1]")
        if int(offsets[0]) != 0 or int(offsets[-1]) != len(states):
            span = f"from {int(offsets[0])} to {int(offsets[-1])}"
            raise ValueError(f"text conditions: offsets go {span}, the states have {len(states)} tokens")
        self.states = states
        self.offsets = offsets.to(torch.int64)
        self.lengths = self.offsets.diff()  # [N]
        empty = (self.lengths < 1).nonzero()
        if len(empty):
            raise ValueError(f"text conditions: {_name(int(empty[0]), ids)} has no tokens")
        _check_finite(torch.isfinite(states).all(dim=1), self.offsets, ids)

    @classmethod
    def from_table(cls, table: pa.Table, dim: int | None = None) -> TextConditions:
        """Read a table of schema `pipeline.artifacts.schemas.conditions`.

        Args:
            table: The texts, with their ids.
            dim: Width of the token states; needed where the table does not say it.

        Returns:
            The texts, in the table's order.

        Raises:
            ValueError: `dim` is not the table's, or a row's states are not tokens x dim finite numbers; names it.
        """
        stored = int((table.schema.metadata or {}).get(b"dim", 0)) or dim
        if not stored or stored != (dim or stored):
            raise ValueError(f"text conditions: the table has states of dimension {stored}, expected {dim}")
        ids = table.column("id").to_pylist()
        lengths = _integers(table.column("tokens"))  # [N]
        sizes = _integers(pc.list_value_length(table.column("states")))  # [N]
        wrong = (sizes != lengths * stored).nonzero()
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(
                f"text conditions: {_name(row, ids)} has {int(sizes[row])} numbers, "
                f"expected {int(lengths[row])} tokens of dimension {stored}"
            )
        parts = [
            torch.tensor(chunk.flatten().to_numpy(zero_copy_only=False)).view(-1, stored)
            for chunk in table.column("states").chunks
        ]
        states = torch.cat(parts) if parts else torch.empty(0, stored)  # [S, dim]
        return cls(states, torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]), ids)

    @classmethod
    def from_list(cls, texts: Sequence[Tensor], ids: Sequence[str] | None = None) -> TextConditions:
        """From one tensor [T_i, text_dim] a text."""
        lengths = torch.tensor([0, *(len(text) for text in texts)])
        return cls(torch.cat(list(texts)), lengths.cumsum(0), ids)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def dim(self) -> int:
        """Width of the token states."""
        return self.states.shape[1]

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return int(self.lengths.max()) if len(self) else 0

    @property
    def mean_tokens(self) -> float:
        """Tokens of a text on average."""
        return len(self.states) / max(1, len(self))

    def batch(self, indices: Tensor, device: torch.device | str = "cpu", multiple: int = 1) -> TextBatch:
        """Some texts, padded with zeros to the longest.

        For a GPU, states are gathered in pinned memory, so that copying waits for nothing.

        Args:
            indices: Which texts [B].
            device: Where they go.
            multiple: T is rounded up to a multiple of it: fewer shapes, for what is recorded by its shapes.

        Returns:
            States [B, T, text_dim] and mask [B, T] bool. On a CPU, states are float32. On a GPU they keep their type,
            and the mask is None where nothing is padding, since the quickest attention takes none.
        """
        gpu = torch.device(device).type == "cuda"
        where, mask = _places(self.offsets[indices], self.lengths[indices], multiple)
        states = self.states.new_empty((where.numel(), self.dim), pin_memory=gpu)
        states = torch.index_select(self.states, 0, where.flatten(), out=states).view(
            *where.shape, self.dim
        )  # [B, T, text_dim]
        if not mask.all():
            states.masked_fill_(~mask[..., None], 0)
        elif gpu:
            return send(states, device), None
        return (send(states, device), send(mask, device)) if gpu else (states.float(), mask)


class BatchEncoder(Protocol):
    """`pipeline.encoders.text.TextEncoder`, as far as it is needed here."""

    def pack(self, texts: Sequence[str]) -> tuple[Tensor, list[int]]:
        """Token states of B texts below each other [S, dim], and the tokens of each."""

    def warn_truncated(self) -> None:
        """Say how many texts were longer than the encoder takes."""


class EncodedConditions:
    """Token states that a frozen text encoder computes whenever a batch asks for them: nothing is stored.

    The states of 33 million captions would fill tens of terabytes. Encoding them in every epoch costs time instead.

    Args:
        texts: N texts.
        encoder: Its `pack` encodes a batch, each text with at most `longest` tokens.
        dim: Width of the token states.
        longest: The most tokens of a text.
    """

    def __init__(self, texts: Sequence[str], encoder: BatchEncoder, dim: int, longest: int):
        self._texts, self.encoder = texts, encoder
        self.dim, self.longest = dim, longest
        self._tokens, self._encoded = 0, 0
        self._unchecked: deque[tuple[Tensor, torch.cuda.Event, Tensor, list[int]]] = deque()

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def mean_tokens(self) -> float:
        """Tokens of the texts encoded so far, on average; the limit before there are any."""
        return self._tokens / self._encoded if self._encoded else float(self.longest)

    def batch(self, indices: Tensor, device: torch.device | str = "cpu", multiple: int = 1) -> TextBatch:
        """See `TextConditions.batch`.

        Raises:
            ValueError: The states of a text are not finite or not of `dim`; names it.
        """
        if len(indices) == 0:
            empty = TextConditions(torch.empty(0, self.dim), torch.zeros(1, dtype=torch.int64))
            return empty.batch(indices, device, multiple)
        rows = indices.tolist()
        states, tokens = self.encoder.pack([self._texts[row] for row in rows])
        if states.ndim != 2 or states.shape[1] != self.dim:
            raise ValueError(
                f"text conditions: {_name(rows[0], None)} was not encoded as tokens of dimension {self.dim}"
            )
        self._tokens, self._encoded = self._tokens + len(states), self._encoded + len(rows)
        offsets = torch.tensor([0, *tokens]).cumsum(0)
        if not states.is_cuda:
            named = [f"text {row}" for row in rows]
            return TextConditions(states, offsets, named).batch(torch.arange(len(rows)), device, multiple)
        self._check_later(states, offsets, rows)
        where, mask = _places(offsets[:-1], offsets.diff(), multiple)
        padded = states.index_select(0, send(where.flatten(), device)).view(*where.shape, self.dim)
        if mask.all():
            return padded, None
        there = send(mask, device)
        return padded.masked_fill_(~there[..., None], 0), there

    def _check_later(self, states: Tensor, offsets: Tensor, rows: list[int]) -> None:
        """Look for numbers that are not finite in an earlier batch: those of this one are not yet computed."""
        sums = states.sum(1, dtype=torch.float32)  # [S]
        copy = torch.empty(sums.shape, pin_memory=True).copy_(sums, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        self._unchecked.append((copy, copied, offsets, rows))
        if len(self._unchecked) > UNCHECKED:
            sums, copied, offsets, rows = self._unchecked.popleft()
            copied.synchronize()
            _check_finite(torch.isfinite(sums), offsets, [f"text {row}" for row in rows])


@functools.cache
def _copying(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def send(values: Tensor, device: torch.device | str) -> Tensor:
    """Copy values from the CPU to a GPU while it computes: the batch before is usually still under way.

    From memory that is not pinned, a copy would wait for all that is queued before it.

    Args:
        values: Any tensor on the CPU.
        device: Where it goes.

    Returns:
        The tensor on the device, safe to use in the current stream.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return values.to(device)
    values = values if values.is_pinned() else values.pin_memory()
    computing, copying = torch.cuda.current_stream(device), _copying(device)
    with torch.cuda.stream(copying):
        sent = values.to(device, non_blocking=True)
    computing.wait_stream(copying)
    sent.record_stream(computing)
    return sent


def check_vectors(vectors: Vectors, dim: int, name: str, ids: Sequence[str] | None = None) -> Vectors:
    """Check that vectors are [N, dim] and finite.

    Args:
        vectors: A tensor, or the rows of a mapped file, which were checked as they were laid out.
        dim: d.
        name: Of the vectors, in errors.
        ids: Name the rows in errors.

    Returns:
        `vectors` itself.

    Raises:
        ValueError: The shape is another one, or a number is not finite; names the row.
    """
    check_shape(vectors, dim, name)
    if not isinstance(vectors, Tensor):  # mapped: found finite as they were laid out
        return vectors
    bad = (~torch.isfinite(vectors).all(dim=1)).nonzero()
    if len(bad):
        raise ValueError(f"{name}: {_name(int(bad[0]), ids)} has a number that is not finite")
    return vectors


def check_shape(vectors: Vectors, dim: int, name: str) -> None:
    """ValueError unless vectors are [N, dim]; nothing waits for a GPU."""
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise ValueError(f"{name}: vectors are {tuple(vectors.shape)}, expected [N, {dim}]")


def _places(offsets: Tensor, lengths: Tensor, multiple: int) -> tuple[Tensor, Tensor]:
    """Which rows of the states a batch of B texts pads to [B, T], 0 for padding, and the mask [B, T].

    Args:
        offsets: The first row of each text [B].
        lengths: Its tokens [B].
        multiple: See `TextConditions.batch`.
    """
    longest = int(lengths.max()) if len(lengths) else 0
    place = torch.arange(-(-longest // multiple) * multiple)  # [T]
    mask = place < lengths[:, None]  # [B, T]
    return torch.where(mask, offsets[:, None] + place, 0), mask


def _check_finite(finite: Tensor, offsets: Tensor, ids: Sequence[str] | None) -> None:
    """ValueError that names the text of the first row of the states that is not finite [S]."""
    if not finite.all():
        row = int(torch.searchsorted(offsets, (~finite).nonzero()[0], right=True)) - 1
        raise ValueError(f"text conditions: {_name(row, ids)} has a number that is not finite")


def _integers(column: pa.ChunkedArray) -> Tensor:
    """A column of counts as int64 [N]; 0 for a missing one."""
    return torch.tensor(column.fill_null(0).to_numpy(), dtype=torch.int64)


def _name(row: int, ids: Sequence[str] | None) -> str:
    return f"row {row}" if ids is None else f"row {row} ({ids[row]})"
