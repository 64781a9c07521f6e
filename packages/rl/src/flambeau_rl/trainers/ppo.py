"""Proximal policy optimisation (Schulman et al. 2017), in one file.

Several environments are played for a while; the advantages of what was done come from generalised advantage estimation
(Schulman et al. 2016); then the policy is improved by a few passes over minibatches, clipped so that no action's
probability moves far from what it was when the action was taken. `train` is the command line's way in; `gae`,
`ppo_loss` and `collect` can be used alone.

A run can be resumed bit for bit: environments cannot be saved in general, so at every checkpoint they start new
episodes with seeds that follow from the run's seed and the iteration, whether or not the run is interrupted there.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import flambeau
from flambeau import Tensor, nn
from flambeau.errors import FlambeauError, UsageError
from flambeau.io import atomic_write
from flambeau.nn.functional import log_softmax
from flambeau.options import from_options, to_plain
from flambeau.plugins import create_model, save_model
from flambeau.random import default_generator
from flambeau.train import CheckpointFolder, HistoryWriter, Run, reporter

from ..environments import Environments
from .curve import ReturnCurve

RECENT = 30
"""Episodes over which the reported return is averaged."""


@dataclass
class PPOOptions:
    """Options of `train`.

    Attributes:
        steps: steps of all environments together.
        envs: environments that are played side by side.
        rollout: steps of each environment before the policy is improved.
        epochs: passes over what was played.
        batch_size: steps in a minibatch.
        lr: learning rate at the start.
        anneal: whether it falls linearly to 0.
        gamma: discount of later rewards.
        gae_lambda: between one-step (0) and whole-episode (1) advantages.
        clip_range: how far a probability may move from what it was, as a share of it.
        entropy_weight: reward for staying undecided.
        value_weight: of the critic's loss.
        clip: largest norm of the gradient.
        target_kl: the passes over a rollout end early when the policy has moved farther than this; none for never.
        checkpoint_every: iterations (rollouts) between checkpoints; the environments start new episodes there.
        hidden: widths of the hidden layers.
        seed: of everything random, the environments included.
        device: cpu, cuda, ...
    """

    steps: int = 100_000
    envs: int = 8
    rollout: int = 128
    epochs: int = 4
    batch_size: int = 256
    lr: float = 2.5e-3
    anneal: bool = True
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    entropy_weight: float = 0.01
    value_weight: float = 0.5
    clip: float = 0.5
    target_kl: float | None = None
    checkpoint_every: int = 20
    hidden: tuple[int, ...] = (64, 64)
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("steps", "envs", "rollout", "epochs", "batch_size", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"option {name}={getattr(self, name)} must be at least 1")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"option {name}={getattr(self, name)} must lie between 0 and 1")
        for name in ("lr", "clip_range", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"option {name}={getattr(self, name)} must be positive")

    @property
    def iterations(self) -> int:
        """Rollouts in the run: as many as are needed for `steps`."""
        return math.ceil(self.steps / (self.envs * self.rollout))


class Rollout(NamedTuple):
    """What was played: T steps of N environments; arrays (T, N), observations (T, N, size)."""

    observations: np.ndarray
    actions: np.ndarray
    log_probs: np.ndarray
    values: np.ndarray
    advantages: np.ndarray
    returns: np.ndarray


def gae(
    rewards: np.ndarray, values: np.ndarray, following: np.ndarray, ended: np.ndarray, gamma: float, gae_lambda: float
) -> np.ndarray:
    """Generalised advantage estimates (T, N).

    Args:
        rewards, values: (T, N).
        following: value of the state that each step led to, 0 where the episode terminated (T, N).
        ended: whether an episode ended with the step, terminated or cut off: nothing is carried across (T, N).
    """
    deltas = rewards + gamma * following - values
    advantages = np.zeros_like(deltas)
    carried = np.zeros_like(deltas[0])
    for step in reversed(range(len(deltas))):
        carried = deltas[step] + gamma * gae_lambda * np.where(ended[step], 0.0, carried)
        advantages[step] = carried
    return advantages


def act(model: nn.Module, observations: np.ndarray, device: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Actions drawn from the policy, their log-probabilities, and the values of the states; arrays (N,)."""
    with flambeau.inference_mode():
        logits, values = model(flambeau.from_numpy(observations).to(device))
        log_probs = log_softmax(logits, 1).to("cpu").numpy()
        values = values.to("cpu").numpy()
    # Adding Gumbel noise and taking the largest draws from the softmax.
    uniform = default_generator().numpy.random(log_probs.shape)
    actions = (log_probs - np.log(-np.log(np.maximum(uniform, 1e-300)))).argmax(1)
    return actions, log_probs[np.arange(len(actions)), actions], values


