"""Inputs and weights that are the same in both libraries."""

import numpy as np


def array(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def set_weights(torch, model) -> None:
    """Fill the weights from one seed: scaled by fan-in, one-dimensional ones left as they are."""
    state = model.state_dict()
    for i, (name, value) in enumerate(state.items()):
        if value.ndim > 1:
            shape = tuple(value.shape)
            state[name] = torch.from_numpy(array(*shape, seed=i) / np.sqrt(np.prod(shape[1:])).astype(np.float32))
    for name, value in state.items():
        if value.ndim == 1 and name.endswith("bias"):
            state[name] = torch.zeros(value.shape[0])
    model.load_state_dict(state)


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
