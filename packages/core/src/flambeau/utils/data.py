"""The package `flambeau.data` under PyTorch's name: ``from flambeau.utils.data import DataLoader``."""

from ..data import *  # noqa: F403
from ..data import __all__  # noqa: F401
