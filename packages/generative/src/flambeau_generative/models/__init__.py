"""Generative models: one readable file for each family."""
