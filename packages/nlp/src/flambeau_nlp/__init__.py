"""Language models, tokenizers and trainers for Flambeau."""

__version__ = "0.1.0"
