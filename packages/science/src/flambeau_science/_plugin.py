"""What flambeau-science registers with Flambeau. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator

from flambeau.plugins import DatasetSpec, ModelSpec, TaskSpec, TrainerSpec, hookimpl

TABULAR, POTENTIAL = "science/tabular", "science/potential"


@hookimpl
def flambeau_register_models() -> Iterator[ModelSpec]:
    yield ModelSpec(
        id="science/mlp",
        factory="flambeau_science.models.mlp:MLP",
        config="flambeau_science.models.mlp:MLPConfig",
        summary="Multilayer perceptron for tables: regression or classification.",
        task=TABULAR,
        parameters=4_801,
        tags=("tabular",),
    )
    yield ModelSpec(
        id="science/schnet",
        factory="flambeau_science.models.schnet:SchNet",
        config="flambeau_science.models.schnet:SchNetConfig",
        summary="Interatomic potential of continuous-filter convolutions: energies and exact forces.",
        task=POTENTIAL,
        parameters=58_433,
        tags=("molecules", "materials", "forces"),
    )


@hookimpl
def flambeau_register_trainers() -> Iterator[TrainerSpec]:
    yield TrainerSpec(
        id="science/tabular",
        factory="flambeau_science.trainers.tabular:train",
        config="flambeau_science.trainers.tabular:TabularOptions",
        summary="Supervised training on a CSV file.",
    )
    yield TrainerSpec(
        id="science/potential",
        factory="flambeau_science.trainers.potential:train",
        config="flambeau_science.trainers.potential:PotentialOptions",
        summary="A potential fitted to energies and forces together.",
    )


@hookimpl
def flambeau_register_tasks() -> Iterator[TaskSpec]:
    yield TaskSpec(
        id=TABULAR,
        summary="A value or a class for each row of a table: error or accuracy on a split, predictions as CSV.",
        trainer="science/tabular",
        evaluate="flambeau_science.tasks.tabular:evaluate",
        predict="flambeau_science.tasks.tabular:predict",
        aliases=("tabular",),
    )
    yield TaskSpec(
        id=POTENTIAL,
        summary="Energy and forces of structures: mean absolute errors in eV and eV/Å, predictions as npz.",
        trainer="science/potential",
        evaluate="flambeau_science.tasks.potential:evaluate",
        predict="flambeau_science.tasks.potential:predict",
        aliases=("potential",),
    )


@hookimpl
def flambeau_register_datasets() -> Iterator[DatasetSpec]:
    yield DatasetSpec(
        id="science/csv",
        factory="flambeau_science.tables:TabularDataset",
        summary="A table: one CSV file that is split, or a folder with train.csv, val.csv and test.csv.",
        task=TABULAR,
        splits=("train", "val", "test", "all"),
    )
    yield DatasetSpec(
        id="science/structures",
        factory="flambeau_science.structures:StructureDataset",
        summary="Structures with energies and forces: an npz file with R, E, F and species.",
        task=POTENTIAL,
        splits=("train", "val", "test", "all"),
    )
