"""Structures: atoms with energies and forces. Reading npz and xyz files, neighbours, batches.

Inside the package lengths are in Å, energies in eV and forces in eV/Å. A file that does not state its units must be
given them: nothing is guessed.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import flambeau
from flambeau import Tensor
from flambeau.data import Dataset
from flambeau.errors import FlambeauError, UsageError

ELEMENTS = (
    "H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ar", "K", "Ca", "Sc",
    "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr", "Rb", "Sr", "Y", "Zr",
    "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I", "Xe", "Cs", "Ba", "La", "Ce", "Pr",
    "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W", "Re", "Os", "Ir", "Pt",
    "Au", "Hg", "Tl", "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Th", "Pa", "U", "Np", "Pu", "Am", "Cm", "Bk",
    "Cf", "Es", "Fm", "Md", "No", "Lr",
)  # fmt: skip
NUMBERS = {symbol: number for number, symbol in enumerate(ELEMENTS, 1)}
BOHR = 0.529177210903  # Å (CODATA 2018)
ENERGY_UNITS = {"eV": 1.0, "hartree": 27.211386245988, "kcal/mol": 0.0433641153087705}
"""Energy units in eV. Forces are any of these over angstrom or bohr."""
FORCE_UNITS = {
    f"{energy}/{length}": value / size
    for energy, value in ENERGY_UNITS.items()
    for length, size in (("angstrom", 1.0), ("bohr", BOHR))
}
TOO_CLOSE = 0.3  # Å: nearer than any two nuclei of a real structure


@dataclass(frozen=True)
class Structure:
    """Atoms of a molecule, or of a periodic cell.

    Attributes:
        numbers: atomic numbers, int64 (A,).
        positions: float64 (A, 3), in Å.
        cell: rows are the lattice vectors, float64 (3, 3) in Å; None for a molecule.
        energy: in eV, or None.
        forces: float64 (A, 3) in eV/Å, or None.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray | None = None
    energy: float | None = None
    forces: np.ndarray | None = None


class Neighbours(NamedTuple):
    """The atoms within the cutoff of each atom, padded to the largest number.

    atoms (A, K): the other atom. offset (A, K, 3): added to the other atom's position, Å. Padding points at the atom
    itself from outside of the cutoff, so that it has no weight and no gradient.
    """

    atoms: np.ndarray
    offset: np.ndarray


def neighbours(structure: Structure, cutoff: float) -> Neighbours:
    """All pairs nearer than `cutoff` (Å); in a cell, with the nearest image of each atom. O(A²) time.

    Raises:
        FlambeauError: atoms overlap, or the cell is too small for one image to be enough.
    """
    positions = structure.positions
    vectors = positions[None] - positions[:, None]
    offset = np.zeros_like(vectors)
    if structure.cell is not None:
        heights = 1 / np.linalg.norm(np.linalg.inv(structure.cell), axis=0)
        if heights.min() < 2 * cutoff:
            raise FlambeauError(
                f"the cell is {heights.min():.2f} Å high, less than twice the cutoff of {cutoff:g} Å",
                "repeat the cell, or train with a smaller --set cutoff",
            )
        offset = -np.round(vectors @ np.linalg.inv(structure.cell)) @ structure.cell
        vectors = vectors + offset
    distances = np.linalg.norm(vectors, axis=-1)
    np.fill_diagonal(distances, np.inf)
    if len(positions) > 1 and distances.min() < TOO_CLOSE:
        one, other = np.unravel_index(distances.argmin(), distances.shape)
        raise FlambeauError(
            f"atoms {one + 1} and {other + 1} are {distances.min():.3f} Å apart",
            "check the positions and their unit (Å)",
        )
    inside = distances < cutoff
    counts = inside.sum(1)
    width = max(int(counts.max()), 1)
    # Neighbours first, in the order of the atoms: equal structures give equal bits.
    index = np.argsort(~inside, axis=1, kind="stable")[:, :width]
    valid = np.arange(index.shape[1]) < counts[:, None]
    rows = np.arange(len(positions))[:, None]
    picked = np.where(valid[..., None], offset[rows, index], [2 * cutoff, 0.0, 0.0])
    return Neighbours(np.where(valid, index, rows), picked)


class Batch(NamedTuple):
    """Structures side by side, as a potential takes them; A atoms in all, M structures.

    numbers (A,) int64 · positions (A, 3) · neighbours (A, K) int64 · offsets (A, K, 3) · structure (A,) int64: which
    structure an atom belongs to · size: M.
    """

    numbers: Tensor
    positions: Tensor
    neighbours: Tensor
    offsets: Tensor
    structure: Tensor
    size: int


