"""Fourier transforms and windows: against NumPy, laws of the transform, short-time transforms, gradients, errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flambeau as fb
from flambeau.autograd import gradcheck, gradgradcheck

NORMS = st.sampled_from([None, "backward", "ortho", "forward"])
SHAPES = st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple)
SEEDS = st.integers(0, 2**32 - 1)


def values(shape, seed=0, complex_numbers=False):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(shape)
    return a + 1j * rng.standard_normal(shape) if complex_numbers else a


def close(a, b, tolerance=1e-12):
    a, b = (v.detach().numpy() if isinstance(v, fb.Tensor) else v for v in (a, b))
    assert np.shape(a) == np.shape(b)
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# -- against NumPy ------------------------------------------------------------------------------------------------
@given(st.data(), SHAPES, NORMS, st.booleans(), SEEDS)
def test_one_dimension(data, shape, norm, complex_numbers, seed):
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    n = data.draw(st.none() | st.integers(1, 9))
    a = values(shape, seed, complex_numbers)
    names = ["fft", "ifft"] if complex_numbers else ["fft", "ifft", "rfft", "ihfft"]
    names += ["irfft", "hfft"] if n is not None or shape[dim] > 1 else []
    for name in names:
        close(getattr(fb.fft, name)(fb.tensor(a), n, dim, norm), getattr(np.fft, name)(a, n, dim, norm))


@given(st.data(), SHAPES, NORMS, st.booleans(), SEEDS)
def test_several_dimensions(data, shape, norm, complex_numbers, seed):
    dims = data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, max_size=len(shape), unique=True))
    s = data.draw(st.none() | st.lists(st.integers(1, 7), min_size=len(dims), max_size=len(dims)))
    a = values(shape, seed, complex_numbers)
    for name in ["fftn", "ifftn"] + ["rfftn"] * (not complex_numbers):
        close(getattr(fb.fft, name)(fb.tensor(a), s, dims, norm), getattr(np.fft, name)(a, s, dims, norm))
    if s is not None:
        close(fb.fft.irfftn(fb.tensor(a), s, dims, norm), np.fft.irfftn(a, s, dims, norm))


@pytest.mark.parametrize("name", ["fft2", "ifft2", "rfft2", "irfft2"])
def test_two_dimensions(name):
    a = values((2, 3, 4))
    close(getattr(fb.fft, name)(fb.tensor(a)), getattr(np.fft, name)(a))
    close(getattr(fb.fft, name)(fb.tensor(a), (5, 6), (0, 2)), getattr(np.fft, name)(a, (5, 6), (0, 2)))


@given(st.integers(1, 20), st.sampled_from([1.0, 0.1, 3.0]))
def test_frequencies_and_shifts(n, d):
    close(fb.fft.fftfreq(n, d, dtype=fb.float64), np.fft.fftfreq(n, d))
    close(fb.fft.rfftfreq(n, d, dtype=fb.float64), np.fft.rfftfreq(n, d))
    a = values((n, 3))
    close(fb.fft.fftshift(fb.tensor(a)), np.fft.fftshift(a))
    close(fb.fft.fftshift(fb.tensor(a), 0), np.fft.fftshift(a, 0))
    close(fb.fft.ifftshift(fb.fft.fftshift(fb.tensor(a))), a)


# -- laws -----------------------------------------------------------------------------------------------------------
@given(SHAPES, NORMS, st.booleans(), SEEDS)
def test_the_inverse_undoes_the_transform(shape, norm, complex_numbers, seed):
    a = values(shape, seed, complex_numbers)
    close(fb.fft.ifftn(fb.fft.fftn(fb.tensor(a), norm=norm), norm=norm), a.astype(complex))
    if not complex_numbers:  # odd and even sizes
        n = shape[-1]
        close(fb.fft.irfft(fb.fft.rfft(fb.tensor(a), norm=norm), n, norm=norm), a)
        close(fb.fft.irfftn(fb.fft.rfftn(fb.tensor(a), norm=norm), shape, norm=norm), a)
        close(fb.fft.hfft(fb.fft.ihfft(fb.tensor(a), norm=norm), n, norm=norm), a)
        close(fb.fft.hfftn(fb.fft.ihfftn(fb.tensor(a), norm=norm), shape, norm=norm), a)


@given(st.integers(1, 16), st.integers(-20, 20), SEEDS)
def test_parseval_shift_and_convolution(n, shift, seed):
    a, b = fb.tensor(values(n, seed, True)), fb.tensor(values(n, seed + 1, True))
    A, B = fb.fft.fft(a), fb.fft.fft(b)
    close((A.abs() ** 2).sum(), n * (a.abs() ** 2).sum())
    turn = fb.tensor(np.exp(-2j * np.pi * np.arange(n) * shift / n))
    close(fb.fft.fft(fb.roll(a, shift)), A * turn, 1e-11)
    circular = [sum(a.numpy()[j] * b.numpy()[(k - j) % n] for j in range(n)) for k in range(n)]
    close(fb.fft.ifft(A * B), np.array(circular), 1e-11)


def test_dtypes():
    assert fb.fft.fft(fb.ones(4)).dtype == fb.complex64
    assert fb.fft.fft(fb.ones(4, dtype=fb.float64)).dtype == fb.complex128
    assert fb.fft.rfft(fb.ones(4, dtype=fb.int64)).dtype == fb.complex64
    assert fb.fft.irfft(fb.ones(3, dtype=fb.complex64)).dtype == fb.float32
    assert fb.fft.fftfreq(4).dtype == fb.float32


# -- errors -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "call",
    [
        lambda: fb.fft.fft(fb.ones(4), 0),
        lambda: fb.fft.irfft(fb.ones(1)),
        lambda: fb.fft.fft(fb.ones(0)),
        lambda: fb.fft.rfft(fb.ones(2, 0)),
        lambda: fb.fft.fft(fb.ones(4), norm="unitary"),
        lambda: fb.fft.rfft(fb.ones(4, dtype=fb.complex64)),
        lambda: fb.fft.fftn(fb.ones(4), s=(2, 2)),
        lambda: fb.fft.fftn(fb.ones(4, 4), s=(2, 2), dim=(0,)),
        lambda: fb.fft.rfftn(fb.ones(4, 4), dim=()),
        lambda: fb.fft.fft(fb.ones(4), dim=1),
        lambda: fb.stft(fb.ones(16), 4),
        lambda: fb.stft(fb.ones(2), 8, return_complex=True),
        lambda: fb.stft(fb.ones(4), 8, center=False, return_complex=True),
        lambda: fb.stft(fb.ones(16), 8, hop_length=0, return_complex=True),
        lambda: fb.stft(fb.ones(16), 8, win_length=9, return_complex=True),
        lambda: fb.stft(fb.ones(16), 8, window=fb.ones(7), return_complex=True),
        lambda: fb.stft(fb.ones(2, 2, 16), 8, return_complex=True),
        lambda: fb.istft(fb.ones(5, 3), 8),
        lambda: fb.istft(fb.ones(6, 3, dtype=fb.complex64), 8),
        lambda: fb.istft(fb.ones(5, 3, dtype=fb.complex64), 8, center=False, window=fb.hann_window(8)),
        lambda: fb.hann_window(-1),
        lambda: fb.hann_window(4, dtype=fb.int64),
    ],
)
def test_bad_arguments_raise_one_clear_line(call):
    with pytest.raises((RuntimeError, IndexError)) as caught:
        call()
    message = str(caught.value)
    assert message.strip() and "\n" not in message


def test_half_precision_is_refused():
    with pytest.raises(TypeError, match="float16"):
        fb.fft.fft(fb.ones(4, dtype=fb.float16))


# -- short-time transforms -----------------------------------------------------------------------------------------
@given(
    st.sampled_from([(8, 2, 8), (8, 4, 8), (7, 2, 7), (8, 2, 6), (9, 3, 9)]),
    st.sampled_from(["hann", "hamming", "none"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([(40,), (2, 33)]),
)
def test_the_inverse_undoes_the_short_time_transform(sizes, kind, normalized, onesided, shape):
    n_fft, hop, win = sizes
    window = None if kind == "none" else getattr(fb, f"{kind}_window")(win, dtype=fb.float64)
    x = fb.tensor(values(shape))
    options = dict(hop_length=hop, win_length=win, window=window, normalized=normalized, onesided=onesided)
    spectrum = fb.stft(x, n_fft, return_complex=True, **options)
    rows = n_fft // 2 + 1 if onesided else n_fft
    assert spectrum.shape[-2:] == (rows, 1 + (shape[-1] + 2 * (n_fft // 2) - n_fft) // hop)
    back = fb.istft(spectrum, n_fft, **options)
    whole = min(back.shape[-1], shape[-1]) - n_fft  # the last frames do not cover the end
    close(back[..., :whole], x[..., :whole], 1e-10)


def test_frames_without_centring():
    x, window = values(19), np.hanning(6)
    spectrum = fb.stft(fb.tensor(x), 6, 3, window=fb.tensor(window), center=False, return_complex=True)
    close(spectrum, np.stack([np.fft.rfft(x[i : i + 6] * window) for i in range(0, 14, 3)], 1))
    pairs = fb.stft(fb.tensor(x), 6, 3, window=fb.tensor(window), center=False, return_complex=False)
    close(fb.view_as_complex(pairs), spectrum)
    plain = fb.stft(fb.tensor(x), 6, 3, center=False, return_complex=True)
    close(fb.istft(plain, 6, 3, center=False), x[:18])
    assert fb.istft(plain, 6, 3, center=False, length=15).shape == (15,)


def test_short_time_transform_of_complex_numbers():
    z = fb.tensor(values(32, complex_numbers=True))
    spectrum = fb.stft(z, 8, 2)
    assert spectrum.shape == (8, 17)
    close(fb.istft(spectrum, 8, 2, onesided=False, return_complex=True, length=32), z)
    with pytest.raises(RuntimeError, match="onesided"):
        fb.stft(z, 8, 2, onesided=True)


# -- windows ----------------------------------------------------------------------------------------------------------
WINDOWS = {
    "hann_window": np.hanning, "hamming_window": np.hamming, "blackman_window": np.blackman,
    "bartlett_window": np.bartlett, "kaiser_window": lambda n: np.kaiser(n, 12.0),
}  # fmt: skip


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("n", [1, 2, 3, 8, 15])
def test_windows(name, n):
    make = getattr(fb, name)
    close(make(n, periodic=False, dtype=fb.float64), WINDOWS[name](n))
    if n > 1:  # a periodic window is a symmetric one without its last point
        close(make(n, dtype=fb.float64), WINDOWS[name](n + 1)[:-1])
    assert make(n).dtype == fb.float32
    assert make(0).shape == (0,)
    assert make(n, requires_grad=True).requires_grad


def test_parameters_of_windows():
    k = np.arange(9)
    close(fb.hamming_window(9, True, 0.6, 0.3, dtype=fb.float64), 0.6 - 0.3 * np.cos(2 * np.pi * k / 9))
    close(fb.kaiser_window(9, False, 5.0, dtype=fb.float64), np.kaiser(9, 5.0))


# -- gradients ------------------------------------------------------------------------------------------------------
REAL = {
    "power": lambda x: fb.fft.fft(x).abs() ** 2,
    "filter": lambda x: fb.fft.irfft(fb.fft.rfft(x) ** 2, 5),
    "filter even": lambda x: fb.fft.irfft(fb.fft.rfft(x, 6) ** 2, 6),
    "hermitian": lambda x: fb.fft.hfft(fb.fft.ihfft(x) ** 2, 5),
    "padded": lambda x: fb.fft.fft(x, 7, norm="ortho").abs(),
    "cut": lambda x: fb.fft.rfft(x, 3, norm="forward").real ** 2,
    "stft": lambda x: fb.stft(x, 4, 2, window=fb.hann_window(4, dtype=fb.float64), return_complex=True) ** 2,
    "round": lambda x: fb.istft(fb.stft(x, 4, 1, return_complex=True) ** 2, 4, 1),
}


@pytest.mark.parametrize("name", REAL)
def test_gradients_of_real_inputs_through_complex_numbers(name):
    x = fb.tensor(values(5), requires_grad=True)
    assert gradcheck(REAL[name], x)
    assert gradgradcheck(REAL[name], x)


@pytest.mark.parametrize("name", ["fft2", "ifft2", "irfft2", "hfft2"])
def test_gradients_of_complex_inputs(name):
    z = fb.tensor(values((2, 3), complex_numbers=True), requires_grad=True)
    function = lambda z: getattr(fb.fft, name)(z * z)
    assert gradcheck(function, z)
    assert gradgradcheck(function, z)


def test_a_real_input_gets_a_real_gradient():
    x = fb.ones(4, requires_grad=True)
    fb.fft.fft(x).abs().sum().backward()
    assert x.grad.dtype == fb.float32
