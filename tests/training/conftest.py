"""A task small enough to train in a blink, with everything a real one may have."""

import pytest
import torch
from torch import nn

from pipeline.config import OptimiserParams
from tests.sections import section


class Net(nn.Module):
    """Linear layers around a running mean; `unused` never gets a gradient, `frozen` never wants one."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 1)
        self.unused = nn.Parameter(torch.ones(3))
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)
        self.register_buffer("mean", torch.zeros(8))
        self.momentum = 0.1

    def forward(self, inputs):
        hidden = torch.tanh(self.first(inputs))
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(hidden.float().mean(0), self.momentum)
        return self.second(hidden + self.mean) * self.frozen


class NetTask:
    """Regression, which remembers the indices that it got; noise: how much randomness is in the loss."""

    def __init__(self, examples=24, noise=0.1, nan_at=None):
        torch.manual_seed(0)
        self.model: nn.Module = Net()
        self.inputs = torch.randn(examples, 5)
        self.targets = self.inputs.sum(1, keepdim=True)
        self.noise, self.nan_at, self.asked = noise, nan_at, []

    def __len__(self):
        return len(self.inputs)

    def loss(self, model, indices, generator, device):
        inputs = self.inputs[indices] + self.noise * torch.randn(len(indices), 5, generator=generator)
        loss = (model(inputs) - self.targets[indices]).square().mean()
        if self.nan_at is not None and len(self.asked) == self.nan_at:
            loss = loss * float("nan")
        self.asked.append(indices)
        return loss, {"mse": loss.detach()}


@pytest.fixture
def make_task():
    return NetTask


@pytest.fixture
def make_params():
    def make(**changes):
        return section(
            OptimiserParams,
            **{
                "lr": 1e-2,
                "weight_decay": 0.1,
                "steps": 12,
                "batch_size": 8,
                "warmup_steps": 3,
                "ema_decay": 0.9,
                "log_every": 1,
                "checkpoint_every": 5,
                **changes,
            },
        )

    return make
