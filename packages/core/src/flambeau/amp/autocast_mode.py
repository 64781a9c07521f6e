"""autocast: matrix products in a 16-bit dtype, sensitive functions in float32, without changing the model."""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import dtypes
from ..autograd.engine import _modified, _owner
from ..autograd.function import Function
from ..autograd.modes import mode
from ..tensor import Tensor
from . import policy

_DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class _Settings:
    """What one context sets; an inner one replaces it as a whole."""

    enabled: dict[str, bool]
    dtype: dict[str, dtypes.dtype]
    caching: bool = True


class _State(threading.local):
    def __init__(self) -> None:
        off = dict.fromkeys(_DEVICES, False)
        self.settings = _Settings(off, {"cpu": dtypes.bfloat16, "cuda": dtypes.float16})
        self.inside = False  # of an operation whose arguments have been cast: nothing in it is cast again
        self.depth = 0
        # (id of a parameter, dtype) -> (the parameter, its array, the array in that dtype, the time of the cast)
        self.cache: dict[Any, tuple[Tensor, Any, Any, int]] = {}


_state = _State()
_installed = False


class _Interceptor:
    """Called in place of every op; `outer` is what was called before autocast began.

    It carries its settings: whoever sets it again later (a checkpoint that runs a function anew) has them too.
    """

    def __init__(self, settings: _Settings, outer: Callable | None) -> None:
        self.settings = settings
        self.outer = outer

    def __call__(self, op: Any, args: tuple, kwargs: dict) -> Any:
        composed = op.composite and op.kernel is None and not _state.inside and op.name not in policy.LISTED
        if composed and (_tensors(args) or _tensors(kwargs.values())):
            return op.forward(*op.bind(args, kwargs))  # its ops come here one by one
        previous, mode.intercept = mode.intercept, self.outer
        try:
            if _state.inside:
                return op.function(*args, **kwargs)
            return _call(self.settings, op.function, op.name, args, kwargs)
        finally:
            mode.intercept = previous


def _set(settings: _Settings) -> None:
    """Makes these the settings of this thread, and has them followed."""
    _state.settings = settings
    present = mode.intercept
    known = isinstance(present, _Interceptor)
    if known or any(settings.enabled.values()):
        mode.intercept = _Interceptor(settings, present.outer if known else present)  # type: ignore[union-attr]


def _present() -> _Settings:
    present = mode.intercept
    return present.settings if isinstance(present, _Interceptor) else _state.settings


def _active() -> bool:
    return not _state.inside and any(_present().enabled.values())


def _call_function(function: Callable, name: str, args: tuple, kwargs: dict) -> Any:
    """A listed function that is no op: when the list of its device has it not, its ops come one by one."""
    settings = _present()
    if _rule(settings, name, args, kwargs) is None:
        return function(*args, **kwargs)
    return _call(settings, function, name, args, kwargs)


def _rule(settings: _Settings, name: str, args: tuple, kwargs: dict) -> str | None:
    found = _tensors(args) or _tensors(kwargs.values())
    if not found:
        return None
    device = _device(found[0])
    return policy.rule_of(device, name, args, kwargs) if settings.enabled[device] else None


def _device(tensor: Tensor) -> str:
    return "cpu" if isinstance(tensor.array, np.ndarray) else tensor.device.type


def _call(settings: _Settings, function: Callable, name: str, args: tuple, kwargs: dict) -> Any:
    """The function on cast arguments, if a list of their device has it."""
    found = _tensors(args) + _tensors(kwargs.values())
    if not found:
        return function(*args, **kwargs)  # raw arrays: a gradient formula
    device = _device(found[0])
    rule = policy.rule_of(device, name, args, kwargs) if settings.enabled[device] else None
    _state.inside = True
    try:
        if rule is not None and rule != policy.APART:
            to = settings.dtype[device] if rule == policy.LOWER else dtypes.float32
            if rule == policy.PROMOTE:
                kinds = [t.dtype for t in found if t.dtype.is_floating_point]
                to = functools.reduce(dtypes.promote_types, kinds) if kinds else to
            args = tuple(_cast(value, to, settings) for value in args)
            kwargs = {key: _cast(value, to, settings) for key, value in kwargs.items()}
        return function(*args, **kwargs)
    finally:
        _state.inside = False


