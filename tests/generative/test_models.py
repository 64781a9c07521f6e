"""The registered models and trainers: the checks that every plugin must pass, closed forms, and learning."""

import math

import numpy as np
import pytest

import flambeau
from flambeau.data import DataLoader
from flambeau.errors import UsageError
from flambeau.plugins import create_model, load_model, resolve
from flambeau.random import Generator
from flambeau.testing import ModelConformance, PluginConformance, TrainerConformance
from flambeau_generative.data import Images
from flambeau_generative.models.ddpm import DDPM, DDPMConfig, alpha_bars
from flambeau_generative.models.vae import VAE, VAEConfig, elbo_terms, kl_divergence
from flambeau_generative.tasks import diffusion

from .conftest import bars, write_bars, write_idx

TINY_VAE = {"size": 8, "widths": [8, 16], "hidden": 32, "latent": 2}
TINY_DDPM = {"size": 8, "widths": [8, 16], "steps": 20}


class TestPlugin(PluginConformance):
    plugin = "generative"


class TestVAE(ModelConformance):
    model, config = "generative/vae", TINY_VAE

    def inputs(self):
        return (flambeau.rand(3, 1, 8, 8),)


class TestColourDDPM(ModelConformance):
    model, config, output_shape = "generative/ddpm", {**TINY_DDPM, "channels": 3}, (3, 3, 8, 8)

    def inputs(self):
        return flambeau.randn(3, 3, 8, 8), flambeau.tensor([0, 7, 19])


class TestELBOTrainer(TrainerConformance):
    model, trainer = "generative/vae", "generative/elbo"
    options = {"epochs": 2, "batch_size": 8, "samples": 4, "model": TINY_VAE}

    def data(self, folder):
        return write_bars(folder)


class TestDenoisingTrainer(TrainerConformance):
    model, trainer = "generative/ddpm", "generative/denoising"
    options = {"epochs": 2, "batch_size": 8, "samples": 0, "model": TINY_DDPM}

    def data(self, folder):
        return write_bars(folder)


# --- the variational autoencoder --------------------------------------------------------------------------------------


def test_kl_equals_the_integral():
    grid = np.linspace(-12, 12, 20001)
    for mean, log_variance in [(0.0, 0.0), (1.3, -0.7), (-0.4, 1.1)]:
        spread = math.exp(log_variance)
        q = np.exp(-((grid - mean) ** 2) / (2 * spread)) / math.sqrt(2 * math.pi * spread)
        log_ratio = -((grid - mean) ** 2) / (2 * spread) - 0.5 * log_variance + grid**2 / 2
        wanted = np.trapezoid(q * log_ratio, grid)
        found = kl_divergence(flambeau.tensor([[mean]]), flambeau.tensor([[log_variance]])).item()
        assert found == pytest.approx(wanted, abs=1e-5)


def test_reconstruction_is_the_bernoulli_log_likelihood():
    rng = np.random.default_rng(0)
    logits, images = rng.normal(0, 3, (4, 1, 5, 5)), rng.integers(0, 2, (4, 1, 5, 5))
    p = 1 / (1 + np.exp(-logits))
    wanted = -np.log(np.where(images, p, 1 - p)).sum((1, 2, 3))
    zeros = flambeau.zeros(4, 2)
    found, kl = elbo_terms((flambeau.tensor(logits), zeros, zeros), flambeau.tensor(images.astype(np.float64)))
    assert found.numpy() == pytest.approx(wanted)
    assert (kl == 0).all()


def test_the_elbo_is_a_bound_and_its_gap_is_the_kl_to_the_posterior():
    """With one latent dimension the marginal likelihood and the posterior are integrals on a line."""
    flambeau.manual_seed(0)
    model = VAE(VAEConfig(**{**TINY_VAE, "latent": 1})).eval()
    image = flambeau.tensor(bars(1)[:, None].astype(np.float32) / 255)
    grid = np.linspace(-8, 8, 2001)
    with flambeau.no_grad():
        mean, log_variance = (value.item() for value in model.encode(image))
        logits = model.decode(flambeau.tensor(grid[:, None].astype(np.float32)))
        errors, _ = elbo_terms((logits, flambeau.zeros(2001, 1), flambeau.zeros(2001, 1)), image.expand(2001, 1, 8, 8))
    likelihood = -errors.numpy().astype(np.float64)
    log_prior = -(grid**2) / 2 - 0.5 * math.log(2 * math.pi)
    log_q = -((grid - mean) ** 2) / (2 * math.exp(log_variance)) - 0.5 * (log_variance + math.log(2 * math.pi))
    log_marginal = np.log(np.trapezoid(np.exp(likelihood + log_prior), grid))
    gap = np.trapezoid(np.exp(log_q) * (log_q - (likelihood + log_prior - log_marginal)), grid)
    with flambeau.no_grad():
        many = image.expand(4000, 1, 8, 8)
        noise = flambeau.randn(4000, 1, generator=Generator().manual_seed(1))
        reconstruction, kl = elbo_terms(model(many, noise), many)
    elbo = -(reconstruction + kl).mean().item()
    assert elbo < log_marginal
    assert log_marginal - elbo == pytest.approx(gap, abs=0.02)


