"""What this package registers with Flambeau."""

from flambeau.plugins import DatasetSpec, ModelSpec, TaskSpec, TrainerSpec, hookimpl

FLAMBEAU_API = 1


@hookimpl
def flambeau_register_models():
    yield ModelSpec(
        id="spiral/rbf",
        factory="flambeau_example_spiral.rbf:RadialBasisNetwork",
        summary="Gaussian bumps with learned centres and widths, then a linear layer.",
        task="spiral/points",
        parameters=195,
        aliases=("radial-basis",),
    )


@hookimpl
def flambeau_register_trainers():
    yield TrainerSpec(
        id="spiral/steps",
        factory="flambeau_example_spiral.trainer:train",
        config="flambeau_example_spiral.trainer:Recipe",
        summary="Adam for a number of steps; makes its own spirals without --data.",
        needs_data=False,
    )


@hookimpl
def flambeau_register_tasks():
    yield TaskSpec(
        id="spiral/points",
        summary="Which arm of the spiral each point is on.",
        trainer="spiral/steps",
        evaluate="flambeau_example_spiral.task:evaluate",
        predict="flambeau_example_spiral.task:predict",
    )


@hookimpl
def flambeau_register_datasets():
    yield DatasetSpec(
        id="spiral/points",
        factory="flambeau_example_spiral.points:Spirals",
        summary="Noisy spirals with three arms, made on the spot.",
        task="spiral/points",
        splits=("train", "test"),
    )
