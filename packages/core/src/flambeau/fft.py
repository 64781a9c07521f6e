"""Discrete Fourier transforms by PyTorch's names, as `torch.fft`.

>>> import flambeau
>>> flambeau.fft.rfft(flambeau.ones(4))
tensor([4.+0.j, 0.+0.j, 0.+0.j], dtype=flambeau.complex64)
"""

from __future__ import annotations

from .ops import fft_fft as fft
from .ops import fft_fft2 as fft2
from .ops import fft_fftfreq as fftfreq
from .ops import fft_fftn as fftn
from .ops import fft_fftshift as fftshift
from .ops import fft_hfft as hfft
from .ops import fft_hfft2 as hfft2
from .ops import fft_hfftn as hfftn
from .ops import fft_ifft as ifft
from .ops import fft_ifft2 as ifft2
from .ops import fft_ifftn as ifftn
from .ops import fft_ifftshift as ifftshift
from .ops import fft_ihfft as ihfft
from .ops import fft_ihfft2 as ihfft2
from .ops import fft_ihfftn as ihfftn
from .ops import fft_irfft as irfft
from .ops import fft_irfft2 as irfft2
from .ops import fft_irfftn as irfftn
from .ops import fft_rfft as rfft
from .ops import fft_rfft2 as rfft2
from .ops import fft_rfftfreq as rfftfreq
from .ops import fft_rfftn as rfftn

__all__ = [
    "fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "hfft2", "hfftn", "ifft", "ifft2", "ifftn", "ifftshift",
    "ihfft", "ihfft2", "ihfftn", "irfft", "irfft2", "irfftn", "rfft", "rfft2", "rfftfreq", "rfftn",
]  # fmt: skip
