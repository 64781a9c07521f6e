"""Small environments with known answers, registered with gymnasium under ``flambeau-test/``."""

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium")


class Corridor(gymnasium.Env):
    """Walk right from 0 to 3: each step costs 1; ends after 8 steps or at the goal. The best return is -3."""

    observation_space = gymnasium.spaces.Box(-10, 10, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2, start=1)  # 1: left, 2: right

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = 0, 0
        return np.array([0.0], np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.place += 1 if action == 2 else -1
        self.steps += 1
        return np.array([self.place], np.float32), -1.0, self.place == 3, self.steps == 8, {}


class Broken(Corridor):
    """Its third reward is NaN."""

    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, float("nan") if self.steps == 3 else reward, *rest


class Endless(Corridor):
    """It never ends."""

    def step(self, action):
        observation, reward, _, _, info = super().step(action)
        return observation * 0, reward, False, False, info


for name, kind in {"Corridor": Corridor, "Broken": Broken, "Endless": Endless}.items():
    identity = f"flambeau-test/{name}-v0"
    if identity not in gymnasium.registry:
        gymnasium.register(identity, entry_point=kind)

CORRIDOR, BROKEN, ENDLESS = (f"flambeau-test/{name}-v0" for name in ("Corridor", "Broken", "Endless"))
