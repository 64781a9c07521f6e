"""Acting in an environment: mean return over episodes, single episodes, an episode as GIF."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import flambeau
from flambeau.errors import FlambeauError, MissingExtraError
from flambeau.io import atomic_write
from flambeau.nn.functional import softmax
from flambeau.options import from_options
from flambeau.plugins import load_model

from ..environments import make_environment, missing_dependency
from ..models.actor_critic import MLPActorCritic


@dataclass(frozen=True)
class PlayOptions:
    """Options of `evaluate` and `predict`.

    Attributes:
        episodes: how many are played.
        seed: of the episodes, and of the actions when they are drawn.
        greedy: take the likeliest action instead of drawing one.
        max_steps: an episode that is longer is cut off.
        device: cpu, cuda, ...
    """

    episodes: int = 20
    seed: int = 0
    greedy: bool = True
    max_steps: int = 10_000
    device: str = "cpu"


def load_agent(model: str, environment: Any, name: str, device: str = "cpu") -> MLPActorCritic:
    """A trained agent that fits an environment.

    Raises:
        FlambeauError: not there, damaged, no agent, or one for other observations and actions.
    """
    module = load_model(model)
    if not isinstance(module, MLPActorCritic):
        raise FlambeauError(f"{model}: a {type(module).__name__} is no agent", "train rl/mlp_actor_critic")
    config = module.config
    wanted = int(environment.observation_space.shape[0]), int(environment.action_space.n)
    if (config.observation_size, config.actions) != wanted:
        raise FlambeauError(
            f"{model} was trained on {config.environment or 'an environment'} ({config.observation_size} observations, "
            f"{config.actions} actions), {name} has {wanted[0]} and {wanted[1]}",
            f"give --data {config.environment}" if config.environment else "train on it",
        )
    return module.to(device).eval()


def play(
    module: MLPActorCritic,
    environment: Any,
    options: PlayOptions,
    episodes: int,
    frame: Callable[[], None] | None = None,
) -> tuple[list[float], list[int]]:
    """Returns and lengths of episodes; `frame` is called at every state of the first one."""
    rng = np.random.default_rng(options.seed)
    returns, lengths = [], []
    first_action = int(environment.action_space.start)
    for episode in range(episodes):
        observation, _ = environment.reset(seed=int(rng.integers(2**31)))
        total, length, ended = 0.0, 0, False
        while not ended and length < options.max_steps:
            if frame is not None and episode == 0:
                frame()
            with flambeau.inference_mode():
                observed = flambeau.from_numpy(np.asarray(observation, np.float32)[None]).to(options.device)
                chances = softmax(module.actor(observed), 1).to("cpu").numpy()[0]
            if options.greedy:
                action = int(chances.argmax())
            else:
                action = int(np.searchsorted(np.cumsum(chances[:-1]), rng.random(), side="right"))
            observation, reward, terminated, truncated, _ = environment.step(action + first_action)
            total, length, ended = total + float(reward), length + 1, bool(terminated or truncated)
        if not np.isfinite(total):
            raise FlambeauError(f"the return of episode {episode + 1} is {total}", "mend the environment")
        returns.append(total)
        lengths.append(length)
    return returns, lengths


def evaluate(model: str, data: str, split: str, options: dict[str, Any]) -> Mapping[str, Any]:
    """Returns over episodes in the environment `data`; an environment has no splits."""
    settings = from_options(PlayOptions, options, "the control task")
    environment = make_environment(data)
    try:
        module = load_agent(model, environment, data, settings.device)
        returns, lengths = play(module, environment, settings, settings.episodes)
    finally:
        environment.close()
    return {
        "mean_return": float(np.mean(returns)),
        "std_return": float(np.std(returns)),
        "min_return": min(returns),
        "max_return": max(returns),
        "mean_length": float(np.mean(lengths)),
        "episodes": len(returns),
    }


@dataclass(frozen=True)
class PredictOptions(PlayOptions):
    """Options of `predict`: those of `evaluate`; fewer episodes."""

    episodes: int = 3


def predict(
    model: str, inputs: Sequence[str], output: str | None, options: dict[str, Any]
) -> Iterable[Mapping[str, Any]]:
    """Play episodes in each environment named; with an output, the first episode is written as GIF."""
    settings = from_options(PredictOptions, options, "the control task")
    if output is not None and find_spec("PIL") is None:
        raise MissingExtraError("a GIF needs Pillow", 'pip install "flambeau-rl[gif]"')
    for name in inputs:
        try:
            record = _predict_one(model, name, _target(name, output, len(inputs) > 1), settings)
        except FlambeauError as error:
            if isinstance(error, MissingExtraError):
                raise
            yield {"input": name, "error": error.cause, "mend": error.mend}
        else:
            yield record


def _predict_one(model: str, name: str, target: Path | None, settings: PlayOptions) -> dict[str, Any]:
    environment = make_environment(name, **({} if target is None else {"render_mode": "rgb_array"}))
    frames: list[np.ndarray] = []
    try:
        module = load_agent(model, environment, name, settings.device)
        keep = None if target is None else lambda: frames.append(_frame(environment, name))
        with _no_window() if target is not None else nullcontext():
            returns, lengths = play(module, environment, settings, settings.episodes, keep)
        rate = environment.metadata.get("render_fps", 30)
    finally:
        environment.close()
    record: dict[str, Any] = {"input": name, "output": {"returns": returns, "lengths": lengths}}
    if target is not None:
        record["path"] = str(write_gif(target, frames, rate))
    return record


@contextmanager
def _no_window() -> Iterator[None]:
    """Pictures in memory need no display: pygame is told so, lest it complain where there is none."""
    before = os.environ.get("SDL_VIDEODRIVER")
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    try:
        yield
    finally:
        if before is None:
            del os.environ["SDL_VIDEODRIVER"]


def _frame(environment: Any, name: str) -> np.ndarray:
    import gymnasium

    try:
        return np.asarray(environment.render(), np.uint8)
    except gymnasium.error.DependencyNotInstalled as error:
        raise missing_dependency(name, error) from error


def write_gif(path: Path, frames: Sequence[np.ndarray], rate: float, largest: int = 300, width: int = 300) -> Path:
    """Write pictures (H, W, 3) as an animation of at most `largest` frames, evenly chosen, `width` pixels wide."""
    from PIL import Image

    every = -(-len(frames) // largest)
    images = [Image.fromarray(frame) for frame in frames[::every]]
    size = (width, max(round(width * images[0].height / images[0].width), 1))
    small = [image.resize(size).quantize(64) for image in images]
    with atomic_write(path) as file:
        small[0].save(
            file, "GIF", save_all=True, append_images=small[1:], duration=max(1000 * every / rate, 20), loop=0
        )
    return path


def _target(name: str, output: str | None, several: bool) -> Path | None:
    if output is None:
        return None
    path = Path(output)
    if not several and not path.is_dir():
        return path
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FlambeauError(f"{path}: cannot be made a folder ({error.strerror})", "choose another output") from error
    return path / f"{name.replace('/', '_')}.gif"
