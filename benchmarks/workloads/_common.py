"""Inputs and weights that are the same in both libraries."""

import zlib

import numpy as np


def array(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def integers(high: int, *shape: int, seed: int = 1) -> np.ndarray:
    """Labels or tokens from 0 to high - 1, int64."""
    return np.random.default_rng(seed).integers(0, high, shape)


class Call:
    """A step that calls `function` with `inputs`: what changes from call to call when the function is compiled.

    A compiled function may compute once what depends on nothing but its surroundings.
    """

    def __init__(self, function, *inputs):
        self.function, self.inputs = function, inputs

    def __call__(self):
        return self.function(*self.inputs)


def set_weights(torch, model, device="cpu"):
    """Load a state dict that depends on the names and shapes alone, and move the model to the device.

    Matrices and kernels are normal, scaled by the root of their fan-in; biases are zero; the rest (norms and their
    statistics) stays as it is.
    """
    state = model.state_dict()
    for name, value in state.items():
        shape = tuple(value.shape)
        if "bias" in name:
            state[name] = torch.zeros(shape)
        elif len(shape) > 1:
            weight = array(*shape, seed=zlib.crc32(name.encode()))
            weight /= np.sqrt(np.prod(shape[1:])).astype(np.float32)
            state[name] = torch.from_numpy(weight)
    model.load_state_dict(state)
    return model.to(device)


def train_step(torch, model, optimizer, x, y):
    """The usual step of a classifier: gradients to None, forward, loss, backward, update."""
    cross_entropy = torch.nn.functional.cross_entropy

    def step() -> float:
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
