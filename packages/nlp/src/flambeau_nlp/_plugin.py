"""What flambeau-nlp registers with Flambeau. Imports nothing heavy."""
