"""What a model is made of: `summary` tabulates its modules, shapes, parameters, multiply-adds and memory.

The names are those of torchinfo. The figures come from one forward pass: operations are counted where they run, so
that functional calls and custom modules count, and memory is what the pass really keeps for ``backward()``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..autograd.modes import enable_grad, mode
from ..tensor import Tensor
from .flop_counter import OpObserver, multiply_adds

__all__ = ["LayerInfo", "ModelSummary", "summary"]

OPTIMIZER_STATES = {"adamw": 2, "adam": 2, "nadam": 2, "radam": 2, "adamax": 2, "rmsprop": 1, "adagrad": 1, "sgd": 1}
"""Numbers that an optimizer keeps for each parameter (SGD: with momentum)."""


@dataclass
class LayerInfo:
    """A row of the table: a module, and what is in it.

    Attributes:
        name: its path in the model, "" for the model itself.
        kind: its class.
        depth: 0 for the model.
        output_shape: shapes of the tensors that its latest call returned; empty if it was never called.
        calls: how often it ran.
        num_params, trainable_params: of it and all in it; a shared parameter counts once.
        mult_adds: of it and all in it.
        shared: it stands at another place of the table already.
    """

    name: str
    kind: str
    depth: int
    output_shape: list[tuple[int, ...]]
    calls: int
    num_params: int
    trainable_params: int
    mult_adds: int
    shared: bool = False


@dataclass
class ModelSummary:
    """What `summary` returns: ``str()`` is the table, the attributes are the figures.

    Attributes:
        summary_list: the rows.
        total_params, trainable_params: numbers; a parameter that is used at several places counts once.
        total_mult_adds: of the forward pass; `total_flops` is twice that.
        total_param_bytes: parameters and buffers.
        total_input, total_output_bytes: bytes of the inputs, and of all memory that ops filled.
        activation_bytes: bytes that stay for ``backward()``.
        optimizer_bytes, gradient_bytes: of the trainable parameters.
        training_bytes: all of it together: an estimate of what a training step needs, without the ops' work space.
        ran: whether there was a forward pass.
    """

    model: str
    summary_list: list[LayerInfo]
    total_params: int = 0
    trainable_params: int = 0
    total_mult_adds: int = 0
    total_param_bytes: int = 0
    total_input: int = 0
    total_output_bytes: int = 0
    activation_bytes: int = 0
    gradient_bytes: int = 0
    optimizer_bytes: int = 0
    optimizer: str = "adamw"
    ran: bool = False
    input_size: list[tuple[int, ...]] = field(default_factory=list)
    mult_adds_by_op: dict[str, int] = field(default_factory=dict)

    @property
    def total_flops(self) -> int:
        """Floating-point operations of the forward pass: two for each multiply-add."""
        return 2 * self.total_mult_adds

    @property
    def training_bytes(self) -> int:
        return (
            self.total_param_bytes
            + self.gradient_bytes
            + self.optimizer_bytes
            + self.activation_bytes
            + self.total_input
        )

    def to_dict(self) -> dict[str, Any]:
        """The figures and the rows as plain data, for JSON."""
        from dataclasses import asdict

        plain = asdict(self)
        layers = plain.pop("summary_list")
        return {**plain, "total_flops": self.total_flops, "training_bytes": self.training_bytes, "layers": layers}

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Headings and cells of the table, the names with the branches of the tree."""
        frozen = self.trainable_params != self.total_params
        heads = ["Layer (type)"] + ["Output shape"] * self.ran + ["Params"] + ["Trainable"] * frozen
        heads += ["Mult-adds"] * self.ran
        cells = []
        for layer, branch in zip(self.summary_list, _branches(self.summary_list), strict=True):
            last = layer.name.rpartition(".")[2]
            row = [branch + (f"{last} ({layer.kind})" if last else layer.kind)]
            if self.ran:
                row.append(_shapes(layer))
            row.append("(shared)" if layer.shared else f"{layer.num_params:,}" if layer.num_params else "-")
            if frozen:
                row.append(_trainable(layer))
            if self.ran:
                row.append("(shared)" if layer.shared else f"{layer.mult_adds:,}" if layer.mult_adds else "-")
            cells.append(row)
        return heads, cells

    def totals(self) -> list[tuple[str, str]]:
        """The figures below the table: (name, text)."""
        lines = [
            ("Parameters", f"{self.total_params:,}"),
            ("  trainable", f"{self.trainable_params:,}"),
            ("  frozen", f"{self.total_params - self.trainable_params:,}"),
        ]
        if self.ran:
            lines += [
                ("Mult-adds (forward)", f"{self.total_mult_adds:,} ({readable(self.total_mult_adds)})"),
                ("FLOPs (forward)", f"{self.total_flops:,} ({readable(self.total_flops)})"),
            ]
        lines.append(("Memory: parameters, buffers", megabytes(self.total_param_bytes)))
        if self.ran:
            lines += [
                ("Memory: input", megabytes(self.total_input)),
                ("Memory: results of all ops", megabytes(self.total_output_bytes)),
                ("Memory: kept for backward", megabytes(self.activation_bytes)),
                (f"Memory: training, {self.optimizer}", f"about {megabytes(self.training_bytes)}"),
            ]
        return lines

    def __str__(self) -> str:
        heads, cells = self.rows()
        widths = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(heads))]

        def line(row: list[str]) -> str:
            left = len(heads) - self.ran - (self.trainable_params != self.total_params) - 1  # texts; figures follow
            parts = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
            return "  ".join(parts).rstrip()

        totals = self.totals()
        name = max(len(label) for label, _ in totals)
        rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
        below = [f"{label.ljust(name)}  {text}" for label, text in totals]
        return "\n".join([line(heads), rule, *[line(row) for row in cells], rule, *below])

    __repr__ = __str__


