"""The potential: laws that hold by construction, what it learns, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

import flambeau
from flambeau.errors import FlambeauError, UsageError
from flambeau.plugins import create_dataset, create_model, save_model
from flambeau.testing import ModelConformance, TrainerConformance
from flambeau_science.models.schnet import SchNet, SchNetConfig, energy_and_forces
from flambeau_science.structures import Structure, make_batch, neighbours, read_npz, read_structures, read_xyz
from flambeau_science.tasks import potential as task
from flambeau_science.trainers import potential as trainer

SMALL = {"elements": (1, 6, 8), "features": 8, "interactions": 2, "gaussians": 8, "cutoff": 3.0}
UNITS = {"energy_unit": "eV", "force_unit": "eV/angstrom"}


def molecule(seed=0, atoms=6, cell=None, size=2.5):
    rng = np.random.default_rng(seed)
    positions = np.empty((0, 3))
    while len(positions) < atoms:
        point = rng.uniform(0, size, 3)
        if len(positions) == 0 or np.linalg.norm(positions - point, axis=1).min() > 0.8:
            positions = np.vstack([positions, point])
    return Structure(rng.choice([1, 6, 8], atoms), positions, cell)


def potential(**config):
    """A small network in double precision whose last layers are not small."""
    flambeau.manual_seed(0)
    return SchNet(SchNetConfig(**{**SMALL, **config})).double().eval()


def compute(model, structures, create_graph=False):
    structures = [structures] if isinstance(structures, Structure) else structures
    near = [neighbours(structure, model.config.cutoff) for structure in structures]
    energy, forces = energy_and_forces(model, make_batch(structures, near, flambeau.float64), create_graph)
    return energy.detach().numpy(), forces.detach().numpy()


class TestSchNet(ModelConformance):
    model = "science/schnet"
    config = SMALL
    output_shape = (2,)

    def inputs(self):
        structures = [molecule(1), molecule(2, 4)]
        return tuple(make_batch(structures, [neighbours(structure, 3.0) for structure in structures]))


@pytest.mark.parametrize("cell", [None, np.array([[6.5, 0, 0], [0.5, 6.2, 0], [-0.3, 0.4, 7]])])
def test_forces_are_the_negative_slope_of_the_energy(cell):
    model, structure = potential(), molecule(0, 8, cell, 2.5 if cell is None else 6)
    _, forces = compute(model, structure)
    step = 1e-4
    for atom in range(len(structure.numbers)):
        for axis in range(3):
            energies = []
            for times in (-2, -1, 1, 2):  # a five-point rule: the error is of fourth order
                positions = structure.positions.copy()
                positions[atom, axis] += times * step
                energies.append(compute(model, Structure(structure.numbers, positions, cell))[0][0])
            slope = (energies[0] - 8 * energies[1] + 8 * energies[2] - energies[3]) / (12 * step)
            assert forces[atom, axis] == pytest.approx(-slope, abs=1e-9)
    assert np.abs(forces).max() > 1e-3


def test_the_gradient_of_a_force_loss_against_finite_differences():
    """Double backward: the parameters' gradient of a loss of forces, which are gradients themselves."""
    model, structure = potential(), molecule()
    batch = make_batch([structure], [neighbours(structure, 3.0)], flambeau.float64)

    def loss():
        energy, forces = energy_and_forces(model, batch, create_graph=True)
        return (forces * forces).sum() + (energy * energy).sum()

    loss().backward()
    rng = np.random.default_rng(0)
    for name, parameter in model.named_parameters():
        direction = rng.normal(size=tuple(parameter.shape))
        direction /= np.linalg.norm(direction)
        before, values = parameter.detach().numpy().copy(), []
        for step in (-1e-5, 1e-5):
            with flambeau.no_grad():
                parameter.copy_(flambeau.from_numpy(before + step * direction))
            values.append(float(loss().item()))
        with flambeau.no_grad():
            parameter.copy_(flambeau.from_numpy(before))
        gradient = 0.0 if parameter.grad is None else float((parameter.grad.numpy() * direction).sum())
        assert gradient == pytest.approx((values[1] - values[0]) / 2e-5, rel=1e-5, abs=1e-8), name


def rotation(seed):
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.diag(r))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_moving_turning_and_mirroring(seed):
    model, structure, turn = potential(), molecule(seed), rotation(seed)
    energy, forces = compute(model, structure)
    moved = Structure(structure.numbers, structure.positions @ turn.T + [10, -3, 7])
    other, other_forces = compute(model, moved)
    assert other == pytest.approx(energy, abs=1e-11)
    assert other_forces == pytest.approx(forces @ turn.T, abs=1e-10)
    assert forces.sum(0) == pytest.approx(np.zeros(3), abs=1e-11)
    assert np.cross(structure.positions, forces).sum(0) == pytest.approx(np.zeros(3), abs=1e-10)


