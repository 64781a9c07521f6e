"""Trainers of language models: one readable file for each way of training."""
