"""Fitting a potential to energies and forces together.

The loss is ``weight_energy * |dE|² / A + weight_force * |dF|² / 3`` summed over structures and atoms: forces carry 3 A
numbers a structure, the energy one. The forces in it are gradients themselves, so each step differentiates twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import flambeau
from flambeau.errors import UsageError
from flambeau.options import from_options
from flambeau.plugins import create_model
from flambeau.train import MAE, supervised

from ..models.schnet import SchNet, energy_and_forces, reference_table
from ..structures import ELEMENTS, Labels, Neighbours, Structure, StructureDataset, make_batch, reference_energies, rms
from ..tasks.potential import load_potential, score


@dataclass
class PotentialOptions(supervised.Options):
    """Options of `train`, beside those of every supervised trainer.

    Attributes:
        energy_unit: of the file, if it does not state it: eV, hartree or kcal/mol.
        force_unit: of the file, if it does not state it: an energy unit over angstrom or bohr, such as hartree/bohr.
        weight_energy: of the energies in the loss, in 1/eV².
        weight_force: of the forces in the loss, in Å²/eV².
        limit: train on at most so many structures; none for all.
        split_seed: how structures are dealt out to train (80%), val (10%) and test (10%).
        model: options of the model as JSON, such as ``{"features": 32, "cutoff": 6.0}``.
    """

    epochs: int = 50
    batch_size: int = 32
    lr: float = 2e-3
    weight_decay: float = 0.0
    clip: float | None = 10.0
    ema: float | None = 0.99
    drop_last: bool = True
    energy_unit: str | None = None
    force_unit: str | None = None
    weight_energy: float = 1.0
    weight_force: float = 1.0
    limit: int | None = None
    split_seed: int = 0
    model: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight_energy < 0 or self.weight_force < 0 or self.weight_energy + self.weight_force == 0:
            raise ValueError("options weight_energy and weight_force must not be negative, nor both 0")


@dataclass
class Fit:
    """Energies, forces and numbers of atoms of a batch; as long as it has structures."""

    values: Labels
    sizes: flambeau.Tensor

    def __len__(self) -> int:
        return len(self.values.energy)


class PartMAE:
    """Mean absolute error of one field of `Labels`: eV for the energy, eV/Å for the forces."""

    higher_is_better = False

    def __init__(self, part: str) -> None:
        self.part = part
        self.mae = MAE()

    def reset(self) -> None:
        self.mae.reset()

    def update(self, output: Fit, target: Fit) -> None:
        self.mae.update(getattr(output.values, self.part), getattr(target.values, self.part))

    def compute(self) -> float:
        return self.mae.compute()


def train(model_id: str, data: str, output: str, options: dict[str, Any], resume: bool) -> Mapping[str, Any]:
    """Fit a potential to an npz file; the run's folder gets weights, history, curve and checkpoints.

    Returns:
        Mean absolute errors of the weights that were kept, on the validation structures.
    """
    settings = from_options(PotentialOptions, options)
    chosen = settings.model or {}
    if set(chosen) & {"references", "scale", "elements"}:
        raise UsageError("option model: elements, references and scale come from the data", "leave them out")
    cutoff = create_model(model_id, **chosen).config.cutoff
    common = dict(
        cutoff=cutoff, energy_unit=settings.energy_unit, force_unit=settings.force_unit, seed=settings.split_seed
    )
    dataset = StructureDataset(data, "train", limit=settings.limit, **common)
    validation = StructureDataset(data, "val", **common)
    config = model_config(dataset, settings)
    references = config["references"]

    def collate(items: list[tuple[Structure, Neighbours]]) -> tuple[Any, Labels]:
        structures = [structure for structure, _ in items]
        return make_batch(structures, [near for _, near in items]), labels(references, structures)

    supervised.run(
        lambda: create_model(model_id, **config),
        dataset,
        validation,
        loss=loss_of(settings.weight_energy, settings.weight_force),
        metrics={"force_mae_eV_per_A": PartMAE("forces"), "energy_mae_eV": PartMAE("energy")},  # type: ignore[dict-item]
        options=settings,
        output=output,
        model_id=model_id,
        config=config,
        plugin="flambeau-science",
        resume=resume,
        predict=predict_batch,
        collate_fn=collate,
    )
    kept = load_potential(output, settings.device)
    return score(kept, validation.structures, validation.near, settings.batch_size)


def model_config(dataset: StructureDataset, settings: PotentialOptions) -> dict[str, Any]:
    """The model's options: the elements, reference energies and spread of the data, and what the user set."""
    references = reference_energies(dataset.structures)
    left = [
        left_over(structure, reference_table(references)) / len(structure.numbers) for structure in dataset.structures
    ]
    return {
        **(settings.model or {}),
        "elements": list(references),
        "references": reference_table(references),
        "scale": round(max(rms(np.array(left)), 1e-3), 6),
        "energy_unit": settings.energy_unit,
        "force_unit": settings.force_unit,
        "seed": settings.split_seed,
    }


def left_over(structure: Structure, references: Mapping[str, float]) -> float:
    """The energy (eV) that the references (eV by symbol) do not explain: what the network has to learn."""
    assert structure.energy is not None  # StructureDataset has checked it
    return structure.energy - sum(references[ELEMENTS[number - 1]] for number in structure.numbers)


def labels(references: Mapping[str, float], structures: list[Structure]) -> Labels:
    """What the network is to give for these structures: energies less the references, and forces."""
    energies = [left_over(structure, references) for structure in structures]
    forces = np.concatenate([structure.forces for structure in structures])
    return Labels(flambeau.tensor(energies, dtype=flambeau.float32), flambeau.tensor(forces, dtype=flambeau.float32))


def predict_batch(model: SchNet, pair: tuple[Any, Labels]) -> tuple[Fit, Fit]:
    """Energies and forces of a batch, and what they should be."""
    batch, wanted = pair
    energy, forces = energy_and_forces(model, batch, create_graph=model.training)
    ones = flambeau.ones_like(batch.positions[:, 0])
    sizes = flambeau.zeros_like(wanted.energy).index_add(0, batch.structure, ones)
    return Fit(Labels(energy, forces), sizes), Fit(wanted, sizes)


def loss_of(weight_energy: float, weight_force: float) -> Any:
    """The loss of the loop: (sum over structures, number of structures)."""

    def loss(output: Fit, target: Fit) -> tuple[Any, float]:
        energy = output.values.energy - target.values.energy
        forces = output.values.forces - target.values.forces
        total = weight_energy * (energy * energy / target.sizes).sum() + weight_force / 3 * (forces * forces).sum()
        return total, float(len(target))

    return loss
