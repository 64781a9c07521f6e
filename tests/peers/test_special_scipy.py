"""Special functions against SciPy's, each within a stated relative tolerance."""

import numpy as np
import pytest

S = pytest.importorskip("scipy.special")

import flambeau as fb
from flambeau import special

RNG = np.random.default_rng(0)
ENDS = np.array([0.0, np.inf, -np.inf, np.nan])
TINY = 10 ** RNG.uniform(-300, -5, 100)
LINE = np.concatenate([RNG.uniform(-10, 10, 500), RNG.uniform(-1, 1, 500), TINY, -TINY, [1e5, -1e5, 30, -30], ENDS])
UNIT = np.concatenate([RNG.uniform(0, 1, 500), 1 - 10 ** RNG.uniform(-15, -1, 200), TINY, [0, 1, 1.5, -0.5, np.nan]])
POLES = np.concatenate([LINE, RNG.uniform(-100, 200, 500), 10 ** RNG.uniform(3, 6, 100), [1, 2, 3, 0.5]])
BELOW = np.array([-1.0, -2.0, -30.0])  # poles of the gamma function
BESSEL = np.concatenate([RNG.uniform(-100, 100, 1000), TINY, -TINY, 10 ** RNG.uniform(-4, 2, 300), [0.0, np.nan]])
GROWS = np.concatenate([BESSEL, [700.0, -700.0, 1e3, -1e3]])  # around and beyond the largest double
DECAYS = np.concatenate([BESSEL, [700.0, 1e5, np.inf]])

# function, SciPy's, points, relative tolerance, absolute tolerance (about zeros and where SciPy rounds itself)
CASES = {
    "erf": (S.erf, LINE, 2e-15, 0),
    "erfc": (S.erfc, LINE, 2e-14, 0),
    "erfcx": (S.erfcx, LINE, 1e-13, 0),
    "erfinv": (S.erfinv, np.concatenate([UNIT, -UNIT]), 5e-15, 0),
    "ndtr": (S.ndtr, LINE, 1e-12, 0),
    "ndtri": (S.ndtri, UNIT, 5e-15, 1e-15),
    "log_ndtr": (S.log_ndtr, LINE, 1e-12, 0),
    "gammaln": (S.gammaln, np.concatenate([POLES[~np.isneginf(POLES)], BELOW]), 5e-14, 1e-14),
    "digamma": (S.digamma, np.concatenate([POLES, BELOW]), 1e-12, 1e-13),
    "entr": (S.entr, LINE, 1e-15, 0),
    "expm1": (S.expm1, LINE, 1e-15, 0),
    "log1p": (S.log1p, LINE, 1e-15, 0),
    "expit": (S.expit, LINE, 1e-12, 1e-16),
    "logit": (S.logit, UNIT, 1e-12, 1e-15),
    "sinc": (np.sinc, LINE[np.isfinite(LINE)], 1e-12, 1e-16),
    "exp2": (S.exp2, LINE, 1e-15, 0),
    "i0": (S.i0, GROWS, 1e-13, 0),
    "i0e": (S.i0e, DECAYS, 1e-14, 0),
    "i1": (S.i1, GROWS, 1e-13, 0),
    "i1e": (S.i1e, DECAYS, 1e-14, 0),
    "modified_bessel_i0": (S.i0, GROWS, 1e-13, 0),
    "modified_bessel_i1": (S.i1, GROWS, 1e-13, 0),
    "modified_bessel_k0": (S.k0, DECAYS, 1e-13, 0),
    "modified_bessel_k1": (S.k1, DECAYS, 1e-13, 0),
    "scaled_modified_bessel_k0": (S.k0e, DECAYS, 1e-14, 0),
    "scaled_modified_bessel_k1": (S.k1e, DECAYS, 1e-14, 0),
    "bessel_j0": (S.j0, BESSEL, 1e-12, 2e-15),
    "bessel_j1": (S.j1, BESSEL, 1e-12, 2e-15),
    "bessel_y0": (S.y0, BESSEL, 1e-12, 2e-15),
    "bessel_y1": (S.y1, BESSEL, 1e-12, 2e-15),
    "airy_ai": (lambda x: S.airy(x)[0], np.concatenate([RNG.uniform(-50, 90, 1000), [0.0, np.nan]]), 2e-12, 1e-14),
    "spherical_bessel_j0": (lambda x: S.spherical_jn(0, x), RNG.uniform(-100, 100, 500), 1e-12, 1e-15),
}


