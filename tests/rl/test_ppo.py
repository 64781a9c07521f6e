"""Proximal policy optimisation: its formulas by hand, what it learns, and that it repeats itself."""

import json
import math

import numpy as np
import pytest

import flambeau
from flambeau.errors import FlambeauError, UsageError
from flambeau.plugins import load_model
from flambeau.testing import ModelConformance, PluginConformance, TrainerConformance
from flambeau_rl.environments import Environments
from flambeau_rl.models.actor_critic import ActorCriticConfig, MLPActorCritic
from flambeau_rl.tasks import control
from flambeau_rl.trainers import ppo

from .environments_for_tests import BROKEN, CORRIDOR

SMALL = {"steps": 64, "envs": 2, "rollout": 16, "batch_size": 16, "hidden": [8], "seed": 3}


class TestPlugin(PluginConformance):
    plugin = "rl"


class TestActorCritic(ModelConformance):
    model = "rl/mlp_actor_critic"
    config = {"observation_size": 3, "actions": 5, "hidden": (8,)}

    def inputs(self):
        return (flambeau.randn(6, 3),)


class TestPPO(TrainerConformance):
    model, trainer = "rl/mlp_actor_critic", "rl/ppo"
    options = {**SMALL, "checkpoint_every": 2, "anneal": False}
    longer = {**options, "steps": 128}

    def data(self, folder):
        return "CartPole-v1"

    def test_resuming_an_interrupted_run_equals_running_through(self, tmp_path, monkeypatch):
        """Ctrl-C between two checkpoints: what was done after the last one is done again."""
        options = {**SMALL, "steps": 160, "checkpoint_every": 2}
        whole = self.run(tmp_path, tmp_path / "whole", options)
        improve, calls = ppo.improve, []

        def interrupt(*args):
            calls.append(1)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return improve(*args)

        monkeypatch.setattr(ppo, "improve", interrupt)
        with pytest.raises(KeyboardInterrupt):
            self.run(tmp_path, tmp_path / "cut", options)
        monkeypatch.undo()
        assert self.run(tmp_path, tmp_path / "cut", options, resume=True) == whole
        first, second = (load_model(tmp_path / name).state_dict() for name in ("whole", "cut"))
        for name in first:
            assert first[name].numpy().tobytes() == second[name].numpy().tobytes(), name
        rows = [
            [json.loads(line) for line in (tmp_path / name / "history.jsonl").read_text().splitlines()]
            for name in ("whole", "cut")
        ]
        for row in rows[0] + rows[1]:
            del row["seconds"]
        assert rows[0] == rows[1]

    def test_a_run_is_not_resumed_with_other_options(self, tmp_path):
        self.run(tmp_path, tmp_path / "run", self.options)
        with pytest.raises(UsageError, match="gamma"):
            self.run(tmp_path, tmp_path / "run", {**self.options, "gamma": 0.5}, resume=True)
        with pytest.raises(UsageError, match="already holds a run"):
            self.run(tmp_path, tmp_path / "run", self.options)

    @pytest.mark.parametrize("option", [{"steps": 0}, {"gamma": 1.5}, {"lr": 0}, {"hidden": "wide"}])
    def test_bad_options(self, tmp_path, option):
        with pytest.raises(UsageError, match=next(iter(option))):
            self.run(tmp_path, tmp_path / "run", {**SMALL, **option})
        assert not (tmp_path / "run").exists()


def test_gae_against_its_definition():
    rng = np.random.default_rng(0)
    steps, count, gamma, lam = 7, 3, 0.9, 0.8
    rewards, values, following = rng.normal(size=(3, steps, count))
    ended = rng.random((steps, count)) < 0.3
    found = ppo.gae(rewards, values, following, ended, gamma, lam)
    for member in range(count):
        for start in range(steps):
            wanted, weight = 0.0, 1.0
            for t in range(start, steps):
                wanted += weight * (rewards[t, member] + gamma * following[t, member] - values[t, member])
                weight *= gamma * lam
                if ended[t, member]:
                    break
            assert found[start, member] == pytest.approx(wanted)


def test_gae_with_lambda_1_is_return_minus_value():
    rewards, values = np.ones((4, 1)), np.array([[3.0], [1.0], [5.0], [2.0]])
    following = np.concatenate([values[1:], [[7.0]]])
    found = ppo.gae(rewards, values, following, np.zeros((4, 1), bool), 1.0, 1.0)
    assert found[:, 0] == pytest.approx(np.array([11, 10, 9, 8]) - values[:, 0])


def test_loss_against_numpy():
    flambeau.manual_seed(0)
    model = MLPActorCritic(ActorCriticConfig(3, 4, (8,)))
    rng = np.random.default_rng(1)
    observations = rng.normal(size=(10, 3)).astype(np.float32)
    actions, old = rng.integers(0, 4, 10), rng.normal(-1.4, 0.3, 10).astype(np.float32)
    advantages, returns = rng.normal(size=(2, 10)).astype(np.float32)
    options = ppo.PPOOptions(clip_range=0.1)
    tensors = [flambeau.tensor(array) for array in (observations, actions, old, advantages, returns)]
    loss, parts = ppo.ppo_loss(model, *tensors, options)
    with flambeau.no_grad():
        logits, values = (output.numpy().astype(float) for output in model(tensors[0]))
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    ratio = np.exp(log_probs[np.arange(10), actions] - old)
    normal = (advantages - advantages.mean()) / advantages.std()
    assert (ratio > 1.1).any() and (ratio < 0.9).any()  # both sides are clipped
    policy = -np.minimum(ratio * normal, np.clip(ratio, 0.9, 1.1) * normal).mean()
    value = 0.5 * ((values - returns) ** 2).mean()
    entropy = -(np.exp(log_probs) * log_probs).sum(1).mean()
    assert parts["policy_loss"] == pytest.approx(policy, rel=1e-4)
    assert parts["value_loss"] == pytest.approx(value, rel=1e-4)
    assert parts["entropy"] == pytest.approx(entropy, rel=1e-4)
    assert float(loss.item()) == pytest.approx(policy + 0.5 * value - 0.01 * entropy, rel=1e-4)
    assert parts["approx_kl"] == pytest.approx((ratio - 1 - np.log(ratio)).mean(), rel=1e-3)


