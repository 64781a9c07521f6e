"""Layers whose weights are integers. They are made from trained ones, and train no further but for their bias."""

from __future__ import annotations

from .. import ops
from ..nn.embedding import Embedding
from ..nn.linear import Linear
from ..nn.module import Module
from ..tensor import Tensor
from .integers import rows_of, to_int4, to_int8

WEIGHTS = ("int8", "int4")


class _Quantized(Module):
    """The buffers `weight` and `scale`; `group` is None for int8."""

    def __init__(self, weight: Tensor, weights: str, group: int) -> None:
        super().__init__()
        if weights not in WEIGHTS:
            raise ValueError(f"weights must be 'int8' or 'int4', not {weights!r}")
        self.rows, self.features = weight.shape
        self.group = group if weights == "int4" else None
        integers, scale = to_int8(weight) if self.group is None else to_int4(weight, self.group)
        self.register_buffer("weight", integers)
        self.register_buffer("scale", scale)

    def _linear(self, input: Tensor, bias: Tensor | None) -> Tensor:
        if self.group is None:
            return ops.linear_int8(input, self.weight, self.scale, bias)
        return ops.linear_int4(input, self.weight, self.scale, bias, self.group)

    def _text(self) -> str:
        return "weights=int8" if self.group is None else f"weights=int4, group={self.group}"


class QuantizedLinear(_Quantized):
    """`nn.Linear` with int8 or int4 weights: the buffers `weight` and `scale`, and the bias as it was.

    int8: one scale for each output, ``weight`` (out, in). int4: one for each ``group`` inputs of an output, ``weight``
    (out, ceil(in / 2)), see `flambeau.ops.dequantize_int4`. Gradients flow to the input and the bias.

    >>> import flambeau
    >>> layer = QuantizedLinear(flambeau.nn.Linear(64, 3), weights="int4", group=32)
    >>> layer(flambeau.ones(2, 64)).shape, sorted(layer.state_dict())
    (flambeau.Size([2, 3]), ['bias', 'scale', 'weight'])
    """

    def __init__(self, linear: Linear, weights: str = "int8", group: int = 64) -> None:
        super().__init__(linear.weight, weights, group)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_parameter("bias", linear.bias)

    def forward(self, input: Tensor) -> Tensor:
        return self._linear(input, self.bias)

    def extra_repr(self) -> str:
        head = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{head}, bias={self.bias is not None}, {self._text()}"


class QuantizedEmbedding(_Quantized):
    """`nn.Embedding` with int8 or int4 weights; `unembed` uses them as the output layer of a language model as well.

    >>> import flambeau
    >>> table = QuantizedEmbedding(flambeau.nn.Embedding(10, 64))
    >>> unembed(table(flambeau.tensor([[1, 2]])), table).shape
    flambeau.Size([1, 2, 10])
    """

    def __init__(self, embedding: Embedding, weights: str = "int8", group: int = 64) -> None:
        if embedding.max_norm is not None:
            raise ValueError("an embedding with max_norm rescales its rows as it reads them: it cannot be quantized")
        super().__init__(embedding.weight, weights, group)
        self.num_embeddings, self.embedding_dim = embedding.num_embeddings, embedding.embedding_dim

    def forward(self, input: Tensor) -> Tensor:
        return rows_of(self.weight, self.scale, input, self.features, self.group)

    def unembed(self, input: Tensor) -> Tensor:
        """input @ weight.T: scores of all rows for vectors (…, embedding_dim)."""
        return self._linear(input, None)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, {self._text()}"


def unembed(input: Tensor, embedding: Module) -> Tensor:
    """Scores of all rows of an embedding, quantized or not: what a language model with tied weights ends with."""
    if isinstance(embedding, QuantizedEmbedding):
        return embedding.unembed(input)
    return ops.linear(input, embedding.weight)
