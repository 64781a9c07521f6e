"""Language models: one readable file for each family."""