def test_atoms_in_another_order():
    model, structure = potential(), molecule()
    order = np.random.default_rng(3).permutation(len(structure.numbers))
    energy, forces = compute(model, structure)
    other, other_forces = compute(model, Structure(structure.numbers[order], structure.positions[order]))
    assert other == pytest.approx(energy, abs=1e-11)
    assert other_forces == pytest.approx(forces[order], abs=1e-11)


def test_the_energy_is_extensive():
    model, one, two = potential(), molecule(1), molecule(2)
    both = Structure(np.concatenate([one.numbers, two.numbers]), np.vstack([one.positions, two.positions + 50]))
    separate = [compute(model, structure) for structure in (one, two)]
    energy, forces = compute(model, both)
    assert energy[0] == pytest.approx(separate[0][0][0] + separate[1][0][0], abs=1e-11)
    assert forces == pytest.approx(np.vstack([forces for _, forces in separate]), abs=1e-11)


def test_a_batch_changes_nothing():
    model, structures = potential(), [molecule(1), molecule(2, 3), molecule(3, 9, size=4)]
    energies, forces = compute(model, structures)
    alone = [compute(model, structure) for structure in structures]
    assert energies == pytest.approx(np.concatenate([energy for energy, _ in alone]), abs=1e-12)
    assert forces == pytest.approx(np.vstack([force for _, force in alone]), abs=1e-12)


def test_the_energy_is_smooth_at_the_cutoff():
    model = potential()
    numbers = np.array([6, 8])
    energies, slopes = [], []
    for distance in (3 - 1e-6, 3 + 1e-6):
        energy, forces = compute(model, Structure(numbers, np.array([[0, 0, 0], [distance, 0, 0]])))
        energies.append(energy[0])
        slopes.append(forces[1, 0])
    assert energies[0] == pytest.approx(energies[1], abs=1e-10)
    assert slopes == pytest.approx([0, 0], abs=1e-5)


def test_a_single_atom_has_an_energy_and_no_force():
    energy, forces = compute(potential(), Structure(np.array([8]), np.zeros((1, 3))))
    assert np.isfinite(energy).all()
    assert (forces == 0).all()


def test_a_periodic_cell_equals_its_copies():
    """Atoms may be moved by lattice vectors, and a cell repeated has a multiple of the energy."""
    cell = np.diag([6.5, 7.0, 6.2])
    model, structure = potential(), molecule(0, 10, cell, 6)
    energy, forces = compute(model, structure)
    shifts = np.random.default_rng(0).integers(-2, 3, (10, 3)) @ cell
    assert compute(model, Structure(structure.numbers, structure.positions + shifts, cell))[0] == pytest.approx(energy)
    double = Structure(
        np.tile(structure.numbers, 2),
        np.vstack([structure.positions, structure.positions + cell[0]]),
        np.diag([13.0, 7.0, 6.2]),
    )
    twice, twice_forces = compute(model, double)
    assert twice[0] == pytest.approx(2 * energy[0], abs=1e-10)
    assert twice_forces == pytest.approx(np.tile(forces, (2, 1)), abs=1e-10)
    # Against the sum over all images of all neighbours, written out.
    found = neighbours(structure, 3.0)
    for atom in range(10):
        vectors = structure.positions[found.atoms[atom]] + found.offset[atom] - structure.positions[atom]
        mine = sorted(d for d in np.linalg.norm(vectors, axis=1) if d < 3)
        images = [
            np.linalg.norm(other + np.array([i, j, k]) @ cell - structure.positions[atom])
            for other in structure.positions for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)
        ]  # fmt: skip
        assert mine == pytest.approx(sorted(d for d in images if 0 < d < 3))


def test_what_neighbours_refuse():
    with pytest.raises(FlambeauError, match=r"atoms 1 and 3 are 0\.100 Å apart"):
        neighbours(Structure(np.array([1, 1, 1]), np.array([[0, 0, 0], [2, 0, 0], [0.1, 0, 0]])), 3.0)
    with pytest.raises(FlambeauError, match=r"the cell is 5\.00 Å high, less than twice the cutoff"):
        neighbours(molecule(0, 3, np.eye(3) * 5), 3.0)
    with pytest.raises(FlambeauError, match="does not know the element N"):
        compute(potential(), Structure(np.array([7]), np.zeros((1, 3))))


# -- data and training -------------------------------------------------------------------------------------------------


