"""SchNet: a potential of continuous-filter convolutions (Schütt et al., J. Chem. Phys. 148, 241722, 2018).

Each atom starts from an embedding of its element and is updated by its neighbours: their features are multiplied by
filters, which a small network makes from the distance. The sum of the atoms' outputs is the energy. Only distances go
in, so the energy does not change when the structure is moved, turned, or its atoms are numbered differently; forces are
the exact negative gradient, and fitting them differentiates twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

import flambeau
import flambeau.nn.functional as F
from flambeau import Tensor, nn
from flambeau.errors import FlambeauError

from ..structures import ELEMENTS, Batch


@dataclass(frozen=True)
class SchNetConfig:
    """Sizes of a `SchNet`.

    Attributes:
        elements: atomic numbers that it knows.
        features: width of the atoms' features.
        interactions: number of convolutions.
        gaussians: basis functions of the distance, evenly spaced from 0 to the cutoff.
        cutoff: Å; where the filters have faded to zero.
        scale: eV; multiplies the atoms' outputs.
        references: element symbol -> energy of an atom (eV), which is not in the network's output.
        energy_unit, force_unit: of the file it was trained on, for files that do not state theirs.
        seed: by which that file was split.
    """

    elements: tuple[int, ...] = (1, 6, 7, 8)
    features: int = 64
    interactions: int = 3
    gaussians: int = 32
    cutoff: float = 5.0
    scale: float = 1.0
    references: dict = field(default_factory=dict)
    energy_unit: str | None = None
    force_unit: str | None = None
    seed: int = 0


def shifted_softplus(x: Tensor) -> Tensor:
    """``log(0.5 exp(x) + 0.5)``: smooth to all orders, and 0 at 0."""
    return F.softplus(x) - math.log(2)


class Interaction(nn.Module):
    """Adds to each atom what the filters let through of its neighbours."""

    def __init__(self, features: int, gaussians: int) -> None:
        super().__init__()
        self.filter1 = nn.Linear(gaussians, features)
        self.filter2 = nn.Linear(features, features)
        self.source = nn.Linear(features, features, bias=False)
        self.dense1 = nn.Linear(features, features)
        self.dense2 = nn.Linear(features, features)

    def forward(self, x: Tensor, basis: Tensor, fade: Tensor, neighbours: Tensor) -> Tensor:
        weights = self.filter2(shifted_softplus(self.filter1(basis))) * fade
        arriving = (F.embedding(neighbours, self.source(x)) * weights).sum(1)
        return x + self.dense2(shifted_softplus(self.dense1(arriving)))


class SchNet(nn.Module):
    """Energies (M,) in eV, less the reference energies, of the structures in a `Batch`.

    >>> from flambeau_science.structures import Structure, make_batch, neighbours
    >>> water = Structure(np.array([8, 1, 1]), np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]))
    >>> model = SchNet()
    >>> tuple(model(*make_batch([water], [neighbours(water, 5.0)])).shape)
    (1,)
    """

    def __init__(self, config: SchNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SchNetConfig()
        table = np.full(len(ELEMENTS) + 1, -1)
        table[list(config.elements)] = range(len(config.elements))
        self._rows = table
        self.embedding = nn.Embedding(len(config.elements), config.features)
        self.interactions = nn.ModuleList(
            [Interaction(config.features, config.gaussians) for _ in range(config.interactions)]
        )
        self.output1 = nn.Linear(config.features, config.features // 2)
        self.output2 = nn.Linear(config.features // 2, 1)
        centres = np.linspace(0, config.cutoff, config.gaussians)
        self.register_buffer("centres", flambeau.tensor(centres, dtype=flambeau.float32), persistent=False)
        self._sharpness = -0.5 / (config.cutoff / max(config.gaussians - 1, 1)) ** 2

    def forward(
        self,
        numbers: Tensor,
        positions: Tensor,
        neighbours: Tensor,
        offsets: Tensor,
        structure: Tensor,
        size: int,
    ) -> Tensor:
        """The arguments are the fields of a `Batch`."""
        x = self.embedding(self._row_numbers(numbers))
        vectors = F.embedding(neighbours, positions) + offsets - positions.unsqueeze(1)
        distances = (vectors * vectors).sum(-1, keepdim=True).sqrt()
        inside = (distances < self.config.cutoff).to(positions.dtype)
        fade = (
            (flambeau.cos(distances.clamp(max=self.config.cutoff) * (math.pi / self.config.cutoff)) + 1) * 0.5 * inside
        )
        spread = distances - self.centres.to(positions.dtype)
        basis = flambeau.exp(spread * spread * self._sharpness)
        for interaction in self.interactions:
            x = interaction(x, basis, fade, neighbours)
        atoms = self.output2(shifted_softplus(self.output1(x))).squeeze(1) * self.config.scale
        return flambeau.zeros(size, dtype=atoms.dtype, device=atoms.device).index_add(0, structure, atoms)

    def references(self, numbers: np.ndarray) -> float:
        """The sum of the reference energies (eV) of these atoms."""
        return float(sum(self.config.references.get(ELEMENTS[number - 1], 0.0) for number in numbers))

    def _row_numbers(self, numbers: Tensor) -> Tensor:
        rows = self._rows[numbers.cpu().numpy()]
        if rows.min() < 0:
            unknown = ELEMENTS[int(numbers.cpu().numpy()[rows.argmin()]) - 1]
            known = ", ".join(ELEMENTS[number - 1] for number in self.config.elements)
            raise FlambeauError(f"the potential does not know the element {unknown}", f"it knows {known}")
        return flambeau.from_numpy(rows).to(numbers.device)


def energy_and_forces(model: nn.Module, batch: Batch, create_graph: bool = False) -> tuple[Tensor, Tensor]:
    """Energies (M,) in eV and forces (A, 3) in eV/Å: the negative gradient with respect to the positions.

    Args:
        create_graph: keep the graph of the forces, so that a loss of them can be differentiated again.
    """
    with flambeau.enable_grad():
        positions = batch.positions.detach().requires_grad_()
        energy = model(*batch._replace(positions=positions))
        (gradient,) = flambeau.autograd.grad(energy.sum(), positions, create_graph=create_graph)
    if not create_graph:
        energy = energy.detach()
    return energy, -gradient


def reference_table(references: Mapping[int, float]) -> dict[str, float]:
    """Reference energies by element symbol, as the config holds them."""
    return {ELEMENTS[number - 1]: value for number, value in references.items()}
