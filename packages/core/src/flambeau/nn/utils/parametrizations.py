"""Weight norm, spectral norm and orthogonal weights, as parametrisations."""

from __future__ import annotations

import functools
from typing import Any

from ... import linalg, ops
from ...autograd.modes import no_grad
from ...tensor import Tensor
from .. import functional as F
from ..module import Module
from ._normalize import as_matrix, norm_except_dim, output_dim, power_iteration, random_direction, weight_from
from .parametrize import register_parametrization


class _WeightNorm(Module):
    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return weight_from(weight_g, weight_v, self.dim)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return norm_except_dim(weight, self.dim), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Length and direction of a weight as parameters of their own (Salimans & Kingma 2016).

    They are ``parametrizations.<name>.original0`` (the norm over all dimensions but ``dim``) and ``original1``.
    State dicts of :func:`flambeau.nn.utils.weight_norm` (``<name>_g``, ``<name>_v``) load as well.

    >>> from flambeau import nn
    >>> sorted(weight_norm(nn.Linear(20, 40)).state_dict())
    ['bias', 'parametrizations.weight.original0', 'parametrizations.weight.original1']
    """
    register_parametrization(module, name, _WeightNorm(dim), unsafe=True)
    module.register_load_state_dict_pre_hook(functools.partial(_rename, name))
    return module


def _rename(name: str, module: Module, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Keys of the hook's form to those of the parametrisation."""
    for old, new in (("_g", "original0"), ("_v", "original1")):
        if f"{prefix}{name}{old}" in state_dict:
            state_dict[f"{prefix}parametrizations.{name}.{new}"] = state_dict.pop(f"{prefix}{name}{old}")


class _SpectralNorm(Module):
    def __init__(self, weight: Tensor, n_power_iterations: int, dim: int, eps: float) -> None:
        super().__init__()
        if not -weight.ndim <= dim < weight.ndim:
            raise IndexError(f"spectral_norm: dim {dim} is out of range for a weight with {weight.ndim} dimensions")
        if n_power_iterations <= 0:
            raise ValueError(f"n_power_iterations must be positive, got {n_power_iterations}")
        self.dim = dim % weight.ndim
        self.eps = eps
        self.n_power_iterations = n_power_iterations
        if weight.ndim > 1:
            matrix = as_matrix(weight.detach(), self.dim)
            self.register_buffer("_u", random_direction(matrix.shape[0], matrix, eps))
            self.register_buffer("_v", random_direction(matrix.shape[1], matrix, eps))
            power_iteration(matrix, self._u, self._v, 15, eps)

    def forward(self, weight: Tensor) -> Tensor:
        if weight.ndim == 1:
            return F.normalize(weight, dim=0, eps=self.eps)
        matrix = as_matrix(weight, self.dim)
        if self.training:
            power_iteration(matrix, self._u, self._v, self.n_power_iterations, self.eps)
        # Copies: the vectors change in place at the next call, before this one's gradient may be asked for.
        u, v = self._u.clone(), self._v.clone()
        return weight / (u * (matrix @ v)).sum()

    def right_inverse(self, value: Tensor) -> Tensor:
        return value  # the values may lie outside the range; what is set is divided by its norm all the same


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Module:
    """Divides a weight by its largest singular value, estimated by power iteration (Miyato et al. 2018).

    ``dim`` counts the outputs (default 0, 1 for transposed convolutions). In evaluation mode the estimate stays.

    Raises:
        ValueError: the module has no such tensor, or ``n_power_iterations`` is not positive.
    """
    weight = module._parameters.get(name, module._buffers.get(name))
    if weight is None:
        raise ValueError(f"module {type(module).__name__} has no parameter or buffer named {name!r}")
    dim = output_dim(module) if dim is None else dim
    return register_parametrization(module, name, _SpectralNorm(weight, n_power_iterations, dim, eps))


def _is_orthogonal(q: Tensor) -> bool:
    k = q.shape[-1]
    eps = 10 * k * {2: 1e-3, 4: 1.2e-7, 8: 2.3e-16}.get(q.element_size(), 2.3e-16)
    gap = q.transpose(-2, -1).conj() @ q - ops.eye(k, dtype=q.dtype, device=q.device)
    return bool((gap.abs() < eps).all())


def _orthogonalised(q: Tensor) -> Tensor:
    """The orthogonal factor of a QR decomposition whose R has a positive diagonal."""
    factor, r = linalg.qr(q)
    return factor * ops.sign(ops.diagonal(r, 0, -2, -1)).unsqueeze(-2)