def write_springs(folder, count=120, **extra):
    """Water with harmonic bonds: E = sum of 2 (r - r0)² for O-H at 0.96 Å and H-H at 1.5 Å, less 10 eV; F exact."""
    rng = np.random.default_rng(0)
    rest = np.array([[0, 0, 0], [0.96, 0, 0], [-0.2, 0.94, 0]])
    positions = rest + rng.normal(0, 0.1, (count, 3, 3))
    energies, forces = np.full(count, -10.0), np.zeros_like(positions)
    for i, j, length in ((0, 1, 0.96), (0, 2, 0.96), (1, 2, 1.5)):
        vector = positions[:, j] - positions[:, i]
        distance = np.linalg.norm(vector, axis=1)
        energies += 2 * (distance - length) ** 2
        pull = (4 * (distance - length) / distance)[:, None] * vector
        forces[:, i] += pull
        forces[:, j] -= pull
    arrays = dict(R=positions, E=energies, F=forces, species=np.array(["O", "H", "H"]), **extra)
    np.savez(folder / "springs.npz", **{name: array for name, array in arrays.items() if array is not None})
    return str(folder / "springs.npz")


TINY = {"features": 16, "interactions": 2, "gaussians": 16, "cutoff": 3.0}


class TestPotential(TrainerConformance):
    model, trainer = "science/schnet", "science/potential"
    options = {"epochs": 2, "batch_size": 8, "model": TINY, **UNITS}

    def data(self, folder):
        return write_springs(folder, 60)

    def test_resuming_an_interrupted_run_equals_running_through(self, tmp_path, monkeypatch):
        options = {**self.options, "checkpoint_every": 3}
        whole = self.run(tmp_path, tmp_path / "whole", options)
        compute_one, calls = trainer.energy_and_forces, []

        def interrupt(*args, **kwargs):
            calls.append(1)
            if len(calls) == 5:
                raise KeyboardInterrupt
            return compute_one(*args, **kwargs)

        monkeypatch.setattr(trainer, "energy_and_forces", interrupt)
        with pytest.raises(KeyboardInterrupt):
            self.run(tmp_path, tmp_path / "cut", options)
        monkeypatch.undo()
        assert self.run(tmp_path, tmp_path / "cut", options, resume=True) == whole


def test_energies_and_forces_are_learnt(tmp_path):
    data = write_springs(tmp_path, 400)
    options = {"epochs": 25, "batch_size": 16, "lr": 1e-2, "model": TINY, **UNITS}
    metrics = trainer.train("science/schnet", data, str(tmp_path / "run"), options, False)
    scores = task.evaluate(str(tmp_path / "run"), data, "test", {})
    dataset = create_dataset("science/structures", data, "test", **UNITS)
    spread = np.mean([np.abs(structure.forces).mean() for structure in dataset.structures])
    assert scores["structures"] == 40
    assert scores["force_mae_eV_per_A"] < 0.1 * spread
    assert scores["energy_mae_eV"] < 0.02
    assert scores["energy_mae_meV_per_atom"] == pytest.approx(1e3 / 3 * scores["energy_mae_eV"], rel=1e-6)
    assert set(metrics) == set(scores) - {"structures"}
    rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert rows[-1]["val_force_mae_eV_per_A"] < 0.3 * rows[0]["val_force_mae_eV_per_A"]

    records = list(task.predict(str(tmp_path / "run"), [data, "nowhere.npz"], str(tmp_path / "out"), {}))
    written = read_npz(records[0]["path"])
    wanted = read_npz(data, **UNITS)
    errors = [abs(a.energy - b.energy) for a, b in zip(written, wanted, strict=True)]
    assert np.mean(errors) < 0.02
    assert "no such file" in records[1]["error"]

    (tmp_path / "water.xyz").write_text("3\nrelaxed\nO 0 0 0\nH 0.96 0 0\nH -0.2 0.94 0\n")
    (record,) = task.predict(str(tmp_path / "run"), [str(tmp_path / "water.xyz")], None, {})
    assert record["output"]["energy_eV"] == pytest.approx(-10, abs=0.1)


def test_units_are_converted_once(tmp_path):
    plain = read_npz(write_springs(tmp_path, 4), "hartree", "hartree/bohr")
    stated = read_npz(write_springs(tmp_path, 4, energy_unit=np.array("eV"), force_unit=np.array("eV/angstrom")))
    assert plain[0].energy == pytest.approx(27.211386 * stated[0].energy)
    assert plain[0].forces == pytest.approx(27.211386 / 0.52917721 * stated[0].forces)


