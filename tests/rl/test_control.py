"""Environments and playing in them, from the command line's side."""

import json
import subprocess
import sys

import numpy as np
import pytest

import flambeau
from flambeau.errors import FlambeauError, MissingExtraError, UsageError
from flambeau.plugins import create_model, save_model
from flambeau_rl.environments import Environments, make_environment, missing_dependency
from flambeau_rl.tasks import control

from .environments_for_tests import CORRIDOR, ENDLESS


def agent(folder, **config):
    flambeau.manual_seed(0)
    config = {"hidden": [8], **config}
    return str(save_model(create_model("rl/mlp_actor_critic", **config), folder, "rl/mlp_actor_critic", config))


def test_equal_seeds_give_equal_episodes():
    found = []
    for _ in range(2):
        members = Environments("CartPole-v1", 3)
        rows = [members.reset(7)]
        rows += [members.step(np.array([step % 2, 1, 0])).observations for step in range(40)]
        found.append(np.stack(rows))
    assert found[0].tobytes() == found[1].tobytes()
    assert not np.array_equal(found[0][0, 0], found[0][0, 1])  # each has episodes of its own
    assert not np.array_equal(members.reset(8), found[0][0])


def test_an_ended_environment_starts_anew_at_once():
    members = Environments(CORRIDOR, 2)
    members.reset(0)
    for _ in range(2):
        members.step(np.array([1, 0]))
    found = members.step(np.array([1, 0]))
    assert found.terminated.tolist() == [True, False]
    assert found.observations[:, 0].tolist() == [0, -3]
    assert found.final[:, 0].tolist() == [3, -3]
    assert members.finished == [(-3.0, 3)]


@pytest.mark.parametrize(
    ("name", "message", "mend"),
    [
        ("", "no environment is named", "--data CartPole-v1"),
        ("CartPol-v1", "there is no environment 'CartPol-v1'", "CartPole-v1"),
        ("Pendulum-v1", "its actions are Box", "CartPole-v1"),
        ("FrozenLake-v1", "its observations are Discrete", "CartPole-v1"),
        ("NoSuch/Pong-v5", "nothing registers 'NoSuch'", "install the package"),
    ],
)
def test_environments_that_cannot_be_used(name, message, mend):
    with pytest.raises(UsageError, match=message) as error:
        make_environment(name)
    assert mend in error.value.mend


def test_without_gymnasium_the_pip_line_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(MissingExtraError) as error:
        make_environment("CartPole-v1")
    assert error.value.mend == 'pip install "flambeau-rl[gym]"'
    assert error.value.exit_code == 3


def test_what_an_environment_needs_is_passed_on():
    error = missing_dependency("X-v0", Exception('run `pip install swig` followed by `pip install "gymnasium[box2d]"`'))
    assert error.mend == 'pip install swig && pip install "gymnasium[box2d]"'


def test_evaluate(tmp_path):
    model = agent(tmp_path, observation_size=4)
    scores = control.evaluate(model, "CartPole-v1", "test", {"episodes": 4})
    assert scores["episodes"] == 4
    assert scores["min_return"] <= scores["mean_return"] <= scores["max_return"]
    assert scores["mean_return"] == scores["mean_length"]  # one point a step
    assert control.evaluate(model, "CartPole-v1", "test", {"episodes": 4}) == scores
    drawn = control.evaluate(model, "CartPole-v1", "test", {"episodes": 4, "greedy": False})
    assert drawn != scores
    assert control.evaluate(model, "CartPole-v1", "test", {"episodes": 4, "greedy": False}) == drawn


def test_an_endless_environment_is_cut_off(tmp_path):
    scores = control.evaluate(agent(tmp_path, observation_size=1), ENDLESS, "test", {"episodes": 1, "max_steps": 50})
    assert scores["mean_length"] == 50


def test_an_agent_for_another_environment(tmp_path):
    with pytest.raises(FlambeauError, match=r"CartPole-v1 \(4 observations, 2 actions\), Acrobot-v1 has 6 and 3"):
        control.evaluate(agent(tmp_path, environment="CartPole-v1"), "Acrobot-v1", "test", {})
    with pytest.raises(UsageError, match="no option 'episods'"):
        control.evaluate(agent(tmp_path), "CartPole-v1", "test", {"episods": 3})


def test_predict_goes_on_after_an_unknown_environment(tmp_path):
    records = list(control.predict(agent(tmp_path), ["CartPole-v1", "nowhere"], None, {"episodes": 2}))
    assert records[0]["output"]["returns"] == [float(length) for length in records[0]["output"]["lengths"]]
    assert len(records[0]["output"]["returns"]) == 2
    assert "no environment 'nowhere'" in records[1]["error"]


def test_an_episode_as_gif(tmp_path):
    pytest.importorskip("pygame")
    image = pytest.importorskip("PIL.Image")
    (record,) = control.predict(agent(tmp_path), ["CartPole-v1"], str(tmp_path / "a.gif"), {"episodes": 1})
    with image.open(record["path"]) as picture:
        assert picture.n_frames >= record["output"]["lengths"][0] // 2
        assert picture.width == 300


def test_a_gif_without_pillow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError) as error:
        list(control.predict(agent(tmp_path), ["CartPole-v1"], str(tmp_path / "a.gif"), {}))
    assert "flambeau-rl[gif]" in error.value.mend


def run(folder, *arguments, code=0):
    command = [sys.executable, "-m", "flambeau", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def test_from_training_to_playing_as_typed(tmp_path):
    options = ["--set", "steps=512", "--set", "rollout=32", "--seed", 1, "--output", "run", "--json"]
    out, err = run(tmp_path, "train", "mlp_actor_critic", "--data", "CartPole-v1", *options)
    assert json.loads(out)["steps"] == 512
    assert "epoch 2/2" in err
    assert {"config.json", "history.csv", "model.safetensors"} <= {path.name for path in (tmp_path / "run").iterdir()}
    out, _ = run(tmp_path, "evaluate", "run", "--data", "CartPole-v1", "--set", "episodes=2", "--json")
    assert json.loads(out)["episodes"] == 2
    out, _ = run(tmp_path, "predict", "run", "CartPole-v1", "--json")
    assert len(json.loads(out)[0]["output"]["returns"]) == 3
    _, err = run(tmp_path, "evaluate", "run", "--data", "CartPol-v1", code=2)
    assert "did you mean 'CartPole-v1'" in err
    _, err = run(tmp_path, "train", "mlp_actor_critic", "--data", "CartPole-v1", "--set", "rolout=3", code=2)
    assert "did you mean 'rollout'" in err
