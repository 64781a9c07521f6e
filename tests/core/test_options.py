"""Options: conversion of texts, suggestions for unknown keys, nested dataclasses."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path
from typing import Literal

import pytest

from flambeau.errors import UsageError
from flambeau.options import describe_options, from_options, to_plain
from flambeau.train.supervised import Options


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Inner:
    depth: int = 2
    name: str = "x"


@dataclasses.dataclass
class Config:
    data: Path
    epochs: int = 10
    lr: float = 1e-3
    ema: float | None = None
    amp: bool = False
    optimizer: Literal["sgd", "adam"] = "adam"
    crop: tuple[int, int] = (4, 4)
    tags: list[str] = dataclasses.field(default_factory=list)
    colour: Colour = Colour.RED
    extra: dict = dataclasses.field(default_factory=dict)
    inner: Inner = dataclasses.field(default_factory=Inner)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("epochs", "5", 5),
        ("epochs", "1e3", 1000),
        ("epochs", 7, 7),
        ("lr", "3e-4", 3e-4),
        ("lr", 1, 1.0),
        ("ema", "none", None),
        ("ema", "0.9", 0.9),
        ("amp", "true", True),
        ("amp", "off", False),
        ("optimizer", "sgd", "sgd"),
        ("crop", "128,160", (128, 160)),
        ("crop", "(1, 2)", (1, 2)),
        ("tags", "a,b", ["a", "b"]),
        ("colour", "red", Colour.RED),
        ("extra", '{"a": [1]}', {"a": [1]}),
        ("inner.depth", "9", Inner(9)),
        ("inner", {"name": "y"}, Inner(name="y")),
        ("data", "/tmp/x", Path("/tmp/x")),
    ],
)
def test_texts_become_typed(key, text, value):
    config = from_options(Config, {"data": "d", key: text})
    found = getattr(config, key.split(".")[0])
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("options", "cause", "mend"),
    [
        ({"epoch": 1}, "unknown option 'epoch'", "did you mean 'epochs'"),
        ({"inner.dept": 1}, "unknown option", "depth"),
        ({"epochs.a": 1}, "unknown option", "epochs"),
        ({"zzzzzz": 1}, "unknown option", "the options are data, epochs"),
        ({"epochs": "1.5"}, "epochs='1.5' is not int", "type int"),
        ({"epochs": "many"}, "is not int", "int"),
        ({"epochs": True}, "is not int", "int"),
        ({"lr": "fast"}, "is not float", "float"),
        ({"amp": "maybe"}, "is not bool", "bool"),
        ({"optimizer": "adm"}, "not one of its choices", "did you mean 'adam'"),
        ({"crop": "1,2,3"}, "needs 2 values", "commas"),
        ({"ema": "x"}, "is not float", "float"),
        ({"extra": "{"}, "is not JSON", "write"),
        ({"colour": "blue"}, "is not Colour", "Colour"),
        ({"inner": {"depth": 1}, "inner.depth": 2}, "whole and in parts", "one way"),
    ],
)
def test_clear_refusals(options, cause, mend):
    with pytest.raises(UsageError) as caught:
        from_options(Config, {"data": "d", **options})
    assert cause in caught.value.cause and mend in caught.value.mend and caught.value.exit_code == 2


def test_a_missing_option():
    with pytest.raises(UsageError, match="'data' is needed"):
        from_options(Config, {})


def test_checks_of_the_dataclass_become_usage_errors():
    with pytest.raises(UsageError, match="epochs=0 must be at least 1"):
        from_options(Options, {"epochs": "0"})


def test_description_and_plain_form():
    rows = {name: (kind, default) for name, kind, default in describe_options(Config)}
    assert rows["data"] == ("Path", "needed") and rows["inner.depth"] == ("int", "2")
    assert rows["optimizer"] == ("sgd | adam", "adam") and rows["ema"][1] == "None"
    plain = to_plain(from_options(Config, {"data": "d"}))
    assert plain["data"] == "d" and plain["colour"] == "red" and plain["inner"] == {"depth": 2, "name": "x"}


def test_every_supervised_option_round_trips_through_text():
    options = Options(ema=0.99, clip=1.0, patience=3, checkpoint_every=7)
    assert from_options(Options, {name: str(value) for name, value in to_plain(options).items()}) == options
