"""Registering, look-up by id and alias, suggestions, hints, switches."""

import pytest

from flambeau.plugins import (
    AmbiguousNameError,
    CommandSpec,
    ModelSpec,
    NotRegisteredError,
    PluginManager,
    PluginWarning,
    TaskSpec,
    hookimpl,
)
from flambeau.plugins.discovery import installed_plugins
from flambeau.plugins.registry import KNOWN_DISTRIBUTIONS


def plugin(*models, **families):
    """An object with hook implementations that give these specs."""

    class Plugin:
        @hookimpl
        def flambeau_register_models(self):
            yield from models

        @hookimpl
        def flambeau_register_tasks(self):
            yield from families.get("tasks", ())

        @hookimpl
        def flambeau_register_commands(self):
            yield from families.get("commands", ())

    return Plugin()


def model(name, **kwargs):
    return ModelSpec(id=name, factory="lab.models:build", **kwargs)


@pytest.fixture
def manager():
    lines = []
    found = PluginManager(discover=False, report=lines.append)
    found.lines = lines
    return found


def test_ids_and_short_names(manager):
    manager.register(plugin(model("lab/unet", aliases=("u-net",)), model("lab/fcn")), "lab")
    assert manager.get("models", "lab/unet") is manager.get("models", "unet") is manager.get("models", "u-net")
    assert [spec.id for spec in manager.specs("models")] == ["lab/fcn", "lab/unet"]
    assert manager.owner("models", "fcn").name == "lab"
    assert manager.counts("lab")["models"] == 2


def test_namespaces_are_apart(manager):
    manager.register(plugin(model("lab/unet", summary="ours")), "lab")
    manager.register(plugin(model("clinic/unet", summary="theirs")), "clinic")
    assert manager.lines == []  # the same short name is nobody's fault
    assert manager.get("models", "clinic/unet").summary == "theirs"
    with pytest.raises(AmbiguousNameError, match="'unet' is ambiguous: clinic/unet, lab/unet") as error:
        manager.get("models", "unet")
    assert error.value.candidates == ("clinic/unet", "lab/unet") and error.value.exit_code == 2


def test_families_are_apart(manager):
    manager.register(plugin(model("lab/x"), tasks=[TaskSpec(id="lab/x")]), "lab")
    assert isinstance(manager.get("models", "lab/x"), ModelSpec)
    assert isinstance(manager.get("tasks", "x"), TaskSpec)
    with pytest.raises(ValueError, match="unknown family 'modles'"):
        manager.specs("modles")


@pytest.mark.parametrize("wrong", ["lab/unte", "unte", "lab/UNET", "Unet"])
def test_near_misses_are_suggested(manager, wrong):
    manager.register(plugin(model("lab/unet"), model("lab/transformer")), "lab")
    with pytest.raises(NotRegisteredError) as error:
        manager.get("models", wrong)
    assert error.value.suggestions == ("lab/unet",) and error.value.mend == "did you mean 'lab/unet'?"
    assert error.value.exit_code == 2 and not error.value.missing_package


def test_what_is_far_off_is_not_suggested(manager):
    manager.register(plugin(model("lab/unet")), "lab")
    with pytest.raises(NotRegisteredError) as error:
        manager.get("models", "lab/qqqqqq")
    assert error.value.suggestions == () and "flambeau models list" in error.value.mend


@pytest.mark.parametrize(("namespace", "distribution"), KNOWN_DISTRIBUTIONS.items())
def test_a_package_of_the_suite_that_is_not_installed(manager, namespace, distribution):
    manager.register(plugin(model("lab/unet")), "lab")
    with pytest.raises(NotRegisteredError, match=f"package {distribution}, which is not installed") as error:
        manager.get("models", f"{namespace}/unet")
    assert error.value.mend == f"pip install {distribution}" and error.value.exit_code == 3


def test_an_unknown_namespace(manager):
    manager.register(plugin(model("lab/unet")), "lab")
    with pytest.raises(NotRegisteredError, match="no installed plugin provides 'spiral'") as error:
        manager.get("models", "spiral/net")
    assert error.value.exit_code == 3
    # No package name is made up: it might be somebody else's.
    assert "pip install" not in error.value.mend


def test_a_checkpoint_knows_its_distribution(manager):
    assert manager.missing("spiral/net", "example-spiral").mend == "pip install example-spiral"
    assert manager.missing("vision/net").mend == "pip install flambeau-vision"
    assert manager.missing("vision/net", "my-vision").mend == "pip install my-vision"


def test_installed_but_left_out(manager):
    manager.register(plugin(object()), "spiral", "example-spiral")
    for error in (manager.missing("spiral/net", "example-spiral"), manager.missing("spiral/net")):
        assert "is missing because plugin 'spiral' (example-spiral) was left out" in error.cause
        assert "not a ModelSpec" in error.mend and error.exit_code == 3


