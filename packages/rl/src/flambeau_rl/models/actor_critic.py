"""An actor and a critic of fully connected layers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from flambeau import Tensor, nn


@dataclass(frozen=True)
class ActorCriticConfig:
    """Sizes of an `MLPActorCritic`.

    Attributes:
        observation_size: numbers in an observation.
        actions: number of discrete actions.
        hidden: widths of the hidden layers, the same for actor and critic.
        environment: gymnasium id of what it was trained on; empty when it was not.
    """

    observation_size: int = 4
    actions: int = 2
    hidden: tuple[int, ...] = (64, 64)
    environment: str = ""


def _layers(sizes: list[int], last_gain: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        last = index == len(sizes) - 2
        layer = nn.Linear(fan_in, fan_out)
        nn.init.orthogonal_(layer.weight, last_gain if last else math.sqrt(2))
        nn.init.zeros_(layer.bias)
        layers += [layer] if last else [layer, nn.Tanh()]
    return nn.Sequential(*layers)


class MLPActorCritic(nn.Module):
    """Logits of the actions (N, actions) and values (N,) for observations (N, observation_size).

    Two networks with tanh and orthogonal weights; the actor's last layer starts near 0, so that the first policy is
    near uniform (Andrychowicz et al. 2021).

    >>> import flambeau
    >>> logits, value = MLPActorCritic()(flambeau.zeros(5, 4))
    >>> tuple(logits.shape), tuple(value.shape)
    ((5, 2), (5,))
    """

    def __init__(self, config: ActorCriticConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ActorCriticConfig()
        self.actor = _layers([config.observation_size, *config.hidden, config.actions], 0.01)
        self.critic = _layers([config.observation_size, *config.hidden, 1], 1.0)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor(observations), self.critic(observations).squeeze(1)
