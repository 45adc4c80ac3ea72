"""CSS: contextual semantic super-patches (equations 1 and 2, second-hand; table 9; algorithm 1, line 5).

f_j = VisualEncoder([e_CLS, e_j1 .. e_jS2]) with e_i = p_i + pos_i: each super-patch through the encoder, its CLS out.
That is k = L. With a smaller k the transformer runs over the whole image to block L - k, and only then each group of
patch tokens, with a copy of the CLS token in front, runs through the last k blocks alone. The paper's "about 7%" is
S^2 / N, the ratio of the attention terms; k = L really costs about as much again as plain encoding.
"""

from __future__ import annotations

from typing import get_args

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from pipeline.config.diffcomp import Grouping
from pipeline.config.patch_grid import require_tiling
from pipeline.encoders.dual.interface import DualEncoder

KMEANS_STEPS = 5
"""Steps of Lloyd's algorithm."""


class SuperPatches:
    """How an encoder's patches form super-patches, and what their features are.

    Args:
        encoder: Whose patches; it is not kept.
        side: S, patches on a super-patch's side.
        local_blocks: k.
        grouping: How patches form super-patches.
        plain: No super-patches (css = false): every patch token's own projected output is f_j, N_s = N.

    Raises:
        ValueError: S does not divide the patch grid, k exceeds the depth, or there is no such grouping.
    """

    def __init__(
        self, encoder: DualEncoder, side: int, local_blocks: int, grouping: Grouping = "grid", plain: bool = False
    ):
        height, width = encoder.patch_grid
        side = 1 if plain else side
        require_tiling(side, (height, width))
        if not 0 <= local_blocks <= encoder.depth:
            raise ValueError(f"local_blocks {local_blocks} is not between 0 and the encoder's {encoder.depth} blocks")
        if grouping not in get_args(Grouping):
            raise ValueError(f"grouping {grouping!r} is not one of {', '.join(get_args(Grouping))}")
        self.grid, self.side, self.plain = (height, width), side, plain
        self.kmeans = grouping == "kmeans" and not plain
        self.shape = (height // side, width // side)
        self.count = self.shape[0] * self.shape[1]
        self.cut = encoder.depth - (0 if plain else local_blocks)
        """L - k: where the local branch leaves the global one."""
        self.depth = encoder.depth

    def assign(self, tokens: Tensor) -> Tensor:
        """The super-patch of every patch.

        Args:
            tokens: At block L - k [B, 1 + N, W]; read by k-means only.

        Returns:
            Numbers of super-patches, int64 [B, N].
        """
        rows = grid_assignment(self.grid, self.side).to(tokens.device).expand(len(tokens), -1)
        return kmeans_assignment(tokens[:, 1:].detach().float(), rows, self.count) if self.kmeans else rows

    def encode(self, encoder: DualEncoder, before: Tensor, after: Tensor, assignment: Tensor) -> Tensor:
        """The features of super-patches.

        Args:
            encoder: The one that the sizes are of.
            before: Tokens at block L - k [B, 1 + N, W].
            after: Tokens at block L [B, 1 + N, W]; read by plain patches only.
            assignment: As `assign` gives it [B, N].

        Returns:
            f_j [B, N_s, D], L2-normalised.
        """
        if self.plain:
            return encoder.project(after[:, 1:])
        cls, patches = before[:, :1], before[:, 1:]
        if self.kmeans:
            groups, keep = group_by_assignment(patches, assignment, self.count)  # [B, Ns, M, W], [B, Ns, M]
            bias = F.pad(torch.zeros_like(keep, dtype=patches.dtype).masked_fill(~keep, float("-inf")), (1, 0))
            bias = bias.flatten(0, 1)  # [B * Ns, 1 + M]
        else:
            groups, bias = group_grid(patches, self.grid, self.side), None  # [B, Ns, S*S, W]
        cls = repeat(cls, "b 1 w -> b ns 1 w", ns=self.count)
        sequences = rearrange(torch.cat([cls, groups], 2), "b ns t w -> (b ns) t w")
        local = encoder.run(sequences, self.cut, self.depth, bias)[:, 0]  # [B * Ns, W]
        return rearrange(encoder.project(local), "(b ns) d -> b ns d", ns=self.count)

    def cover(self, region: Tensor, assignment: Tensor) -> Tensor:
        """A region painted on the image as a mask of super-patches.

        Masked are those painted at least half; where something is painted but none that far, the most painted one.

        Args:
            region: [B, H, W] of any size; not zero where it is painted.
            assignment: As `assign` gives it [B, N].

        Returns:
            [B, N_s]; one means masked.
        """
        painted = F.adaptive_avg_pool2d(region.float()[:, None], self.grid).flatten(1)  # [B, N]
        share = self.pool(painted, assignment)
        most = share.amax(1, keepdim=True)
        return ((share >= 0.5) | ((share == most) & (most > 0) & (most < 0.5))).to(painted.dtype)

    def pool(self, values: Tensor, assignment: Tensor) -> Tensor:
        """The mean over each super-patch's patches: [B, N] -> [B, N_s]."""
        member = F.one_hot(assignment, self.count).to(values.dtype)  # [B, N, Ns]
        return torch.einsum("bn,bnk->bk", values, member) / member.sum(1)

    def spread(self, values: Tensor, assignment: Tensor) -> Tensor:
        """One value a patch: [B, N_s] -> [B, N]."""
        return values.gather(1, assignment)


def group_grid(patches: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """[B, N, W] -> [B, N_s, S * S, W]: S x S neighbours, super-patches in reading order."""
    height, width = grid[0] // side, grid[1] // side
    return rearrange(patches, "b (h s1 w s2) c -> b (h w) (s1 s2) c", h=height, s1=side, w=width, s2=side)


def ungroup_grid(groups: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """The inverse of `group_grid`: [B, N_s, S * S, W] -> [B, N, W]."""
    height, width = grid[0] // side, grid[1] // side
    return rearrange(groups, "b (h w) (s1 s2) c -> b (h s1 w s2) c", h=height, s1=side, w=width, s2=side)


def grid_assignment(grid: tuple[int, int], side: int) -> Tensor:
    """LongTensor [N]: the super-patch number of every patch in reading order."""
    rows, columns = torch.arange(grid[0]) // side, torch.arange(grid[1]) // side
    return (rows[:, None] * (grid[1] // side) + columns[None]).flatten()


@torch.no_grad()
def kmeans_assignment(patches: Tensor, start: Tensor, count: int, steps: int = KMEANS_STEPS) -> Tensor:
    """Lloyd's algorithm: the clustering row of Table 9.

    It is deterministic, takes a fixed number of steps, and leaves no cluster empty: an empty one takes the patch that
    lies farthest from its own centre.

    Args:
        patches: [B, N, W].
        start: The first assignment [B, N].
        count: N_s.
        steps: How many.

    Returns:
        Numbers of clusters, int64 [B, N].
    """
    assignment = start
    for _ in range(steps):
        member = F.one_hot(assignment, count).to(patches.dtype)  # [B, N, Ns]
        centres = torch.einsum("bnk,bnw->bkw", member, patches) / member.sum(1)[..., None]
        distance = torch.cdist(patches, centres)  # [B, N, Ns]
        assignment = distance.argmin(-1)
        sizes = F.one_hot(assignment, count).sum(1)  # [B, Ns]
        for image, cluster in (sizes == 0).nonzero().tolist():
            own = distance[image].gather(1, assignment[image][:, None])[:, 0]  # [N]
            patch = own.masked_fill(sizes[image][assignment[image]] < 2, -1.0).argmax()
            sizes[image, assignment[image, patch]] -= 1
            sizes[image, cluster] = 1
            assignment[image, patch] = cluster
    return assignment


def group_by_assignment(patches: Tensor, assignment: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Unequal groups, padded to the largest: [B, N, W] -> [B, N_s, M, W] and what is real, bool [B, N_s, M]."""
    sizes = F.one_hot(assignment, count).sum(1)  # [B, Ns]
    order = assignment.argsort(dim=1, stable=True)  # [B, N]: patches of super-patch 0, then of 1, ...
    slot = torch.arange(int(sizes.max()), device=patches.device)  # [M]
    keep = slot < sizes[..., None]  # [B, Ns, M]
    position = (sizes.cumsum(1) - sizes)[..., None] + slot  # [B, Ns, M]
    index = order.gather(1, position.clamp(max=patches.shape[1] - 1).flatten(1))  # [B, Ns * M]
    groups = patches.gather(1, index[..., None].expand(-1, -1, patches.shape[2]))
    return rearrange(groups, "b (ns m) w -> b ns m w", ns=count), keep
