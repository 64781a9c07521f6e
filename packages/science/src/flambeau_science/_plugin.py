"""What flambeau-science registers with Flambeau. Imports nothing heavy."""