def close(actual, expected, rtol, atol):
    np.testing.assert_allclose(actual.numpy(), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", CASES)
def test_function_of_one_argument(name):
    reference, x, rtol, atol = CASES[name]
    with np.errstate(all="ignore"):
        close(getattr(special, name)(fb.tensor(x)), reference(x), rtol, atol)


@pytest.mark.parametrize("name", ["erf", "erfc", "erfinv", "lgamma", "digamma", "i0", "expm1", "log1p", "exp2"])
def test_top_level_names_are_the_same_function(name):
    x = fb.tensor(UNIT)
    other = getattr(special, "gammaln" if name == "lgamma" else name)
    np.testing.assert_array_equal(getattr(fb, name)(x).numpy(), other(x).numpy())


@pytest.mark.parametrize("name", ["bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1"])
@pytest.mark.parametrize("x", [1e3, 1e4, 1e5])
def test_bessel_functions_far_out(name, x):
    close(getattr(special, name)(fb.tensor([x], dtype=fb.float64)), getattr(S, name[7:])([x]), 1e-11, 0)


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_polygamma(n):
    x = np.concatenate([10 ** RNG.uniform(-2, 3, 500), [0.5, 1, 2, np.inf, np.nan]])
    close(special.polygamma(n, fb.tensor(x)), S.polygamma(n, x), 1e-12, 1e-14)


def test_zeta():
    s, q = RNG.uniform(1.001, 20, 500), 10 ** RNG.uniform(-2, 3, 500)
    close(special.zeta(fb.tensor(s), fb.tensor(q)), S.zeta(s, q), 1e-13, 0)
    s, q = np.array([1.0, 0.5, 2, 2, 3, 2, 2.5, 60, np.nan]), np.array([0.5, 1, 0, -1, -1.5, np.inf, -1.5, 0.5, 1])
    close(special.zeta(fb.tensor(s), fb.tensor(q)), S.zeta(s, q), 1e-12, 0)


@pytest.mark.parametrize("name", ["gammainc", "gammaincc"])
def test_incomplete_gamma(name):
    ours, reference = getattr(special, name), getattr(S, name)
    a, x = RNG.uniform(0, 3, 500), RNG.uniform(0, 4, 500)
    close(ours(fb.tensor(a), fb.tensor(x)), reference(a, x), 1e-12, 1e-290)
    a = 10 ** RNG.uniform(-3, 3, 500)
    x = a * np.exp(RNG.normal(0, 1, 500))
    close(ours(fb.tensor(a), fb.tensor(x)), reference(a, x), 1e-10, 1e-290)
    a, x = np.array([0, 0, 1, 1, 1, -1, 2, np.nan]), np.array([0, 1, 0, np.inf, np.nan, 1, -1, 1])
    close(ours(fb.tensor(a), fb.tensor(x)), reference(a, x), 1e-14, 0)


@pytest.mark.parametrize("name", ["xlogy", "xlog1py"])
def test_products_with_a_logarithm(name):
    x, y = np.meshgrid([0.0, 1, -2, np.nan], [0.0, 1e-300, 0.5, 3, np.nan, np.inf])
    with np.errstate(all="ignore"):
        close(getattr(special, name)(fb.tensor(x), fb.tensor(y)), getattr(S, name)(x, y), 1e-14, 0)


@pytest.mark.parametrize("p", [1, 2, 4])
def test_multivariate_gamma(p):
    x = RNG.uniform(p, 20, 50)
    close(special.multigammaln(fb.tensor(x), p), [S.multigammaln(v, p) for v in x], 1e-13, 1e-13)


POLYNOMIALS = {
    "chebyshev_polynomial_t": S.eval_chebyt, "chebyshev_polynomial_u": S.eval_chebyu,
    "shifted_chebyshev_polynomial_t": S.eval_sh_chebyt, "shifted_chebyshev_polynomial_u": S.eval_sh_chebyu,
    "hermite_polynomial_h": S.eval_hermite, "hermite_polynomial_he": S.eval_hermitenorm,
    "laguerre_polynomial_l": S.eval_laguerre, "legendre_polynomial_p": S.eval_legendre,
}  # fmt: skip


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_orthogonal_polynomials(name):
    x, n = np.meshgrid(np.linspace(-1, 1, 41), np.arange(12))
    expected = POLYNOMIALS[name](n, x)
    scale = np.abs(expected).max()
    close(getattr(special, name)(fb.tensor(x), fb.tensor(n)), expected, 1e-12, 1e-14 * scale)
