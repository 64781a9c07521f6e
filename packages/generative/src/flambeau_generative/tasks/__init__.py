"""Tasks: measuring a trained generative model on a data set, and drawing samples from it."""
