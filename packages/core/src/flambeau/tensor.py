"""Tensor: an array, its place in the graph, and access to both. The mathematics lives in `ops`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy

from . import backends, dtypes
from .device import CPU, device

_engine: Any = None  # flambeau.autograd.engine, which sets it: it needs this module first
_OWN = (
    "grad",
    "_after_grad",
    "_hooks",
    "_view",
    "_views",
    "_retains",
)  # attributes that a copy of a tensor does not take over
_print_options = {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80}


class Tensor:
    """A multi-dimensional array that remembers how it was computed, when asked to.

    `array` is the NumPy or CuPy array itself. Everything else follows `torch.Tensor`. Make tensors with
    `flambeau.tensor`, `flambeau.from_numpy`, `flambeau.zeros`, …

    >>> import flambeau
    >>> x = flambeau.tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([2., 4.])
    """

    __slots__ = ("__dict__", "__weakref__", "_edge", "array", "requires_grad")
    __array_priority__ = 1000  # ndarray + Tensor goes to Tensor.__radd__

    array: Any
    requires_grad: bool
    _edge: tuple | None  # (node, output index); None for a leaf
    # Set for few tensors, so left to the class: a slot costs every tensor the time to fill it.
    grad: Tensor | None = None
    _hooks: list | None = None
    _after_grad: list | None = None
    _view: tuple | None = None  # of a view: (base, how it is made from it, whether gradients were recorded)

    if TYPE_CHECKING:  # what the package ops hangs on this class, as far as type checkers have to know it

        def __getattr__(self, name: str) -> Any: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def __setitem__(self, index: Any, value: Any) -> None: ...
        def __neg__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __add__(self, other: Any) -> Tensor: ...

        __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __add__
        __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __matmul__ = __rmatmul__ = __add__
        __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __lt__ = __le__ = __gt__ = __ge__ = __add__

    def __new__(cls, *args: Any, **kwargs: Any) -> Tensor:
        t = object.__new__(cls)
        t.requires_grad = False
        t._edge = None
        return t

    def __init__(self, data: Any = None, *, requires_grad: bool = False, **kwargs: Any):
        if kwargs:
            raise TypeError(f"Tensor() got unexpected keyword arguments {', '.join(kwargs)}; use flambeau.tensor()")
        if isinstance(data, int):
            data = numpy.zeros(data, dtypes.get_default_dtype().numpy)
        self.array = to_array([] if data is None else data, dtypes.get_default_dtype(), None, copy=False)
        self.requires_grad = requires_grad

    @classmethod
    def _wrap(cls, array: Any) -> Tensor:
        """A Tensor around `array` without history."""
        t = cls.__new__(cls)
        t.array = array
        return t

    @classmethod
    def _from_edge(cls, array: Any, edge: tuple) -> Tensor:
        """A Tensor that stands at `edge` in the graph again (the leaf itself when it is one)."""
        if isinstance(edge[0], Tensor) and edge[0].array is array:
            return edge[0]
        t = cls.__new__(cls)
        t.array = as_array(array)
        t._edge = edge
        t.requires_grad = True
        return t

    # -- what it is ---------------------------------------------------------------------------------------------
    @property
    def shape(self) -> Size:
        """Sizes of the dimensions."""
        return Size(self.array.shape)

    def size(self, dim: int | None = None) -> Any:
        """`shape`, or one entry of it."""
        return Size(self.array.shape) if dim is None else self.array.shape[dim]

    @property
    def dtype(self) -> dtypes.dtype:
        """Element type."""
        return dtypes.from_numpy_dtype(self.array.dtype)

    @property
    def device(self) -> device:
        """Where the array lives."""
        return CPU if isinstance(self.array, numpy.ndarray) else backends.of(self.array).device_of(self.array)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self.array.ndim

    def dim(self) -> int:
        """Number of dimensions."""
        return self.array.ndim

    def numel(self) -> int:
        """Number of elements."""
        return int(self.array.size)

    nelement = numel

    def element_size(self) -> int:
        """Bytes of one element."""
        return self.array.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return int(self.array.nbytes)

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.array.dtype.itemsize

    def stride(self, dim: int | None = None) -> Any:
        """Strides in elements."""
        strides = tuple(s // self.array.itemsize for s in self.array.strides)
        return strides if dim is None else strides[dim]

    def is_contiguous(self) -> bool:
        """Whether the elements lie in memory in row-major order without gaps."""
        return bool(self.array.flags.c_contiguous)

    def data_ptr(self) -> int:
        """Address of the first element."""
        return self.array.ctypes.data if isinstance(self.array, numpy.ndarray) else self.array.data.ptr

    def is_floating_point(self) -> bool:
        """Whether the dtype is a floating-point one."""
        return self.dtype.is_floating_point

    def is_complex(self) -> bool:
        """Whether the dtype is complex."""
        return self.array.dtype.kind == "c"

    @property
    def is_cuda(self) -> bool:
        """Whether the array is on a GPU."""
        return self.device.type == "cuda"

    @property
    def is_leaf(self) -> bool:
        """Whether the tensor was made by the user rather than by a recorded operation."""
        return self._edge is None

    @property
    def _version(self) -> int:
        """How often the memory has been changed in place."""
        from .autograd.engine import version

        return version(self.array)

    @property
    def _base(self) -> Tensor | None:
        """The tensor of which this is a view; None when it is none."""
        return None if self._view is None else self._view[0]

    @property
    def grad_fn(self) -> Any:
        """The node that produced it; None for a leaf."""
        return None if self._edge is None else self._edge[0]

    # -- values -------------------------------------------------------------------------------------------------
    def item(self) -> Any:
        """The only element as a Python number; RuntimeError when there are more or none."""
        if self.array.size != 1:
            raise RuntimeError(f"a tensor with {self.array.size} elements cannot be converted to a number")
        return self.array.item()

    def tolist(self) -> Any:
        """Nested lists of Python numbers."""
        return self.array.tolist()

    def numpy(self, *, force: bool = False) -> numpy.ndarray:
        """The NumPy array with the same memory. Errors: RuntimeError if it needs a gradient or lives on a GPU."""
        if force:
            return backends.of(self.array).to_host(self.array)
        if self.requires_grad:
            raise RuntimeError("numpy() on a tensor that requires a gradient; use tensor.detach().numpy()")
        if not isinstance(self.array, numpy.ndarray):
            raise RuntimeError("numpy() on a tensor on a GPU; use tensor.cpu().numpy()")
        return self.array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        a = self.numpy()
        if dtype is not None and a.dtype != dtype:
            return a.astype(dtype)
        return a.copy() if copy else a

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.array.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()

    def __bool__(self) -> bool:
        if self.array.size != 1:
            raise RuntimeError(
                f"the truth value of a tensor with {self.array.size} elements is ambiguous; use .any() or .all()"
            )
        return bool(self.array.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.array.dtype.kind not in "iub" or self.array.size != 1:
            raise TypeError("only integer tensors of a single element can be converted to an index")
        return int(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __len__(self) -> int:
        if self.array.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return self.array.shape[0]

    def __iter__(self) -> Any:
        if self.array.ndim == 0:
            raise TypeError("iteration over a 0-d tensor")
        return iter([self[i] for i in range(self.array.shape[0])])

    def __contains__(self, value: Any) -> bool:
        return bool((self == value).array.any())

    def __hash__(self) -> int:
        return id(self)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.array.ndim == 0 and spec else repr(self)

    def __repr__(self) -> str:
        host = backends.of(self.array).to_host(self.array)
        if host.dtype.kind == "V":
            host = host.astype(numpy.float32)
        with numpy.printoptions(**_print_options):  # type: ignore[arg-type]
            body = numpy.array2string(host, separator=", ", prefix="tensor(")
        extra = []
        natural = self.dtype in (dtypes.get_default_dtype(), dtypes.int64, dtypes.bool)
        if self.device.type != "cpu":
            extra.append(f"device='{self.device}'")
        if not natural or (self.array.size == 0 and self.dtype is not dtypes.get_default_dtype()):
            extra.append(f"dtype={self.dtype}")
        if self._edge is not None:
            extra.append(f"grad_fn={self.grad_fn}")
        elif self.requires_grad:
            extra.append("requires_grad=True")
        return f"tensor({', '.join([body, *extra])})"

    def __deepcopy__(self, memo: dict) -> Tensor:
        if self._edge is not None:
            raise RuntimeError("only leaf tensors support deepcopy; use .detach().clone()")
        t = type(self).__new__(type(self))
        memo[id(self)] = t
        t.array = self.array.copy()
        t.requires_grad = self.requires_grad
        t.__dict__.update({k: v for k, v in self.__dict__.items() if k not in _OWN})
        t.grad = None if self.grad is None else self.grad.clone().detach()
        return t

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self.numpy(force=True), self.requires_grad)

    # -- gradients ----------------------------------------------------------------------------------------------
    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        """Adds the gradient of this tensor to `.grad` of the leaves it was computed from."""
        _engine.backward(self, gradient, retain_graph, create_graph, inputs)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Starts (or stops) recording operations on this leaf."""
        if self._edge is not None and not requires_grad:
            raise RuntimeError("only leaf tensors can have requires_grad set to False; use .detach()")
        if requires_grad and self.array.dtype.kind not in "fcV":
            raise RuntimeError(f"only floating-point and complex tensors can require gradients, not {self.dtype}")
        self.requires_grad = requires_grad
        return self

    def detach(self) -> Tensor:
        """The same memory without history."""
        return Tensor._wrap(self.array)

    def detach_(self) -> Tensor:
        """Forgets the history in place."""
        self._edge = None
        self.requires_grad = False
        return self

    @property
    def data(self) -> Tensor:
        """The same memory without history; assigning to it replaces the values."""
        return Tensor._wrap(self.array)

    @data.setter
    def data(self, value: Tensor) -> None:
        self.array = value.array

    def retain_grad(self) -> None:
        """Fills `.grad` of this non-leaf too."""
        if self._edge is not None and not self.__dict__.get("_retains"):
            self._retains = True

            def keep(g: Tensor) -> None:
                self.grad = g.detach().clone() if self.grad is None else self.grad + g

            self.register_hook(keep)

    def register_hook(self, hook: Any) -> Any:
        """Calls `hook(grad)` when the gradient of this tensor is known; what it returns replaces it."""
        if not self.requires_grad:
            raise RuntimeError("cannot register a hook on a tensor that doesn't require a gradient")
        if self._edge is None:
            if self._hooks is None:
                self._hooks = []
            hooks = self._hooks
        else:
            node, k = self._edge
            node.hooks = node.hooks or {}
            hooks = node.hooks.setdefault(k, [])
        hooks.append(hook)
        return _Handle(hooks, hook)

    def register_post_accumulate_grad_hook(self, hook: Any) -> Any:
        """Calls `hook(tensor)` each time backward has added to `.grad` of this leaf."""
        if self._edge is not None or not self.requires_grad:
            raise RuntimeError("post accumulate grad hooks can only be registered on leaves that require a gradient")
        hooks = self.__dict__.setdefault("_after_grad", [])
        hooks.append(hook)
        return _Handle(hooks, hook)

    def _bump_version(self) -> None:
        """Notes an in-place change, so that stale saved values are caught in backward."""
        from .autograd.engine import mark_modified

        mark_modified(self.array)


