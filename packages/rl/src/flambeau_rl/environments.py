"""Gymnasium environments: made by id with clear errors, and several of them stepped together."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from flambeau.errors import FlambeauError, MissingExtraError, UsageError
from flambeau.plugins.registry import did_you_mean, near


def make_environment(name: str, **options: Any) -> Any:
    """The gymnasium environment called `name`, such as ``"CartPole-v1"``.

    Args:
        options: passed to ``gymnasium.make``, such as ``render_mode``.

    Raises:
        MissingExtraError: gymnasium, or what this environment needs beside it, is not installed.
        UsageError: there is no such environment, or its spaces are not a vector of numbers and a choice of actions.
    """
    if not name:
        raise UsageError("no environment is named", "add --data with a gymnasium id, such as --data CartPole-v1")
    if find_spec("gymnasium") is None:
        raise MissingExtraError("gymnasium is not installed", 'pip install "flambeau-rl[gym]"')
    import gymnasium

    try:
        environment = gymnasium.make(name, **options)
    except gymnasium.error.DependencyNotInstalled as error:
        raise missing_dependency(name, error) from error
    except gymnasium.error.NamespaceNotFound as error:
        namespace = name.partition("/")[0]
        mend = f"install the package that brings {namespace}/ and name its module: MODULE:{name}"
        raise UsageError(f"there is no environment {name!r}: nothing registers {namespace!r}", mend) from error
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        hint = did_you_mean(near(name, list(gymnasium.registry)))
        raise UsageError(f"there is no environment {name!r}", hint or "give an id such as CartPole-v1") from error
    spaces = gymnasium.spaces
    observations, actions = environment.observation_space, environment.action_space
    problem = None
    if not isinstance(actions, spaces.Discrete):
        problem = f"its actions are {type(actions).__name__}, only discrete ones (a choice among n) are understood"
    elif not isinstance(observations, spaces.Box) or len(observations.shape) != 1:
        problem = f"its observations are {observations}, only vectors of numbers are understood"
    if problem:
        environment.close()
        raise UsageError(
            f"environment {name!r}: {problem}", "choose one such as CartPole-v1, Acrobot-v1 or LunarLander-v3"
        )
    return environment


def missing_dependency(name: str, error: Exception) -> MissingExtraError:
    """Gymnasium's own hint on what an environment needs, as an error of ours."""
    text = " ".join(str(error).split())
    commands = re.findall(r"pip install [^`]+", text)
    line = " && ".join(commands) or f"install what {name} needs: {text}"
    return MissingExtraError(f"environment {name!r} needs a package that is not installed", line)


class Steps(NamedTuple):
    """What happened in one step of n environments.

    observations (n, size): where they are now; of an ended episode the first of the next one. rewards (n,).
    terminated (n,): ended for good. truncated (n,): cut off. final (n, size): the last observation of an episode that
    ended now, else that of `observations`.
    """

    observations: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    final: np.ndarray


class Environments:
    """`count` environments of one kind, stepped one after the other, in this process; an ended one starts anew at once.

    The last observation of an episode is kept, so that an episode that was only cut off can be valued by what would
    have come.

    Attributes:
        finished: (return, length) of every episode that has ended since it was last emptied.
    """

    def __init__(self, name: str, count: int) -> None:
        self.name = name
        self._members = [make_environment(name) for _ in range(count)]
        self.observation_size = int(self._members[0].observation_space.shape[0])
        self._first_action = int(self._members[0].action_space.start)
        self.actions = int(self._members[0].action_space.n)
        self.finished: list[tuple[float, int]] = []
        self._returns, self._lengths = np.zeros(count), np.zeros(count, np.int64)

    def reset(self, seed: int) -> np.ndarray:
        """Starts all of them anew; returns the observations, float32 (n, size). Equal seeds give equal episodes."""
        seeds = np.random.SeedSequence(seed).generate_state(len(self._members))
        self._returns[:], self._lengths[:] = 0.0, 0
        found = [member.reset(seed=int(number))[0] for member, number in zip(self._members, seeds, strict=True)]
        return self._checked(np.asarray(found, np.float32), "an observation")

    def step(self, actions: np.ndarray) -> Steps:
        """One step with an action for each.

        Raises:
            FlambeauError: an environment gave something that is not finite.
        """
        count = len(self._members)
        observations = np.empty((count, self.observation_size), np.float32)
        rewards = np.empty(count, np.float32)
        terminated, truncated = np.zeros(count, bool), np.zeros(count, bool)
        final = None
        for index, member in enumerate(self._members):
            action = int(actions[index]) + self._first_action
            observation, reward, terminated[index], truncated[index], _ = member.step(action)
            rewards[index] = reward
            self._returns[index] += reward
            self._lengths[index] += 1
            if terminated[index] or truncated[index]:
                final = {} if final is None else final
                final[index] = np.asarray(observation, np.float32)
                self.finished.append((float(self._returns[index]), int(self._lengths[index])))
                self._returns[index], self._lengths[index] = 0.0, 0
                observation, _ = member.reset()
            observations[index] = observation
        self._checked(rewards, "a reward")
        self._checked(observations, "an observation")
        last = observations
        if final is not None:
            last = observations.copy()
            for index, observation in final.items():
                last[index] = observation
            self._checked(last, "an observation")
        return Steps(observations, rewards, terminated, truncated, last)

    def close(self) -> None:
        """Closes them all."""
        for member in self._members:
            member.close()

    def _checked(self, values: np.ndarray, what: str) -> np.ndarray:
        if not np.isfinite(values).all():
            raise FlambeauError(f"environment {self.name!r} gave {what} that is not finite", "mend the environment")
        return values