def test_installed_but_switched_off(manager, monkeypatch):
    monkeypatch.setenv("FLAMBEAU_DISABLE_PLUGINS", "spiral")
    manager.register(plugin(model("spiral/net")), "spiral", "example-spiral")
    with pytest.raises(NotRegisteredError, match="switched off") as error:
        manager.get("models", "spiral/net")
    assert error.value.mend == "named in FLAMBEAU_DISABLE_PLUGINS"


def test_installed_and_well_but_without_that_model(manager):
    manager.register(plugin(model("spiral/net")), "spiral", "example-spiral")
    assert manager.missing("spiral/ent", "example-spiral").mend == "did you mean 'spiral/net'?"


@pytest.mark.parametrize(
    ("load", "disable", "expected"),
    [
        (None, None, {"a", "b", "c"}),
        ("a, b", None, {"a", "b"}),
        ("", None, set()),
        ("dist-c", None, {"c"}),
        ("Dist_C", None, {"c"}),
        (None, "a,c", {"b"}),
        (None, "*", set()),
        (None, "ALL", set()),
        ("a,b", "b", {"a"}),
        (None, "", {"a", "b", "c"}),
    ],
)
def test_switches(manager, monkeypatch, load, disable, expected):
    for name, value in (("FLAMBEAU_LOAD_PLUGINS", load), ("FLAMBEAU_DISABLE_PLUGINS", disable)):
        if value is not None:
            monkeypatch.setenv(name, value)
    for name in "abc":
        manager.register(plugin(model(f"{name}/net")), name, f"dist-{name}")
    assert {spec.namespace for spec in manager.specs("models")} == expected
    assert {name for name, record in manager.records.items() if record.status == "ok"} == expected


def test_the_suites_namespaces_belong_to_its_packages(manager):
    manager.register(plugin(model("vision/net")), "evil", "evil-package")
    assert manager.specs("models") == []
    assert "the namespace 'vision' belongs to flambeau-vision" in manager.lines[0]


@pytest.mark.parametrize("name", ["train", "models", "plugins", "completion"])
def test_built_in_commands_cannot_be_taken(manager, name):
    manager.register(plugin(commands=[CommandSpec(name=name, command="lab.cli:main")]), "lab")
    assert manager.specs("commands") == [] and "is built in" in manager.lines[0]


def test_an_unmarked_hook_is_reported(manager):
    class Plugin:
        def flambeau_register_models(self):
            return []

    manager.register(Plugin(), "lab")
    assert "flambeau_register_models is not marked: put @flambeau.plugins.hookimpl above it" in manager.lines[0]


@pytest.mark.parametrize("result", [None, 3, "lab/unet", [model("lab/unet"), None]])
def test_hooks_that_give_no_specs(manager, result):
    class Plugin:
        @hookimpl
        def flambeau_register_models(self):
            return result

    manager.register(Plugin(), "lab")
    assert manager.specs("models") == []
    assert (manager.records["lab"].status == "ok") == (result is None)  # pluggy: None means "nothing to say"


def test_a_family_is_asked_once_and_only_when_needed(manager):
    asked = []

    class Plugin:
        @hookimpl
        def flambeau_register_models(self):
            asked.append("models")
            return []

        @hookimpl
        def flambeau_register_tasks(self):
            asked.append("tasks")
            return []

    manager.register(Plugin(), "lab")
    assert asked == []
    manager.specs("models"), manager.specs("models")
    assert asked == ["models"]
    manager.load_everything()
    assert asked == ["models", "tasks"]
    assert manager.records["lab"].load_ms > 0


def test_weights_first_answer_wins_and_failures_are_isolated(manager, tmp_path):
    class Silent:
        @hookimpl
        def flambeau_resolve_weights(self, uri):
            return None

    class Broken:
        @hookimpl(tryfirst=True)
        def flambeau_resolve_weights(self, uri, cache_dir):
            raise OSError("no network")

    class Knows:
        @hookimpl(trylast=True)
        def flambeau_resolve_weights(self, uri, cache_dir):
            return f"{cache_dir}/{uri}"

    for name, one in (("silent", Silent()), ("broken", Broken()), ("knows", Knows())):
        manager.register(one, name)
    assert manager.resolve_weights("x", str(tmp_path)) == f"{tmp_path}/x"
    assert (
        len(manager.lines) == 1
        and "'broken' left out: flambeau_resolve_weights failed: OSError: no network" in manager.lines[0]
    )


def test_problems_are_warnings_in_a_program():
    with pytest.warns(PluginWarning, match="plugin 'lab' left out"):
        manager = PluginManager(discover=False)
        manager.register(plugin(object()), "lab")
        manager.specs("models")


def test_installed_plugins_come_with_their_own_first():
    names = [candidate.distribution for candidate in installed_plugins()]
    own = [name in KNOWN_DISTRIBUTIONS.values() for name in names]
    assert own == sorted(own, reverse=True)