def collect(
    model: nn.Module, environments: Environments, observations: np.ndarray, options: PPOOptions
) -> tuple[Rollout, np.ndarray]:
    """Plays ``options.rollout`` steps; returns them and where the environments are then."""
    rows: list[tuple[np.ndarray, ...]] = []
    cut: list[tuple[int, np.ndarray, np.ndarray]] = []
    for step in range(options.rollout):
        actions, log_probs, values = act(model, observations, options.device)
        found = environments.step(actions)
        rows.append((observations, actions, log_probs, values, found.rewards, found.terminated, found.truncated))
        stopped = np.flatnonzero(found.truncated & ~found.terminated)
        if len(stopped):
            cut.append((step, stopped, found.final[stopped]))
        observations = found.observations
    seen, actions, log_probs, values, rewards, terminated, truncated = map(np.stack, zip(*rows, strict=True))
    with flambeau.inference_mode():
        last = model(flambeau.from_numpy(observations).to(options.device))[1].to("cpu").numpy()
        following = np.concatenate([values[1:], last[None]])
        following[terminated] = 0.0
        for step, members, final in cut:  # an episode that was cut off would have gone on from its last observation
            following[step, members] = model(flambeau.from_numpy(final).to(options.device))[1].to("cpu").numpy()
    advantages = gae(rewards, values, following, terminated | truncated, options.gamma, options.gae_lambda)
    return Rollout(seen, actions, log_probs, values, advantages, advantages + values), observations


def ppo_loss(
    model: nn.Module,
    observations: Tensor,
    actions: Tensor,
    old: Tensor,
    advantages: Tensor,
    returns: Tensor,
    options: Any,
) -> tuple[Tensor, dict[str, float]]:
    """The loss of a minibatch and its parts; arguments (B, …) are rows of a `Rollout`, `old` its log-probabilities."""
    logits, values = model(observations)
    log_probs = log_softmax(logits, 1)
    entropy = -(log_probs.exp() * log_probs).sum(1).mean()
    change = log_probs.gather(1, actions.unsqueeze(1)).squeeze(1) - old
    ratio = change.exp()
    advantages = (advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-8)
    clipped = ratio.clamp(1 - options.clip_range, 1 + options.clip_range)
    policy = -flambeau.minimum(ratio * advantages, clipped * advantages).mean()
    value = 0.5 * ((values - returns) ** 2).mean()
    loss = policy + options.value_weight * value - options.entropy_weight * entropy
    kl = float((ratio.detach() - 1 - change.detach()).mean().item())  # Schulman's estimate, never negative
    return loss, {
        "policy_loss": float(policy.item()),
        "value_loss": float(value.item()),
        "entropy": float(entropy.item()),
        "approx_kl": kl,
    }


def improve(model: nn.Module, optimizer: Any, played: Rollout, options: PPOOptions) -> dict[str, float]:
    """The passes over a rollout; returns the means of the loss and its parts, and the number of updates."""
    flat = [array.reshape(-1, *array.shape[2:]) for array in played]
    tensors = [flambeau.from_numpy(np.ascontiguousarray(array)).to(options.device) for array in flat]
    observations, actions, old, _, advantages, returns = tensors  # the values themselves are not needed again
    count = len(flat[1])
    parameters = list(model.parameters())
    sums: dict[str, float] = {}
    updates = 0
    for _ in range(options.epochs):
        order = default_generator().permutation(count)
        kl, batches = 0.0, 0
        for start in range(0, count, options.batch_size):
            rows = flambeau.from_numpy(order[start : start + options.batch_size]).to(options.device)
            batch = (observations[rows], actions[rows], old[rows], advantages[rows], returns[rows])
            loss, parts = ppo_loss(model, *batch, options)
            if not math.isfinite(value := float(loss.item())):
                raise FlambeauError(f"the loss is {value}", "lower the learning rate (--lr)")
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, options.clip)
            optimizer.step()
            for name, part in {"loss": value, **parts}.items():
                sums[name] = sums.get(name, 0.0) + part
            kl, batches, updates = kl + parts["approx_kl"], batches + 1, updates + 1
        if options.target_kl is not None and kl / batches > options.target_kl:
            break
    return {**{name: total / updates for name, total in sums.items()}, "updates": updates}


def train(model_id: str, data: str, output: str, options: dict[str, Any], resume: bool) -> Mapping[str, Any]:
    """Train an agent on the gymnasium environment `data`; the run's folder gets weights, history, curve, checkpoints.

    Returns:
        The mean return of the last episodes of training, how many that were, and the steps.
    """
    settings = from_options(PPOOptions, options)
    folder = Path(output)
    data = data or _saved(folder).get("environment", "")
    environments = Environments(data, settings.envs)
    try:
        return _train(model_id, data, environments, folder, settings, resume)
    finally:
        environments.close()


