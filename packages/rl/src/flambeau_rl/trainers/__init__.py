"""Trainers of agents: one readable file for each algorithm."""
