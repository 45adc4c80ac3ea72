"""Sampling target embeddings: DPM-Solver++ with classifier-free guidance and control (Algorithm 4)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config import RetrieveParams
from pipeline.fusion_diff.conditions import check_vectors
from pipeline.fusion_diff.control import ControlAdapter, controlled, denoise_controlled
from pipeline.fusion_diff.diffusion import Diffusion
from pipeline.fusion_diff.layers import Attention, BlockBody, check_8_bits
from pipeline.fusion_diff.prior import Prior
from pipeline.fusion_diff.texts import Texts
from pipeline.gpu.graphs import Denoise, FixedSizes, Inputs, solver_weights

Denoiser = Callable[[Tensor, int, int], Tensor]
"""(z_n [B, d], index of the solver step, timestep n) -> eps [B, d]."""


def query_noise(ids: Sequence[str], hypotheses: int, dim: int, seed: int) -> Tensor:
    """Starting noise [Q, K, d]: a function of the seed, the query's id and the hypothesis alone."""
    noise = torch.empty(len(ids), hypotheses, dim)
    for row, query_id in enumerate(ids):
        for hypothesis in range(hypotheses):
            digest = hashlib.sha256(f"{seed}/{hypothesis}/{query_id}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
            noise[row, hypothesis] = torch.randn(dim, generator=generator)
    return noise


def guide(conditional: Tensor, unconditional: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance (Eq. 4): (1 + gamma) eps_cond - gamma eps_uncond."""
    return (1.0 + guidance_scale) * conditional - guidance_scale * unconditional


def solve(denoise: Denoiser, noise: Tensor, diffusion: Diffusion, steps: int) -> Tensor:
    """Integrate from noise [B, d] to a clean sample [B, d], still scaled, in `steps` calls of `denoise`."""
    solver = diffusion.solver(steps)
    sample = noise
    for index, step in enumerate(solver.timesteps):  # on the CPU: nothing here waits for an accelerator
        sample = solver.step(denoise(sample, index, int(step)), step, sample, return_dict=False)[0]
    return sample


class Branches(NamedTuple):
    """Every block's keys and values of the prior's cross-attention."""

    both: Texts
    """Of the unconditional rows, then of the conditional ones."""
    conditional: Texts
    """Of the latter alone, for steps without guidance."""


@dataclass(frozen=True)
class SamplerSettings:
    """How targets are sampled (Algorithm 4). The defaults are those of `RetrieveParams`.

    Raises:
        ValueError: A number is out of its range; says which.
    """

    solver_steps: int = RetrieveParams.solver_steps
    guidance_scale: float = RetrieveParams.guidance_scale
    """gamma of Eq. 4."""
    control_scale: float = RetrieveParams.control_scale
    """delta: the weight of the adapter's residuals (Eq. 6). 0 leaves the adapter out."""
    temperature: float = RetrieveParams.temperature
    """Scales the starting noise; 1 is the paper's.

    Below 1, samples keep nearer to the mean of what the conditions allow; at 0 all hypotheses of a query are one.
    Retrieval needs accuracy more than diversity, and a prior that was trained for minutes strays. A low temperature
    then does what the mean of many hypotheses does, at the cost of one.
    """
    guided_share: float = RetrieveParams.guided_share
    """Share of the solver's steps, from the first on and rounded up, that are guided; 1 is the paper's.

    A guided step costs two rows a sample; the others take the conditional prediction as it is. The two branches draw
    nearer to each other the less noise is left (Castillo et al., "Adaptive Guidance", 2023), so that leaving out the
    last steps changes least.
    """

    def __post_init__(self) -> None:
        if self.guidance_scale < 0.0:
            raise ValueError(f"sampler: guidance_scale {self.guidance_scale} is negative")
        if self.temperature < 0.0:
            raise ValueError(f"sampler: temperature {self.temperature} is negative")
        if not 0.0 < self.guided_share <= 1.0:
            raise ValueError(f"sampler: guided_share {self.guided_share} is not above 0 and at most 1")

    @classmethod
    def from_params(cls, params: RetrieveParams) -> SamplerSettings:
        """The settings that `retrieve` configures."""
        return cls(**{field.name: getattr(params, field.name) for field in fields(cls)})

    @property
    def guided_steps(self) -> int:
        """How many of the first solver steps are guided."""
        return math.ceil(self.guided_share * self.solver_steps - 1e-9) if self.guidance_scale > 0.0 else 0


class Sampler:
    """Draws target embeddings from the prior, steered by the Control-Adapter where there is one.

    The AdaLN outputs of the solver's timesteps are computed once, here; the texts' keys and values
    once a query. Both branches of the guidance share a batch. The modules are put in evaluation
    mode and used in the type and on the device they have (cast them to bfloat16 to sample in it).
    `fast` runs all steps as one piece of work of a fixed size (`pipeline.gpu.graphs`): on a GPU
    with fused blocks (in bfloat16), stacked projections, the adapter beside the encoder, and recorded as a CUDA
    graph on first use of a size; weights that change afterwards go unnoticed. Without an adapter, or with a
    control_scale (delta) of zero, the prior samples alone.
    fp8: with `fast` on a GPU of compute capability 8.9 or more, the blocks' products are of numbers of 8 bits (`products.Bits8`).
    Raises ValueError when steps or sizes cannot be used.
    """

    def __init__(
        self,
        prior: Prior,
        adapter: ControlAdapter | None,
        diffusion: Diffusion,
        settings: SamplerSettings,
        fast: bool = False,
        fp8: bool = False,
    ):
        if diffusion.dim != prior.sizes.dim:
            raise ValueError(f"sampler: the diffusion has dimension {diffusion.dim}, the prior {prior.sizes.dim}")
        if adapter is not None and adapter.sizes != prior.sizes:
            raise ValueError(f"sampler: the adapter was built for {adapter.sizes}, the prior has {prior.sizes}")
        self.prior = prior.eval()
        self._given = adapter
        self.adapter = None if adapter is None or settings.control_scale == 0.0 else adapter.eval()
        self.diffusion, self.settings, self.fp8 = diffusion, settings, fp8
        self.device = prior.positions.device
        with torch.no_grad():
            schedule = prior.modulation(diffusion.solver(settings.solver_steps).timesteps.to(self.device))
        self._modulations = [schedule.row(index) for index in range(settings.solver_steps)]
        self._beside: torch.cuda.Stream | None = None
        self._fast = self._make_fast() if fast else None

    @property
    def gains_from_batches(self) -> bool:
        """Whether several queries together take less time than one after the other: on a GPU, which one alone leaves half empty."""
        return self._fast is not None and self.device.type == "cuda"

    @torch.no_grad()
    def _make_fast(self) -> FixedSizes:
        if self.device.type == "cuda":
            if self.fp8:
                check_8_bits()
            self._beside = torch.cuda.Stream()
            self.prior.fused = True
            for module in (*self.prior.modules(), *(self.adapter.modules() if self.adapter is not None else ())):
                if isinstance(module, Attention):
                    module.stack()
                elif isinstance(module, BlockBody) and self.prior.patch.weight.dtype.itemsize == 2:
                    module.prepare(self.fp8)
        return FixedSizes(self._prepare, solver_weights(self.diffusion, self.settings.solver_steps).to(self.device))

    def _prepare(self, inputs: Inputs) -> Denoise:
        return self._cached_denoiser(inputs.states, inputs.mask, inputs.control, beside=self._beside)

    def scaled(self, guidance_scale: float | None = None, control_scale: float | None = None) -> Sampler:
        """This sampler with other scales (None: its own). What `fast` records is made for one pair of scales, so others go without."""
        scales = {"guidance_scale": guidance_scale, "control_scale": control_scale}
        settings = replace(self.settings, **{name: scale for name, scale in scales.items() if scale is not None})
        if settings == self.settings:
            return self
        return Sampler(self.prior, self._given, self.diffusion, settings)

    @torch.no_grad()
    def sample(
        self,
        ids: Sequence[str],
        text_states: Tensor,
        text_mask: Tensor,
        control: Tensor | None = None,
        hypotheses: int = 1,
        seed: int = 0,
        cached: bool = True,
        negative: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """K L2-normalised target embeddings for each of Q queries: [Q, K, d] float32, on the modules' device.

        ids: one for each query; with `seed` they decide the noise, so that neither batch size nor
        order matters. text_states [Q, T, text_dim] and text_mask [Q, T] bool: the target
        descriptions. control: z_r,delta [Q, d], needed when there is an adapter and ignored otherwise.
        negative: states [Q, T', text_dim] and mask [Q, T'] of texts that take the null text's place in
        the unconditional branch, so that the guidance leads away from what they say.
        cached=False computes everything anew at every step: the slow path that the fast one is
        checked against. Raises ValueError naming the query whose input cannot be used.
        """
        states, mask, control = self._check(ids, text_states, text_mask, control, hypotheses)
        if negative is not None:
            if self.settings.guidance_scale == 0.0:
                raise ValueError("sampler: a negative text needs a guidance_scale above 0")
            negative = self._check_text(ids, *negative, "negative ")
        noise = self.settings.temperature * query_noise(ids, hypotheses, self.diffusion.dim, seed).flatten(0, 1).to(
            self.device
        )  # [Q*K, d]
        if cached and self._fast is not None and negative is None:
            given = (
                part if part is None else part.repeat_interleave(hypotheses, 0) for part in (states, mask, control)
            )
            clean = self._fast(Inputs(noise, *given))  # [Q*K, d]
        else:
            make = self._cached_denoiser if cached else self._plain_denoiser
            clean = solve(
                make(states, mask, control, hypotheses, negative), noise, self.diffusion, self.settings.solver_steps
            )  # [Q*K, d]
        return F.normalize(self.diffusion.unscale(clean), dim=-1).unflatten(0, (len(ids), hypotheses))

    def _check(
        self, ids: Sequence[str], text_states: Tensor, text_mask: Tensor, control: Tensor | None, hypotheses: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The inputs on the device, the control scaled as embeddings are."""
        if hypotheses < 1:
            raise ValueError(f"sampler: {hypotheses} hypotheses, at least 1 is needed")
        states, mask = self._check_text(ids, text_states, text_mask)
        if self.adapter is None:
            return states, mask, None
        if control is None:
            raise ValueError("sampler: an adapter needs control vectors z_r,delta")
        if len(control) != len(ids):
            raise ValueError(f"sampler: {len(control)} control vectors for {len(ids)} queries")
        control = check_vectors(control, self.diffusion.dim, "sampler: control", ids)
        return states, mask, control.to(self.device).float() * self.diffusion.scale

    def _check_text(self, ids: Sequence[str], states: Tensor, mask: Tensor, kind: str = "") -> tuple[Tensor, Tensor]:
        """States and mask on the device, zeros where there is padding."""
        if states.ndim != 3 or mask.shape != states.shape[:2] or len(states) != len(ids):
            raise ValueError(
                f"sampler: {len(ids)} ids, {kind}text states {tuple(states.shape)} and mask {tuple(mask.shape)} do not belong together"
            )
        states, mask = states.to(self.device), mask.to(self.device)
        states = torch.where(mask[..., None], states, 0)  # padding may hold anything
        for wrong, message in (
            (~mask.any(dim=1), f"no {kind}text tokens"),
            (~torch.isfinite(states).flatten(1).all(dim=1), f"a {kind}text state that is not finite"),
        ):
            if wrong.any():
                raise ValueError(f"sampler: query {ids[int(wrong.nonzero()[0])]} has {message}")
        return states, mask

    def _cached_denoiser(
        self,
        states: Tensor,
        mask: Tensor | None,
        control: Tensor | None,
        hypotheses: int = 1,
        negative: tuple[Tensor, Tensor] | None = None,
        beside: torch.cuda.Stream | None = None,
    ) -> Denoise:
        """The texts' keys and values and the control's shift, and then the denoiser."""
        queries = len(states)
        if negative is None:
            context = self.prior.text_context(states, mask, rows=2 * queries if self.settings.guided_steps else queries)
        else:
            context = self.prior.text_context(
                *_stack(negative, (states, mask)), rows=2 * queries
            )  # the unconditional rows first
        both = [part.repeat(hypotheses) for part in self.prior.text_keys_values(context)]
        text = Branches(both, [part.last(queries * hypotheses) for part in both])
        adapter_text, shift = None, None
        if self.adapter is not None:
            adapter_text = [part.repeat(hypotheses) for part in self.adapter.text_keys_values(context.last(queries))]
            shift = self.adapter.shift(control).repeat_interleave(hypotheses, dim=0)  # [Q*K, 1, D]
        return lambda noisy, index, step=None: self._guided(noisy, index, text, adapter_text, shift, beside)

    def _guided(
        self,
        noisy: Tensor,
        index: int,
        text: Branches,
        adapter_text: Texts | None,
        shift: Tensor | None,
        beside: torch.cuda.Stream | None = None,
    ) -> Tensor:
        """Eq. 4 for noisy [B, d] at a solver step: the unconditional rows, without control, come first."""
        guided, modulation = index < self.settings.guided_steps, self._modulations[index]
        rows, states = (torch.cat([noisy, noisy]), text.both) if guided else (noisy, text.conditional)
        if self.adapter is None:
            predicted = self.prior.denoise(rows, modulation, states)
        else:
            parts = (rows, modulation, states, adapter_text, shift, self.settings.control_scale, beside)
            predicted = denoise_controlled(self.prior, self.adapter, *parts)
        if not guided:
            return predicted
        unconditional, conditional = predicted.chunk(2)  # each [B, d]
        return guide(conditional, unconditional, self.settings.guidance_scale)

    def _plain_denoiser(
        self,
        states: Tensor,
        mask: Tensor,
        control: Tensor | None,
        hypotheses: int,
        negative: tuple[Tensor, Tensor] | None,
    ) -> Denoiser:
        states, mask = states.repeat_interleave(hypotheses, 0), mask.repeat_interleave(hypotheses, 0)
        control = None if control is None else control.repeat_interleave(hypotheses, 0)
        without = () if negative is None else tuple(part.repeat_interleave(hypotheses, 0) for part in negative)

        def denoise(noisy: Tensor, index: int, step: int) -> Tensor:
            steps = torch.full((len(noisy),), step, device=noisy.device)  # [B]
            if self.adapter is None:
                conditional = self.prior(noisy, steps, states, mask)
            else:
                conditional = controlled(
                    self.prior, self.adapter, noisy, steps, states, mask, control, self.settings.control_scale
                )
            if index >= self.settings.guided_steps:
                return conditional
            return guide(conditional, self.prior(noisy, steps, *without), self.settings.guidance_scale)

        return denoise


def _stack(*texts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """States [Q_i, T_i, text_dim] and masks [Q_i, T_i] below each other, padded to the longest."""
    longest = max(mask.shape[1] for _, mask in texts)
    states = torch.cat([F.pad(states, (0, 0, 0, longest - states.shape[1])) for states, _ in texts])
    return states, torch.cat([F.pad(mask, (0, longest - mask.shape[1])) for _, mask in texts])