def _train(
    model_id: str, name: str, environments: Environments, folder: Path, settings: PPOOptions, resume: bool
) -> Mapping[str, Any]:
    config = {
        "observation_size": environments.observation_size,
        "actions": environments.actions,
        "hidden": list(settings.hidden),
        "environment": name,
    }
    _prepare(folder, {"model": model_id, "environment": name, "options": to_plain(settings)}, resume)
    flambeau.manual_seed(settings.seed)
    model = create_model(model_id, **config).to(settings.device)
    optimizer = flambeau.optim.Adam(model.parameters(), lr=settings.lr, eps=1e-5)
    checkpoints = CheckpointFolder(folder / "checkpoints")
    callbacks = [HistoryWriter(folder), ReturnCurve(folder / "curve.png"), reporter()]
    run = Run(model, optimizer, None, settings.iterations, callbacks=callbacks, batches=1)
    recent: deque[float] = deque(maxlen=RECENT)
    if resume and checkpoints.exists():
        saved = checkpoints.load()
        run.load_state_dict(saved["run"])
        recent.extend(saved["recent"])
    try:
        for callback in callbacks:
            callback.on_start(run)
        observations = environments.reset(_seed(settings.seed, run.counters.epoch))
        while run.counters.epoch < settings.iterations:
            observations = _iterate(run, environments, observations, recent, settings)
            if run.counters.epoch % settings.checkpoint_every == 0:
                checkpoints.save({"run": run.state_dict(), "recent": list(recent)})
                observations = environments.reset(_seed(settings.seed, run.counters.epoch))
        run.finished = True
    finally:
        for callback in callbacks:
            callback.on_end(run)
    found = {"mean_return": float(np.mean(recent))} if recent else {}
    metrics = {**found, "episodes": len(recent), "steps": run.counters.samples}
    save_model(model, folder / "model.safetensors", model_id, config, notes={"metrics": metrics})
    return metrics


def _iterate(
    run: Run, environments: Environments, observations: np.ndarray, recent: deque[float], settings: PPOOptions
) -> np.ndarray:
    """One rollout and the passes over it; adds a row to the history."""
    began = time.monotonic()
    share = 1 - run.counters.epoch / settings.iterations if settings.anneal else 1.0
    run.optimizer.param_groups[0]["lr"] = settings.lr * share
    played, observations = collect(run.model, environments, observations, settings)
    found = improve(run.model, run.optimizer, played, settings)
    counters = run.counters
    counters.epoch += 1
    counters.step += 1
    counters.optimizer_step += int(found.pop("updates"))
    counters.samples += settings.rollout * settings.envs
    run.recent_loss = found["loss"]
    row: dict[str, Any] = {**asdict(counters), "lr": settings.lr * share, **found}
    ended = [value for value, _ in environments.finished]
    environments.finished.clear()
    recent.extend(ended)
    if recent:
        row["mean_return"] = float(np.mean(recent))
    if ended:
        row |= {"min_return": min(ended), "max_return": max(ended)}
    row["seconds"] = round(time.monotonic() - began, 3)
    run.history.append(row)
    for callback in run.callbacks:
        callback.on_step(run)
        callback.on_epoch(run, row)
    return observations


def _seed(seed: int, iteration: int) -> int:
    """The environments' seed from an iteration on: another for each, the same in every run."""
    return int(np.random.SeedSequence([seed, iteration]).generate_state(1)[0])


def _saved(folder: Path) -> dict[str, Any]:
    """The config.json of an earlier run, or nothing."""
    try:
        found = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _prepare(folder: Path, plain: dict[str, Any], resume: bool) -> None:
    """The run's folder with its config.json; a resumed run keeps its options, but for how long it is."""
    saved = _saved(folder)
    if resume and not saved:
        raise UsageError(f"{folder} holds no run to resume", "start it without resume, or check the path")
    if saved and not resume:
        raise UsageError(f"{folder} already holds a run", "resume it, or choose another output folder")
    if resume:
        then, now = saved.get("options", {}), plain["options"]
        free = {"device"} if now["anneal"] else {"device", "steps"}
        for name in now.keys() - free:
            if then.get(name, now[name]) != now[name]:
                cause = f"option {name} is {now[name]!r}, the run in {folder} was started with {then[name]!r}"
                raise UsageError(cause, f"resume with {name}={then[name]}, or start a new run in another folder")
        if saved.get("environment") != plain["environment"]:
            raise UsageError(f"the run in {folder} is one of {saved.get('environment')!r}", "resume with its --data")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FlambeauError(f"cannot create {folder}: {error.strerror}", "choose another output folder") from error
    with atomic_write(folder / "config.json", "w") as file:
        json.dump(plain, file, indent=2)
        file.write("\n")
