"""The conformance classes find what is wrong: each broken model or trainer fails the test that is about it."""

import re

import pytest

PLUGIN = """
from flambeau.plugins import ModelSpec, TrainerSpec, hookimpl

@hookimpl
def flambeau_register_models():
    for name in ("Good", "Forgetful", "Deaf", "Restless", "NaN"):
        yield ModelSpec(id=f"zoo/{name}", factory=f"zoo:{name}", parameters=8, summary="A model.")
    yield ModelSpec(id="zoo/Miscounted", factory="zoo:Good", parameters=9, summary="A model.")
    yield ModelSpec(id="zoo/Lenient", factory="zoo:lenient", summary="A model.")

@hookimpl
def flambeau_register_trainers():
    for name in ("good", "silent", "random", "lenient", "overshooting"):
        yield TrainerSpec(id=f"zoo/{name}", factory=f"zoo:train_{name}", summary="A trainer.")
"""
MODULE = """
import numpy, os
import flambeau
from flambeau import nn
from flambeau.plugins import check_keys, create_model, load_model, save_model

class Good(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(flambeau.randn(2, 4))
    def forward(self, x):
        return x @ self.weight

class Forgetful(Good):
    def state_dict(self, *args, **kwargs):
        return {key: value * 0 for key, value in super().state_dict(*args, **kwargs).items()}

class Deaf(Good):
    def forward(self, x):
        return x @ self.weight.detach() + 0 * x.requires_grad_().sum()

class Restless(Good):
    def __init__(self):
        super().__init__()
        unseeded = numpy.random.default_rng().normal(size=(2, 4)).astype("float32")
        self.weight = nn.Parameter(flambeau.from_numpy(unseeded))

class NaN(Good):
    def forward(self, x):
        return super().forward(x) / 0 * 0

def lenient(**options):
    return Good()

def train_good(model_id, data, output, options, resume):
    check_keys(options, ["steps"], "trainer")
    model = load_model(output) if resume else create_model(model_id)
    done = 0 if not resume else 1
    with flambeau.no_grad():
        for _ in range(options["steps"] - done):
            model.weight += 1
    save_model(model, output, model_id)
    return {"loss": 0.5}

def train_silent(**kwargs):
    train_good(**kwargs)
    return {}

def train_random(model_id, data, output, options, resume):
    flambeau.manual_seed(int.from_bytes(os.urandom(4), "little"))
    return train_good(model_id, data, output, options, resume)

def train_lenient(model_id, data, output, options, resume):
    return train_good(model_id, data, output, {"steps": options["steps"]}, resume)

def train_overshooting(model_id, data, output, options, resume):
    return train_good(model_id, data, output, {**options, "steps": options["steps"] + resume}, resume)
"""
TESTS = """
import flambeau
from flambeau.testing import ModelConformance, PluginConformance, TrainerConformance

class TestPlugin(PluginConformance):
    plugin = "zoo"

class Model(ModelConformance):
    output_shape = (3, 4)
    def inputs(self):
        flambeau.manual_seed(5)
        return (flambeau.randn(3, 2),)

class Trainer(TrainerConformance):
    model, options, longer = "zoo/Good", {"steps": 1}, {"steps": 3}
    def data(self, folder):
        return ""
    def run(self, *args, **kwargs):
        flambeau.manual_seed(7)
        return super().run(*args, **kwargs)

for name in ("Good", "Forgetful", "Deaf", "Restless", "NaN", "Miscounted", "Lenient"):
    globals()[f"Test{name}"] = type(f"Test{name}", (Model,), {"model": f"zoo/{name}"})
for name in ("good", "silent", "random", "lenient", "overshooting"):
    globals()[f"TestTrainer_{name}"] = type(f"TestTrainer_{name}", (Trainer,), {"trainer": f"zoo/{name}"})

class TestWrongShape(Model):
    model, output_shape = "zoo/Good", (3, 5)
"""
EXPECTED = {
    "TestForgetful::test_save_and_load",
    "TestDeaf::test_one_step_down_the_gradient",
    "TestRestless::test_same_seed_same_parameters",
    "TestNaN::test_output_shape",
    "TestNaN::test_one_step_down_the_gradient",
    "TestMiscounted::test_declared_is_real_parameter_count",
    "TestLenient::test_an_unknown_option_is_refused",
    "TestTrainer_silent::test_it_trains_and_writes_a_checkpoint",
    "TestTrainer_random::test_same_seed_same_weights",
    "TestTrainer_random::test_resuming_equals_running_through",
    "TestTrainer_lenient::test_an_unknown_option_is_refused",
    "TestTrainer_overshooting::test_resuming_equals_running_through",
    "TestWrongShape::test_output_shape",
}


def failures(site, tmp_path, tests):
    (tmp_path / "test_zoo.py").write_text(tests)
    done = site.python("-m", "pytest", "-q", "-rf", "--tb=no", "-p", "no:cacheprovider", "test_zoo.py", cwd=tmp_path)
    return set(re.findall(r"^FAILED test_zoo\.py::(\S+)", done.stdout, re.M)), done.stdout


def test_models_and_trainers(site, tmp_path):
    (site.folder / "zoo.py").write_text(MODULE)
    site.add("zoo", "zoo_plugin", PLUGIN)
    found, text = failures(site, tmp_path, TESTS)
    assert found == EXPECTED, text


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import numpy\n" + PLUGIN, {"listing_imports_nothing_heavy", "everything_that_it_names_exists"}),
        (PLUGIN.replace("zoo:train", "zoo:strain"), {"everything_that_it_names_exists"}),
        (PLUGIN.replace("A model.", ""), {"every_spec_has_a_summary"}),
        ("FLAMBEAU_API = 99\n", {"it_loads_without_problems", "listing_imports_nothing_heavy"}),
        ("x = 1\n", {"it_loads_without_problems"}),
    ],
)
def test_plugins(site, tmp_path, source, expected):
    (site.folder / "zoo.py").write_text(MODULE)
    site.add("zoo", "zoo_plugin", source)
    tests = 'from flambeau.testing import PluginConformance\nclass TestPlugin(PluginConformance):\n    plugin = "zoo"\n'
    found, text = failures(site, tmp_path, tests)
    assert {name.removeprefix("TestPlugin::test_") for name in found} == expected, text
