"""Sampling target embeddings: DPM-Solver++ with classifier-free guidance and control (Algorithm 4)."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config import RetrieveParams
from pipeline.fusion_diff.conditions import TextBatch, check_shape, check_vectors
from pipeline.fusion_diff.control import ControlAdapter, ControlInputs, ControlledPrior
from pipeline.fusion_diff.diffusion import Diffusion
from pipeline.fusion_diff.prior import Modulation, Prior, PriorSizes
from pipeline.fusion_diff.texts import BlockTexts

Denoiser = Callable[[Tensor, int, int], Tensor]
"""(z_n [B, d], index of the solver step, timestep n) -> eps [B, d]."""


def query_noise(ids: Sequence[str], hypotheses: int, dim: int, seed: int) -> Tensor:
    """Starting noise z_N: a function of the seed, the query's id and the hypothesis alone.

    Args:
        ids: One for each of Q queries.
        hypotheses: K.
        dim: d.
        seed: Of the whole search.

    Returns:
        [Q, K, d] float32 on the CPU.
    """
    noise = torch.empty(len(ids), hypotheses, dim)
    for row, query_id in enumerate(ids):
        for hypothesis in range(hypotheses):
            digest = hashlib.sha256(f"{seed}/{hypothesis}/{query_id}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
            noise[row, hypothesis] = torch.randn(dim, generator=generator)
    return noise


def guide(conditional: Tensor, unconditional: Tensor, guidance_scale: float | Tensor) -> Tensor:
    """Classifier-free guidance (Eq. 4): (1 + gamma) eps_cond - gamma eps_uncond, each [B, d]; gamma may be [B, 1]."""
    return (1.0 + guidance_scale) * conditional - guidance_scale * unconditional


def solve(denoise: Denoiser, noise: Tensor, diffusion: Diffusion, steps: int) -> Tensor:
    """Integrate from noise to a clean sample, in `steps` calls of `denoise`.

    Args:
        denoise: The prediction at a solver step.
        noise: z_N [B, d].
        diffusion: Gives the solver.
        steps: Solver steps.

    Returns:
        The clean sample [B, d], scaled as embeddings are while they diffuse.
    """
    return deque(walk(denoise, noise, diffusion, steps), maxlen=1).pop()


def walk(denoise: Denoiser, noise: Tensor, diffusion: Diffusion, steps: int) -> Iterator[Tensor]:
    """The trajectory of `solve`: z at all N + 1 solver points, each [B, d]. The first is the noise."""
    solver = diffusion.solver(steps)
    yield noise
    sample = noise
    for index, step in enumerate(solver.timesteps):  # on the CPU: nothing here waits for an accelerator
        sample = solver.step(denoise(sample, index, int(step)), step, sample, return_dict=False)[0]
        yield sample


@dataclass(frozen=True)
class SamplerSettings:
    """How targets are sampled (Algorithm 4). The defaults are the paper's.

    Raises:
        ValueError: A number is out of its range; says which.
    """

    solver_steps: int = 14
    guidance_scale: float = 2.5
    """gamma of Eq. 4."""
    control_scale: float = 1.0
    """delta: the weight of the adapter's residuals (Eq. 6). 0 leaves the adapter out."""
    temperature: float = 1.0
    """Scales the starting noise; 1 is the paper's.

    Below 1, samples keep nearer to the mean of what the conditions allow; at 0 all hypotheses of a query are one.
    Retrieval needs accuracy more than diversity, and a prior that was trained for minutes strays. A low temperature
    then does what the mean of many hypotheses does, at the cost of one.
    """
    guided_share: float = 1.0
    """Share of the solver's steps, from the first on and rounded up, that are guided; 1 is the paper's.

    A guided step costs two rows a sample; the others take the conditional prediction as it is. The two branches draw
    nearer to each other the less noise is left (Castillo et al., "Adaptive Guidance", 2023), so that leaving out the
    last steps changes least.
    """

    def __post_init__(self) -> None:
        for name in ("guidance_scale", "control_scale", "temperature"):
            if not math.isfinite(value := getattr(self, name)):
                raise ValueError(f"sampler: {name} {value} is not finite")
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


