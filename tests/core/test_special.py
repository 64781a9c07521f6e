"""Special functions: identities, values at the ends, dtypes and gradients."""

import math

import numpy as np
import pytest

import flambeau as fb
from flambeau import special
from flambeau.autograd import gradcheck, gradgradcheck

RNG = np.random.default_rng(0)


def uniform(low, high, n=200):
    return fb.tensor(RNG.uniform(low, high, n))


def close(a, b, rtol=1e-12, atol=0.0):
    a, b = (v.numpy() if isinstance(v, fb.Tensor) else v for v in (a, b))
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


# -- gamma ------------------------------------------------------------------------------------------------------
def test_recurrences_of_the_gamma_family():
    x = uniform(0.05, 30)
    close(special.gammaln(x + 1), special.gammaln(x) + fb.log(x), atol=1e-13)
    close(special.digamma(x + 1), special.digamma(x) + 1 / x, atol=1e-13)
    for n in (1, 2, 3):
        step = (-1) ** n * math.factorial(n) * x ** (-n - 1)
        close(special.polygamma(n, x + 1), special.polygamma(n, x) + step, rtol=1e-9)
    close(special.zeta(x + 1, x), special.zeta(x + 1, x + 1) + x ** (-x - 1))


def test_reflections_of_the_gamma_family():
    x = uniform(0.05, 0.95)
    close(special.gammaln(x) + special.gammaln(1 - x), fb.log(math.pi / fb.sin(math.pi * x)), atol=1e-14)
    close(special.digamma(1 - x) - special.digamma(x), math.pi / fb.tan(math.pi * x), atol=1e-13)
    close(special.digamma(-x) - special.digamma(1 + x), math.pi / fb.tan(math.pi * x), atol=1e-13)
    for whole in (0, -1, -3, -(2**20), -(2**30)):  # far left of 0 too
        y = fb.floor(x * 64 + 1) / 128 + whole  # exact
        sine = fb.sin(math.pi * (y - whole))
        close(special.polygamma(1, y) + special.polygamma(1, 1 - y), math.pi**2 / sine**2)


def test_known_values_of_the_gamma_family():
    n = fb.arange(1, 20, dtype=fb.float64)
    close(special.gammaln(n), [math.log(math.factorial(int(k) - 1)) for k in n.numpy()], atol=1e-15)
    close(special.digamma(fb.tensor(1.0, dtype=fb.float64)), -np.euler_gamma, rtol=1e-15)
    close(special.zeta(fb.tensor([2.0, 4.0], dtype=fb.float64), 1.0), [math.pi**2 / 6, math.pi**4 / 90], rtol=1e-14)
    poles = fb.tensor([0.0, -1.0, -7.0], dtype=fb.float64)
    close(special.gammaln(poles), [np.inf] * 3)
    close(special.digamma(poles), [-np.inf, np.nan, np.nan])
    close(special.zeta(fb.tensor([1.0, 0.5, np.nan], dtype=fb.float64), 2.0), [np.inf, np.nan, np.nan])


def test_incomplete_gamma_functions_are_complementary():
    a, x = uniform(0.01, 50), uniform(0.01, 50)
    close(special.gammainc(a, x) + special.gammaincc(a, x), np.ones(200))
    close(special.gammainc(fb.ones(200, dtype=fb.float64), x), -fb.expm1(-x))
    step = fb.exp(a * fb.log(x) - x - special.gammaln(a + 1))
    close(special.gammainc(a + 1, x), special.gammainc(a, x) - step, atol=1e-14)


def test_multivariate_gamma_in_one_dimension_is_gammaln():
    x = uniform(3, 9)
    close(special.multigammaln(x, 1), special.gammaln(x))
    close(special.multigammaln(x, 2), 0.5 * math.log(math.pi) + special.gammaln(x) + special.gammaln(x - 0.5))


@pytest.mark.parametrize("n", [-1, 1.5])
def test_polygamma_needs_a_natural_order(n):
    with pytest.raises(RuntimeError, match="n >= 0"):
        special.polygamma(n, fb.ones(2))