class _Recorder(OpObserver):
    """Counts by module, sees shapes, and what the tape keeps."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self.mult_adds: dict[int | None, int] = {}
        self.by_op: dict[str, int] = {}
        self.shapes: dict[int, list[tuple[int, ...]]] = {}
        self.calls: dict[int, int] = {}
        self.made = 0
        self.kept = 0
        self._known = known  # ids of memory that is there before: parameters, buffers, inputs
        self._made: dict[int, Any] = {}  # id of a memory -> it, alive so that no other takes its id
        self._saved: set[int] = set()

    def on_op(self, op: Any, values: list[Any], out: Any) -> None:
        count = multiply_adds(op, values, out)
        if count:
            place = id(self.stack[-1]) if self.stack else None
            self.mult_adds[place] = self.mult_adds.get(place, 0) + count
            self.by_op[op.name] = self.by_op.get(op.name, 0) + count
        for array in _arrays(out):
            owner = _owner(array)
            if id(owner) not in self._known and id(owner) not in self._made:
                self._made[id(owner)] = owner
                self.made += int(owner.nbytes)

    def on_module(self, module: Any, output: Any) -> None:
        self.calls[id(module)] = self.calls.get(id(module), 0) + 1
        self.shapes[id(module)] = [tuple(a.shape) for a in _arrays(output)]

    def observe(self, node: Any, out: Any) -> None:
        """A node of the tape: the arrays that it holds, each memory once."""
        for array in [*_arrays(node.saved), *_arrays(node.out)]:
            owner = _owner(array)
            if id(owner) not in self._known and id(owner) not in self._saved:
                self._saved.add(id(owner))
                self._made.setdefault(id(owner), owner)
                self.kept += int(owner.nbytes)


def summary(
    model: Any,
    *inputs: Any,
    input_size: Sequence[Any] | None = None,
    dtypes: Sequence[Any] | Any = None,
    kwargs: Mapping[str, Any] | None = None,
    forward: Callable[[], Any] | None = None,
    depth: int = 3,
    mode: Literal["eval", "train", "same"] = "eval",
    device: Any = None,
    optimizer: str = "adamw",
) -> ModelSummary:
    """A table of the model's modules: shapes, parameters, multiply-adds, memory.

    The model runs once and is left as it was: its mode, buffers, gradients and all random generators. Without inputs
    the table has the parameters only.

    Args:
        inputs: what to call the model with.
        input_size: in their place the shape of the input, batch included, or a list of shapes.
        dtypes: dtype or dtypes of inputs made from `input_size`; default float32, or int64 for a model that begins
            with an embedding.
        kwargs: keyword arguments of the call.
        forward: a function to run in place of ``model(*inputs, **kwargs)``.
        depth: levels of modules to list; those below are part of the figures.
        mode: "eval", "train" (memory of batch norm and dropout as in training) or "same".
        device: where to make inputs; default that of the model's first parameter.
        optimizer: whose state is part of the training memory: "adamw", "adam", "sgd", ... or "none".

    Raises:
        ValueError: inputs and `input_size` are given, or an unknown mode or optimizer. What the model raises passes.

    >>> from flambeau import nn
    >>> net = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> found = summary(net, input_size=(16, 8))
    >>> found.total_params, found.total_mult_adds
    (46, 640)
    >>> print(found)  # doctest: +ELLIPSIS
    Layer (type)   Output shape  Params  Mult-adds
    ──────────────────────────────────────────────
    Sequential     [16, 2]           46        640
    ├─ 0 (Linear)  [16, 4]           36        512
    ├─ 1 (ReLU)    [16, 4]            -          -
    └─ 2 (Linear)  [16, 2]           10        128
    ...
    """
    if optimizer != "none" and optimizer not in OPTIMIZER_STATES:
        raise ValueError(f"optimizer is {optimizer!r}; it must be none, {', '.join(OPTIMIZER_STATES)}")
    if mode not in ("eval", "train", "same"):
        raise ValueError(f"mode is {mode!r}; it must be 'eval', 'train' or 'same'")
    if inputs and input_size is not None:
        raise ValueError("inputs and input_size are given; give one of them")
    if input_size is not None:
        inputs = tuple(_made_inputs(model, input_size, dtypes, device))
    recorder = None
    if forward is not None or inputs or kwargs:
        run = forward or (lambda: model(*inputs, **(kwargs or {})))
        recorder = _run(model, run, [inputs, kwargs], mode)
    layers = list(_layers(model, recorder, depth))
    parameters = list(model.parameters())
    states = 0 if optimizer == "none" else OPTIMIZER_STATES[optimizer]
    trainable = sum(p.array.nbytes for p in parameters if p.requires_grad)
    found = ModelSummary(
        type(model).__name__,
        layers,
        total_params=sum(p.numel() for p in parameters),
        trainable_params=sum(p.numel() for p in parameters if p.requires_grad),
        total_param_bytes=sum(int(t.array.nbytes) for t in [*parameters, *model.buffers()]),
        gradient_bytes=int(trainable),
        optimizer_bytes=int(states * trainable),
        optimizer=optimizer,
    )
    if recorder is not None:
        found.ran = True
        found.total_mult_adds = sum(recorder.mult_adds.values())
        found.mult_adds_by_op = dict(sorted(recorder.by_op.items(), key=lambda item: -item[1]))
        found.total_output_bytes, found.activation_bytes = recorder.made, recorder.kept
        arrays = [*_arrays(list(inputs)), *_arrays(dict(kwargs or {}))]
        found.total_input = sum(int(a.nbytes) for a in arrays)
        found.input_size = [tuple(a.shape) for a in arrays]
    return found


def _run(model: Any, forward: Callable[[], Any], given: Any, setting: str) -> _Recorder:
    """One forward pass that leaves no trace."""
    from ..train.checkpoint import capture_rng, restore_rng

    modes = [(m, m.training) for m in model.modules()]
    buffers = [(t, t.array, t.array.copy()) for t in model.buffers()]
    tensors = [*model.parameters(), *model.buffers()]
    recorder = _Recorder({id(_owner(a)) for a in [*_arrays(tensors), *_arrays(given)]})
    random = capture_rng()
    previous = mode.observe

    def observe(node: Any, out: Any) -> None:
        recorder.observe(node, out)
        if previous is not None:
            previous(node, out)

    try:
        if setting != "same":
            model.train(setting == "train")
        mode.observe = observe
        with enable_grad(), recorder:
            forward()
    finally:
        mode.observe = previous
        restore_rng(random)
        for module, training in modes:
            module.training = training
        for t, array, before in buffers:
            t.array = array
            if bool((array != before).any()):
                array[...] = before
    return recorder


def _layers(model: Any, recorder: _Recorder | None, depth: int) -> Iterator[LayerInfo]:
    seen: set[int] = set()

    def walk(module: Any, name: str, level: int) -> Iterator[LayerInfo]:
        parameters = list(module.parameters())
        shared = id(module) in seen
        seen.add(id(module))
        yield LayerInfo(
            name,
            type(module).__name__,
            level,
            recorder.shapes.get(id(module), []) if recorder else [],
            recorder.calls.get(id(module), 0) if recorder else 0,
            sum(p.numel() for p in parameters),
            sum(p.numel() for p in parameters if p.requires_grad),
            sum(recorder.mult_adds.get(id(m), 0) for m in module.modules()) if recorder else 0,
            shared,
        )
        if level < depth and not shared:
            for key, child in module._modules.items():
                if child is None:
                    continue
                yield from walk(child, f"{name}.{key}" if name else key, level + 1)

    yield from walk(model, "", 0)


def _made_inputs(model: Any, input_size: Any, dtypes: Any, device: Any) -> Iterator[Tensor]:
    """Tensors of the shapes: normal numbers, or zeros for integers (valid classes and tokens)."""
    from .. import dtypes as all_dtypes
    from ..ops.create import from_numpy

    several = bool(input_size) and isinstance(input_size[0], (tuple, list))
    shapes = [tuple(s) for s in input_size] if several else [tuple(input_size)]
    first = next(iter(model.parameters()), None)
    if dtypes is None:
        dtypes = all_dtypes.int64 if _begins_with_embedding(model) else all_dtypes.float32
    kinds = list(dtypes) if isinstance(dtypes, (tuple, list)) else [dtypes] * len(shapes)
    if len(kinds) != len(shapes):
        raise ValueError(f"input_size has {len(shapes)} shapes but dtypes has {len(kinds)} entries")
    where = device if device is not None else first.device if first is not None else "cpu"
    rng = np.random.default_rng(0)
    for shape, kind in zip(shapes, kinds, strict=True):
        if any(not isinstance(n, (int, np.integer)) or n < 0 for n in shape):
            raise ValueError(f"input_size {shape} must be made of whole numbers, such as (1, 3, 224, 224)")
        values = rng.standard_normal(shape) if kind.is_floating_point else np.zeros(shape)
        yield from_numpy(values.astype(kind.numpy)).to(where)


def _begins_with_embedding(model: Any) -> bool:
    for module in model.modules():
        if any(True for _ in module.parameters(recurse=False)):
            return type(module).__name__ in ("Embedding", "EmbeddingBag")
    return False


def _arrays(value: Any) -> Iterator[Any]:
    """The arrays in nested outputs, arguments or saved values."""
    if isinstance(value, Tensor):
        yield value.array
    elif isinstance(value, Mapping):
        for v in value.values():
            yield from _arrays(v)
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from _arrays(v)
    elif hasattr(value, "nbytes") and hasattr(value, "shape") and not isinstance(value, np.generic):
        yield value


def _owner(array: Any) -> Any:
    """The array whose memory a view shows."""
    while getattr(array, "base", None) is not None and hasattr(array.base, "nbytes"):
        array = array.base
    return array


def _branches(layers: list[LayerInfo]) -> list[str]:
    """The lines of the tree before each name."""
    found = []
    for i, layer in enumerate(layers):
        parts = []
        for level in range(1, layer.depth + 1):
            later = next((other.depth for other in layers[i + 1 :] if other.depth <= level), 0)
            more = later == level
            parts.append(("├─ " if more else "└─ ") if level == layer.depth else ("│  " if more else "   "))
        found.append("".join(parts))
    return found


def _shapes(layer: LayerInfo) -> str:
    if not layer.calls:
        return "-"
    texts = [str(list(shape)) for shape in layer.output_shape]
    text = ", ".join(texts[:2]) + (", …" if len(texts) > 2 else "") if texts else "?"
    return text + (f" ×{layer.calls}" if layer.calls > 1 else "")


def _trainable(layer: LayerInfo) -> str:
    if not layer.num_params:
        return "-"
    return {layer.num_params: "yes", 0: "no"}.get(layer.trainable_params, "partly")


def readable(number: float) -> str:
    """``1.82 G``."""
    power = min(4, int(math.log10(number) // 3)) if number >= 1 else 0
    return f"{number / 1000**power:.3g} {' kMGT'[power]}".rstrip()


def megabytes(size: float) -> str:
    """``44.7 MB`` (10^6 bytes), or kB where that is little."""
    return f"{size / 1e6:,.2f} MB" if size >= 1e5 else f"{size / 1e3:,.2f} kB"