def make_batch(structures: Sequence[Structure], near: Sequence[Neighbours], dtype: Any = flambeau.float32) -> Batch:
    """A `Batch` of structures with their neighbours."""
    sizes = [len(structure.numbers) for structure in structures]
    starts = np.cumsum([0, *sizes[:-1]])
    width = max(entry.atoms.shape[1] for entry in near)
    total = sum(sizes)
    index = np.repeat(np.arange(total)[:, None], width, 1)
    far = 1e3  # Å, farther than any cutoff
    offsets = np.zeros((total, width, 3))
    offsets[..., 0] = far
    for entry, start, size in zip(near, starts, sizes, strict=True):
        columns = entry.atoms.shape[1]
        index[start : start + size, :columns] = entry.atoms + start
        offsets[start : start + size, :columns] = entry.offset
    return Batch(
        flambeau.from_numpy(np.concatenate([structure.numbers for structure in structures])),
        flambeau.from_numpy(np.concatenate([structure.positions for structure in structures])).to(dtype),
        flambeau.from_numpy(index),
        flambeau.from_numpy(offsets).to(dtype),
        flambeau.from_numpy(np.repeat(np.arange(len(structures)), sizes)),
        len(structures),
    )


def unit_factors(energy_unit: str | None, force_unit: str | None, name: str) -> tuple[float, float]:
    """What energies and forces of a file are multiplied by.

    Raises:
        UsageError: a unit is not given, or unknown.
    """
    factors = []
    for option, unit, known in (("energy_unit", energy_unit, ENERGY_UNITS), ("force_unit", force_unit, FORCE_UNITS)):
        if unit is None:
            raise UsageError(
                f"{name} does not state its {option.replace('_', ' ')}", f"add --set {option}=UNIT ({', '.join(known)})"
            )
        if unit not in known:
            raise UsageError(f"{option}={unit!r} is unknown", f"choose {', '.join(known)}")
        factors.append(known[unit])
    return factors[0], factors[1]


