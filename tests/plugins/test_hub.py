"""from_pretrained and save_pretrained: dispatch by config.json, key maps, overrides, reports, install hints."""

from __future__ import annotations

import json
import sys
import types
from dataclasses import dataclass

import pytest

import flambeau
from flambeau import nn, plugins
from flambeau.errors import EXIT_MISSING, FlambeauError, UsageError
from flambeau.io import CheckpointError, from_pretrained, save_pretrained
from flambeau.plugins import (
    AmbiguousNameError,
    ModelSpec,
    NotRegisteredError,
    PluginManager,
    SpecError,
    create_model,
    hookimpl,
    load_model,
    model_for_architecture,
)

HOME = "a_module_of_the_hub_lab"


@dataclass(frozen=True)
class NetConfig:
    width: int = 3
    names: tuple[str, ...] = ()


class Net(nn.Module):
    """A layer with a head that shares its weights."""

    def __init__(self, config: NetConfig):
        super().__init__()
        self.config = config
        self.layer = nn.Linear(2, config.width)
        self.head = nn.Linear(2, config.width, bias=False)
        self.head.weight = self.layer.weight


class Plain(nn.Module):
    def __init__(self, width: int = 3):
        super().__init__()
        self.layer = nn.Linear(2, width)


def options(config):
    return {"width": config["hidden_size"]}


def rename(state, config):
    return {key.replace("base.dense", "layer"): value for key, value in state.items() if "position_ids" not in key}


@pytest.fixture
def lab(monkeypatch):
    """A plugin 'lab', the only one."""

    class Lab:
        @hookimpl
        def flambeau_register_models(self):
            yield ModelSpec(
                id="lab/net",
                factory=f"{HOME}:Net",
                config=f"{HOME}:NetConfig",
                architectures=("NetForTests",),
                model_type="net",
                from_config=f"{HOME}:options",
                map_state=f"{HOME}:rename",
            )
            yield ModelSpec(id="lab/plain", factory=f"{HOME}:Plain", model_type="plain")
            yield ModelSpec(id="lab/twin", factory=f"{HOME}:Plain", architectures=("Twin",))
            yield ModelSpec(id="lab/other_twin", factory=f"{HOME}:Net", architectures=("Twin", "Gone"))

    for kind in (Net, NetConfig, Plain):
        monkeypatch.setattr(kind, "__module__", HOME)
    parts = dict(Net=Net, NetConfig=NetConfig, Plain=Plain, options=options, rename=rename)
    monkeypatch.setitem(sys.modules, HOME, types.SimpleNamespace(**parts))
    manager = PluginManager(discover=False)
    manager.register(Lab(), "lab", "example-lab")
    monkeypatch.setattr(plugins, "_manager", manager)


def folder_of(path, config, state=None, name="model.safetensors"):
    (path / "config.json").write_text(json.dumps(config))
    if state is not None:
        flambeau.save(state, path / name)
    return path


STATE = {"base.dense.weight": flambeau.ones(4, 2), "base.dense.bias": flambeau.zeros(4)}
CONFIG = {"architectures": ["NetForTests"], "model_type": "net", "hidden_size": 4}


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_from_elsewhere(lab, tmp_path, name):
    state = {**STATE, "position_ids": flambeau.arange(3)}
    model = from_pretrained(folder_of(tmp_path, CONFIG, state, name))
    assert type(model) is Net and not model.training
    assert model.layer.weight.tolist() == model.head.weight.tolist() == [[1, 1]] * 4


def test_dispatch(lab):
    assert model_for_architecture({"model_type": "net"}).id == "lab/net"
    assert model_for_architecture({"architecture": "NetForTests"}).id == "lab/net"  # timm's spelling
    assert model_for_architecture({"architectures": ["Gone"], "model_type": "net"}).id == "lab/other_twin"
    with pytest.raises(AmbiguousNameError, match=r"lab/other_twin, lab/twin") as caught:
        model_for_architecture({"architectures": ["Twin"]})
    assert "model=" in caught.value.mend
    for strange in ({"architectures": "NetForTests"}, {"architectures": [3, None]}, {"model_type": ["net"]}, {}):
        with pytest.raises(NotRegisteredError, match="not named"):
            model_for_architecture(strange)


def test_hints(lab):
    with pytest.raises(NotRegisteredError, match="BertModel; it comes from flambeau-nlp") as caught:
        model_for_architecture({"architectures": ["BertModel"], "model_type": "bert"})
    assert caught.value.mend == "pip install flambeau-nlp" and caught.value.exit_code == EXIT_MISSING
    with pytest.raises(NotRegisteredError) as caught:
        model_for_architecture({"model_type": "vit"})
    assert caught.value.mend == "pip install flambeau-vision" and caught.value.missing_package
    with pytest.raises(NotRegisteredError, match="loads architecture Strange") as caught:
        model_for_architecture({"architectures": ["Strange"], "model_type": "strange"})
    assert "net (lab/net)" in caught.value.mend and not caught.value.missing_package


def test_no_hint_to_install_what_is_installed(lab):
    class Nlp:
        pass

    plugins.manager().register(Nlp(), "nlp", "flambeau-nlp")
    with pytest.raises(NotRegisteredError) as caught:
        model_for_architecture({"model_type": "bert"})
    assert "pip install" not in caught.value.mend


def test_which_model_may_be_said(lab, tmp_path):
    folder_of(tmp_path, {"architectures": ["Twin"], "width": 5}, Plain(5).state_dict())
    with pytest.raises(AmbiguousNameError):
        from_pretrained(tmp_path)
    assert from_pretrained(tmp_path, model="lab/twin").layer.weight.shape == (5, 2)  # options in common are taken


