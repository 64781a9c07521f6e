"""Fast CPU kernels beside PyTorch's on the shapes of small segmentation networks."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cffi", reason="the fast kernels need cffi")
try:
    from flambeau.backends.kernels import onednn_conv, onednn_norm, onednn_pool
except ImportError as error:
    pytest.skip(f"the fast kernels need oneDNN: {error}", allow_module_level=True)


def rand(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32)


def close(actual, expected):
    expected = expected.detach().numpy()
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "n, c, size, o, k, stride, padding, dilation, groups",
    [
        (2, 3, (48, 36), 16, 3, 1, 1, 1, 1),
        (2, 32, (48, 36), 32, 3, 1, 1, 1, 1),
        (2, 32, (48, 36), 64, 3, 2, 1, 1, 1),
        (2, 64, (30, 23), 64, 3, 1, 4, 4, 1),
        (2, 64, (30, 23), 64, 3, 1, 1, 1, 64),
        (2, 64, (30, 23), 128, 1, 1, 0, 1, 1),
        (2, 96, (15, 12), 24, 1, 1, 0, 1, 4),
        (2, 6, (40,), 10, 5, 2, 2, 1, 1),
        (1, 4, (6, 7, 8), 8, 3, 1, 1, 1, 1),
    ],
)
def test_convolution(n, c, size, o, k, stride, padding, dilation, groups):
    rank = len(size)
    x, w, b = rand(n, c, *size), rand(o, c // groups, *[k] * rank), rand(o)
    rest = [(v,) * rank for v in (stride, padding, dilation)]
    conv = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}[rank]
    tx, tw, tb = (torch.from_numpy(a).requires_grad_() for a in (x, w, b))
    out = conv(tx, tw, tb, *rest, groups)
    close(onednn_conv.convolution(x, w, b, *rest, groups), out)
    g = rand(*out.shape, seed=1)
    out.backward(torch.from_numpy(g))
    close(onednn_conv.convolution_input_grad(g, w, x.shape, *rest, groups), tx.grad)
    close(onednn_conv.convolution_weight_grad(g, x, w.shape, *rest, groups), tw.grad)


def test_transposed_convolution():
    x, w = rand(2, 16, 15, 12), rand(16, 8, 2, 2)
    expected = torch.conv_transpose2d(torch.from_numpy(x), torch.from_numpy(w), None, 2)
    rest = (2, 2), (0, 0), (1, 1), 1
    close(onednn_conv.convolution_input_grad(x, w, tuple(expected.shape), *rest), expected)


@pytest.mark.parametrize("shape", [(4, 16, 30, 23), (4, 3, 30, 23), (8, 32, 50)])
def test_batch_norm(shape):
    x, g, w, b = rand(*shape) + 5, rand(*shape, seed=1), rand(shape[1]), rand(shape[1], seed=1)
    tx, tw, tb = (torch.from_numpy(a).requires_grad_() for a in (x, w, b))
    expected = torch.nn.functional.batch_norm(tx, None, None, tw, tb, True)
    out, mean, var = onednn_norm.batch_norm_train(x, w, b, 1e-5)
    close(out, expected)
    expected.backward(torch.from_numpy(g))
    for actual, leaf in zip(onednn_norm.batch_norm_grad(g, x, mean, var, w, 1e-5), (tx, tw, tb)):
        close(actual, leaf.grad)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("size, k, stride, padding", [((31, 22), 2, 2, 0), ((31, 22), 3, 2, 1), ((31, 22), 5, 3, 2)])
def test_pools(size, k, stride, padding, ceil_mode):
    x = rand(2, 12, *size)
    args = (k, k), (stride, stride), (padding, padding)
    tx = torch.from_numpy(x).requires_grad_()
    functional = torch.nn.functional
    expected, where = functional.max_pool2d(tx, *args, ceil_mode=ceil_mode, return_indices=True)
    out, indices = onednn_pool.max_pool(x, *args, (1, 1), ceil_mode)
    np.testing.assert_array_equal(out, expected.detach().numpy())
    np.testing.assert_array_equal(indices, where.numpy())
    g = rand(*out.shape, seed=1)
    expected.backward(torch.from_numpy(g))
    close(onednn_pool.max_pool_grad(g, indices, x.shape), tx.grad)
    for include in (True, False):
        tx.grad = None
        expected = functional.avg_pool2d(tx, *args, ceil_mode, include)
        expected.backward(torch.from_numpy(g))
        out = onednn_pool.avg_pool(x, *args, ceil_mode, include)
        if out is NotImplemented:
            assert ceil_mode
            continue
        close(out, expected)
        close(onednn_pool.avg_pool_grad(g, x.shape, *args, ceil_mode, include), tx.grad)
