"""Views: which tensor a view was made from and how, so that in-place changes reach the history of both."""

from __future__ import annotations

import weakref
from typing import Any

from ..tensor import Tensor
from .engine import same_memory
from .modes import mode

_MIN_VIEWS = 16  # dead references to views are swept out of a base's list whenever it has doubled beyond this


def note_view(out: Any, source: Tensor, steps: tuple) -> None:
    """Remembers that `out` is made from `source` by `steps` if it shares memory with it (called by the dispatcher)."""
    array, owner = out.array.base, source.array
    if array is not owner and (array is None or array is not owner.base) and not same_memory(out.array, owner):
        return
    base, before, recorded = source._view or (source, (), True)
    out._view = (base, before + steps, recorded and mode.grad)
    if base.requires_grad and base._edge is None:
        return  # a leaf: its views cannot be changed in place while recording, so their histories never change
    known = base.__dict__.setdefault("_views", [])
    known.append(weakref.ref(out))
    if len(known) > base.__dict__.get("_sweep_views", _MIN_VIEWS):
        known[:] = [r for r in known if r() is not None]
        base._sweep_views = max(_MIN_VIEWS, 2 * len(known))


def through(x: Any, steps: tuple) -> Any:
    """The view that `steps` (function, arguments, output index) make of a tensor or array."""
    for function, args, k in steps:
        x = function(x, *args)
        x = x if k is None else x[k]
    return x


def renew_views(base: Tensor) -> None:
    """Derives the histories of all live views of `base` from its new one."""
    known = base.__dict__.pop("_views", None) or []
    for view in [v for r in known if (v := r()) is not None]:
        again = through(base, view._view[1])
        view._edge, view.requires_grad = again._edge, again.requires_grad
    if known:
        base.__dict__["_views"] = [r for r in known if r() is not None]