# -- error function and sigmoid -------------------------------------------------------------------------------------
def test_inverse_pairs():
    x = uniform(-2, 2)
    close(special.erfinv(special.erf(x)), x, atol=1e-14)
    close(special.ndtri(special.ndtr(x)), x, atol=1e-14)
    close(special.logit(special.expit(x)), x, atol=1e-14)
    p = uniform(0.001, 0.999)
    close(special.erf(special.erfinv(p)), p, rtol=1e-14)
    close(special.ndtr(special.ndtri(p)), p, rtol=1e-13)
    close(special.expit(special.logit(p)), p, rtol=1e-13)


def test_error_functions_agree_with_one_another():
    x = uniform(-4, 6)
    close(special.erf(x) + special.erfc(x), np.ones(200), rtol=1e-15)
    close(special.erfcx(x) * fb.exp(-x * x), special.erfc(x))
    close(special.erfc(-x) + special.erfc(x), np.full(200, 2.0), rtol=1e-15)
    close(special.ndtr(x) + special.ndtr(-x), np.ones(200), rtol=1e-14)
    close(fb.exp(special.log_ndtr(x)), special.ndtr(x))
    far = fb.tensor([-1e3, -1e8], dtype=fb.float64)  # the tail's leading term
    close(special.log_ndtr(far), -far * far / 2 - fb.log(-far * math.sqrt(2 * math.pi)), rtol=1e-10)


def test_values_at_the_ends():
    u = fb.tensor([-1.0, 0.0, 1.0, 1.5, np.nan], dtype=fb.float64)
    close(special.erfinv(u), [-np.inf, 0, np.inf, np.nan, np.nan])
    close(special.ndtri(u), [np.nan, -np.inf, np.inf, np.nan, np.nan])
    close(special.logit(u, eps=0.25), [-math.log(3), -math.log(3), math.log(3), math.log(3), np.nan])
    close(special.entr(u), [-np.inf, 0, 0, -1.5 * math.log(1.5), np.nan], atol=1e-16)
    close(special.xlogy(fb.zeros(2), fb.tensor([0.0, np.nan])), [0, np.nan])


# -- Bessel functions ---------------------------------------------------------------------------------------------
def test_wronskians_of_the_bessel_functions():
    x = uniform(0.05, 60)
    left = special.bessel_j1(x) * special.bessel_y0(x) - special.bessel_j0(x) * special.bessel_y1(x)
    close(left, 2 / (math.pi * x), rtol=1e-11)
    k0, k1 = special.scaled_modified_bessel_k0(x), special.scaled_modified_bessel_k1(x)
    close(special.i0e(x) * k1 + special.i1e(x) * k0, 1 / x)
    close(special.modified_bessel_k0(x), k0 * fb.exp(-x))


def test_symmetries_of_the_bessel_functions():
    x = uniform(0, 30)
    for name, sign in dict(i0=1, i0e=1, i1=-1, i1e=-1, bessel_j0=1, bessel_j1=-1, spherical_bessel_j0=1).items():
        function = getattr(special, name)
        close(function(-x), sign * function(x), rtol=0)
    close(special.i0(x), special.i0e(x) * fb.exp(x))
    assert special.i0(fb.tensor(1e4)).item() == math.inf
    assert special.bessel_y0(fb.tensor(0.0)).item() == -math.inf
    assert math.isnan(special.modified_bessel_k1(fb.tensor(-1.0)).item())


def test_airy_function():
    zero = special.airy_ai(fb.tensor(0.0, dtype=fb.float64))
    close(zero, 3 ** (-2 / 3) / math.gamma(2 / 3), rtol=1e-14)
    x = np.linspace(-8, 5, 27)
    h = 1e-3  # Ai'' = x Ai
    low, mid, high = (special.airy_ai(fb.tensor(x + d)).numpy() for d in (-h, 0, h))
    close((low - 2 * mid + high) / h**2, x * mid, atol=1e-5)


