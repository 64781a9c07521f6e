"""A training step of SchNet (Schütt et al. 2017) on energies and forces: 8 molecules of 16 atoms, three interactions.

The forces are the gradient of the energy, so the step goes through second derivatives.
"""

import math

import numpy as np

from ._common import array, integers, set_weights

MOLECULES, ATOMS, WIDTH, RADIAL, CUTOFF = 8, 16, 64, 32, 5.0


def schnet(torch):
    nn = torch.nn

    def shifted_softplus(x):
        return nn.functional.softplus(x) - math.log(2.0)

    class Interaction(nn.Module):
        def __init__(self):
            super().__init__()
            self.filter1, self.filter2 = nn.Linear(RADIAL, WIDTH), nn.Linear(WIDTH, WIDTH)
            self.inner = nn.Linear(WIDTH, WIDTH, bias=False)
            self.outer1, self.outer2 = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

        def forward(self, x, basis, envelope, source, target):
            weights = self.filter2(shifted_softplus(self.filter1(basis))) * envelope
            messages = self.inner(x)[source] * weights
            y = torch.zeros_like(x).index_add(0, target, messages)
            return x + self.outer2(shifted_softplus(self.outer1(y)))

    class SchNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(10, WIDTH)
            self.interactions = nn.ModuleList(Interaction() for _ in range(3))
            self.energy1, self.energy2 = nn.Linear(WIDTH, WIDTH // 2), nn.Linear(WIDTH // 2, 1)
            self.register_buffer("centres", torch.linspace(0.0, CUTOFF, RADIAL))

        def forward(self, numbers, positions, source, target, molecule):
            distance = (positions[source] - positions[target]).square().sum(-1, keepdim=True).sqrt()
            basis = torch.exp(-10.0 * (distance - self.centres).square())
            envelope = 0.5 * (torch.cos(distance * (math.pi / CUTOFF)) + 1.0) * (distance < CUTOFF).float()
            x = self.embedding(numbers)
            for interaction in self.interactions:
                x = interaction(x, basis, envelope, source, target)
            atomic = self.energy2(shifted_softplus(self.energy1(x))).squeeze(-1)
            return torch.zeros(MOLECULES, device=atomic.device).index_add(0, molecule, atomic)

    return SchNet()


def make(torch, device):
    model = set_weights(torch, schnet(torch), device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    count = MOLECULES * ATOMS
    molecule = np.repeat(np.arange(MOLECULES), ATOMS)
    source, target = np.nonzero((molecule[:, None] == molecule) & ~np.eye(count, dtype=bool))
    source, target, molecule = (torch.from_numpy(a).to(device) for a in (source, target, molecule))
    # atoms on a jittered grid: none lies on another
    grid = np.stack(np.meshgrid(*[np.arange(3.0)] * 3), -1).reshape(-1, 3)[:ATOMS] * 1.5
    places = (np.tile(grid, (MOLECULES, 1)) + 0.1 * array(count, 3)).astype(np.float32)
    positions = torch.from_numpy(places).to(device).requires_grad_()
    numbers = torch.from_numpy(integers(10, count)).to(device)
    energies = torch.from_numpy(array(MOLECULES, seed=2)).to(device)
    forces = torch.from_numpy(array(count, 3, seed=3)).to(device)
    mse_loss = torch.nn.functional.mse_loss

    def step():
        optimizer.zero_grad()
        energy = model(numbers, positions, source, target, molecule)
        (slope,) = torch.autograd.grad(energy.sum(), positions, create_graph=True)
        loss = mse_loss(energy, energies) + mse_loss(-slope, forces)
        loss.backward()
        optimizer.step()
        return loss.item(), slope

    return step
