"""What flambeau-generative registers with Flambeau. Imports nothing heavy."""
