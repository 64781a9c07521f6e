"""What is done with the networks: scores on a data set, predictions for files."""