class Size(tuple):
    """A shape, as `torch.Size`."""

    __slots__ = ()

    def numel(self) -> int:
        """Product of the sizes."""
        n = 1
        for s in self:
            n *= s
        return n

    def __repr__(self) -> str:
        return f"flambeau.Size({list(self)})"


class _Handle:
    """Removes what was registered."""

    def __init__(self, hooks: list, hook: Any):
        self._hooks, self._hook = hooks, hook

    def remove(self) -> None:
        """Takes the hook away again."""
        if self._hook in self._hooks:
            self._hooks.remove(self._hook)


def _rebuild(cls: type[Tensor], array: numpy.ndarray, requires_grad: bool) -> Tensor:
    from . import ops  # noqa: F401 - so that an unpickled tensor has its methods in a fresh process

    t: Tensor = cls.__new__(cls)
    t.array = array
    t.requires_grad = requires_grad
    return t


def as_array(value: Any) -> Any:
    """The array itself, or a 0-d array for the scalar that NumPy makes of one."""
    return numpy.asarray(value) if isinstance(value, numpy.generic) else value


def raw_of(value: Any) -> Any:
    """The array of a Tensor; anything else as it is."""
    return getattr(value, "array", value)


def to_array(data: Any, dtype: Any, where: Any, copy: bool) -> Any:
    """An array from anything array-like; `dtype` and device `where` None keep what the data has."""
    want = None if dtype is None else dtypes.as_dtype(dtype).numpy
    place = None if where is None else device(where)
    if isinstance(data, Tensor):
        data = data.array
    if hasattr(data, "__cuda_array_interface__"):
        array = backends.get(device("cuda")).xp.array(data, dtype=want, copy=copy or None)
    elif isinstance(data, numpy.ndarray | numpy.generic):
        array = numpy.array(data, copy=copy or None)
        if want is not None and array.dtype != want:
            array = dtypes.stored(array, want)
    else:
        array = _from_python(data, want)
    if array.dtype not in dtypes._FROM_NUMPY:
        if array.dtype.kind in "OUSMm":
            raise TypeError(f"cannot make a tensor from elements of type {array.dtype}; give numbers")
        if array.dtype.byteorder == ">":
            array = array.astype(array.dtype.newbyteorder("="))
        dtypes.from_numpy_dtype(array.dtype)
    if (place is not None and place.type != "cpu") or (place and not isinstance(array, numpy.ndarray)):
        backend = backends.get(place)
        if isinstance(array, numpy.ndarray):
            array = backend.from_host(array, place)
        elif place.type == "cpu":
            array = backends.of(array).to_host(array)
        elif place.index is not None and backend.device_of(array) != place:
            array = backend.from_host(backends.of(array).to_host(array), place)
    return array


def _from_python(data: Any, want: Any) -> numpy.ndarray:
    if hasattr(data, "__dlpack__") and not hasattr(data, "__array__"):
        return numpy.from_dlpack(data)
    if isinstance(data, list | tuple) and _holds_tensors(data):
        data = _plain(data)
    try:
        array = numpy.array(data)
    except ValueError as e:
        raise ValueError(f"cannot make a tensor from a ragged nested sequence ({e})") from None
    if want is not None:
        return dtypes.stored(array, want)
    if array.dtype == numpy.float64 and not hasattr(data, "dtype"):
        return array.astype(dtypes.get_default_dtype().numpy)
    if array.dtype == numpy.complex128 and dtypes.get_default_dtype() is not dtypes.float64:
        return array.astype(numpy.complex64)
    return array


def _holds_tensors(data: Any) -> bool:
    return any(isinstance(v, Tensor) or (isinstance(v, list | tuple) and _holds_tensors(v)) for v in data)


def _plain(data: Any) -> Any:
    if isinstance(data, Tensor):
        return data.tolist()
    return [_plain(v) for v in data] if isinstance(data, list | tuple) else data
