"""The older forms of weight and spectral norm: a hook computes the weight before each forward pass."""

from __future__ import annotations

from typing import Any

from ...autograd.modes import no_grad
from ...tensor import Tensor
from ..module import Module
from ..parameter import Parameter
from ._normalize import as_matrix, norm_except_dim, output_dim, power_iteration, random_direction, weight_from


class WeightNorm:
    """The hook of :func:`weight_norm`."""

    def __init__(self, name: str, dim: int | None) -> None:
        self.name = name
        self.dim = -1 if dim is None else dim

    def compute_weight(self, module: Module) -> Tensor:
        g, v = getattr(module, self.name + "_g"), getattr(module, self.name + "_v")
        return weight_from(g, v, self.dim)

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self.name, self.compute_weight(module))


class SpectralNorm:
    """The hook of :func:`spectral_norm`."""

    def __init__(self, name: str, n_power_iterations: int, dim: int, eps: float) -> None:
        if n_power_iterations <= 0:
            raise ValueError(f"n_power_iterations must be positive, got {n_power_iterations}")
        self.name = name
        self.dim = dim
        self.n_power_iterations = n_power_iterations
        self.eps = eps

    def compute_weight(self, module: Module, do_power_iteration: bool) -> Tensor:
        weight = getattr(module, self.name + "_orig")
        u, v = getattr(module, self.name + "_u"), getattr(module, self.name + "_v")
        matrix = as_matrix(weight, self.dim)
        if do_power_iteration:
            # v first, then u: the order in which this form keeps them.
            m = matrix.detach()
            power_iteration(m.T, v, u, self.n_power_iterations, self.eps)
            u, v = u.clone(), v.clone()
        return weight / (u * (matrix @ v)).sum()

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self.name, self.compute_weight(module, module.training))


def _hook_of(module: Module, kind: Any, name: str) -> tuple[int, Any] | None:
    for key, (hook, _) in module._forward_pre_hooks.items():
        if isinstance(hook, kind) and hook.name == name:
            return key, hook
    return None


def _take(module: Module, kind: Any, label: str, name: str) -> Any:
    found = _hook_of(module, kind, name)
    if found is None:
        raise ValueError(f"{label} of {name!r} not found in {type(module).__name__}")
    del module._forward_pre_hooks[found[0]]
    return found[1]


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Weight normalisation by a forward hook, with the parameters ``<name>_g`` and ``<name>_v``.

    :func:`flambeau.nn.utils.parametrizations.weight_norm` is the newer form.
    """
    if _hook_of(module, WeightNorm, name):
        raise RuntimeError(f"cannot register two weight_norm hooks on the same parameter {name}")
    hook = WeightNorm(name, dim)
    weight = getattr(module, name)
    delattr(module, name)
    module.register_parameter(name + "_g", Parameter(norm_except_dim(weight.detach(), hook.dim)))
    module.register_parameter(name + "_v", Parameter(weight.detach()))
    setattr(module, name, hook.compute_weight(module))
    module.register_forward_pre_hook(hook)
    return module


def remove_weight_norm(module: Module, name: str = "weight") -> Module:
    """Makes the weight a plain parameter again, with its present value."""
    hook = _take(module, WeightNorm, "weight_norm", name)
    weight = hook.compute_weight(module)
    for attribute in (name, name + "_g", name + "_v"):
        delattr(module, attribute)
    module.register_parameter(name, Parameter(weight.detach()))
    return module


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Module:
    """Spectral normalisation by a forward hook, with ``<name>_orig`` and the buffers ``<name>_u``, ``<name>_v``.

    :func:`flambeau.nn.utils.parametrizations.spectral_norm` is the newer form.
    """
    if _hook_of(module, SpectralNorm, name):
        raise RuntimeError(f"cannot register two spectral_norm hooks on the same parameter {name}")
    hook = SpectralNorm(name, n_power_iterations, output_dim(module) if dim is None else dim, eps)
    weight = module._parameters.get(name)
    if weight is None:
        raise ValueError(f"spectral_norm cannot be applied: {type(module).__name__} has no parameter {name!r}")
    with no_grad():
        matrix = as_matrix(weight.detach(), hook.dim)
        u = random_direction(matrix.shape[0], matrix, eps)
        v = random_direction(matrix.shape[1], matrix, eps)
    delattr(module, name)
    module.register_parameter(name + "_orig", weight)
    setattr(module, name, weight.detach())
    module.register_buffer(name + "_u", u)
    module.register_buffer(name + "_v", v)
    module.register_forward_pre_hook(hook)
    return module


def remove_spectral_norm(module: Module, name: str = "weight") -> Module:
    """Makes the weight a plain parameter again, with its present value."""
    hook = _take(module, SpectralNorm, "spectral_norm", name)
    with no_grad():
        weight = hook.compute_weight(module, False)
    for attribute in (name, name + "_u", name + "_v", name + "_orig"):
        delattr(module, attribute)
    module.register_parameter(name, Parameter(weight.detach()))
    return module
