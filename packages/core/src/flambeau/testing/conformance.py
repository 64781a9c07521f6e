"""What every plugin must do, as test classes that its author subclasses. Needs pytest only to run.

class TestPlugin(PluginConformance):
    plugin = "lab"

class TestMLP(ModelConformance):
    model = "lab/mlp"
    output_shape = (5, 2)

    def inputs(self):
        return (flambeau.randn(5, 2),)

class TestTrainer(TrainerConformance):
    model, trainer = "lab/mlp", "lab/supervised"
    options = {"epochs": 2, "seed": 0}

    def data(self, folder):
        return write_some_rows(folder)
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import flambeau

from ..errors import UsageError
from ..plugins import create_model, get_model, get_trainer, load_model, manager, save_model
from ..plugins.check import problems
from ..plugins.manager import HEAVY_MODULES
from ..plugins.spec import FAMILIES

__all__ = ["ModelConformance", "PluginConformance", "TrainerConformance"]

_LISTING = """
import sys, json
from flambeau.plugins import manager
found = manager()
found.report = lambda line: None
found.load_everything()
record = found.records.get({plugin!r})
print(json.dumps([record and record.to_dict(), [name for name in {heavy!r} if name in sys.modules]]))
"""


class PluginConformance:
    """An installed plugin loads, names only what exists, and imports nothing heavy.

    Attributes:
        plugin: its entry-point name.
    """

    plugin: ClassVar[str]

    def test_it_loads_without_problems(self) -> None:
        found = manager()
        found.load_everything()
        assert self.plugin in found.records, f"no plugin {self.plugin!r} is installed: {sorted(found.records)}"
        record = found.records[self.plugin]
        assert record.status == "ok", record.problems
        assert any(found.counts(self.plugin).values()), "it registers nothing"

    def test_everything_that_it_names_exists(self) -> None:
        assert problems(manager()).get(self.plugin, []) == []

    def test_specs_survive_json(self) -> None:
        for spec in self._specs():
            assert type(spec).from_dict(json.loads(json.dumps(spec.to_dict()))) == spec

    def test_every_spec_has_a_summary(self) -> None:
        assert [spec.key for spec in self._specs() if not spec.summary] == []

    def test_listing_imports_nothing_heavy(self) -> None:
        code = _LISTING.format(plugin=self.plugin, heavy=HEAVY_MODULES)
        environment = {**os.environ, "FLAMBEAU_LOAD_PLUGINS": self.plugin}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        record, heavy = json.loads(done.stdout.splitlines()[-1])
        assert record is not None and record["status"] == "ok", record
        assert heavy == [], f"listing imports {heavy}"

    def _specs(self) -> Iterator[Any]:
        for family in FAMILIES:
            for entry in manager().entries(family):
                if entry.plugin == self.plugin:
                    yield entry.spec


class ModelConformance:
    """A registered model builds, computes, learns, and survives being saved.

    Attributes:
        model: its id.
        config: options to build it with; the smaller the better.
        output_shape: shape of the output for `inputs`, or None when it is not one Tensor.
    """

    model: ClassVar[str]
    config: ClassVar[Mapping[str, Any]] = {}
    output_shape: ClassVar[tuple[int, ...] | None] = None

    def inputs(self) -> tuple[Any, ...]:
        """Positional arguments of ``forward``: override."""
        raise NotImplementedError("say what the model takes: override inputs()")

    def loss(self, output: Any) -> Any:
        """A scalar that every parameter has an effect on. The default suits a Tensor, or containers of some."""
        # The mean square of the output minus a ramp: unlike a sum, it is not flat behind a normalisation or a softmax.
        total = 0.0
        for tensor in _tensors(output):
            ramp = flambeau.arange(tensor.numel(), dtype=tensor.dtype).reshape(tensor.shape)
            total = total + ((tensor - ramp / max(tensor.numel(), 1)) ** 2).mean()
        return total

    def build(self) -> Any:
        """The model, with the same parameters each time."""
        flambeau.manual_seed(0)
        return create_model(self.model, **self.config)

    def test_same_seed_same_parameters(self) -> None:
        first, second = self.build().state_dict(), self.build().state_dict()
        assert _bits(first) == _bits(second)

    def test_output_shape(self) -> None:
        model = self.build().eval()
        with flambeau.no_grad():
            output = model(*self.inputs())
        if self.output_shape is not None:
            assert tuple(output.shape) == tuple(self.output_shape)
        for tensor in _tensors(output):
            assert bool(flambeau.isfinite(tensor).all()), "the output of a fresh model is not finite"

    def test_one_step_down_the_gradient(self) -> None:
        flambeau.manual_seed(1)
        inputs, model = self.inputs(), self.build().train()
        before = _bits(dict(model.named_parameters()))
        loss = self.loss(model(*inputs))
        loss.backward()
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        without = [name for name, parameter in trained.items() if parameter.grad is None]
        assert not without, f"the loss does not reach {without}"
        bad = [name for name, p in trained.items() if not bool(flambeau.isfinite(p.grad).all())]
        assert not bad, f"gradients are not finite: {bad}"
        norm = math.sqrt(sum(float((p.grad**2).sum().item()) for p in trained.values()))
        assert norm > 0, "all gradients are zero"
        flambeau.optim.SGD(list(trained.values()), lr=1e-3 / norm).step()
        assert _bits(dict(model.named_parameters())) != before, "the step changed nothing"

    def test_save_and_load(self, tmp_path: Path) -> None:
        flambeau.manual_seed(2)
        model, inputs = self.build().eval(), self.inputs()
        loaded = load_model(save_model(model, tmp_path / "model.safetensors", self.model, dict(self.config)))
        assert _bits(loaded.state_dict()) == _bits(model.state_dict())
        with flambeau.no_grad():
            flambeau.manual_seed(3)
            expected = _bits(dict(enumerate(_tensors(model(*inputs)))))
            flambeau.manual_seed(3)
            assert _bits(dict(enumerate(_tensors(loaded(*inputs))))) == expected

    def test_declared_is_real_parameter_count(self) -> None:
        declared = get_model(self.model).parameters
        if declared is not None:
            real = sum(parameter.numel() for parameter in create_model(self.model).parameters())
            assert real == declared, f"{self.model} has {real} parameters, its spec says {declared}"

    def test_an_unknown_option_is_refused(self) -> None:
        _refuses(lambda: create_model(self.model, **{**self.config, "no_such_option": 1}))


class TrainerConformance:
    """A registered trainer trains, writes a checkpoint, goes on where it stopped, and repeats itself.

    Attributes:
        model: id of a model that it trains.
        trainer: its id.
        options: options of a run of a few steps, with a seed.
        longer: the same run, longer. When given, stopping after `options` and resuming must end with the same weights
            as running through.
    """

    model: ClassVar[str]
    trainer: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}
    longer: ClassVar[Mapping[str, Any] | None] = None

    def data(self, folder: Path) -> str:
        """Path of a little data, written into `folder` if need be: override."""
        raise NotImplementedError("say what it trains on: override data()")

    def run(self, folder: Path, output: Path, options: Mapping[str, Any], resume: bool = False) -> Mapping[str, Any]:
        """One call of the trainer."""
        from ..plugins import resolve

        factory = resolve(get_trainer(self.trainer).factory)
        data = self.data(folder)
        metrics: Mapping[str, Any] = factory(
            model_id=get_model(self.model).id, data=data, output=str(output), options=dict(options), resume=resume
        )
        return metrics

    def test_it_trains_and_writes_a_checkpoint(self, tmp_path: Path) -> None:
        metrics = self.run(tmp_path, tmp_path / "run", self.options)
        assert metrics, "it returns no metrics"
        for name, value in metrics.items():
            if isinstance(value, float):
                assert math.isfinite(value), f"{name} is {value}"
        json.dumps(dict(metrics))
        load_model(tmp_path / "run")

    def test_same_seed_same_weights(self, tmp_path: Path) -> None:
        self.run(tmp_path, tmp_path / "first", self.options)
        self.run(tmp_path, tmp_path / "second", self.options)
        assert _weights(tmp_path / "first") == _weights(tmp_path / "second")

    def test_resuming_equals_running_through(self, tmp_path: Path) -> None:
        if self.longer is None:
            return
        self.run(tmp_path, tmp_path / "through", self.longer)
        self.run(tmp_path, tmp_path / "stopped", self.options)
        assert _weights(tmp_path / "stopped") != _weights(tmp_path / "through"), "the longer run is not longer"
        self.run(tmp_path, tmp_path / "stopped", self.longer, resume=True)
        assert _weights(tmp_path / "stopped") == _weights(tmp_path / "through")

    def test_an_unknown_option_is_refused(self, tmp_path: Path) -> None:
        _refuses(lambda: self.run(tmp_path, tmp_path / "run", {**self.options, "no_such_option": 1}))
        assert not (tmp_path / "run").exists(), "it wrote something before it looked at its options"


def _refuses(action: Any) -> None:
    try:
        action()
    except (UsageError, TypeError) as error:
        assert "no_such_option" in str(error)
    else:
        raise AssertionError("an unknown option was accepted")


def _tensors(value: Any) -> list[Any]:
    """The floating-point Tensors in nested containers and dataclass-like outputs."""
    if hasattr(value, "backward"):
        return [value] if value.is_floating_point() else []
    if isinstance(value, Mapping):
        value = list(value.values())
    elif hasattr(value, "__dataclass_fields__"):
        value = [getattr(value, name) for name in value.__dataclass_fields__]
    return [tensor for item in value for tensor in _tensors(item)] if isinstance(value, list | tuple) else []


def _bits(tensors: Mapping[Any, Any]) -> dict[Any, tuple[tuple[int, ...], str, bytes]]:
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    return {name: (array.shape, array.dtype.name, array.tobytes()) for name, array in arrays.items()}


def _weights(run: Path) -> dict[Any, tuple[tuple[int, ...], str, bytes]]:
    return _bits(load_model(run).state_dict())
