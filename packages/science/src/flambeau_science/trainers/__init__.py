"""Trainers for measurements: one readable file for each way of training."""
