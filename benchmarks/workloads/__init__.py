"""Each module has `make(torch, device)`: it sets up once, in that library, and returns a step that returns a number."""