def test_actions_are_drawn_from_the_policy():
    flambeau.manual_seed(0)
    model = MLPActorCritic(ActorCriticConfig(2, 3, ()))
    with flambeau.no_grad():
        model.actor[0].bias.copy_(flambeau.tensor(np.log([0.2, 0.5, 0.3]), dtype=flambeau.float32))
    actions, log_probs, _ = ppo.act(model, np.zeros((20_000, 2), np.float32), "cpu")
    shares = np.bincount(actions, minlength=3) / len(actions)
    assert shares == pytest.approx([0.2, 0.5, 0.3], abs=0.015)
    assert log_probs == pytest.approx(np.log([0.2, 0.5, 0.3])[actions], rel=1e-4)


def test_an_episode_that_is_cut_off_is_valued_by_what_would_come():
    """Always left: the corridor is cut off after 8 steps, and the critic's value of that place is carried on."""
    flambeau.manual_seed(0)
    model = MLPActorCritic(ActorCriticConfig(1, 2, ()))
    with flambeau.no_grad():
        model.actor[0].bias.copy_(flambeau.tensor([50.0, -50.0]))
        model.critic[0].weight.fill_(1.0)  # the value of a place is the place
    options = ppo.PPOOptions(rollout=10, gamma=0.5, gae_lambda=0.0)
    environments = Environments(CORRIDOR, 1)
    played, _ = ppo.collect(model, environments, environments.reset(0), options)
    assert played.values[:, 0] == pytest.approx([0, -1, -2, -3, -4, -5, -6, -7, 0, -1])
    assert played.advantages[7, 0] == pytest.approx(-1 + 0.5 * -8 - -7)
    assert played.advantages[8, 0] == pytest.approx(-1 + 0.5 * -1 - 0)
    assert environments.finished == [(-8.0, 8)]


def test_the_end_of_an_episode_has_no_value():
    flambeau.manual_seed(0)
    model = MLPActorCritic(ActorCriticConfig(1, 2, ()))
    with flambeau.no_grad():
        model.actor[0].bias.copy_(flambeau.tensor([-50.0, 50.0]))
        model.critic[0].bias.fill_(4.0)
    environments = Environments(CORRIDOR, 1)
    options = ppo.PPOOptions(rollout=3, gamma=0.5, gae_lambda=0.0)
    played, observations = ppo.collect(model, environments, environments.reset(0), options)
    weight = float(model.critic[0].weight.item())
    assert played.advantages[2, 0] == pytest.approx(-1 - (4 + 2 * weight), rel=1e-5)
    assert observations[0, 0] == 0


def test_it_learns_the_corridor(tmp_path):
    options = {"steps": 4096, "envs": 4, "rollout": 64, "batch_size": 64, "hidden": [16], "lr": 0.01, "seed": 1}
    metrics = ppo.train("rl/mlp_actor_critic", CORRIDOR, str(tmp_path / "run"), options, False)
    assert metrics["steps"] == 4096
    scores = control.evaluate(str(tmp_path / "run"), CORRIDOR, "test", {"episodes": 3})
    assert scores["mean_return"] == -3
    rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert rows[0]["mean_return"] < -4 < rows[-1]["mean_return"]
    assert (tmp_path / "run" / "history.csv").is_file()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["environment"] == CORRIDOR


def test_learning_rate_falls_to_zero(tmp_path):
    ppo.train("rl/mlp_actor_critic", CORRIDOR, str(tmp_path / "run"), {**SMALL, "lr": 0.1}, False)
    rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert [row["lr"] for row in rows] == pytest.approx([0.1, 0.05])
    assert [row["samples"] for row in rows] == [32, 64]
    assert all(math.isfinite(row["loss"]) for row in rows)


def test_passes_end_when_the_policy_has_moved_far(tmp_path):
    rows = {}
    for name, limit in {"far": None, "near": 1e-9}.items():
        options = {**SMALL, "lr": 0.05, "target_kl": limit}
        ppo.train("rl/mlp_actor_critic", CORRIDOR, str(tmp_path / name), options, False)
        rows[name] = json.loads((tmp_path / name / "history.jsonl").read_text().splitlines()[0])
    assert rows["far"]["optimizer_step"] == 8
    assert rows["near"]["optimizer_step"] < 8


def test_a_reward_that_is_not_finite(tmp_path):
    with pytest.raises(FlambeauError, match="gave a reward that is not finite"):
        ppo.train("rl/mlp_actor_critic", BROKEN, str(tmp_path / "run"), SMALL, False)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_cartpole_is_solved(tmp_path, seed):
    ppo.train("rl/mlp_actor_critic", "CartPole-v1", str(tmp_path / "run"), {"steps": 50_000, "seed": seed}, False)
    scores = control.evaluate(str(tmp_path / "run"), "CartPole-v1", "test", {"episodes": 20})
    assert scores["mean_return"] >= 195