def test_beta_weighs_the_kl_term(tmp_path):
    train = resolve("flambeau_generative.trainers.elbo:train")
    data = write_bars(tmp_path, 400)
    options = {**TestELBOTrainer.options, "epochs": 2, "lr": 1e-2, "samples": 0}
    found = [train("generative/vae", data, str(tmp_path / f"{b}"), {**options, "beta": b}, False) for b in (0.1, 1, 8)]
    assert found[0]["kl"] > found[1]["kl"] > found[2]["kl"]


def test_a_vae_learns_bars(tmp_path):
    train = resolve("flambeau_generative.trainers.elbo:train")
    data = write_bars(tmp_path, 1000)
    options = {**TestELBOTrainer.options, "epochs": 6, "lr": 1e-2, "batch_size": 16, "sample_every": 3}
    scores = train("generative/vae", data, str(tmp_path / "run"), options, False)
    mean = np.clip(bars(1000).mean(0) / 255, 0.01, 0.99)
    no_code = -(mean * np.log(mean) + (1 - mean) * np.log(1 - mean)).sum()  # the best without a code
    assert scores["negative_elbo"] < no_code / 3
    assert scores["negative_elbo"] > math.log(10)  # the entropy of ten equally likely pictures
    assert scores["negative_elbo"] == pytest.approx(scores["reconstruction"] + scores["kl"])
    files = {path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*.png")}
    assert {"samples.png", "samples/epoch_0003.png", "samples/epoch_0006.png"} == files - {"curve.png"}
    assert load_model(tmp_path / "run").config.size == 8


# --- diffusion --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [10, 100, 1000])
def test_the_schedule_falls_from_one_to_nearly_nothing(schedule, steps):
    kept = alpha_bars(schedule, steps)
    assert kept.shape == (steps,)
    assert (np.diff(kept) < 0).all()
    assert 0.9 < kept[0] < 1
    assert 0 < kept[-1] < 0.01


def test_the_linear_schedule_is_that_of_the_paper():
    betas = np.linspace(1e-4, 0.02, 1000)
    assert alpha_bars("linear", 1000) == pytest.approx(np.cumprod(1 - betas), rel=1e-12)


def test_the_cosine_schedule_is_that_of_the_paper():
    t = np.arange(1, 900)
    curve = np.cos((np.r_[0, t] / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    assert alpha_bars("cosine", 1000)[:899] == pytest.approx(curve[1:] / curve[0], rel=1e-9)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_noised_pictures_have_the_variance_of_the_schedule(schedule):
    model = DDPM(DDPMConfig(**{**TINY_DDPM, "steps": 1000}, schedule=schedule))
    rng = np.random.default_rng(0)
    for step in (0, 250, 600, 999):
        clean = flambeau.tensor(rng.choice([-1.0, 1.0], (500, 1, 8, 8)).astype(np.float32))
        noise = flambeau.tensor(rng.normal(size=(500, 1, 8, 8)).astype(np.float32))
        noised = model.diffuse(clean, flambeau.full((500,), step), noise).numpy()
        assert noised.var() == pytest.approx(1, abs=0.03)  # the picture's variance is 1 and stays so
        share = (noised * clean.numpy()).mean()
        assert share == pytest.approx(math.sqrt(alpha_bars(schedule, 1000)[step]), abs=0.02)


def test_one_ddim_step_from_the_true_noise_gives_the_picture():
    """A network that knows the answer: the sampler inverts the noising."""

    class Oracle(DDPM):
        def forward(self, x, t):
            kept = float(self.alpha_bars[int(t[0].item())])
            return (x - math.sqrt(kept) * self.picture) / math.sqrt(1 - kept)

    model = Oracle(DDPMConfig(**TINY_DDPM))
    model.picture = flambeau.tensor(bars(2)[:, None].astype(np.float32) / 255) * 2 - 1
    for steps in (1, 5, 20):
        samples = model.sample(2, Generator().manual_seed(0), steps=steps)
        assert samples.numpy() == pytest.approx(bars(2)[:, None] / 255, abs=1e-3)


def test_sampling_repeats_itself_and_follows_the_seed():
    flambeau.manual_seed(0)
    model = DDPM(DDPMConfig(**TINY_DDPM)).eval()
    flambeau.nn.init.normal_(model.head.weight, std=0.1)

    def draw(seed, **options):
        return model.sample(3, Generator().manual_seed(seed), steps=5, **options).numpy()

    flambeau.manual_seed(5)
    first = draw(1)
    before = flambeau.rand(3).tolist()
    flambeau.manual_seed(5)
    assert flambeau.rand(3).tolist() == before  # the default stream is not touched
    assert np.array_equal(draw(1), first)
    assert not np.array_equal(draw(2), first)
    assert np.array_equal(draw(1, eta=1.0), draw(1, eta=1.0))
    assert not np.array_equal(draw(1, eta=1.0), first)
    assert first.min() >= 0
    assert first.max() <= 1
    with pytest.raises(ValueError, match="between 1 and 20"):
        model.sample(1, steps=21)


def test_the_step_matters():
    flambeau.manual_seed(0)
    model = DDPM(DDPMConfig(**TINY_DDPM)).eval()
    flambeau.nn.init.normal_(model.head.weight, std=0.1)
    for block in model.down:
        flambeau.nn.init.normal_(block.conv2.weight, std=0.1)
    x = flambeau.randn(1, 1, 8, 8).expand(2, 1, 8, 8)
    with flambeau.no_grad():
        early, late = model(x, flambeau.tensor([0, 19])).numpy()
    assert not np.allclose(early, late)


def test_a_diffusion_model_learns_two_kinds_of_pictures(tmp_path):
    """A third of the pictures is white, the others are black: so must the samples be, nothing between."""
    train = resolve("flambeau_generative.trainers.denoising:train")
    pixels = np.zeros((400, 4, 4), np.uint8)
    pixels[::3] = 255
    write_idx(tmp_path / "train-images-idx3-ubyte", pixels)
    config = {"widths": [16], "steps": 20}
    options = {"epochs": 5, "batch_size": 16, "lr": 1e-2, "ema": 0.95, "samples": 4, "sample_every": 5, "model": config}
    scores = train("generative/ddpm", str(tmp_path), str(tmp_path / "run"), options, False)
    fresh = diffusion.score(create_model("generative/ddpm", **config, size=4), Images(pixels[:, None]), 64)
    assert fresh["denoising_loss"] == pytest.approx(1, abs=0.1)  # it says that there is no noise
    assert scores["denoising_loss"] < 0.2
    samples = load_model(tmp_path / "run").sample(100, Generator().manual_seed(0), steps=20).numpy()
    grey = samples.mean((1, 2, 3))
    assert np.median(np.minimum(grey, 1 - grey)) < 0.06
    assert 0.15 < (grey > 0.5).mean() < 0.55
    assert (tmp_path / "run" / "samples" / "epoch_0005.png").is_file()


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, config, cause",
    [
        ("vae", {"size": 30}, "multiple of 4"),
        ("vae", {"latent": 0}, "at least 1"),
        ("vae", {"widths": [1, 2, 3]}, "two numbers"),
        ("ddpm", {"size": 30}, "multiple of 4"),
        ("ddpm", {"widths": [12]}, "multiples of groups"),
        ("ddpm", {"widths": []}, "multiples of groups"),
        ("ddpm", {"steps": 1}, "at least 2"),
        ("ddpm", {"schedule": "square"}, "'cosine' or 'linear'"),
    ],
)
def test_wrong_sizes_are_refused(name, config, cause):
    with pytest.raises(ValueError, match=cause):
        create_model(f"generative/{name}", **config)


@pytest.mark.parametrize(
    "options, cause",
    [
        ({"model": {"size": 9}}, "multiple of 4"),
        ({"model": {"size": "big"}}, "whole number"),
        ({"model": {"channels": 2}}, "channels"),
        ({"model": {"colour": True}}, "colour"),
        ({"beta": -1}, "negative"),
        ({"samples": -1}, "negative"),
        ({"batch_size": 64}, "do not fill a batch"),
    ],
)
def test_wrong_options_of_a_run_leave_no_folder(tmp_path, options, cause):
    train = resolve("flambeau_generative.trainers.elbo:train")
    with pytest.raises(UsageError, match=cause):
        train("generative/vae", write_bars(tmp_path), str(tmp_path / "run"), {"batch_size": 8, **options}, False)
    assert not (tmp_path / "run").exists()


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path, monkeypatch):
    from flambeau_generative.trainers import common

    train = resolve("flambeau_generative.trainers.denoising:train")
    data, options = write_bars(tmp_path), {**TestDenoisingTrainer.options, "epochs": 3}
    whole = train("generative/ddpm", data, str(tmp_path / "whole"), options, False)

    def stop(self, run, row):
        if run.counters.epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(common.SampleGrids, "on_epoch", stop)
        train("generative/ddpm", data, str(tmp_path / "cut"), options, False)
    assert train("generative/ddpm", data, str(tmp_path / "cut"), options, True) == whole
    first, second = (load_model(tmp_path / name).state_dict() for name in ("whole", "cut"))
    assert all(first[key].numpy().tobytes() == second[key].numpy().tobytes() for key in first)


def test_batches_of_the_trainers_draw_their_own_noise():
    model = DDPM(DDPMConfig(**TINY_DDPM)).eval()
    batch = next(iter(DataLoader(Images(bars()[:, None]), 8)))
    _, first = diffusion.denoise(model, batch)
    _, second = diffusion.denoise(model, batch)
    assert first.shape == batch.shape
    assert not np.array_equal(first.numpy(), second.numpy())
