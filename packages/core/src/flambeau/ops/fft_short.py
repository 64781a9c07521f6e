"""The short-time Fourier transform and its inverse."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import backends
from ..tensor import Tensor
from ._op import method, op
from .logic import view_as_real
from .shape import narrow, pad_constant, reshape, squeeze, transpose, unsqueeze
from .shape_pad import pad as _pad

__all__: list[str] = []  # every function is exported by its family


@op(
    vjp=dict(input=lambda g, input_shape, step: _overlap_add(g, input_shape[-1], step)),
    samples=lambda t: [(t(2, 11), 4, 3), (t(7), 3, 3), (t(9), 2, 3)],
    ref=lambda x, size, step: np.stack([x[..., i : i + size] for i in range(0, x.shape[-1] - size + 1, step)], -2),
    method=False,
)
def _frames(xp, input, size, step):
    """Windows of `size`, `step` apart, of the last dimension: (…, length) -> (…, count, size)."""
    view = xp.lib.stride_tricks.sliding_window_view(input, size, axis=-1)
    return xp.ascontiguousarray(view[..., ::step, :])


@op(
    vjp=dict(input=lambda g, input_shape, step: _frames_of(g, input_shape, step)),
    samples=lambda t: [(t(2, 3, 4), 10, 3), (t(2, 3), 8, 3), (t(3, 2), 9, 3)],
    method=False,
)
def _overlap_add(xp, input, length, step):
    """The sum of frames `step` apart: (…, count, size) -> (…, length)."""
    count, size = input.shape[-2:]
    blocks = -(-size // step)  # a frame touches this many stretches of length `step`
    rows = max(count + blocks, -(-length // step))
    out = xp.zeros((*input.shape[:-2], rows, step), input.dtype)
    for k in range(blocks):
        part = input[..., k * step : (k + 1) * step]
        out[..., k : k + count, : part.shape[-1]] += part
    return out.reshape((*input.shape[:-2], -1))[..., :length]


def _frames_of(g: Any, shape: tuple, step: int) -> Any:
    """The frames of g, as many as were summed."""
    count, size = shape[-2:]
    needed = (count - 1) * step + size
    return _frames(g if needed == g.shape[-1] else narrow(g, g.ndim - 1, 0, needed), size, step)


def _window(window: Any, n_fft: int, win_length: int, like: Any) -> Any:
    """The window, centred in n_fft points."""
    if window is None:
        kind = like.array.dtype
        kind = np.dtype(f"f{kind.itemsize // 2}") if kind.kind == "c" else kind
        window = Tensor._wrap(backends.of(like.array).xp.ones(win_length, kind))
    if window.ndim != 1 or window.shape[0] != win_length:
        raise RuntimeError(f"expected a 1-D window of length {win_length}, got shape {list(window.shape)}")
    left = (n_fft - win_length) // 2
    return window if win_length == n_fft else pad_constant(window, [(left, n_fft - win_length - left)])


def _lengths(n_fft: int, hop_length: int | None, win_length: int | None) -> tuple[int, int]:
    hop = n_fft // 4 if hop_length is None else hop_length
    win = n_fft if win_length is None else win_length
    if n_fft < 1 or hop < 1:
        raise RuntimeError(f"n_fft and hop_length must be at least 1, got {n_fft} and {hop}")
    if not 0 < win <= n_fft:
        raise RuntimeError(f"expected 0 < win_length <= n_fft, got {win} and {n_fft}")
    return hop, win


@method()
def stft(
    input: Any,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Any = None,
    center: bool = True,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
) -> Any:
    """The Fourier transforms of windowed frames: (batch, length) -> (batch, frequencies, frames).

    center: pads n_fft // 2 on both sides (with `pad_mode`) so that frame t is centred at t * hop_length.
    Errors: RuntimeError for a missing `return_complex`, or when n_fft is larger than the (padded) signal.
    """
    from . import fft

    hop, win = _lengths(n_fft, hop_length, win_length)
    if input.ndim not in (1, 2):
        raise RuntimeError(f"expected a 1-D or 2-D signal, got shape {list(input.shape)}")
    is_complex = input.is_complex() or (window is not None and window.is_complex())
    if return_complex is None:
        if not is_complex:
            raise RuntimeError("stft requires the return_complex parameter for real inputs; pass return_complex=True")
        return_complex = True
    onesided = not is_complex if onesided is None else onesided
    if onesided and is_complex:
        raise RuntimeError("cannot have onesided output if window or input is complex")
    x = unsqueeze(input, 0) if input.ndim == 1 else input
    if center:
        if pad_mode == "reflect" and n_fft // 2 >= x.shape[-1]:
            raise RuntimeError(f"a reflection by n_fft // 2 = {n_fft // 2} needs a longer signal than {x.shape[-1]}")
        x = squeeze(_pad(unsqueeze(x, 0), (n_fft // 2, n_fft // 2), pad_mode), 0)
    if n_fft > x.shape[-1]:
        raise RuntimeError(f"expected n_fft <= the signal's length, got {n_fft} and {x.shape[-1]}")
    frames = _frames(x, n_fft, hop)
    if window is not None or win != n_fft:
        frames = frames * _window(window, n_fft, win, input)
    norm = "ortho" if normalized else None
    out = transpose(fft.fft_rfft(frames, norm=norm) if onesided else fft.fft_fft(frames, norm=norm), 1, 2)
    out = squeeze(out, 0) if input.ndim == 1 else out
    return out if return_complex else view_as_real(out)


@method()
def istft(
    input: Any,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Any = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> Any:
    """The least-squares inverse of `stft` (Griffin and Lim 1984): frames overlap and add, over the window's power.

    Errors: RuntimeError where the windows leave a gap (their summed squares vanish).
    """
    from . import fft
    from .elementwise import abs

    hop, win = _lengths(n_fft, hop_length, win_length)
    if not input.is_complex() or input.ndim not in (2, 3):
        raise RuntimeError(f"istft needs a complex tensor of 2 or 3 dimensions, got {list(input.shape)} {input.dtype}")
    is_complex = return_complex
    onesided = input.shape[-2] != n_fft if onesided is None else onesided
    if input.shape[-2] != (n_fft // 2 + 1 if onesided else n_fft):
        raise RuntimeError(f"the frequency dimension has size {input.shape[-2]}, which does not fit n_fft {n_fft}")
    if is_complex and onesided:
        raise RuntimeError("complex output needs a two-sided input; pass onesided=False")
    x = transpose(unsqueeze(input, 0) if input.ndim == 2 else input, 1, 2)
    norm = "ortho" if normalized else None
    if is_complex:
        frames = fft.fft_ifft(x, norm=norm)
    else:
        frames = fft.fft_irfft(narrow(x, 2, 0, n_fft // 2 + 1), n_fft, norm=norm)
    window = _window(window, n_fft, win, input)
    total = n_fft + hop * (x.shape[1] - 1)
    start = n_fft // 2 if center else 0
    end = total - start if length is None else min(start + length, total)
    signal = _overlap_add(frames * window, total, hop)
    power = reshape(window * window, (1, n_fft)).expand((x.shape[1], n_fft))
    envelope = narrow(_overlap_add(power, total, hop), 0, start, end - start)
    if float(abs(envelope).array.min()) < 1e-11:
        raise RuntimeError("the windows leave a gap: their overlapped squares vanish somewhere in the output")
    out = narrow(signal, 1, start, end - start) / envelope
    if length is not None and length > end - start:
        out = pad_constant(out, [(0, 0), (0, length - (end - start))])
    return squeeze(out, 0) if input.ndim == 2 else out
