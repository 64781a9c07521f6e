"""Radial basis function network (Broomhead and Lowe, 1988)."""

import flambeau
from flambeau import nn


class RadialBasisNetwork(nn.Module):
    """exp(-|x - centre|² / width²) for each centre, then a linear layer. (batch, inputs) -> (batch, classes)."""

    def __init__(self, inputs: int = 2, centres: int = 32, classes: int = 3):
        super().__init__()
        self.centres = nn.Parameter(flambeau.rand(centres, inputs) * 2 - 1)
        self.log_widths = nn.Parameter(flambeau.full((centres,), -1.0))
        self.output = nn.Linear(centres, classes)

    def forward(self, x):
        squared = ((x.unsqueeze(1) - self.centres) ** 2).sum(2)
        return self.output(flambeau.exp(-squared * flambeau.exp(-2 * self.log_widths)))