def _tensors(values: Any) -> list[Tensor]:
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += [item for item in value if isinstance(item, Tensor)]
    return found


def _cast(value: Any, to: dtypes.dtype, settings: _Settings) -> Any:
    if isinstance(value, list | tuple) and any(isinstance(item, Tensor) for item in value):
        return type(value)(_cast(item, to, settings) for item in value)
    if not isinstance(value, Tensor) or not value.dtype.is_floating_point or value.dtype in (dtypes.float64, to):
        return value
    # Parameters are of a class of their own. A checkpoint runs again after the context: the same way, but not kept.
    kept = settings.caching and type(value) is not Tensor
    if kept and value.requires_grad and value.is_leaf and to.itemsize < value.dtype.itemsize:
        return _cast_once(value, to)
    return value.to(to)


def _cast_once(leaf: Tensor, to: dtypes.dtype) -> Tensor:
    """A parameter in 16 bits: the array is made once a context, its place in the graph for every use.

    So several backward passes may run inside of one context, and a parameter that has been updated is cast anew.
    """
    key = (id(leaf), to)
    entry = _state.cache.get(key)
    changed = _modified.get(id(_owner(leaf.array)))
    if entry is None or entry[1] is not leaf.array or (changed is not None and changed[0] != entry[3]):
        entry = (leaf, leaf.array, leaf.array.astype(to.numpy), changed[0] if changed else 0)
        if _state.depth:
            _state.cache[key] = entry
    if not mode.grad:
        return Tensor._wrap(entry[2])
    return _Narrow.apply(leaf, entry[2])


class _Narrow(Function):
    """A cast whose result is known already."""

    @staticmethod
    def forward(ctx: Any, leaf: Tensor, narrow: Any) -> Tensor:
        ctx.wide = leaf.dtype
        return Tensor._wrap(narrow)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:  # type: ignore[override]
        return grad.to(ctx.wide), None


class autocast:  # PyTorch's name
    """Inside of it matrix products and convolutions run in `dtype`, and losses and the like in float32.

    A context manager and a decorator; it can be nested, also with ``enabled=False``. Parameters keep their dtype and
    get gradients of it; their 16-bit copies are kept until the outermost context ends. On a CPU NumPy computes 16-bit
    products in float32 and rounds them: that saves memory, not time.

    Args:
        device_type: "cpu" or "cuda".
        dtype: bfloat16 or float16; None is bfloat16 on CPUs and float16 on GPUs.
        enabled: False switches it off inside.
        cache_enabled: whether the copies of parameters are kept.

    >>> import flambeau
    >>> layer = flambeau.nn.Linear(3, 2)
    >>> with autocast("cpu"):
    ...     out = layer(flambeau.ones(1, 3))
    >>> out.dtype
    flambeau.bfloat16
    """

    def __init__(
        self, device_type: str, dtype: Any = None, enabled: bool = True, cache_enabled: bool | None = None
    ) -> None:
        _check_device(device_type)
        self.device = device_type
        self.fast_dtype = _present().dtype[device_type] if dtype is None else dtypes.as_dtype(dtype)
        self._cache_enabled = cache_enabled
        if enabled and device_type == "cuda" and not is_cuda_here():
            warnings.warn("CUDA is not available. Disabling autocast.", stacklevel=2)
            enabled = False
        elif enabled and self.fast_dtype not in (dtypes.bfloat16, dtypes.float16):
            warnings.warn(
                f"In {device_type.upper()} autocast, but the target dtype {self.fast_dtype} is not supported. "
                "Disabling autocast. It only supports flambeau.bfloat16 and flambeau.float16.",
                stacklevel=2,
            )
            enabled = False
        self._enabled = bool(enabled)
        self._left: list[tuple] = []

    def __enter__(self) -> autocast:
        install()
        before = _present()
        self._left.append((_state.settings, mode.intercept, _state.inside))
        _set(
            _Settings(
                {**before.enabled, self.device: self._enabled},
                {**before.dtype, self.device: self.fast_dtype},
                before.caching if self._cache_enabled is None else self._cache_enabled,
            )
        )
        _state.inside = False
        _state.depth += 1
        return self

    def __exit__(self, *exc: object) -> None:
        _state.settings, mode.intercept, _state.inside = self._left.pop()
        _state.depth -= 1
        if _state.depth == 0:
            _state.cache.clear()

    def __call__(self, function: Callable) -> Callable:
        if not callable(function):
            raise TypeError(f"autocast()(function) needs a function, but got {type(function).__name__}; use `with`?")

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return wrapped


