"""Trainers of vision models: one readable file for each way of training."""
