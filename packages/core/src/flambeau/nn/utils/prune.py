"""Pruning: parameters multiplied by a mask of zeros and ones before each forward pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ... import ops, random
from ...tensor import Tensor
from ..module import Module


class BasePruningMethod:
    """A rule that makes masks, and the hook that applies one.

    Subclasses define ``compute_mask(t, default_mask)`` and ``PRUNING_TYPE``: "unstructured" (entries), "structured"
    (channels) or "global". The parameter becomes ``<name>_orig``, the mask the buffer ``<name>_mask``.
    """

    PRUNING_TYPE: str = "unstructured"
    _tensor_name: str

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self._tensor_name, self.apply_mask(module))

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The new mask for ``t``; entries that are 0 in ``default_mask`` stay 0."""
        raise NotImplementedError(f"{type(self).__name__} does not define compute_mask")

    def apply_mask(self, module: Module) -> Tensor:
        """The original times the mask."""
        mask, original = getattr(module, self._tensor_name + "_mask"), getattr(module, self._tensor_name + "_orig")
        return mask.to(original.dtype) * original

    @classmethod
    def apply(
        cls, module: Module, name: str, *args: Any, importance_scores: Tensor | None = None, **kwargs: Any
    ) -> BasePruningMethod:
        """Prunes ``module.<name>``; on top of earlier pruning only what is left is pruned."""
        method = cls(*args, **kwargs)
        method._tensor_name = name
        original = getattr(module, name)
        scores = original if importance_scores is None else importance_scores
        if tuple(scores.shape) != tuple(original.shape):
            raise ValueError(f"importance_scores is {tuple(scores.shape)}, but the parameter {tuple(original.shape)}")
        earlier = _method_of(module, name)
        if earlier is not None:
            key, before = earlier
            del module._forward_pre_hooks[key]
            container = before if isinstance(before, PruningContainer) else PruningContainer(before)
            container.add_pruning_method(method)
            method = container
        else:
            parameter = module._parameters[name]
            del module._parameters[name]
            module.register_parameter(name + "_orig", parameter)
        default = getattr(module, name + "_mask", None)
        default = ops.ones_like(original).detach() if default is None else default.detach().clone()
        mask = method.compute_mask(scores.detach(), default)
        module.register_buffer(name + "_mask", mask)
        setattr(module, name, method.apply_mask(module))
        module.register_forward_pre_hook(method)
        return method

    def prune(self, t: Tensor, default_mask: Tensor | None = None, importance_scores: Tensor | None = None) -> Tensor:
        """``t`` with the entries zeroed that the rule picks; no module is involved."""
        default = ops.ones_like(t).detach() if default_mask is None else default_mask
        return t * self.compute_mask((t if importance_scores is None else importance_scores).detach(), default)

    def remove(self, module: Module) -> None:
        """Makes the pruned values the parameter's own, and forgets the mask."""
        name = self._tensor_name
        weight = self.apply_mask(module)
        original: Any = module._parameters[name + "_orig"]
        for attribute in (name, name + "_orig", name + "_mask"):
            if hasattr(module, attribute):
                delattr(module, attribute)
        original.array = weight.array
        module.register_parameter(name, original)


