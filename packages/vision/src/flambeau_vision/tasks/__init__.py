"""Tasks: evaluating a trained vision model on a data set, and predicting for pictures."""
