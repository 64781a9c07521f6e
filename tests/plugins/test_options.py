"""Options by name: defaults, unknown keys, types."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flambeau.errors import UsageError
from flambeau.options import from_options
from flambeau.plugins import check_keys, option_defaults


@dataclass
class Recipe:
    lr: float = 0.1
    epochs: int = 3
    name: str = "x"
    ema: bool = False
    clip: float | None = None
    betas: tuple[float, float] = (0.9, 0.99)
    schedule: Literal["cosine", "step"] = "cosine"
    model: dict[str, Any] = field(default_factory=dict)
    anything: Any = None
    derived: int = field(default=0, init=False)


@dataclass
class Needs:
    root: str
    size: int = 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Recipe()),
        ({"lr": 1, "epochs": 5, "clip": 2}, Recipe(lr=1.0, epochs=5, clip=2.0)),
        ({"clip": None, "betas": [0.5, 0.6], "schedule": "step"}, Recipe(betas=(0.5, 0.6), schedule="step")),
        ({"model": {"width": 3}, "anything": [1], "ema": True}, Recipe(model={"width": 3}, anything=[1], ema=True)),
    ],
)
def test_values(options, expected):
    recipe = from_options(Recipe, options)
    assert recipe == expected and type(recipe.lr) is float


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"epohcs": 1}, "the recipe has no option 'epohcs'"),
        ({"derived": 1}, "the recipe has no option 'derived'"),
        ({"epochs": 1.5}, "epochs=1.5 is not int"),
        ({"epochs": True}, "epochs=True is not int"),
        ({"lr": "fast"}, "lr='fast' is not float"),
        ({"lr": None}, "lr=None is not float"),
        ({"ema": 2}, "ema=2 is not bool"),
        ({"name": 5}, "name=5 is not str"),
        ({"clip": "x"}, "clip='x' is not float"),
        ({"schedule": "linear"}, "schedule='linear' is not one of"),
        ({"betas": 3}, "betas=3 is not tuple"),
    ],
)
def test_wrong_values(options, says):
    with pytest.raises(UsageError, match=says):
        from_options(Recipe, options, "the recipe")


def test_what_must_be_given():
    with pytest.raises(UsageError, match="option 'root' is needed") as error:
        from_options(Needs, {"size": 2})
    assert error.value.mend == "set root=..."
    assert option_defaults(Needs) == {"root": ..., "size": 1}


def test_options_of_callables():
    def build(width, *, depth=2):
        return None

    assert option_defaults(build) == {"width": ..., "depth": 2}
    assert option_defaults(lambda **kwargs: None) is None


def test_the_mend_suggests_or_lists():
    with pytest.raises(UsageError) as error:
        check_keys(["widht"], ["width", "depth"], "model 'lab/net'")
    assert error.value.mend == "did you mean 'width'?"
    with pytest.raises(UsageError) as error:
        check_keys(["q"], ["width", "depth"], "model 'lab/net'")
    assert error.value.mend == "its options are depth, width"
    with pytest.raises(UsageError) as error:
        check_keys(["q"], [], "model 'lab/net'")
    assert error.value.mend == "it has no options"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(["lr", "epochs", "name", "ema", "clip", "schedule", "model"]) | st.text(), JSON))
def test_any_options_are_taken_or_refused(options):
    try:
        recipe = from_options(Recipe, options)
    except UsageError:
        return
    assert isinstance(recipe.lr, float) and type(recipe.epochs) is int and isinstance(recipe.name, str)
