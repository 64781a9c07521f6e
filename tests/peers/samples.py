"""What the comparisons with PyTorch share: its sample inputs as ours, numbers to start from, equality."""

import numpy as np
import torch

import flambeau as fb


def walk(value, function):
    """The nested lists, tuples, dicts and slices with `function` applied to what they hold."""
    if isinstance(value, list | tuple):
        items = [walk(v, function) for v in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, dict):
        return {k: walk(v, function) for k, v in value.items()}
    if isinstance(value, slice):
        return slice(*walk((value.start, value.stop, value.step), function))
    return function(value)


def leaves(value, kind):
    """What is of a kind in nested lists, tuples and dicts, in order."""
    found = []
    walk(value, lambda v: found.append(v) if isinstance(v, kind) else None)
    return found


def array(t):
    """A NumPy copy of a PyTorch tensor; bfloat16 as float32."""
    t = t.detach().resolve_conj().resolve_neg().clone()
    return (t.float() if t.dtype == torch.bfloat16 else t).numpy()


def ours(value):
    """Our tensor or dtype for one of PyTorch's; other values as they are."""
    if isinstance(value, torch.dtype):
        return getattr(fb, str(value).removeprefix("torch."))
    if not isinstance(value, torch.Tensor):
        return value
    t = fb.tensor(array(value))
    return (t.bfloat16() if value.dtype == torch.bfloat16 else t).requires_grad_(value.requires_grad)


def draw(*shape, seed=0):
    """Numbers in [-1, 1) that depend on the shape and the seed alone."""
    return np.random.default_rng([seed, *shape]).uniform(-1, 1, shape)


def same(a, b, tolerance=1e-9):
    """Ours and PyTorch's tensor, or tuple of them, have equal shapes, dtypes and close values."""
    if isinstance(b, tuple | list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y, tolerance)
    elif b is None:
        assert a is None
    else:
        a, b = a.detach().numpy(), b.detach().numpy()
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