def read_npz(path: str | Path, energy_unit: str | None = None, force_unit: str | None = None) -> list[Structure]:
    """Structures of one composition from an npz file.

    ``R`` (M, A, 3) in Å and ``species`` (A,) (symbols) or ``z`` (A,) (atomic numbers); optionally ``E`` (M,), ``F``
    (M, A, 3) and ``cell`` (3, 3) or (M, 3, 3). ``energy_unit`` and ``force_unit`` entries state the units.

    Raises:
        FlambeauError: unreadable, arrays that are absent, of wrong shape or not finite (the structure is named).
        UsageError: units are neither in the file nor given.
    """
    name = str(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise FlambeauError(f"{name}: no such file", "check the path") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise FlambeauError(f"{name}: not a whole npz file ({error})", "copy it again") from error
    if "R" not in arrays or not ("species" in arrays or "z" in arrays):
        raise FlambeauError(
            f"{name}: needs the arrays R and species (or z), it has {', '.join(sorted(arrays)) or 'none'}",
            "R: positions (M, A, 3) in Å; species: element symbols (A,)",
        )
    positions = np.asarray(arrays["R"], np.float64)
    numbers = _numbers(arrays["species"] if "species" in arrays else arrays["z"], name)
    shapes = {"R": (len(positions), len(numbers), 3), "E": (len(positions),), "F": (len(positions), len(numbers), 3)}
    for key, shape in shapes.items():
        if key not in arrays:
            continue
        if arrays[key].shape != shape:
            raise FlambeauError(f"{name}: {key} has the shape {arrays[key].shape}, not {shape}", "mend the file")
        if not (fine := np.isfinite(arrays[key]).reshape(len(positions), -1).all(1)).all():
            raise FlambeauError(f"{name}: {key} of structure {int((~fine).argmax()) + 1} is not finite", "leave it out")
    cells = np.broadcast_to(arrays["cell"], (len(positions), 3, 3)) if "cell" in arrays else None
    energies = forces = None
    if "E" in arrays:
        stated = [str(arrays[key]) if key in arrays else given for key, given in
                  (("energy_unit", energy_unit), ("force_unit", force_unit))]  # fmt: skip
        energy_factor, force_factor = unit_factors(stated[0], stated[1] if "F" in arrays else "eV/angstrom", name)
        energies = np.asarray(arrays["E"], np.float64) * energy_factor
        forces = np.asarray(arrays["F"], np.float64) * force_factor if "F" in arrays else None
    return [
        Structure(
            numbers,
            positions[index],
            None if cells is None else np.asarray(cells[index], np.float64),
            None if energies is None else float(energies[index]),
            None if forces is None else forces[index],
        )
        for index in range(len(positions))
    ]


def read_xyz(path: str | Path) -> list[Structure]:
    """Structures from an xyz file (Å), one after the other; ``Lattice="…"`` in a comment line makes it periodic.

    Raises:
        FlambeauError: unreadable, an unknown element, or a line that does not hold an atom (its number is named).
    """
    name = str(path)
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except FileNotFoundError:
        raise FlambeauError(f"{name}: no such file", "check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FlambeauError(f"{name}: cannot be read ({error})", "give a text file in xyz format") from error
    structures, line = [], 0
    while line < len(lines):
        if not lines[line].strip():
            line += 1
            continue
        try:
            count = int(lines[line])
        except ValueError:
            raise FlambeauError(f"{name}: line {line + 1} is not the number of atoms", "give an xyz file") from None
        atoms = [text.split() for text in lines[line + 2 : line + 2 + count]]
        if count < 1 or len(atoms) < count:
            raise FlambeauError(f"{name}: line {line + 1} says {count} atoms, {len(atoms)} follow", "mend the file")
        positions = np.empty((count, 3))
        for index, atom in enumerate(atoms):
            try:
                positions[index] = [float(text) for text in atom[1:4]]
                if len(atom) < 4 or not np.isfinite(positions[index]).all():
                    raise ValueError
            except ValueError:
                raise FlambeauError(f"{name}: line {line + 3 + index} is not 'symbol x y z'", "mend the line") from None
        structures.append(
            Structure(_numbers([atom[0] for atom in atoms], name), positions, _lattice(lines[line + 1], name))
        )
        line += 2 + count
    if not structures:
        raise FlambeauError(f"{name}: there are no structures", "give an xyz file")
    return structures


def _lattice(comment: str, name: str) -> np.ndarray | None:
    _, found, rest = comment.partition('Lattice="')
    if not found:
        return None
    try:
        return np.array([float(text) for text in rest.partition('"')[0].split()]).reshape(3, 3)
    except ValueError:
        raise FlambeauError(f'{name}: Lattice="…" does not hold nine numbers', "mend the comment line") from None


def read_structures(path: str | Path, energy_unit: str | None = None, force_unit: str | None = None) -> list[Structure]:
    """The structures of an npz or xyz file; of a folder, those of the one npz file in it."""
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("*.npz"))
        if len(files) != 1:
            raise FlambeauError(f"{path}: {len(files)} npz files where one is needed", "name the file")
        path = files[0]
    return read_xyz(path) if path.suffix == ".xyz" else read_npz(path, energy_unit, force_unit)


def _numbers(species: Any, name: str) -> np.ndarray:
    species = np.asarray(species)
    if species.dtype.kind in "iu":
        wrong = [str(number) for number in species if not 1 <= number <= len(ELEMENTS)]
        numbers = species.astype(np.int64)
    else:
        wrong = [str(symbol) for symbol in species if str(symbol) not in NUMBERS]
        numbers = np.array([NUMBERS.get(str(symbol), 0) for symbol in species], np.int64)
    if species.ndim != 1 or wrong:
        raise FlambeauError(f"{name}: unknown element {(wrong or [species.shape])[0]!r}", "use symbols such as C and H")
    return numbers


class Labels(NamedTuple):
    """What a potential is fitted to: energy (M,) in eV less the reference energies, forces (A, 3) in eV/Å."""

    energy: Tensor
    forces: Tensor


class StructureDataset(Dataset):
    """Structures with energies and forces from one file, and their neighbours within `cutoff` (Å).

    The splits are dealt out by `seed`: 80% train, 10% val, 10% test; ``all`` is everything.

    Raises:
        FlambeauError: no energies or forces, overlapping atoms, or too few structures.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        cutoff: float = 5.0,
        energy_unit: str | None = None,
        force_unit: str | None = None,
        limit: int | None = None,
        seed: int = 0,
    ) -> None:
        everything = read_structures(root, energy_unit, force_unit)
        if any(structure.energy is None or structure.forces is None for structure in everything):
            raise FlambeauError(f"{root}: energies E and forces F are needed", "give an npz file with R, E, F, species")
        order = np.random.default_rng(seed).permutation(len(everything))
        tenth = len(order) // 10
        parts = {"train": order[2 * tenth :], "val": order[:tenth], "test": order[tenth : 2 * tenth], "all": order}
        if split not in parts:
            raise UsageError(f"there is no split {split!r}", f"choose {', '.join(parts)}")
        chosen = parts[split][:limit]
        if not len(chosen):
            raise FlambeauError(f"{root}: {len(order)} structures are too few for a split {split!r}", "give more")
        self.structures = [everything[index] for index in chosen]
        self.near = []
        for index, structure in zip(chosen, self.structures, strict=True):
            try:
                self.near.append(neighbours(structure, cutoff))
            except FlambeauError as error:
                raise FlambeauError(f"{root}: structure {index + 1}: {error.cause}", error.mend) from error

    def __len__(self) -> int:
        return len(self.structures)

    def __getitem__(self, index: int) -> tuple[Structure, Neighbours]:
        return self.structures[index], self.near[index]


def reference_energies(structures: Sequence[Structure]) -> dict[int, float]:
    """Energy of each element (eV) by least squares on the compositions, so that what is left to learn is small."""
    elements = sorted({int(number) for structure in structures for number in structure.numbers})
    counts = np.array(
        [[np.count_nonzero(s.numbers == element) for element in elements] for s in structures], np.float64
    )
    energies = np.array([structure.energy for structure in structures])
    found = np.linalg.lstsq(counts, energies, rcond=None)[0]
    return {element: float(value) for element, value in zip(elements, found, strict=True)}


def rms(values: np.ndarray) -> float:
    """Root of the mean square."""
    return math.sqrt(float(np.mean(np.square(values))))