class PruningContainer(BasePruningMethod):
    """Several rules for one parameter, each applied to what those before it left."""

    PRUNING_TYPE = "global"

    def __init__(self, *args: BasePruningMethod) -> None:
        self._methods: list[BasePruningMethod] = []
        if args:
            self._tensor_name = args[0]._tensor_name
        for method in args:
            self.add_pruning_method(method)

    def add_pruning_method(self, method: BasePruningMethod) -> None:
        if not isinstance(method, BasePruningMethod):
            raise TypeError(f"{type(method)} is not a BasePruningMethod subclass")
        if method._tensor_name != self._tensor_name:
            raise ValueError(f"can only add methods that prune {self._tensor_name!r}, got {method._tensor_name!r}")
        self._methods.append(method)

    def __len__(self) -> int:
        return len(self._methods)

    def __iter__(self) -> Any:
        return iter(self._methods)

    def __getitem__(self, index: int) -> BasePruningMethod:
        return self._methods[index]

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The newest rule on the entries (or channels) that the old mask keeps."""
        method = self._methods[-1]
        mask = default_mask.to(t.dtype).numpy(force=True)
        if method.PRUNING_TYPE == "unstructured":
            kept: Any = mask == 1
        elif method.PRUNING_TYPE == "structured":
            dim = method.dim % t.ndim  # type: ignore[attr-defined]
            channels = mask.sum(tuple(k for k in range(t.ndim) if k != dim)) != 0
            kept = (slice(None),) * dim + (channels,)
        else:
            kept = (slice(None),) * t.ndim
        values = t.numpy(force=True)
        part = method.compute_mask(_tensor(values[kept], t), _tensor(mask[kept], t))
        new = mask.copy()
        new[kept] = part.numpy(force=True)
        return _tensor(new, t).to(default_mask.dtype)


def _tensor(array: np.ndarray, like: Tensor) -> Tensor:
    return ops.tensor(array, device=like.device)


def _method_of(module: Module, name: str) -> tuple[int, BasePruningMethod] | None:
    for key, (hook, _) in module._forward_pre_hooks.items():
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == name:
            return key, hook
    return None


def _count(amount: float, size: int) -> int:
    """How many of ``size`` to prune: a share, or a number."""
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        raise TypeError(f"invalid type for amount: {amount}; it must be an int or a float")
    if amount < 0 or (isinstance(amount, float) and amount > 1):
        raise ValueError(f"amount={amount} should be a float in [0, 1] or a non-negative int")
    if isinstance(amount, int):
        if amount > size:
            raise ValueError(f"amount={amount} should not be larger than the number of parameters to prune={size}")
        return amount
    return round(amount * size)


class Identity(BasePruningMethod):
    """Prunes nothing, but makes the names and the mask."""

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return default_mask


class RandomUnstructured(BasePruningMethod):
    """Prunes entries at random."""

    def __init__(self, amount: float) -> None:
        _count(amount, 2**63 - 1)
        self.amount = amount

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        chosen = random.default_generator().permutation(t.numel())[: _count(self.amount, t.numel())]
        return _cleared(default_mask, chosen)


class L1Unstructured(BasePruningMethod):
    """Prunes the entries with the smallest absolute values."""

    def __init__(self, amount: float) -> None:
        _count(amount, 2**63 - 1)
        self.amount = amount

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        order = np.argsort(np.abs(t.numpy(force=True)).reshape(-1), kind="stable")
        return _cleared(default_mask, order[: _count(self.amount, t.numel())])


def _cleared(mask: Tensor, positions: np.ndarray) -> Tensor:
    values = mask.numpy(force=True).copy()
    values.reshape(-1)[positions] = 0
    return _tensor(values, mask)


class _Structured(BasePruningMethod):
    PRUNING_TYPE = "structured"

    def __init__(self, amount: float, dim: int = -1) -> None:
        _count(amount, 2**63 - 1)
        self.amount = amount
        self.dim = dim

    def _keep(self, t: Tensor, default_mask: Tensor, kept: np.ndarray) -> Tensor:
        channels = np.zeros(t.shape[self.dim])
        channels[kept] = 1
        shape = [1] * t.ndim
        shape[self.dim] = -1
        mask = default_mask.numpy(force=True)
        return _tensor(mask * channels.reshape(shape).astype(mask.dtype), default_mask)


class RandomStructured(_Structured):
    """Prunes whole channels along ``dim`` at random."""

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        size = t.shape[self.dim]
        return self._keep(t, default_mask, random.default_generator().permutation(size)[_count(self.amount, size) :])


class LnStructured(_Structured):
    """Prunes the channels along ``dim`` with the smallest norms of order ``n``."""

    def __init__(self, amount: float, n: Any, dim: int = -1) -> None:
        super().__init__(amount, dim)
        self.n = n

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        size = t.shape[self.dim]
        rows = np.moveaxis(t.numpy(force=True), self.dim, 0).reshape(size, -1)
        norms = np.linalg.norm(rows, float(self.n) if not isinstance(self.n, str) else None, axis=1)
        return self._keep(t, default_mask, np.argsort(norms, kind="stable")[_count(self.amount, size) :])


class CustomFromMask(BasePruningMethod):
    """Prunes by a given mask."""

    PRUNING_TYPE = "global"

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return default_mask * self.mask.to(default_mask.dtype)


def identity(module: Module, name: str) -> Module:
    """Makes the names and the mask of a pruned parameter without pruning."""
    Identity.apply(module, name)
    return module


def random_unstructured(module: Module, name: str, amount: float) -> Module:
    """Zeroes entries at random: ``amount`` of them, or that share."""
    RandomUnstructured.apply(module, name, amount)
    return module


def l1_unstructured(module: Module, name: str, amount: float, importance_scores: Tensor | None = None) -> Module:
    """Zeroes the entries with the smallest absolute values (or scores): ``amount`` of them, or that share."""
    L1Unstructured.apply(module, name, amount, importance_scores=importance_scores)
    return module


def random_structured(module: Module, name: str, amount: float, dim: int) -> Module:
    """Zeroes whole channels along ``dim`` at random."""
    RandomStructured.apply(module, name, amount, dim)
    return module


def ln_structured(
    module: Module, name: str, amount: float, n: Any, dim: int, importance_scores: Tensor | None = None
) -> Module:
    """Zeroes the channels along ``dim`` with the smallest norms of order ``n``."""
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def custom_from_mask(module: Module, name: str, mask: Tensor) -> Module:
    """Zeroes where ``mask`` is 0."""
    CustomFromMask.apply(module, name, mask)
    return module


def global_unstructured(
    parameters: Iterable[tuple[Module, str]],
    pruning_method: type[BasePruningMethod],
    importance_scores: dict[tuple[Module, str], Tensor] | None = None,
    **kwargs: Any,
) -> None:
    """Prunes entries of several parameters as if they were one vector.

    Raises:
        TypeError: the method is not unstructured.
    """
    parameters = list(parameters)
    scores = importance_scores or {}
    values = [scores.get((module, name), getattr(module, name)).detach() for module, name in parameters]
    masks = [getattr(m, n + "_mask", ops.ones_like(v)) for v, (m, n) in zip(values, parameters, strict=True)]
    container = PruningContainer()
    container._tensor_name = "temp"
    method = pruning_method(**kwargs)
    method._tensor_name = "temp"
    container.add_pruning_method(method)
    if method.PRUNING_TYPE != "unstructured":
        raise TypeError(f"only unstructured methods prune globally, not {pruning_method.__name__}")
    flat = ops.cat([v.reshape(-1) for v in values], 0)
    mask = container.compute_mask(flat, ops.cat([m.reshape(-1) for m in masks], 0))
    start = 0
    for module, name in parameters:
        tensor = getattr(module, name)
        stop = start + tensor.numel()
        custom_from_mask(module, name, mask[start:stop].reshape(tensor.shape))
        start = stop


def is_pruned(module: Module) -> bool:
    """Whether the module, or one below it, has a pruned parameter."""
    return any(
        isinstance(hook, BasePruningMethod) for part in module.modules() for hook, _ in part._forward_pre_hooks.values()
    )


def remove(module: Module, name: str) -> Module:
    """Makes the pruning of ``module.<name>`` permanent: the mask goes, the zeros stay.

    Raises:
        ValueError: it is not pruned.
    """
    found = _method_of(module, name)
    if found is None:
        raise ValueError(f"parameter {name!r} of module {type(module).__name__} has to be pruned before it is removed")
    del module._forward_pre_hooks[found[0]]
    found[1].remove(module)
    return module
