"""What is done with agents: playing episodes."""