def install() -> None:
    """Makes functions that are no ops follow autocast's lists; `nn.functional` does it when it has been imported."""
    global _installed
    if not _installed:
        _installed = True
        policy.install(_call_function, _active)


def _check_device(device_type: Any) -> None:
    if not isinstance(device_type, str):
        raise ValueError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")
    if device_type not in _DEVICES:
        raise RuntimeError(f"User specified an unsupported autocast device_type '{device_type}'")


def is_cuda_here() -> bool:
    """Whether there is a CUDA device."""
    from .. import cuda

    return cuda.is_available()


def is_autocast_available(device_type: str) -> bool:
    """Whether autocast knows the kind of device."""
    return device_type in _DEVICES


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Whether autocast is on in this thread for the kind of device."""
    _check_device(device_type)
    return _present().enabled[device_type]


def set_autocast_enabled(device_type: str, enabled: bool) -> None:
    """Switches autocast on or off in this thread, without a context."""
    _check_device(device_type)
    install()
    before = _present()
    _set(replace(before, enabled={**before.enabled, device_type: bool(enabled)}))
    if not _state.depth and not _active() and isinstance(mode.intercept, _Interceptor):
        mode.intercept = mode.intercept.outer


def get_autocast_dtype(device_type: str) -> dtypes.dtype:
    """The 16-bit dtype that autocast uses in this thread."""
    _check_device(device_type)
    return _present().dtype[device_type]


def set_autocast_dtype(device_type: str, dtype: Any) -> None:
    """Sets the dtype that `autocast` uses when it is given none."""
    _check_device(device_type)
    before = _present()
    _set(replace(before, dtype={**before.dtype, device_type: dtypes.as_dtype(dtype)}))


def is_autocast_cache_enabled() -> bool:
    """Whether 16-bit copies of parameters are kept during a context."""
    return _present().caching


def set_autocast_cache_enabled(enabled: bool) -> None:
    """Sets whether 16-bit copies of parameters are kept during a context."""
    _set(replace(_present(), caching=bool(enabled)))


def clear_autocast_cache() -> None:
    """Forgets the 16-bit copies of parameters."""
    _state.cache.clear()


def _cast_all(value: Any, device_type: str, dtype: dtypes.dtype) -> Any:
    if isinstance(value, Tensor):
        mine = value.dtype.is_floating_point and value.device.type == device_type and value.dtype is not dtypes.float64
        return value.to(dtype) if mine else value
    if isinstance(value, Mapping):
        return {key: _cast_all(item, device_type, dtype) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_cast_all(item, device_type, dtype) for item in value)
    return value


def custom_fwd(fwd: Callable | None = None, *, device_type: str, cast_inputs: Any = None) -> Callable:
    """Decorates the ``forward`` of an autograd Function; with `cast_inputs` it runs on inputs of that dtype, without
    autocast. Outside of autocast nothing changes.
    """
    _check_device(device_type)
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)

    @functools.wraps(fwd)
    def decorated(*args: Any, **kwargs: Any) -> Any:
        enabled = is_autocast_enabled(device_type)
        args[0]._dtype = get_autocast_dtype(device_type)
        args[0]._fwd_used_autocast = enabled and cast_inputs is None
        if not enabled or cast_inputs is None:
            return fwd(*args, **kwargs)
        dtype = dtypes.as_dtype(cast_inputs)
        with autocast(device_type, enabled=False):
            return fwd(*_cast_all(args, device_type, dtype), **_cast_all(kwargs, device_type, dtype))

    return decorated


def custom_bwd(bwd: Callable | None = None, *, device_type: str) -> Callable:
    """Decorates the ``backward`` of an autograd Function: it runs with autocast as its ``forward`` did."""
    _check_device(device_type)
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)

    @functools.wraps(bwd)
    def decorated(*args: Any, **kwargs: Any) -> Any:
        with autocast(device_type, enabled=args[0]._fwd_used_autocast, dtype=args[0]._dtype):
            return bwd(*args, **kwargs)

    return decorated