def test_overrides(lab, tmp_path):
    folder_of(tmp_path, CONFIG, STATE)
    model = from_pretrained(tmp_path, names=("a", "b"))
    assert model.config.names == ("a", "b")
    with pytest.raises(CheckpointError, match=r"size mismatch for layer\.weight"):
        from_pretrained(tmp_path, hidden_size=7)
    with pytest.raises(UsageError, match="no option 'hiden_size'"):
        from_pretrained(tmp_path, hiden_size=7)


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_dtypes(lab, tmp_path, key):
    folder_of(tmp_path, {**CONFIG, key: "float16"}, STATE)
    assert from_pretrained(tmp_path).layer.weight.dtype is flambeau.float16
    assert from_pretrained(tmp_path, dtype=flambeau.float64).layer.weight.dtype is flambeau.float64
    folder_of(tmp_path, {**CONFIG, key: "torch.bfloat16"})
    assert from_pretrained(tmp_path).layer.weight.dtype is flambeau.bfloat16
    for bad in ("float17", 3, "int64"):
        folder_of(tmp_path, {**CONFIG, key: bad})
        with pytest.raises(CheckpointError, match="dtype"):
            from_pretrained(tmp_path)


def test_all_that_does_not_fit_is_named(lab, tmp_path):
    names = [f"extra.{number}" for number in range(40)]
    extra = {name: flambeau.ones(1) for name in names}
    folder_of(tmp_path, CONFIG, {"base.dense.weight": flambeau.ones(4, 2), **extra})
    with pytest.raises(CheckpointError) as caught:
        from_pretrained(tmp_path)
    text = str(caught.value)
    assert "1 missing (layer.bias)" in text and "40 unexpected" in text and all(name in text for name in names)
    assert "head.weight" not in text  # it is layer.weight
    assert from_pretrained(tmp_path, strict=False).layer.weight.tolist() == [[1, 1]] * 4


def test_round_trip(lab, tmp_path):
    model = create_model("lab/net", width=50, names=("a",))
    assert save_pretrained(model, tmp_path / "new", max_shard_size="300B") == tmp_path / "new"
    assert (tmp_path / "new" / "model.safetensors.index.json").exists()
    back = from_pretrained(tmp_path / "new")
    assert back.config.width == 50 and back.layer.weight.tolist() == model.layer.weight.tolist()
    with pytest.raises(UsageError):
        from_pretrained(tmp_path / "new", widht=3)
    save_pretrained(model.half(), tmp_path / "new")
    assert from_pretrained(tmp_path / "new").layer.weight.dtype is flambeau.float16
    assert load_model(tmp_path / "new").config.width == 50  # one file: an ordinary checkpoint too


def test_what_save_cannot_tell(lab, tmp_path):
    with pytest.raises(FlambeauError, match="Linear is not registered") as caught:
        save_pretrained(nn.Linear(2, 2), tmp_path)
    assert "pass its id" in caught.value.mend
    with pytest.raises(FlambeauError, match="Plain is registered as 2 models"):
        save_pretrained(Plain(), tmp_path)
    with pytest.raises(FlambeauError, match="JSON"):
        save_pretrained(Plain(), tmp_path, "lab/plain", {"width": object()})
    with pytest.raises(FlambeauError, match="no dict"):
        save_pretrained(Plain(), tmp_path, "lab/plain", 3)
    assert list(tmp_path.iterdir()) == []
    save_pretrained(Plain(4), tmp_path, "lab/plain", {"width": 4})
    assert from_pretrained(tmp_path).layer.weight.shape == (4, 2)


def test_the_package_of_an_own_folder_is_missing(lab, tmp_path):
    own = {"model": "spiral/rbf", "config": {}, "plugin": "flambeau-example-spiral"}
    with pytest.raises(NotRegisteredError) as caught:
        from_pretrained(folder_of(tmp_path, {"flambeau": own}))
    assert caught.value.mend == "pip install flambeau-example-spiral"


def test_damaged_folders(lab, tmp_path):
    with pytest.raises(FlambeauError, match="not a folder"):
        from_pretrained(tmp_path / "none")
    with pytest.raises(FlambeauError, match=r"no config\.json"):
        from_pretrained(tmp_path)
    for content in ("", "[]", "[" * 99999, "{", "\0"):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
            from_pretrained(tmp_path)
    for own in ({"model": "lab/plain", "config": []}, {"model": "lab/plain", "config": "x"}):
        with pytest.raises(CheckpointError, match="no JSON object"):
            from_pretrained(folder_of(tmp_path, {"flambeau": own}))
    with pytest.raises(FlambeauError, match=r"no model\.safetensors and no pytorch_model\.bin"):
        from_pretrained(folder_of(tmp_path, CONFIG))
    folder_of(tmp_path, CONFIG, {"epoch": 3}, "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="no state dict"):
        from_pretrained(tmp_path)
    folder_of(tmp_path, CONFIG, {"epoch": 3, "state_dict": dict(STATE)}, "pytorch_model.bin")
    assert from_pretrained(tmp_path).layer.bias.tolist() == [0] * 4


@pytest.mark.parametrize("field", ["from_config", "map_state"])
def test_spec_fields_are_checked(field):
    with pytest.raises(SpecError, match=field):
        ModelSpec(id="lab/x", factory="a:b", **{field: "not a path"})
    with pytest.raises(SpecError, match="model_type"):
        ModelSpec(id="lab/x", factory="a:b", model_type=3)
    spec = ModelSpec(id="lab/x", factory="a:b", **{field: "a.b:c"})
    assert ModelSpec.from_dict(spec.to_dict()) == spec