def test_units_are_not_guessed(tmp_path):
    data = write_springs(tmp_path)
    with pytest.raises(UsageError, match="does not state its energy unit") as error:
        trainer.train("science/schnet", data, str(tmp_path / "run"), {}, False)
    assert "--set energy_unit=UNIT" in error.value.mend
    with pytest.raises(UsageError, match="force_unit='N' is unknown"):
        read_npz(data, "eV", "N")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"R": None}, "needs the arrays R and species"),
        ({"F": None}, "energies E and forces F are needed"),
        ({"E": np.zeros(7)}, r"E has the shape \(7,\), not \(120,\)"),
        ({"species": np.array(["O", "H", "Xx"])}, "unknown element 'Xx'"),
        ({"species": np.array(["O", "H"])}, "R has the shape"),
    ],
)
def test_npz_files_that_are_refused(tmp_path, change, message):
    with np.load(write_springs(tmp_path)) as file:
        arrays = {**{name: file[name] for name in file.files}, **change}
    np.savez(tmp_path / "bad.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(FlambeauError, match=message):
        create_dataset("science/structures", str(tmp_path / "bad.npz"), **UNITS)


def test_a_structure_that_is_not_finite_is_named(tmp_path):
    with np.load(write_springs(tmp_path)) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["F"][17, 2, 1] = np.nan
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(FlambeauError, match="F of structure 18 is not finite"):
        read_npz(tmp_path / "bad.npz", **UNITS)
    arrays["F"][17, 2, 1], arrays["R"][4, 1] = 0, arrays["R"][4, 0] + 0.01
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(FlambeauError, match="structure 5: atoms 1 and 2 are"):
        create_dataset("science/structures", str(tmp_path / "bad.npz"), "all", **UNITS)


def test_files_that_are_no_npz(tmp_path):
    whole = write_springs(tmp_path)
    (tmp_path / "cut.npz").write_bytes(Path(whole).read_bytes()[:3000])
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("cut", "text", "empty"):
        with pytest.raises(FlambeauError, match="not a whole npz file"):
            read_structures(tmp_path / f"{name}.npz", **UNITS)
    np.savez(tmp_path / "objects.npz", R=np.array([{}], object), species=np.array(["H"]))
    with pytest.raises(FlambeauError, match="not a whole npz file"):  # pickles are never opened
        read_structures(tmp_path / "objects.npz", **UNITS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no structures"),
        ("two\n\nH 0 0 0\n", "line 1 is not the number of atoms"),
        ("3\n\nH 0 0 0\n", "line 1 says 3 atoms, 1 follow"),
        ("1\n\nH 0 zero 0\n", "line 3 is not 'symbol x y z'"),
        ("1\n\nH 0 nan 0\n", "line 3 is not 'symbol x y z'"),
        ("1\n\nQq 0 0 0\n", "unknown element 'Qq'"),
        ('1\nLattice="1 2 3"\nH 0 0 0\n', "nine numbers"),
    ],
)
def test_xyz_files_that_are_refused(tmp_path, text, message):
    (tmp_path / "a.xyz").write_text(text)
    with pytest.raises(FlambeauError, match=message):
        read_xyz(tmp_path / "a.xyz")


def test_xyz_with_a_lattice_and_several_structures(tmp_path):
    (tmp_path / "a.xyz").write_text('1\nLattice="7 0 0 0 8 0 0 0 9" x=1\nH 0 1 2\n\n2\n\nC 0 0 0\nO 0 0 1.1 0.5\n')
    first, second = read_xyz(tmp_path / "a.xyz")
    assert first.cell.tolist() == [[7, 0, 0], [0, 8, 0], [0, 0, 9]]
    assert (second.numbers.tolist(), second.cell) == ([6, 8], None)


def test_options_that_are_refused(tmp_path):
    data = write_springs(tmp_path)
    for options, message in (
        ({"model": {"scale": 2}}, "come from the data"),
        ({"weight_force": -1}, "must not be negative"),
        ({"model": {"depth": 2}}, "no option 'depth'"),
        ({"wieght_force": 1}, "wieght_force"),
    ):
        with pytest.raises(UsageError, match=message):
            trainer.train("science/schnet", data, str(tmp_path / "run"), {**UNITS, **options}, False)
    assert not (tmp_path / "run").exists()
    other = save_model(create_model("science/mlp"), tmp_path / "mlp", "science/mlp", {})
    with pytest.raises(FlambeauError, match="a MLP is no potential"):
        task.evaluate(str(other), data, "test", {})


def test_ethane(real_data, tmp_path):
    """Three short epochs on real forces: better than predicting none by far."""
    data = str(real_data("13_molecules/ethane_dft_forces/C2H6_DFT_Force_NMS.npz"))
    units = {"energy_unit": "hartree", "force_unit": "hartree/bohr"}
    dataset = create_dataset("science/structures", data, "val", limit=200, **units)
    spread = np.mean([np.abs(structure.forces).mean() for structure in dataset.structures])
    options = {"epochs": 3, "limit": 1000, "batch_size": 8, "lr": 5e-3, "ema": 0.9, "model": TINY, **units}
    metrics = trainer.train("science/schnet", data, str(tmp_path / "run"), options, False)
    assert metrics["force_mae_eV_per_A"] < 0.4 * spread
