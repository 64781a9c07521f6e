"""Evaluating and sampling, from the command line's side."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import flambeau
from flambeau.errors import FlambeauError, UsageError
from flambeau.plugins import create_model, save_model
from flambeau_generative.tasks import autoencoding, diffusion

from .conftest import write_bars
from .test_models import TINY_DDPM, TINY_VAE


def checkpoint(folder, name, config):
    flambeau.manual_seed(0)
    return str(save_model(create_model(name, **config), folder, name, config))


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("vae"), "generative/vae", TINY_VAE)


@pytest.fixture(scope="module")
def ddpm(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("ddpm"), "generative/ddpm", TINY_DDPM)


@pytest.fixture(params=["vae", "ddpm"])
def sampler(request):
    """A function that predicts, the checkpoint bound."""
    task = {"vae": autoencoding, "ddpm": diffusion}[request.param]
    model = request.getfixturevalue(request.param)
    extra = {"steps": 3} if request.param == "ddpm" else {}
    return lambda inputs, output, **options: list(task.predict(model, inputs, output, {**extra, **options}))


def test_the_same_seed_gives_the_same_bytes(sampler, tmp_path):
    for name in ("a.png", "b.png"):
        flambeau.rand(7)  # wherever the default stream is
        sampler(["3"], str(tmp_path / name), count=6, columns=3)
    sampler(["4"], str(tmp_path / "c.png"), count=6, columns=3)
    first, second, other = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert first == second
    assert first != other
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (3 * 18 + 2, 2 * 18 + 2)


def test_a_folder_for_several_seeds(sampler, tmp_path):
    records = sampler(["3", "x", "-1", "4"], str(tmp_path / "out"), count=2)
    assert [record["input"] for record in records] == ["3", "x", "-1", "4"]
    assert "whole number" in records[1]["error"]
    assert "whole number" in records[2]["error"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"seed_3.png", "seed_4.png"}
    assert records[0]["output"] == {"images": 2, "size": 8}


def test_where_samples_cannot_go(sampler, tmp_path):
    with pytest.raises(UsageError, match="need a place"):
        sampler(["3"], None)
    assert "PNG" in sampler(["3"], str(tmp_path / "a.jpg"))[0]["error"]
    (tmp_path / "file").write_text("")
    assert "cannot create" in sampler(["3", "4"], str(tmp_path / "file"))[0]["error"]
    assert "does not exist" in sampler(["3"], str(tmp_path / "no" / "a.png"))[0]["error"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("options", [{"count": 0}, {"columns": 0}, {"scale": 65}, {"count": "many"}, {"counts": 3}])
def test_wrong_grid_options(sampler, tmp_path, options):
    with pytest.raises(UsageError):
        sampler(["3"], str(tmp_path / "a.png"), **options)


@pytest.mark.parametrize("options", [{"steps": 0}, {"steps": 21}, {"eta": 2.0}])
def test_wrong_sampler_options(ddpm, tmp_path, options):
    with pytest.raises(UsageError):
        diffusion.predict(ddpm, ["3"], str(tmp_path / "a.png"), options)


def test_evaluating_twice_and_in_other_batches_is_equal(vae, ddpm, tmp_path):
    data = write_bars(tmp_path)
    for task, model in ((autoencoding, vae), (diffusion, ddpm)):
        first, second = (task.evaluate(model, data, "test", {}) for _ in range(2))
        assert first == second
        assert first["images"] == 8
        assert task.evaluate(model, data, "test", {"batch_size": 3}) == pytest.approx(first, rel=1e-5)
        with pytest.raises(UsageError, match="batch_size"):
            task.evaluate(model, data, "test", {"batch_size": 0})


def test_the_wrong_kind_of_model(vae, ddpm, tmp_path):
    with pytest.raises(FlambeauError, match="this task is for a DDPM"):
        diffusion.evaluate(vae, write_bars(tmp_path), "test", {})
    with pytest.raises(FlambeauError, match="this task is for a VAE"):
        autoencoding.predict(ddpm, ["1"], str(tmp_path / "a.png"), {})


def test_the_command_line_on_real_digits(tmp_path, mnist_folder):
    def flambeau_(*arguments):
        command = [sys.executable, "-m", "flambeau", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    run = tmp_path / "run"
    model = json.dumps({"widths": [8, 16], "hidden": 64, "latent": 8})
    trained = flambeau_(
        *("train", "generative/vae", "--data", mnist_folder, "--epochs", 1, "--batch-size", 100, "--lr", 0.004),
        *("--output", run, "--json", "--set", f"model={model}", "--set", "samples=16"),
    )
    assert trained["negative_elbo"] < 260  # a decoder that knows only the mean picture has about 204, a fresh model 543
    assert (run / "samples" / "epoch_0001.png").is_file()
    measured = flambeau_("evaluate", run, "--data", mnist_folder, "--batch-size", 100, "--json")
    assert measured == trained
    (record,) = flambeau_("predict", run, 5, "-o", tmp_path / "grid.png", "--json", "--set", "count=9")
    assert record["path"] == str(tmp_path / "grid.png")
    with Image.open(record["path"]) as image:
        assert np.asarray(image).max() > 128
