"""Complex numbers: PyTorch's conventions, and first- and second-order gradients against finite differences."""

import numpy as np
import pytest

import flambeau as fb
from flambeau.autograd import gradcheck, gradgradcheck

F = fb.nn.functional


def number(*shape, seed=0, grad=True):
    """Complex numbers away from 0 and from the negative axis, where logarithm and root are cut."""
    rng = np.random.default_rng(seed)
    return fb.tensor(rng.uniform(0.5, 1.5, shape) + 1j * rng.uniform(0.3, 1.0, shape), requires_grad=grad)


UNARY = {
    "exp": fb.exp, "log": fb.log, "sqrt": fb.sqrt, "tanh": fb.tanh, "sin": fb.sin, "cos": fb.cos, "sinh": fb.sinh,
    "cosh": fb.cosh, "tan": fb.tan, "abs": fb.abs, "angle": fb.angle, "conj": lambda z: z.conj() * z,
    "real": lambda z: z.real**2, "imag": lambda z: z.imag**2, "square": fb.square, "reciprocal": fb.reciprocal,
    "rsqrt": fb.rsqrt, "cube": lambda z: z**3, "power": lambda z: z**1.5, "base": lambda z: 2.0**z,
    "sigmoid": fb.sigmoid, "sgn": fb.sgn, "norm": fb.linalg.norm, "sum": lambda z: z.sum() ** 2, "prod": fb.prod,
    "mean": lambda z: z.mean(0) ** 2, "cumsum": lambda z: z.cumsum(0) ** 2, "fft": lambda z: fb.fft.fft(z) ** 2,
    "ifft": lambda z: fb.fft.ifft(z) ** 2, "view_as_real": lambda z: fb.view_as_real(z) ** 3,
}  # fmt: skip
BINARY = {
    "mul": lambda a, b: a * b, "div": lambda a, b: a / b, "pow": lambda a, b: a**b, "matmul": lambda a, b: a @ b,
    "einsum": lambda a, b: fb.einsum("ij,kj->ik", a, b), "where": lambda a, b: fb.where(a.real > b.real, a * a, b * b),
}  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
def test_gradients_of_one_argument(name):
    z = number(4)
    assert gradcheck(UNARY[name], z)
    assert gradgradcheck(UNARY[name], z)


@pytest.mark.parametrize("name", BINARY)
def test_gradients_of_two_arguments(name):
    a, b = number(2, 2), number(2, 2, seed=1)
    assert gradcheck(BINARY[name], [a, b])
    assert gradgradcheck(BINARY[name], [a, b])


def test_convolution():
    x, w = number(1, 2, 5), number(2, 2, 3, seed=1)
    assert gradcheck(lambda x, w: F.conv1d(x, w, padding=1), [x, w])
    assert gradgradcheck(lambda x, w: F.conv1d(x, w, padding=1), [x, w])


@pytest.mark.parametrize("name", ["mul", "div", "pow"])
def test_a_real_and_a_complex_argument(name):
    a, b = number(2, 2), fb.tensor([[0.5, 1.0], [1.5, 2.0]], dtype=fb.float64, requires_grad=True)
    for pair in ([a, b], [b, a]):
        assert gradcheck(BINARY[name], pair)
        assert gradgradcheck(BINARY[name], pair)


def test_gradient_of_the_squared_modulus_is_twice_the_number():
    z = number(3)
    (z.abs() ** 2).sum().backward()
    np.testing.assert_allclose(z.grad.numpy(), 2 * z.detach().numpy(), rtol=1e-14)
    w = number(3)
    (w * w.conj()).real.sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), 2 * w.detach().numpy(), rtol=1e-14)


def test_gradient_of_a_holomorphic_function_is_conjugate():
    z = number(3)
    fb.exp(z).backward(fb.ones(3, dtype=fb.complex128))
    np.testing.assert_allclose(z.grad.numpy(), np.exp(z.detach().numpy()).conj(), rtol=1e-14)


def test_modulus_and_sign_have_gradient_zero_at_zero():
    for function in (fb.abs, lambda z: fb.sgn(z).real):
        z = fb.zeros(2, dtype=fb.complex128, requires_grad=True)
        function(z).sum().backward()
        np.testing.assert_array_equal(z.grad.numpy(), 0)


def test_backward_from_a_complex_number_needs_a_cotangent():
    z = number()
    with pytest.raises(RuntimeError, match="complex"):
        (z * z).backward()


def test_backward_from_a_complex_number_with_a_cotangent():
    z = number()
    (z * z).backward(fb.tensor(1.0 + 0j, dtype=fb.complex128))
    np.testing.assert_allclose(z.grad.item(), 2 * np.conj(z.item()))


def test_a_real_leaf_gets_a_real_gradient():
    x = fb.tensor([1.0, 2.0], dtype=fb.float64, requires_grad=True)
    (x * (2 + 3j)).backward(fb.tensor([1.0 + 1j, 1j], dtype=fb.complex128))
    assert x.grad.dtype == fb.float64
    np.testing.assert_allclose(x.grad.numpy(), [5.0, 3.0])


def test_views_as_real_and_complex_numbers():
    z = number(2, 3)
    pairs = fb.view_as_real(z)
    assert pairs.shape == (2, 3, 2) and pairs.dtype == fb.float64
    back = fb.view_as_complex(pairs)
    np.testing.assert_array_equal(back.detach().numpy(), z.detach().numpy())
    (back.abs() ** 2).sum().backward()
    np.testing.assert_allclose(z.grad.numpy(), 2 * z.detach().numpy(), rtol=1e-14)
    plain = fb.zeros(2, dtype=fb.complex64)
    fb.view_as_real(plain)[0, 1] = 3.0
    assert plain[0].item() == 3j
    np.testing.assert_allclose(fb.polar(z.abs(), z.angle()).detach().numpy(), z.detach().numpy(), rtol=1e-14)
    np.testing.assert_array_equal(fb.complex(z.real, z.imag).detach().numpy(), z.detach().numpy())
