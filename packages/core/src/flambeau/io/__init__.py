"""Files: safetensors, ``save``/``load``, model weights with a card, atomic writing."""

from .atomic import atomic_write
from .safetensors import SafetensorsFile, load_file, safe_open, save_file
from .serialize import UnsupportedFormatError, load, save
from .weights import ModelCard, load_model_state, read_model_card, save_model

__all__ = [
    "ModelCard",
    "SafetensorsFile",
    "UnsupportedFormatError",
    "atomic_write",
    "load",
    "load_file",
    "load_model_state",
    "read_model_card",
    "safe_open",
    "save",
    "save_file",
    "save_model",
]
