"""What flambeau-translate registers with Flambeau. Imports nothing heavy."""
