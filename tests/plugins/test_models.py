"""Building, saving and loading models by name; datasets, architectures and weights."""

import sys
import types

import pytest

import flambeau
from flambeau import nn, plugins
from flambeau.errors import EXIT_MISSING, FlambeauError, MissingExtraError, UsageError
from flambeau.plugins import (
    DatasetSpec,
    ModelSpec,
    NotRegisteredError,
    PluginError,
    PluginManager,
    create_dataset,
    create_model,
    find_checkpoint,
    hookimpl,
    load_model,
    missing_plugin_hint,
    model_for_architecture,
    resolve_weights,
    save_model,
)

HOME = "a_module_of_lab"  # where the import paths of the specs below lead


class Net(nn.Module):
    def __init__(self, width: int = 3):
        super().__init__()
        self.layer = nn.Linear(2, width)

    def forward(self, x):
        return self.layer(x)


class Rows:
    def __init__(self, root, split, *, shuffle=False):
        self.root, self.split, self.shuffle = root, split, shuffle


@pytest.fixture
def lab(monkeypatch):
    """A plugin 'lab', the only one."""
    weights = []

    class Lab:
        @hookimpl
        def flambeau_register_models(self):
            factory = f"{HOME}:Net"
            yield ModelSpec(id="lab/net", factory=factory, architectures=("NetModel",), model_type="net")
            yield ModelSpec(id="lab/trained", factory=factory, weights=("lab://trained",))
            yield ModelSpec(id="lab/gone", factory="lab_package_that_is_gone.models:Net")
            yield ModelSpec(id="lab/renamed", factory=f"{HOME}:NoSuchNet")

        @hookimpl
        def flambeau_register_datasets(self):
            yield DatasetSpec(id="lab/rows", factory=f"{HOME}:Rows", splits=("train", "test"))

        @hookimpl
        def flambeau_resolve_weights(self, uri, cache_dir):
            return weights[0] if uri == "lab://trained" else None

    monkeypatch.setitem(sys.modules, HOME, types.SimpleNamespace(Net=Net, Rows=Rows))
    manager = PluginManager(discover=False)
    manager.register(Lab(), "lab", "example-lab")
    monkeypatch.setattr(plugins, "_manager", manager)
    return weights


def test_create(lab):
    assert create_model("lab/net", width=5).layer.weight.shape == (5, 2)
    assert create_model("net").layer.weight.shape == (3, 2)
    with pytest.raises(UsageError, match="model 'lab/net' has no option 'widht'") as error:
        create_model("lab/net", widht=5)
    assert error.value.mend == "did you mean 'width'?"


def test_code_that_is_not_there(lab):
    with pytest.raises(PluginError, match=r"plugin 'lab' \(example-lab\) names 'lab_package_that_is_gone"):
        create_model("lab/gone")
    with pytest.raises(PluginError, match="no attribute 'NoSuchNet'") as error:
        create_model("lab/renamed")
    assert error.value.mend == "upgrade or reinstall example-lab"


@pytest.mark.parametrize("target", ["run", "run/weights.safetensors", "model.safetensors"])
def test_there_and_back(lab, tmp_path, target):
    model = create_model("net", width=4)
    (tmp_path / "run").mkdir()
    file = save_model(model, tmp_path / target, "net", {"width": 4}, notes={"classes": ["a", "b"]})
    assert file.is_file() and file.suffix == ".safetensors"
    loaded = load_model(file)
    assert not loaded.training
    assert (loaded.layer.weight == model.layer.weight).all()
    found, spec = find_checkpoint(file)
    assert (found, spec.id) == (file, "lab/net")
    card = flambeau.io.read_model_card(file)
    assert (card.model, card.config, card.plugin) == ("lab/net", {"width": 4}, "example-lab")
    assert card.notes == {"classes": ["a", "b"]}


def test_weights_by_name(lab, tmp_path):
    with pytest.raises(FlambeauError, match="model 'lab/net' has no trained weights"):
        load_model("lab/net")
    lab.append(str(save_model(create_model("trained"), tmp_path, "trained")))
    assert isinstance(load_model("trained"), Net)
    lab[0] = str(tmp_path / "not there")
    with pytest.raises(FlambeauError, match="weights 'lab://trained' are not there"):
        load_model("trained")


def test_a_run_called_like_a_model_wins(lab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model(create_model("net", width=7), "lab/net", "net", {"width": 7})
    assert load_model("lab/net").layer.weight.shape == (7, 2)


@pytest.mark.parametrize("name", ["nowhere.safetensors", "./nowhere", "/nowhere/model"])
def test_a_path_that_does_not_exist(lab, name):
    with pytest.raises(FlambeauError, match="does not exist"):
        load_model(name)


def test_a_file_that_names_no_model(lab, tmp_path):
    flambeau.save(create_model("net").state_dict(), tmp_path / "plain.safetensors")
    with pytest.raises(FlambeauError, match="does not say which model it holds"):
        load_model(tmp_path / "plain.safetensors")


def test_a_checkpoint_of_a_model_that_nobody_registers(lab, tmp_path):
    state = create_model("net").state_dict()
    for model, plugin, mend in (
        ("spiral/rbf", "example-spiral", "pip install example-spiral"),
        ("vision/unet", "", "pip install flambeau-vision"),
        ("lab/nte", "example-lab", "did you mean 'lab/net'?"),
    ):
        flambeau.io.save_model_state(state, tmp_path / "model.safetensors", model=model, plugin=plugin)
        with pytest.raises(NotRegisteredError) as error:
            load_model(tmp_path)
        assert error.value.mend == mend
        assert missing_plugin_hint(model, plugin or None).mend == mend


def test_datasets(lab, tmp_path):
    rows = create_dataset("rows", root=str(tmp_path), split="test", shuffle=True)
    assert (rows.root, rows.split, rows.shuffle) == (str(tmp_path), "test", True)
    with pytest.raises(UsageError, match="has no option 'tset'"):
        create_dataset("rows", root="", split="tset")


def test_architectures(lab):
    assert model_for_architecture({"architectures": ["Other", "NetModel"]}).id == "lab/net"
    assert model_for_architecture({"architectures": ["Other"], "model_type": "net"}).id == "lab/net"
    with pytest.raises(NotRegisteredError, match="no registered model loads architecture Other"):
        model_for_architecture({"architectures": ["Other"]})
    with pytest.raises(NotRegisteredError, match="not named"):
        model_for_architecture({})


def test_weights_in_packages(lab, tmp_path):
    assert resolve_weights("package:flambeau/py.typed").name == "py.typed"
    with pytest.raises(FlambeauError, match="are not there"):
        resolve_weights("package:flambeau/none.safetensors")
    with pytest.raises(MissingExtraError) as error:
        resolve_weights("package:flambeau_nowhere/none.safetensors")
    assert error.value.mend == "pip install flambeau-nowhere" and error.value.exit_code == EXIT_MISSING
    (tmp_path / "x").write_bytes(b"")
    assert resolve_weights(str(tmp_path / "x")) == tmp_path / "x"
    with pytest.raises(FlambeauError, match="are not there"):
        resolve_weights("https://example.org/x.safetensors", tmp_path)