class _Orthogonal(Module):
    def __init__(self, weight: Tensor, orthogonal_map: str, use_trivialization: bool) -> None:
        super().__init__()
        self.shape = tuple(weight.shape)
        self.orthogonal_map = orthogonal_map
        self.use_trivialization = use_trivialization
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, weight: Tensor) -> Tensor:
        wide = weight.shape[-2] < weight.shape[-1]
        x = weight.transpose(-2, -1) if wide else weight
        q = self._householder(x) if self.orthogonal_map == "householder" else self._from_skew(x)
        if self.use_trivialization:
            q = self.base @ q
        return q.transpose(-2, -1) if wide else q

    def _from_skew(self, x: Tensor) -> Tensor:
        """The exponential or the Cayley transform of the skew-symmetric matrix with the lower triangle of ``x``."""
        n, k = x.shape[-2:]
        lower = ops.tril(x)
        if n != k:
            empty = ops.zeros(*x.shape[:-2], n, n - k, dtype=x.dtype, device=x.device)
            lower = ops.cat([lower, empty], -1)
        skew = lower - lower.transpose(-2, -1).conj()
        if self.orthogonal_map == "matrix_exp":
            q = linalg.matrix_exp(skew)
        else:
            identity = ops.eye(n, dtype=x.dtype, device=x.device)
            q = linalg.solve(identity - skew * 0.5, identity + skew * 0.5)
        return q[..., :k] if n != k else q

    def _householder(self, x: Tensor) -> Tensor:
        """The product of k reflections, given by the columns below the diagonal; signs stand on the diagonal."""
        n, k = x.shape[-2:]
        below = ops.tril(x, -1)
        tau = 2.0 / (1.0 + (below * below).sum(-2))
        identity = ops.eye(n, k, dtype=x.dtype, device=x.device)
        vectors = below + identity
        q = identity
        for j in range(k - 1, -1, -1):  # H_1 … H_k applied to the first k unit vectors, the last one first
            column = vectors[..., :, j : j + 1]
            q = q - tau[..., j : j + 1].unsqueeze(-1) * column @ (column.transpose(-2, -1) @ q)
        signs = ops.diagonal(x, 0, -2, -1).detach().trunc()
        return q * signs.unsqueeze(-2)

    @no_grad()
    def right_inverse(self, value: Tensor) -> Tensor:
        if tuple(value.shape) != self.shape:
            raise ValueError(f"expected a matrix of shape {self.shape}, got {tuple(value.shape)}")
        if not self.use_trivialization:
            raise NotImplementedError(
                "an orthogonal parametrization without trivialization cannot be assigned to; use_trivialization=True"
            )
        wide = value.shape[-2] < value.shape[-1]
        q = value.transpose(-2, -1) if wide else value
        n, k = q.shape[-2:]
        if n == k:
            base = q.clone() if _is_orthogonal(q) else _orthogonalised(q)
        else:
            more = ops.randn(*q.shape[:-2], n, n - k, dtype=q.dtype, device=q.device)
            base = _orthogonalised(ops.cat([q, more], -1))
        self.base = base.detach()
        # Minus the identity: with no vectors below the diagonal the reflections give it, and times its signs the
        # identity; its skew-symmetric part is zero, so that the exponential is the identity too.
        return -ops.eye(*value.shape[-2:], dtype=value.dtype, device=value.device).expand(self.shape).clone()


def orthogonal(
    module: Module, name: str = "weight", orthogonal_map: str | None = None, *, use_trivialization: bool = True
) -> Module:
    """Keeps a weight orthogonal, or with orthonormal columns (rows if there are fewer) (Lezcano-Casado 2019).

    ``orthogonal_map``: "matrix_exp", "cayley" or "householder"; default "matrix_exp" for square weights, else
    "householder". ``use_trivialization`` multiplies by a fixed orthogonal ``base``, and makes assignment work.

    Raises:
        ValueError: no such tensor, a vector, or an unknown map.
    """
    weight = module._parameters.get(name, module._buffers.get(name))
    if weight is None:
        raise ValueError(f"module {type(module).__name__} has no parameter or buffer named {name!r}")
    if weight.ndim < 2:
        raise ValueError(f"orthogonal: expected a matrix or a batch of matrices, got {weight.ndim} dimension(s)")
    if orthogonal_map is None:
        square = weight.shape[-2] == weight.shape[-1] or weight.is_complex()
        orthogonal_map = "matrix_exp" if square else "householder"
    if orthogonal_map not in ("matrix_exp", "cayley", "householder"):
        raise ValueError(
            f"orthogonal_map has to be one of 'matrix_exp', 'cayley', 'householder'; got {orthogonal_map!r}"
        )
    if orthogonal_map == "householder" and weight.is_complex():
        raise ValueError("the householder parametrization does not support complex tensors")
    parametrization = _Orthogonal(weight, orthogonal_map, use_trivialization)
    return register_parametrization(module, name, parametrization, unsafe=True)