# -- polynomials ----------------------------------------------------------------------------------------------------
def test_closed_forms_of_the_polynomials():
    theta = uniform(0.1, 3)
    x = fb.cos(theta)
    for n in (0, 1, 2, 7):
        near = dict(rtol=1e-10, atol=1e-12)
        sine, half = fb.sin(theta), theta / 2
        close(special.chebyshev_polynomial_t(x, n), fb.cos(n * theta), **near)
        close(special.chebyshev_polynomial_u(x, n), fb.sin((n + 1) * theta) / sine, **near)
        close(special.chebyshev_polynomial_v(x, n), fb.cos((n + 0.5) * theta) / fb.cos(half), **near)
        close(special.chebyshev_polynomial_w(x, n), fb.sin((n + 0.5) * theta) / fb.sin(half), **near)
        for kind in "tuvw":
            shifted = getattr(special, f"shifted_chebyshev_polynomial_{kind}")((x + 1) / 2, n)
            close(shifted, getattr(special, f"chebyshev_polynomial_{kind}")(x, n), **near)
    close(special.hermite_polynomial_h(x, 3), 8 * x**3 - 12 * x, atol=1e-13)
    close(special.hermite_polynomial_he(x, 3), x**3 - 3 * x, atol=1e-13)
    close(special.laguerre_polynomial_l(x, 2), (x * x - 4 * x + 2) / 2, atol=1e-13)
    close(special.legendre_polynomial_p(x, 2), (3 * x * x - 1) / 2, atol=1e-13)
    close(special.legendre_polynomial_p(x, -1), np.zeros(200))


# -- dtypes ---------------------------------------------------------------------------------------------------------
NAMES = [
    "erf", "erfc", "erfcx", "erfinv", "ndtr", "ndtri", "log_ndtr", "gammaln", "digamma", "entr", "expm1", "log1p",
    "expit", "logit", "sinc", "exp2", "i0", "i0e", "i1", "i1e", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1",
    "modified_bessel_k0", "modified_bessel_k1", "scaled_modified_bessel_k0", "airy_ai", "spherical_bessel_j0",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_float32_in_float32_out(name):
    x = uniform(0.1, 0.9)
    out = getattr(special, name)(x.float())
    assert out.dtype == fb.float32
    close(out, getattr(special, name)(x), rtol=5e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "bool"])
def test_integers_become_float32(name, dtype):
    n = fb.tensor([0, 1, 1], dtype=getattr(fb, dtype))
    out = getattr(special, name)(n)
    assert out.dtype == fb.float32
    close(out, getattr(special, name)(n.float()), rtol=1e-6)


def test_logit_of_unsigned_integers_above_one_is_nan():
    close(special.logit(fb.tensor([0, 1, 2, 3], dtype=fb.uint8)), [-np.inf, np.inf, np.nan, np.nan])


def test_complex_numbers_are_refused():
    with pytest.raises(TypeError, match="complex"):
        special.digamma(fb.ones(2, dtype=fb.complex64))


@pytest.mark.parametrize("name", ["erfinv", "gammaln", "ndtri", "i0", "bessel_y1", "airy_ai"])
@pytest.mark.parametrize("shape", [(0,), (2, 0), ()])
def test_shapes_are_kept(name, shape):
    assert getattr(special, name)(fb.full(shape, 0.5)).shape == shape


# -- gradients ------------------------------------------------------------------------------------------------------
SMOOTH = [
    "erf", "erfc", "erfcx", "erfinv", "ndtr", "ndtri", "log_ndtr", "gammaln", "digamma", "entr", "expit", "logit",
    "sinc", "i0", "i0e", "i1", "i1e",
]  # fmt: skip


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients(name):
    x = fb.tensor([0.2, 0.55, 0.9], dtype=fb.float64, requires_grad=True)
    assert gradcheck(getattr(special, name), x)
    assert gradgradcheck(getattr(special, name), x)


def test_gradients_of_functions_of_two_arguments():
    a = fb.tensor([0.7, 1.5, 3.0], dtype=fb.float64)
    x = fb.tensor([0.4, 1.6, 2.2], dtype=fb.float64, requires_grad=True)
    for function in (special.gammainc, special.gammaincc, lambda a, x: special.zeta(a + 1, x), special.xlogy):
        assert gradcheck(lambda x, f=function: f(a, x), x)
        assert gradgradcheck(lambda x, f=function: f(a, x), x)
    for n in (0, 1, 3):
        assert gradcheck(lambda x, n=n: special.polygamma(n, x), x, rtol=1e-4)
    assert gradcheck(lambda x: special.multigammaln(x + 2, 3), x)


def test_gradients_at_zero():
    for name, expected in dict(i0=0.0, i1=0.5, i1e=0.5, sinc=0.0, erf=2 / math.sqrt(math.pi)).items():
        x = fb.zeros((), dtype=fb.float64, requires_grad=True)
        getattr(special, name)(x).backward()
        assert x.grad.item() == pytest.approx(expected, abs=1e-15), name
