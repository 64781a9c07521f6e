"""Tasks: what is measured and predicted with a trained model."""
