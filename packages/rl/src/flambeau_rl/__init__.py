"""Reinforcement learning for Flambeau."""

__version__ = "0.1.0"
