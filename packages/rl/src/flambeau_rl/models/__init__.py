"""Networks of agents."""