class Conditions(NamedTuple):
    """What the samples of a batch are conditioned on, checked and on the device."""

    states: Tensor
    """[Q, T, text_dim]: token states of the target descriptions, zeros where there is padding."""
    mask: Tensor | None
    """[Q, T] bool: True at tokens. None: no padding."""
    control: Tensor | None
    """z_r,delta [Q, d], scaled as embeddings are while they diffuse; None without an adapter."""
    negative: tuple[Tensor, Tensor] | None = None
    """States [Q, T', text_dim] and mask [Q, T'] of texts in the null condition's place."""
    padded: bool = True
    """Whether the mask hides any token of the target descriptions."""


class Branches(NamedTuple):
    """Every block's keys and values of the prior's cross-attention."""

    both: BlockTexts
    """Those of the unconditional rows, then of the conditional ones."""
    conditional: BlockTexts
    """Those of the latter alone, for steps without guidance."""


class TargetSampler(Protocol):
    """Whatever draws target embeddings: a `Sampler`, or a batcher in front of one."""

    @property
    def settings(self) -> SamplerSettings:
        """Steps and scales."""

    @property
    def sizes(self) -> PriorSizes:
        """Of the prior."""

    @property
    def takes_control(self) -> bool:
        """Whether samples are steered by control vectors z_r,delta."""

    @property
    def gains_from_batches(self) -> bool:
        """Whether several queries together take less time than one after the other."""

    def scaled(self, guidance_scale: float | None = None, control_scale: float | None = None) -> TargetSampler:
        """See `Sampler.scaled`."""

    def sample(
        self,
        ids: Sequence[str],
        text: TextBatch,
        control: Tensor | None = None,
        hypotheses: int = 1,
        seed: int = 0,
        negative: TextBatch | None = None,
    ) -> Tensor:
        """See `Sampler.sample`."""


