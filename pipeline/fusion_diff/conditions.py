"""Text conditions: ragged token states, and the checks of what a model is fed."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor


class TextConditions:
    """Token states of N texts in one flat tensor, padded only as a batch is made.

    states: [S, text_dim], the texts after each other. offsets: [N + 1] int64, text i being
    states[offsets[i] : offsets[i + 1]]. ids name the rows in errors. Raises ValueError naming the
    row that has no token or a number that is not finite.
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
        finite = torch.isfinite(states).all(dim=1)  # [S]
        if not finite.all():
            row = int(torch.searchsorted(self.offsets, (~finite).nonzero()[0], right=True)) - 1
            raise ValueError(f"text conditions: {_name(row, ids)} has a number that is not finite")

    @classmethod
    def from_table(cls, table: pa.Table, dim: int | None = None) -> TextConditions:
        """Read a table of schema `pipeline.artifacts.schemas.conditions`.

        Raises ValueError when `dim` is not the table's, or naming the row whose states are not
        tokens x dim finite numbers.
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
            torch.tensor(chunk.flatten().to_numpy(zero_copy_only=False)).view(-1, stored) for chunk in table.column("states").chunks
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

    def batch(self, indices: Tensor, device: torch.device | str = "cpu", multiple: int = 1) -> tuple[Tensor, Tensor]:
        """The texts at indices [B], padded with zeros to the longest: states [B, T, text_dim] and mask [B, T] bool.

        multiple: round T up to a multiple of it (fewer shapes for a compiled model).
        """
        lengths = self.lengths[indices]  # [B]
        longest = int(lengths.max()) if len(indices) else 0
        place = torch.arange(-(-longest // multiple) * multiple)  # [T]
        mask = place < lengths[:, None]  # [B, T]
        where = torch.where(mask, self.offsets[indices][:, None] + place, 0)  # [B, T]
        states = self.states[where].masked_fill_(~mask[..., None], 0)  # [B, T, text_dim]
        return states.to(device, non_blocking=True).float(), mask.to(device, non_blocking=True)


def check_vectors(vectors: Tensor, dim: int, name: str, ids: Sequence[str] | None = None) -> Tensor:
    """`vectors` unchanged when it is [N, dim] and finite; else one ValueError naming the row."""
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise ValueError(f"{name}: vectors are {tuple(vectors.shape)}, expected [N, {dim}]")
    bad = (~torch.isfinite(vectors).all(dim=1)).nonzero()
    if len(bad):
        raise ValueError(f"{name}: {_name(int(bad[0]), ids)} has a number that is not finite")
    return vectors


def _integers(column: pa.ChunkedArray) -> Tensor:
    """A column of counts as int64 [N]; 0 for a missing one."""
    return torch.tensor(column.fill_null(0).to_numpy(), dtype=torch.int64)


def _name(row: int, ids: Sequence[str] | None) -> str:
    return f"row {row}" if ids is None else f"row {row} ({ids[row]})"
