"""Potentials: errors of energies and forces on a data set, energies and forces of structures in files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flambeau.errors import FlambeauError
from flambeau.io import atomic_write
from flambeau.options import from_options
from flambeau.plugins import load_model
from flambeau.train.metrics import MAE, RMSE

from ..models.schnet import SchNet, energy_and_forces
from ..structures import Neighbours, Structure, StructureDataset, make_batch, neighbours, read_structures


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `evaluate`: structures a step, units of a file that does not state them, the device."""

    batch_size: int = 64
    energy_unit: str | None = None
    force_unit: str | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class PredictOptions:
    """Options of `predict`: structures a step and the device."""

    batch_size: int = 64
    device: str = "cpu"


def load_potential(model: str, device: str = "cpu") -> SchNet:
    """A trained potential.

    Raises:
        FlambeauError: not there, damaged, or a network that is no potential.
    """
    module = load_model(model)
    if not isinstance(module, SchNet):
        raise FlambeauError(f"{model}: a {type(module).__name__} is no potential", "train science/schnet")
    return module.to(device).eval()


def compute(
    module: SchNet, structures: Sequence[Structure], near: Sequence[Neighbours], batch_size: int = 64
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Total energies (M,) in eV and forces, one array (A, 3) in eV/Å for each structure; float64."""
    parameter = next(module.parameters())
    energies: list[float] = []
    forces: list[np.ndarray] = []
    for start in range(0, len(structures), batch_size):
        part = structures[start : start + batch_size]
        batch = make_batch(part, near[start : start + batch_size], parameter.dtype)
        moved = [value.to(parameter.device) if hasattr(value, "to") else value for value in batch]
        energy, force = energy_and_forces(module, type(batch)(*moved))
        for value, structure in zip(energy.to("cpu").numpy().astype(np.float64), part, strict=True):
            energies.append(float(value) + module.references(structure.numbers))
        ends = np.cumsum([len(structure.numbers) for structure in part])[:-1]
        forces += np.split(force.to("cpu").numpy().astype(np.float64), ends)
    return np.array(energies), forces


def score(
    module: SchNet, structures: Sequence[Structure], near: Sequence[Neighbours], batch_size: int = 64
) -> dict[str, float]:
    """Errors of energies (eV; meV an atom) and of forces (eV/Å)."""
    energies, forces = compute(module, structures, near, batch_size)
    wanted = np.array([structure.energy for structure in structures])
    sizes = np.array([len(structure.numbers) for structure in structures])
    pairs = {
        "energy_mae_eV": (MAE(), energies, wanted),
        "energy_mae_meV_per_atom": (MAE(), 1e3 * energies / sizes, 1e3 * wanted / sizes),
        "force_mae_eV_per_A": (MAE(), np.concatenate(forces), np.concatenate([s.forces for s in structures])),
        "force_rmse_eV_per_A": (RMSE(), np.concatenate(forces), np.concatenate([s.forces for s in structures])),
    }
    for metric, found, target in pairs.values():
        metric.update(found, target)
    return {name: float(metric.compute()) for name, (metric, _, _) in pairs.items()}


def evaluate(model: str, data: str, split: str, options: dict[str, Any]) -> Mapping[str, Any]:
    """Errors on a split of an npz file."""
    settings = from_options(EvaluateOptions, options, "the potential task")
    module = load_potential(model, settings.device)
    config = module.config
    dataset = StructureDataset(
        data,
        split,
        cutoff=config.cutoff,
        energy_unit=settings.energy_unit or config.energy_unit,
        force_unit=settings.force_unit or config.force_unit,
        seed=config.seed,
    )
    return {**score(module, dataset.structures, dataset.near, settings.batch_size), "structures": len(dataset)}


def predict(
    model: str, inputs: Sequence[str], output: str | None, options: dict[str, Any]
) -> Iterable[Mapping[str, Any]]:
    """Energies of the structures in npz and xyz files; with an output, an npz file with R, E, F and species for each.

    Energies are in eV, forces in eV/Å.
    """
    settings = from_options(PredictOptions, options, "the potential task")
    module = load_potential(model, settings.device)
    for source in inputs:
        try:
            # The energies in a file are not used here, so their unit does not matter.
            structures = read_structures(source, "eV", "eV/angstrom")
            near = [neighbours(structure, module.config.cutoff) for structure in structures]
            energies, forces = compute(module, structures, near, settings.batch_size)
            record: dict[str, Any] = {"input": source, "output": _summary(structures, energies, forces)}
            if output is not None:
                record["path"] = str(_write(_target(source, output, len(inputs) > 1), structures, energies, forces))
        except FlambeauError as error:
            yield {"input": source, "error": error.cause.removeprefix(f"{source}: "), "mend": error.mend}
        else:
            yield record


def _summary(structures: Sequence[Structure], energies: np.ndarray, forces: Sequence[np.ndarray]) -> dict[str, Any]:
    largest = max(float(np.linalg.norm(force, axis=1).max()) for force in forces)
    if len(structures) == 1:
        return {"energy_eV": float(energies[0]), "max_force_eV_per_A": largest}
    return {
        "structures": len(structures),
        "mean_energy_eV": float(energies.mean()),
        "min_energy_eV": float(energies.min()),
        "max_energy_eV": float(energies.max()),
        "max_force_eV_per_A": largest,
    }


def _write(path: Path, structures: Sequence[Structure], energies: np.ndarray, forces: Sequence[np.ndarray]) -> Path:
    first = structures[0]
    if any(not np.array_equal(structure.numbers, first.numbers) for structure in structures):
        raise FlambeauError("the structures differ in their atoms, an npz file holds one kind", "predict file by file")
    arrays: dict[str, Any] = {
        "R": np.stack([structure.positions for structure in structures]),
        "z": first.numbers,
        "E": energies,
        "F": np.stack(forces),
        "energy_unit": np.array("eV"),
        "force_unit": np.array("eV/angstrom"),
    }
    if first.cell is not None:
        arrays["cell"] = np.stack([structure.cell for structure in structures if structure.cell is not None])
    with atomic_write(path) as file:
        np.savez_compressed(file, **arrays)
    return path


def _target(source: str, output: str, several: bool) -> Path:
    path = Path(output)
    if not several and not path.is_dir():
        return path
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FlambeauError(f"{path}: cannot be made a folder ({error.strerror})", "choose another output") from error
    return path / f"{Path(source).stem}_predicted.npz"