class Sampler:
    """Draws target embeddings from the prior, steered by the Control-Adapter where there is one.

    The AdaLN outputs of the solver's timesteps are computed once, here; keys and values of the texts once a query.
    Both branches of the guidance share a batch. `pipeline.gpu.accelerate` makes a sampler quick on a GPU.

    Args:
        prior: Put in evaluation mode, and used in the type and on the device it has (cast it to sample in bfloat16).
        adapter: As `prior`. None, or a control_scale of zero: the prior samples alone.
        diffusion: The process that the prior was trained for.
        settings: Steps and scales.

    Raises:
        ValueError: Sizes that do not go together, or more solver steps than training steps.
    """

    def __init__(
        self, prior: Prior, adapter: ControlAdapter | None, diffusion: Diffusion, settings: SamplerSettings
    ) -> None:
        if diffusion.dim != prior.sizes.dim:
            raise ValueError(f"sampler: the diffusion has dimension {diffusion.dim}, the prior {prior.sizes.dim}")
        if adapter is not None and adapter.sizes != prior.sizes:
            raise ValueError(f"sampler: the adapter was built for {adapter.sizes}, the prior has {prior.sizes}")
        self.prior, self.adapter = prior.eval(), adapter
        self.controlled: ControlledPrior | None = None
        if adapter is not None and settings.control_scale != 0.0:
            self.controlled = ControlledPrior(prior, adapter, settings.control_scale).eval()
        self.diffusion, self.settings = diffusion, settings
        self.device = prior.positions.device
        with torch.no_grad():
            schedule = self._modulation()
        self._modulations = [schedule.row(index) for index in range(settings.solver_steps)]

    @property
    def sizes(self) -> PriorSizes:
        """Of the prior."""
        return self.prior.sizes

    @property
    def takes_control(self) -> bool:
        """Whether there is an adapter that steers: otherwise control vectors are ignored."""
        return self.controlled is not None

    @property
    def gains_from_batches(self) -> bool:
        """Whether several queries together take less time than one after the other."""
        return False

    def scaled(self, guidance_scale: float | None = None, control_scale: float | None = None) -> Sampler:
        """This sampler with other scales; itself where they are its own.

        Args:
            guidance_scale: gamma; None keeps it.
            control_scale: delta; None keeps it.

        Returns:
            A plain sampler: what a quick one has recorded is made for one pair of scales.
        """
        settings = self.settings
        if guidance_scale is not None:
            settings = replace(settings, guidance_scale=guidance_scale)
        if control_scale is not None:
            settings = replace(settings, control_scale=control_scale)
        if settings == self.settings:
            return self
        return self._with(settings)

    def _with(self, settings: SamplerSettings) -> Sampler:
        return Sampler(self.prior, self.adapter, self.diffusion, settings)

    def _modulation(self) -> Modulation:
        """AdaLN outputs for all solver steps."""
        return self.prior.modulation(self.diffusion.solver(self.settings.solver_steps).timesteps.to(self.device))

    @torch.no_grad()
    def sample(
        self,
        ids: Sequence[str],
        text: TextBatch,
        control: Tensor | None = None,
        hypotheses: int = 1,
        seed: int = 0,
        negative: TextBatch | None = None,
    ) -> Tensor:
        """Draw K target embeddings for each of Q queries (Algorithm 4).

        Args:
            ids: One for each query. With `seed` they decide the noise, so that neither batch size nor order matters.
            text: States [Q, T, text_dim] and mask [Q, T] bool of the target descriptions.
            control: z_r,delta [Q, d]; needed when there is an adapter, ignored otherwise.
            hypotheses: K.
            seed: Of the whole search.
            negative: States [Q, T', text_dim] and mask [Q, T'] of texts that take the null condition's place in the
                unconditional branch, so that the guidance leads away from what they say.

        Returns:
            L2-normalised embeddings [Q, K, d] float32, on the modules' device.

        Raises:
            ValueError: An input cannot be used; names the query.
        """
        if hypotheses < 1:
            raise ValueError(f"sampler: {hypotheses} hypotheses, at least 1 is needed")
        if not ids:
            return torch.empty(0, hypotheses, self.diffusion.dim, device=self.device)
        if negative is not None and not self.settings.guided_steps:
            raise ValueError("sampler: a negative text needs a guidance_scale above 0, and no distilled sampler")
        conditions = self._conditions(ids, text, control, negative)
        drawn = query_noise(ids, hypotheses, self.diffusion.dim, seed).flatten(0, 1)
        noise = self.settings.temperature * drawn.to(self.device)  # [Q*K, d]
        clean = self._draw(noise, conditions, hypotheses)  # [Q*K, d]
        return F.normalize(self.diffusion.unscale(clean), dim=-1).unflatten(0, (len(ids), hypotheses))

    def _draw(self, noise: Tensor, conditions: Conditions, hypotheses: int) -> Tensor:
        """Clean samples [Q*K, d] from noise [Q*K, d]."""
        return solve(self._denoiser(conditions, hypotheses), noise, self.diffusion, self.settings.solver_steps)

    def _conditions(
        self, ids: Sequence[str], text: TextBatch, control: Tensor | None, negative: TextBatch | None
    ) -> Conditions:
        """What the samples are conditioned on, checked. A GPU is waited for once."""
        states, mask = self._on_device(ids, text)
        against = None if negative is None else self._on_device(ids, negative, "negative ")
        steering = self._steering(ids, control)
        wrong = _wrong_texts(states, mask) | ({} if against is None else _wrong_texts(*against, "negative "))
        flags = [*wrong.values(), ~mask.all(dim=1)]
        if steering is not None:
            flags.append(~torch.isfinite(steering).all(dim=1))
        found = torch.stack(flags).any(dim=1).tolist()
        for (message, rows), there in zip(wrong.items(), found, strict=False):
            if there:
                raise ValueError(f"sampler: query {ids[int(rows.nonzero()[0])]} has {message}")
        if steering is not None and found[-1]:
            check_vectors(steering, self.diffusion.dim, "sampler: control", ids)
        return Conditions(states, mask, steering, against, padded=found[len(wrong)])

    def _steering(self, ids: Sequence[str], control: Tensor | None) -> Tensor | None:
        """The control on the device, scaled as embeddings are while they diffuse."""
        if self.controlled is None:
            return None
        if control is None:
            raise ValueError("sampler: an adapter needs control vectors z_r,delta")
        if len(control) != len(ids):
            raise ValueError(f"sampler: {len(control)} control vectors for {len(ids)} queries")
        check_shape(control, self.diffusion.dim, "sampler: control")
        return control.to(self.device).float() * self.diffusion.scale

    def _on_device(self, ids: Sequence[str], text: TextBatch, kind: str = "") -> tuple[Tensor, Tensor]:
        """States and mask on the device, zeros where there is padding."""
        states, mask = text
        if mask is None:
            mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        if states.ndim != 3 or mask.shape != states.shape[:2] or len(states) != len(ids):
            given = f"{kind}text states {tuple(states.shape)} and mask {tuple(mask.shape)}"
            raise ValueError(f"sampler: {len(ids)} ids, {given} do not belong together")
        if states.shape[2] != self.sizes.text_dim or mask.dtype != torch.bool:
            given = f"{kind}text states of {states.shape[2]} numbers and a mask of {mask.dtype}"
            raise ValueError(f"sampler: {given}, expected {self.sizes.text_dim} and torch.bool")
        states, mask = states.to(self.device), mask.to(self.device)
        return torch.where(mask[..., None], states, 0), mask  # padding may hold anything

    def _denoiser(self, conditions: Conditions, hypotheses: int = 1) -> Denoiser:
        """Keys and values of the texts and the control's shift, computed now, and the denoiser that uses them."""
        states, mask, control, negative, _ = conditions
        queries = len(states)
        if negative is None:
            rows = 2 * queries if self.settings.guided_steps else queries
            context = self.prior.text_context(states, mask, rows)
        else:  # the unconditional rows first
            assert mask is not None
            context = self.prior.text_context(*_stack(negative, (states, mask)), rows=2 * queries)
        both = [part.repeat(hypotheses) for part in self.prior.text_keys_values(context)]
        text = Branches(both, [part.last(queries * hypotheses) for part in both])
        inputs = None
        if self.controlled is not None and control is not None:
            adapter = self.controlled.adapter
            adapter_text = [part.repeat(hypotheses) for part in adapter.text_keys_values(context.last(queries))]
            shift = adapter.shift(control).repeat_interleave(hypotheses, dim=0)  # [Q*K, 1, D]
            inputs = ControlInputs(adapter_text, shift)
        return lambda noisy, index, step: self._guided(noisy, index, text, inputs)

    def _guided(self, noisy: Tensor, index: int, text: Branches, control: ControlInputs | None) -> Tensor:
        """Eq. 4 for noisy [B, d] at a solver step: the unconditional rows, without control, come first."""
        guided, modulation = index < self.settings.guided_steps, self._modulations[index]
        rows, keys_values = (torch.cat([noisy, noisy]), text.both) if guided else (noisy, text.conditional)
        if self.controlled is None or control is None:
            predicted = self.prior.denoise(rows, modulation, keys_values)
        else:
            predicted = self.controlled.denoise(rows, modulation, keys_values, control)
        if not guided:
            return predicted
        unconditional, conditional = predicted.chunk(2)  # each [B, d]
        return guide(conditional, unconditional, self.settings.guidance_scale)


def _wrong_texts(states: Tensor, mask: Tensor, kind: str = "") -> dict[str, Tensor]:
    """What can be wrong with a text -> bool [Q], of states [Q, T, text_dim] and mask [Q, T]."""
    return {
        f"no {kind}text tokens": ~mask.any(dim=1),
        f"a {kind}text state that is not finite": ~torch.isfinite(states).flatten(1).all(dim=1),
    }


def _stack(*texts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """States [Q_i, T_i, text_dim] and masks [Q_i, T_i] below each other, padded to the longest."""
    longest = max(mask.shape[1] for _, mask in texts)
    states = torch.cat([F.pad(states, (0, 0, 0, longest - states.shape[1])) for states, _ in texts])
    return states, torch.cat([F.pad(mask, (0, longest - mask.shape[1])) for _, mask in texts])
