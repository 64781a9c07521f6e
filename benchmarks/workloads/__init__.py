"""Each module has `make(torch, device)`: it sets up once, in that library, and returns a step, or a dict of steps.

A step returns a number, a tensor or a tuple of these: what must agree between the libraries before they are timed.
A module may state `TOLERANCE` (of that comparison, relative, 1e-4), `ITEMS` (what a step gets through, such as
(512, "images")) and `UNIT` (of a step's value, where that is the result and not the time it takes).
"""
