"""Trainers of generative models: one readable file for each way of training."""
