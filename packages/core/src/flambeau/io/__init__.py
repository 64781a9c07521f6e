"""Files: ``save``/``load``, safetensors, PyTorch's formats, pretrained folders, model cards, atomic writing."""

from .atomic import atomic_write
from .errors import CheckpointError, UnsupportedFormatError
from .hub import from_pretrained, save_pretrained
from .safetensors import SafetensorsFile, load_file, safe_open, save_file
from .serialize import load, save
from .shards import save_sharded
from .weights import ModelCard, load_model_state, read_model_card, save_model_state

__all__ = [
    "CheckpointError",
    "ModelCard",
    "SafetensorsFile",
    "UnsupportedFormatError",
    "atomic_write",
    "from_pretrained",
    "load",
    "load_file",
    "load_model_state",
    "read_model_card",
    "safe_open",
    "save",
    "save_file",
    "save_model_state",
    "save_pretrained",
    "save_sharded",
]
