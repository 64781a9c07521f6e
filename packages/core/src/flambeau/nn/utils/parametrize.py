"""Parametrisations: a parameter or buffer that is computed from others each time it is read."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ...autograd.modes import no_grad
from ...tensor import Tensor
from ..containers import ModuleDict, ModuleList
from ..module import Module
from ..parameter import Parameter


class _Cache(threading.local):
    depth = 0

    def __init__(self) -> None:
        self.values: dict[tuple[int, str], Any] = {}


_cache = _Cache()


@contextmanager
def cached() -> Iterator[None]:
    """Inside, each parametrised tensor is computed once and kept (a recurrent net that reads a weight many times)."""
    _cache.depth += 1
    try:
        yield
    finally:
        _cache.depth -= 1
        if not _cache.depth:
            _cache.values.clear()


class ParametrizationList(ModuleList):
    """The parametrisations of one tensor, applied one after the other, and what they start from.

    That is ``original``, or ``original0``, ``original1``, … where the first one's ``right_inverse`` gives several.
    """

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False) -> None:
        if not modules:
            raise ValueError("ParametrizationList needs at least one module")
        super().__init__(modules)
        self.unsafe = unsafe
        with no_grad():
            new: Any = original
            for module in reversed(list(modules)):
                if hasattr(module, "right_inverse"):
                    with contextlib.suppress(NotImplementedError):
                        new = module.right_inverse(new)
        if not isinstance(new, Tensor) and not isinstance(new, Sequence):
            raise ValueError(
                f"right_inverse of {type(modules[0]).__name__} must return a Tensor or a sequence of tensors, "
                f"got {type(new).__name__}"
            )
        self.is_tensor = isinstance(new, Tensor)
        self.ntensors = 1 if self.is_tensor else len(new)
        for name, tensor in zip(self._names(), [new] if self.is_tensor else new, strict=True):
            self._keep(name, tensor, original)
        if not unsafe:
            self._check(original)

    def _names(self) -> list[str]:
        return ["original"] if self.is_tensor else [f"original{k}" for k in range(self.ntensors)]

    def _keep(self, name: str, tensor: Tensor, original: Tensor) -> None:
        if self.is_tensor and not self.unsafe and tensor.dtype is not original.dtype:
            raise ValueError(
                f"right_inverse must keep the dtype unless unsafe=True: {original.dtype} became {tensor.dtype}"
            )
        if isinstance(original, Parameter):
            if self.is_tensor:
                original.array = tensor.array  # the same object, which optimizers may hold already
                self.register_parameter(name, original)
            else:
                self.register_parameter(name, Parameter(tensor.detach(), original.requires_grad))
        else:
            self.register_buffer(name, tensor)

    def _check(self, original: Tensor) -> None:
        with no_grad():
            value = self()
        if not isinstance(value, Tensor):
            raise ValueError(f"a parametrization must return a tensor, got {type(value).__name__}")
        if value.dtype is not original.dtype or tuple(value.shape) != tuple(original.shape):
            raise ValueError(
                "a parametrization must keep dtype and shape unless unsafe=True: "
                f"{original.dtype} {tuple(original.shape)} became {value.dtype} {tuple(value.shape)}"
            )

    @no_grad()
    def right_inverse(self, value: Tensor) -> None:
        """Sets the originals so that the parametrised tensor becomes ``value``, as far as it can.

        Raises:
            RuntimeError: a parametrisation has no ``right_inverse``.
        """
        new: Any = value
        for module in reversed(list(self)):
            if not hasattr(module, "right_inverse"):
                raise RuntimeError(
                    f"parametrization {type(module).__name__} does not implement right_inverse, so the parametrised "
                    "tensor cannot be assigned to"
                )
            new = module.right_inverse(new)
        for name, tensor in zip(self._names(), [new] if self.is_tensor else new, strict=True):
            kept = getattr(self, name)
            if kept.dtype is not tensor.dtype and not self.unsafe:
                raise ValueError(f"the value has dtype {tensor.dtype}, but {name} has {kept.dtype}")
            kept.array = tensor.array.copy()

    def forward(self) -> Tensor:
        value = self[0](*[getattr(self, name) for name in self._names()])
        for position in range(1, len(self)):
            value = self[position](value)
        return value


def _read(module: Module, name: str) -> Tensor:
    parametrizations = module.parametrizations[name]
    if not _cache.depth:
        return parametrizations()
    key = (id(module), name)
    if key not in _cache.values:
        _cache.values[key] = parametrizations()
    return _cache.values[key]


def _property(name: str) -> property:
    def getter(self: Module) -> Tensor:
        return _read(self, name)

    def setter(self: Module, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    return property(getter, setter)


def _copied(self: Module, memo: dict[int, Any]) -> Module:
    """Deep copy: each parametrised module has a class of its own, to which parametrisations are added later."""
    twin = self.__new__(type(self))
    memo[id(self)] = twin
    twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
    _give_class(twin, type_before_parametrizations(self), list(twin.parametrizations))
    return twin


def _refuse_pickling(self: Module) -> Any:
    raise RuntimeError("a parametrized module cannot be pickled; save its state_dict() instead")


def _give_class(module: Module, base: type, names: Sequence[str]) -> None:
    members: dict[str, Any] = {name: _property(name) for name in names}
    members |= {"__reduce_ex__": lambda self, protocol: _refuse_pickling(self), "__deepcopy__": _copied}
    module.__class__ = type(f"Parametrized{base.__name__}", (base,), members | {"_parametrized": True})


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    """From now on ``module.<tensor_name>`` is ``parametrization(original)``; a further one is applied after it.

    The original stands under ``parametrizations.<tensor_name>.original``. A parametrisation may have a method
    ``right_inverse`` that gives an original for a value: it sets the start and makes assignment work.
    ``unsafe=True`` allows it to change dtype and shape.

    Raises:
        ValueError: no such parameter or buffer, or dtype or shape change without ``unsafe``.

    >>> import flambeau
    >>> class Symmetric(flambeau.nn.Module):
    ...     def forward(self, x):
    ...         return x.triu() + x.triu(1).T
    >>> layer = register_parametrization(flambeau.nn.Linear(3, 3), "weight", Symmetric())
    >>> bool((layer.weight == layer.weight.T).all())
    True
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        before = getattr(module, tensor_name)
        chain = module.parametrizations[tensor_name]
        if unsafe:
            chain.unsafe = True
        else:
            with no_grad():
                value = parametrization(before)
            if value.dtype is not before.dtype or tuple(value.shape) != tuple(before.shape):
                raise ValueError("a parametrization must keep dtype and shape unless unsafe=True")
        if hasattr(parametrization, "right_inverse"):
            with no_grad():
                start: Any = parametrization.right_inverse(before)
            chain.right_inverse(start)
        chain.append(parametrization)
        return module
    tensor = module._parameters.get(tensor_name, module._buffers.get(tensor_name))
    if tensor is None:
        raise ValueError(f"module {type(module).__name__} has no parameter or buffer {tensor_name!r} to parametrize")
    chain = ParametrizationList([parametrization], tensor, unsafe)
    delattr(module, tensor_name)
    if not is_parametrized(module):
        module.parametrizations = ModuleDict()
    module.parametrizations[tensor_name] = chain
    base = type_before_parametrizations(module)
    _give_class(module, base, list(module.parametrizations))
    return module


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether the module has a parametrised tensor, or the given one is."""
    parametrizations = module._modules.get("parametrizations")
    if not isinstance(parametrizations, ModuleDict):
        return False
    return len(parametrizations) > 0 if tensor_name is None else tensor_name in parametrizations


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Makes the tensor a plain one again: with its present value, or with ``leave_parametrized=False`` the original.

    Raises:
        ValueError: it is not parametrised, or the original is several tensors and must not be left.
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"module {type(module).__name__} does not have a parametrization on {tensor_name}")
    chain = module.parametrizations[tensor_name]
    original = chain.original if chain.is_tensor else chain.original0
    if not chain.is_tensor and not leave_parametrized:
        raise ValueError(
            "a tensor made from several originals cannot be left unparametrized; pass leave_parametrized=True"
        )
    trained = isinstance(original, Parameter)
    if leave_parametrized:
        with no_grad():
            value = getattr(module, tensor_name)
        if chain.is_tensor and trained:
            original.array = value.array.copy()
        else:
            value = value.detach().clone()
            original = Parameter(value, original.requires_grad) if trained else value
    base, names = type_before_parametrizations(module), list(module.parametrizations)
    names.remove(tensor_name)
    del module.parametrizations[tensor_name]
    if names:
        _give_class(module, base, names)
    else:
        del module.parametrizations
        module.__class__ = base
    if trained:
        module.register_parameter(tensor_name, original)
    else:
        module.register_buffer(tensor_name, original)
    return module


def type_before_parametrizations(module: Module) -> type:
    """The module's class without its parametrisations."""
    kind = type(module)
    return kind.__bases__[0] if "_parametrized" in kind.__dict__ else kind


def transfer_parametrizations_and_params(
    from_module: Module, to_module: Module, tensor_name: str | None = None
) -> Module:
    """Gives ``to_module`` copies of the parametrisations of ``from_module``, and of the originals."""
    if not is_parametrized(from_module):
        return to_module
    for name in [tensor_name] if tensor_name is not None else list(from_module.parametrizations):
        source = from_module.parametrizations[name]
        if not is_parametrized(to_module, name):
            for k, part in enumerate(source):
                register_parametrization(to_module, name, copy.deepcopy(part), unsafe=source.unsafe or k == 0)
        target = to_module.parametrizations[name]
        for original in source._names():
            getattr(target, original).array = getattr(source, original).array.copy()
    return to_module
