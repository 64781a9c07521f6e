"""What flambeau-rl registers with Flambeau. Imports nothing heavy."""
