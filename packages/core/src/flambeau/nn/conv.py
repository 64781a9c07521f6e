"""Convolution layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..tensor import Tensor
from . import functional as F
from . import init
from .module import Module
from .parameter import new_parameter

Size = int | tuple[int, ...]


def as_tuple(value: Any, rank: int) -> tuple[int, ...]:
    """``value`` for each spatial dimension: a number is repeated."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * rank


class _Convolution(Module):
    """What all convolutions share; the public classes below only set ``rank`` and ``transposed``."""

    rank: int
    transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size,
        padding: Size | str,
        dilation: Size,
        output_padding: Size,
        groups: int,
        bias: bool,
        padding_mode: str,
        device: Any,
        dtype: Any,
    ) -> None:
        super().__init__()
        if groups <= 0 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"in_channels {in_channels} and out_channels {out_channels} must divide by groups {groups}"
            )
        if padding_mode not in ("zeros", "reflect", "replicate", "circular"):
            raise ValueError(f"padding_mode must be zeros, reflect, replicate or circular, got {padding_mode!r}")
        if self.transposed and padding_mode != "zeros":
            raise ValueError(f"only 'zeros' padding_mode is supported for {type(self).__name__}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = as_tuple(kernel_size, self.rank)
        self.stride = as_tuple(stride, self.rank)
        self.padding: Any = padding if isinstance(padding, str) else as_tuple(padding, self.rank)
        self.dilation = as_tuple(dilation, self.rank)
        self.output_padding = as_tuple(output_padding, self.rank)
        self.groups = groups
        self.padding_mode = padding_mode
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(f"padding must be numbers, 'same' or 'valid', got {padding!r}")
            if padding == "same" and any(s != 1 for s in self.stride):
                raise ValueError("padding='same' is not supported for strided convolutions")
        first, second = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        self.weight = new_parameter(first, second // groups, *self.kernel_size, device=device, dtype=dtype)
        self.register_parameter("bias", new_parameter(out_channels, device=device, dtype=dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.reset_uniform(self.weight, self.bias)

    def extra_repr(self) -> str:
        zeros, ones = (0,) * self.rank, (1,) * self.rank
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != zeros:
            text += f", padding={self.padding}"
        if self.dilation != ones:
            text += f", dilation={self.dilation}"
        if self.output_padding != zeros:
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


class _Conv(_Convolution):
    function: Callable[..., Tensor]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            0,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )

    def forward(self, input: Tensor) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._border(), self.padding_mode)
            padding = 0
        return self.function(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def _border(self) -> list[int]:
        """The padding as :func:`functional.pad` wants it: last dimension first, before and after."""
        border: list[int] = []
        for i in reversed(range(self.rank)):
            if self.padding == "same":
                total = self.dilation[i] * (self.kernel_size[i] - 1)
                border += [total // 2, total - total // 2]
            else:
                border += [0, 0] if self.padding == "valid" else [self.padding[i]] * 2
        return border


class Conv1d(_Conv):
    """Cross-correlation over (N, C, L); weight is (out, in / groups, k). See :func:`functional.conv1d`."""

    rank = 1
    function = staticmethod(F.conv1d)


class Conv2d(_Conv):
    """Cross-correlation over (N, C, H, W); weight is (out, in / groups, kh, kw). See :func:`functional.conv2d`.

    >>> import flambeau
    >>> Conv2d(3, 8, 3, padding="same")(flambeau.randn(2, 3, 5, 7)).shape
    flambeau.Size([2, 8, 5, 7])
    """

    rank = 2
    function = staticmethod(F.conv2d)


class Conv3d(_Conv):
    """Cross-correlation over (N, C, D, H, W). See :func:`functional.conv3d`."""

    rank = 3
    function = staticmethod(F.conv3d)


class _ConvTranspose(_Convolution):
    transposed = True
    function: Callable[..., Tensor]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            output_padding,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """``output_size`` (spatial, or all) picks among the sizes that a strided convolution maps to this input."""
        extra = self.output_padding if output_size is None else self._output_padding_for(input, list(output_size))
        return self.function(
            input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation
        )

    def _output_padding_for(self, input: Tensor, output_size: list[int]) -> tuple[int, ...]:
        wanted = output_size[-self.rank :]
        extra = []
        for i, size in enumerate(wanted):
            smallest = (
                (input.shape[i - self.rank] - 1) * self.stride[i]
                - 2 * self.padding[i]
                + self.dilation[i] * (self.kernel_size[i] - 1)
                + 1
            )
            if not smallest <= size < smallest + self.stride[i]:
                raise ValueError(
                    f"output size {size} is not possible for dimension {i}: "
                    f"it can be {smallest} to {smallest + self.stride[i] - 1}"
                )
            extra.append(size - smallest)
        return tuple(extra)


class ConvTranspose1d(_ConvTranspose):
    """The transpose (gradient with respect to the input) of :class:`Conv1d`; weight is (in, out / groups, k)."""

    rank = 1
    function = staticmethod(F.conv_transpose1d)


class ConvTranspose2d(_ConvTranspose):
    """The transpose (gradient with respect to the input) of :class:`Conv2d`; weight is (in, out / groups, kh, kw)."""

    rank = 2
    function = staticmethod(F.conv_transpose2d)


class ConvTranspose3d(_ConvTranspose):
    """The transpose (gradient with respect to the input) of :class:`Conv3d`."""

    rank = 3
    function = staticmethod(F.conv_transpose3d)
