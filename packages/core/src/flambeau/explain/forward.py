"""What all methods share: running the model as it is used, and choosing the number that is explained."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .. import ops
from ..autograd import enable_grad, grad
from ..nn import Module
from ..tensor import Tensor

Target = int | tuple[int, ...] | Sequence[Any] | Tensor | np.ndarray | Callable[[Any], Tensor] | None


@contextlib.contextmanager
def as_used(model: Callable[..., Any]) -> Iterator[None]:
    """The model in evaluation mode and its parameters without gradients; both are put back afterwards.

    Without them the backward pass computes the gradients of the inputs alone.
    """
    if not isinstance(model, Module):
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for module, _ in modes:
            module.training = False
        for parameter in wanted:
            parameter.requires_grad = False
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter in wanted:
            parameter.requires_grad = True


def as_inputs(inputs: Any) -> tuple[tuple[Tensor, ...], bool]:
    """(the inputs as a tuple, whether they were one).

    Raises:
        TypeError: not Tensors. ValueError: none, or batches of different sizes.
    """
    several = isinstance(inputs, tuple | list)
    found = tuple(inputs) if several else (inputs,)
    for value in found:
        if not isinstance(value, Tensor):
            raise TypeError(f"inputs must be a Tensor or a tuple of Tensors, not {type(value).__name__}")
        if not value.ndim:
            raise ValueError("inputs must have the batch as their first dimension")
    if not found or len({value.shape[0] for value in found}) > 1:
        raise ValueError(f"inputs must be batches of one size, not {[tuple(value.shape) for value in found]}")
    return found, several


def as_baselines(baselines: Any, inputs: tuple[Tensor, ...], several: bool) -> tuple[Tensor, ...]:
    """A baseline for each input in its shape and dtype: 0 where none is given; numbers and rows are spread.

    Raises:
        ValueError: a baseline does not fit its input.
    """
    given = tuple(baselines) if several and isinstance(baselines, tuple | list) else (baselines,) * len(inputs)
    if len(given) != len(inputs):
        raise ValueError(f"there are {len(given)} baselines for {len(inputs)} inputs")
    found = []
    for value, x in zip(given, inputs, strict=True):
        if value is None:
            value = 0
        if not isinstance(value, Tensor):
            value = ops.tensor(value, dtype=x.dtype, device=x.device)
        try:
            found.append(ops.broadcast_to(value.detach().to(x.dtype), tuple(x.shape)))
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"a baseline of shape {tuple(value.shape)} does not fit an input of shape {tuple(x.shape)}"
            ) from error
    return tuple(found)


def call(model: Callable[..., Any], inputs: Sequence[Tensor], extra: Any) -> Any:
    return model(*inputs, *as_extra(extra))


def as_extra(extra: Any) -> tuple[Any, ...]:
    return () if extra is None else tuple(extra) if isinstance(extra, tuple | list) else (extra,)


def select(output: Any, target: Target) -> Tensor:
    """The numbers that are explained: one for each sample (N,), or one for all of them, 0-d.

    Raises:
        TypeError: the output is no Tensor and the target no function of it.
        ValueError: the target leaves more than one number for a sample.
        IndexError: there is no such class.
    """
    if callable(target):
        chosen = target(output)
        if not isinstance(chosen, Tensor):
            raise TypeError(f"the target function must return a Tensor, not {type(chosen).__name__}")
    elif not isinstance(output, Tensor):
        raise TypeError(
            f"the model returns a {type(output).__name__}: give a function of it as target, "
            "such as target=lambda output: output['scores'][:, 0]"
        )
    else:
        chosen = _indexed(output, target)
    if chosen.ndim == 0:
        return chosen
    if chosen.numel() != chosen.shape[0]:
        raise ValueError(
            f"the target must leave one number for each sample, not the shape {tuple(chosen.shape)}: give a class, "
            "a tuple that indexes all dimensions after the batch, or a function of the output"
        )
    return chosen.reshape(-1)


def _indexed(output: Tensor, target: Any) -> Tensor:
    if target is None:
        return output
    if isinstance(target, Tensor | np.ndarray):
        target = target.tolist()
    if isinstance(target, int | np.integer):
        target = (int(target),)
    if isinstance(target, tuple):
        _check_index(output, target)
        return output[(slice(None), *target)]
    entries = [entry if isinstance(entry, tuple | list) else (entry,) for entry in target]
    if len(entries) == 1:
        entries *= output.shape[0]
    if len(entries) != output.shape[0]:
        raise ValueError(f"there are {len(entries)} targets for a batch of {output.shape[0]}")
    for entry in entries:
        _check_index(output, entry)
    rows = [output[(i, *map(int, entry))] for i, entry in enumerate(entries)]
    return ops.stack([row.reshape(()) if row.numel() == 1 else row for row in rows])


def _check_index(output: Tensor, index: Sequence[int]) -> None:
    shape = tuple(output.shape)
    if len(index) > len(shape) - 1:
        raise IndexError(f"the target {tuple(index)} has {len(index)} indices, but the output has the shape {shape}")
    for i, extent in zip(index, shape[1:], strict=False):
        if not -extent <= i < extent:
            raise IndexError(f"the target {tuple(index)} is out of range: the output has the shape {shape}")


def repeated(value: Any, times: int, batch: int) -> Any:
    """A target or an additional argument for a batch that stands there `times` times, one after the other."""
    if times == 1 or callable(value):
        return value
    if isinstance(value, Tensor):
        return ops.cat([value] * times) if value.ndim and value.shape[0] == batch else value
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return value * times if isinstance(value, list) and len(value) == batch else value


def scores(model: Callable[..., Any], inputs: Sequence[Tensor], target: Target, extra: Any) -> Tensor:
    """`select` of the output, without a graph."""
    from ..autograd import no_grad

    with no_grad():
        return select(call(model, inputs, extra), target).detach()


def gradients(
    model: Callable[..., Any], inputs: Sequence[Tensor], target: Target, extra: Any
) -> tuple[tuple[Tensor, ...], Tensor]:
    """(the gradients of the chosen numbers by the inputs, these numbers). To be called within `as_used`.

    Raises:
        TypeError: inputs of an integer type have no gradient.
        RuntimeError: no way leads from the chosen numbers to an input.
    """
    for x in inputs:
        if not x.is_floating_point():
            raise TypeError(
                f"inputs of type {x.dtype} have no gradients: explain an embedding by LayerIntegratedGradients, "
                "or use Occlusion or FeatureAblation"
            )
    with enable_grad():
        leaves = tuple(x.detach().requires_grad_() for x in inputs)
        chosen = select(call(model, leaves, extra), target)
        return differentiate(chosen, leaves), chosen.detach()


def differentiate(chosen: Tensor, leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
    if not chosen.requires_grad:
        raise RuntimeError("the target does not depend on what is explained: nothing to differentiate")
    return grad(chosen.sum(), leaves, materialize_grads=True)


def plain(values: Sequence[Tensor], several: bool) -> Any:
    return tuple(values) if several else values[0]


def find_layer(model: Module, layer: Module | str) -> Module:
    """The layer itself, or the one at a dotted path.

    Raises:
        ValueError: the model has no such layer.
    """
    if isinstance(layer, Module):
        if all(layer is not module for module in model.modules()):
            raise ValueError(f"this {type(layer).__name__} is no layer of the model")
        return layer
    names = {name: module for name, module in model.named_modules() if name}
    if layer not in names:
        near = difflib.get_close_matches(layer, names, 3) or list(dict(model.named_children()))[:8]
        raise ValueError(f"{type(model).__name__} has no layer {layer!r}; there are {', '.join(near)}")
    return names[layer]


class Tap:
    """While open, catches what a layer returns, or puts `replacement` in its place; as a leaf of the graph.

    What comes before the layer is then not recorded: the backward pass ends at the layer.
    """

    def __init__(self, layer: Module, replacement: Tensor | None = None, name: str = "") -> None:
        self.layer, self.replacement = layer, replacement
        self.name = name or type(layer).__name__
        self._found: list[Tensor] = []

    def __enter__(self) -> Tap:
        self._handle = self.layer.register_forward_hook(self._catch)
        return self

    def __exit__(self, *exc: object) -> None:
        self._handle.remove()

    def _catch(self, module: Module, args: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            what = f"{output.dtype} numbers" if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise TypeError(f"the layer {self.name} returns {what}: choose one that returns a Tensor of floats")
        leaf = (output if self.replacement is None else self.replacement).detach().requires_grad_()
        self._found.append(leaf)
        return leaf.clone()  # the model may change it in place

    @property
    def output(self) -> Tensor:
        """What the layer returned.

        Raises:
            ValueError: it did not run, or ran several times.
        """
        if len(self._found) != 1:
            raise ValueError(f"the layer {self.name} ran {len(self._found)} times: choose one that runs once")
        return self._found[0]


class Region:
    """A target for maps of scores (N, K, …): the mean score of a class over a region.

    Args:
        index: the class.
        mask: bool (…) or (N, …): where; None for the whole map.

    >>> import flambeau
    >>> scores = flambeau.arange(8.0).reshape(1, 2, 2, 2)
    >>> Region(1, flambeau.tensor([[True, True], [False, False]]))(scores)
    tensor([4.5])
    """

    def __init__(self, index: int, mask: Any = None) -> None:
        self.index = index
        self.mask = None if mask is None else np.asarray(mask.cpu().numpy() if isinstance(mask, Tensor) else mask, bool)
        if self.mask is not None and not self.mask.any():
            raise ValueError("the region is empty")

    def __call__(self, output: Tensor) -> Tensor:
        _check_index(output, (self.index,))
        chosen = output[:, self.index]
        dims = tuple(range(1, chosen.ndim))
        if self.mask is None:
            return chosen.mean(dims)
        if self.mask.shape not in (tuple(chosen.shape), tuple(chosen.shape[1:])):
            raise ValueError(f"the region has the shape {self.mask.shape}, the scores {tuple(chosen.shape)}")
        mask = ops.tensor(self.mask, dtype=chosen.dtype, device=chosen.device)
        # A mask of all samples has one region each; one of (…) holds for all.
        count = mask.sum(dims) if mask.ndim == chosen.ndim else float(self.mask.sum())
        return (chosen * mask).sum(dims) / count
