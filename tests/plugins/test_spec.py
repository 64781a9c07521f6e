"""Specs are checked when they are made, cannot be changed, and go through JSON."""

import dataclasses
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flambeau.plugins import (
    CommandSpec,
    DatasetSpec,
    ExporterSpec,
    ModelSpec,
    SpecError,
    TaskSpec,
    TrainerSpec,
    resolve,
)
from flambeau.plugins.spec import FAMILIES

FACTORY = "lab.models:build"
EXAMPLES = [
    ModelSpec(
        id="lab/net",
        factory=FACTORY,
        config="lab.models:Config",
        summary="A net.",
        task="lab/classify",
        trainer="supervised",
        parameters=12,
        aliases=("n",),
        architectures=("NetForSomething",),
        model_type="net",
        weights=("package:lab/net.safetensors",),
        tags=("small",),
    ),
    TrainerSpec(id="lab/fit", factory=FACTORY, needs_data=False),
    DatasetSpec(id="lab/rows", factory=FACTORY, splits=("train", "test"), licence="CC0-1.0"),
    TaskSpec(id="lab/classify", trainer="lab/fit", evaluate="lab.task:evaluate", decode="lab.task:Decoder.decode"),
    ExporterSpec(id="lab/text", factory=FACTORY, suffixes=(".txt",), requires="flambeau-core[onnx]"),
    CommandSpec(name="make-rows", command="lab.cli:main", summary="Makes rows."),
]


@pytest.mark.parametrize("spec", EXAMPLES, ids=lambda spec: type(spec).__name__)
def test_there_and_back(spec):
    assert type(spec).from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert hash(spec) == hash(dataclasses.replace(spec))
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.summary = "other"
    with pytest.raises((AttributeError, TypeError)):
        object.__setattr__(spec, "anything", 1)  # slots


def test_every_family_has_an_example():
    assert {type(spec) for spec in EXAMPLES} == set(FAMILIES.values())


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"id": "net"}, "id must be 'namespace/name'"),
        ({"id": "Lab/net"}, "id must be 'namespace/name'"),
        ({"id": "lab/net/x"}, "id must be 'namespace/name'"),
        ({"id": "lab/n t"}, "id must be 'namespace/name'"),
        ({"id": None}, "id must be 'namespace/name'"),
        ({"id": "lab/net\n"}, "id must be 'namespace/name'"),
        ({"factory": "lab.models"}, "factory must be an import path"),
        ({"factory": "lab.models:"}, "factory must be an import path"),
        ({"factory": print}, "factory must be an import path"),
        ({"factory": None}, "factory must be an import path"),
        ({"config": "Config"}, "config must be an import path"),
        ({"summary": "two\nlines"}, "summary must be one line"),
        ({"summary": None}, "summary must be one line"),
        ({"parameters": -1}, "parameters must be a whole number"),
        ({"parameters": 1.5}, "parameters must be a whole number"),
        ({"parameters": True}, "parameters must be a whole number"),
        ({"aliases": "net"}, "aliases must be a tuple of strings"),
        ({"aliases": ("a/b",)}, "alias 'a/b' must be a short name"),
        ({"tags": (1,)}, "tags must be a tuple of non-empty strings"),
        ({"weights": None}, "weights must be a tuple of strings"),
        ({"task": "a/b/c"}, "task must be an id"),
    ],
)
def test_wrong_values(kwargs, says):
    with pytest.raises(SpecError, match=says) as error:
        ModelSpec(**{"id": "lab/net", "factory": FACTORY, **kwargs})
    assert "\n" not in str(error.value).replace("\\n", "")


def test_unknown_fields():
    with pytest.raises(SpecError, match="ModelSpec has no field 'colour'"):
        ModelSpec.from_dict({"id": "lab/net", "factory": FACTORY, "colour": "red"})
    with pytest.raises(TypeError, match="colour"):
        ModelSpec(id="lab/net", factory=FACTORY, colour="red")


def test_lists_become_tuples():
    spec = ModelSpec(id="lab/net", factory=FACTORY, aliases=["a"], tags=(tag for tag in "bc"))
    assert (spec.aliases, spec.tags) == (("a",), ("b", "c"))


@pytest.mark.parametrize("name", ["Segment", "a b", "-x", "a--b", "", "a/b", None])
def test_names_of_commands(name):
    with pytest.raises(SpecError, match="lower-case words"):
        CommandSpec(name=name, command="lab.cli:main")


@given(st.text(), st.text(), st.text())
def test_any_text_gives_a_spec_or_a_spec_error(identifier, factory, alias):
    try:
        spec = ModelSpec(id=identifier, factory=factory, aliases=(alias,))
    except SpecError:
        return
    assert spec.namespace and spec.short_name and ":" in spec.factory
    assert ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_resolve():
    import os.path

    assert resolve("os:path.join") is os.path.join
    with pytest.raises(ModuleNotFoundError):
        resolve("no_such_module:x")
    with pytest.raises(AttributeError):
        resolve("os:no_such_thing")
