"""Models and trainers for scientific data for Flambeau."""

__version__ = "0.1.0"
