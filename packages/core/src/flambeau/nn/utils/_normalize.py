"""What weight and spectral normalisation share, in both their forms (parametrisation and forward hook)."""

from __future__ import annotations

from typing import Any

from ... import ops
from ...autograd.modes import no_grad
from ...tensor import Tensor
from .. import functional as F


def norm_except_dim(v: Tensor, dim: int | None) -> Tensor:
    """The Euclidean norm over all dimensions but ``dim``, which are kept; over all of them for None."""
    if dim is None or dim == -1:
        return (v * v).sum().sqrt()
    others = tuple(k for k in range(v.ndim) if k != dim % v.ndim)
    return ops.sqrt(ops.sum(v * v, others, True)) if others else v.abs()


def weight_from(g: Tensor, v: Tensor, dim: int | None) -> Tensor:
    """w = g * v / |v| (Salimans & Kingma 2016)."""
    return v * (g / norm_except_dim(v, dim))


def as_matrix(weight: Tensor, dim: int) -> Tensor:
    """The weight with ``dim`` as rows and all others as columns."""
    if dim:
        weight = weight.transpose(0, dim) if weight.ndim == 2 else weight.movedim(dim, 0)
    return weight.reshape(weight.shape[0], -1)


@no_grad()
def power_iteration(matrix: Tensor, u: Tensor, v: Tensor, times: int, eps: float) -> None:
    """Moves u and v, in place, towards the first left and right singular vector (Miyato et al. 2018)."""
    m = matrix.detach()
    for _ in range(times):
        u.array[...] = F.normalize(m @ v, dim=0, eps=eps).array
        v.array[...] = F.normalize(m.T @ u, dim=0, eps=eps).array


def random_direction(size: int, like: Tensor, eps: float) -> Tensor:
    """A random vector of length one."""
    draw = ops.randn(size, dtype=like.dtype, device=like.device)
    return F.normalize(draw, dim=0, eps=eps)


def output_dim(module: Any) -> int:
    """The dimension of a layer's weight that counts its outputs: 1 for transposed convolutions."""
    from ..conv import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d

    return 1 if isinstance(module, ConvTranspose1d | ConvTranspose2d | ConvTranspose3d) else 0
