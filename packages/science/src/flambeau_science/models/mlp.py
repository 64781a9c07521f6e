"""A multilayer perceptron for tables."""

from __future__ import annotations

from dataclasses import dataclass, field

from flambeau import Tensor, nn

from ..tables import Schema


@dataclass(frozen=True)
class MLPConfig:
    """Sizes of an `MLP`.

    Attributes:
        features: inputs after encoding: one for each numeric column, one for each level of a text column.
        outputs: 1 for regression, else the number of classes.
        hidden: widths of the hidden layers.
        dropout: probability of dropping a hidden unit while training.
        schema: how a table's rows become the inputs, as `flambeau_science.tables.Schema` writes it; empty when the
            caller encodes them.
    """

    features: int = 8
    outputs: int = 1
    hidden: tuple[int, ...] = (64, 64)
    dropout: float = 0.0
    schema: dict = field(default_factory=dict)


class MLP(nn.Module):
    """Outputs (N, outputs) for standardised inputs (N, features): linear layers with ReLU and dropout between.

    >>> import flambeau
    >>> tuple(MLP(MLPConfig(features=3))(flambeau.zeros(5, 3)).shape)
    (5, 1)
    """

    def __init__(self, config: MLPConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or MLPConfig()
        layers: list[nn.Module] = []
        width = config.features
        for size in config.hidden:
            layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(config.dropout)]
            width = size
        self.layers = nn.Sequential(*layers, nn.Linear(width, config.outputs))

    @property
    def schema(self) -> Schema | None:
        """How tables are encoded for it; None for a network that was not trained on a table."""
        return Schema.from_dict(self.config.schema) if self.config.schema else None

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
