"""Weights as 8- or 4-bit integers: models that read a quarter or an eighth of the memory.

>>> import flambeau
>>> from flambeau import nn, quantize
>>> model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).eval()
>>> model = quantize.quantize_(model, weights="int8")
>>> model[0].weight.dtype
flambeau.int8
"""

from .convert import quantize_
from .integers import to_int4, to_int8
from .modules import QuantizedEmbedding, QuantizedLinear, unembed

__all__ = ["QuantizedEmbedding", "QuantizedLinear", "quantize_", "to_int4", "to_int8", "unembed"]
