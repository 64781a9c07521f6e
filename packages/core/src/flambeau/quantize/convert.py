"""Quantizing a whole model."""

from __future__ import annotations

from collections.abc import Iterable

from ..nn.embedding import Embedding
from ..nn.linear import Linear
from ..nn.module import Module
from .modules import WEIGHTS, QuantizedEmbedding, QuantizedLinear


def quantize_(
    model: Module, weights: str = "int8", group: int = 64, skip: Iterable[str] = (), embeddings: Iterable[str] = ()
) -> Module:
    """Replace the linear layers of a model by `QuantizedLinear`, in place.

    Only the weights are integers: activations stay floats, and nothing has to be calibrated. A checkpoint of the
    result loads into a model of the same class after the same call.

    Args:
        weights: ``"int8"``, one scale for each output (symmetric); or ``"int4"``, one for each `group` inputs.
        group: a power of two from 32 on is fast; 32 is more exact, 128 smaller.
        skip: names of layers, or of modules that hold some, that stay as they are.
        embeddings: names of embeddings to quantize as well. A linear layer that shares its weight with one of them
            shares the integers, too.

    Returns:
        The model; where it is itself a linear layer, the layer that takes its place.

    Raises:
        ValueError: a name is not in the model, no layer is left to quantize, or weights are NaN or infinite.

    >>> import flambeau
    >>> from flambeau import nn
    >>> quantize_(nn.Sequential(nn.Linear(32, 8), nn.Linear(8, 2)), skip=["1"])
    Sequential(
      (0): QuantizedLinear(in_features=32, out_features=8, bias=True, weights=int8)
      (1): Linear(in_features=8, out_features=2, bias=True)
    )
    """
    if weights not in WEIGHTS:
        raise ValueError(f"weights must be 'int8' or 'int4', not {weights!r}")
    skipped, wanted = tuple(skip), tuple(embeddings)
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in (*skipped, *wanted):
        if name not in modules:
            raise ValueError(f"the model has no module {name!r}; see model.named_modules()")
    for name in wanted:
        if type(modules[name]) is not Embedding:
            raise ValueError(f"{name!r} is a {type(modules[name]).__name__}, not an Embedding")
    made: dict[int, Module] = {}  # by the layer's id: one that stands in several places stays one
    tables: dict[int, QuantizedEmbedding] = {}  # by the id of the weight
    for name in wanted:
        layer = modules[name]
        made[id(layer)] = tables[id(layer.weight)] = QuantizedEmbedding(layer, weights, group)  # type: ignore[arg-type]
    for name, layer in modules.items():
        if type(layer) is not Linear or id(layer) in made or _under(name, skipped):
            continue
        made[id(layer)] = quantized = QuantizedLinear(layer, weights, group)
        if table := tables.get(id(layer.weight)):
            quantized.weight, quantized.scale = table.weight, table.scale
    if not made:
        raise ValueError("the model has no linear layer to quantize")
    for name, layer in modules.items():
        if id(layer) in made and not _under(name, skipped):
            made[id(layer)].train(layer.training)
            if not name:
                return made[id(layer)]
            parent, _, child = name.rpartition(".")
            setattr(modules[parent], child, made[id(layer)])
    return model


def _under(name: str, tops: tuple[str, ...]) -> bool:
    return any(name == top or name.startswith(top + ".") for top in tops)
