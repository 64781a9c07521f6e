"""What is trained and how fast: parameter groups with their own rates, frozen parts, gradual unfreezing.

Parts of a model are named by patterns of parameter names as `fnmatch` reads them: ``backbone.*``, ``*.bias``,
``layer[12].*``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..plugins.registry import did_you_mean, near
from .callbacks import Callback

if TYPE_CHECKING:
    from .loop import Run

__all__ = ["Freeze", "parameter_groups"]


def parameter_groups(
    model: Any,
    lr: float,
    *,
    weight_decay: float = 0.0,
    rates: Mapping[str, float] | None = None,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer; parameters of one rate and decay share a group.

    Args:
        model: a Module. Parameters that do not require gradients are left out.
        lr: the rate of what no pattern names.
        weight_decay: of parameters of two or more dimensions; biases and norms have none.
        rates: pattern -> factor of `lr`; the last pattern that fits a name counts.
        layer_decay: factor of the rate from each block to the one before it (layer-wise rate decay, Howard & Ruder
            2018): the last block and what follows it have `lr`. Blocks are the numbered parts of the model
            (``layers.0``, ``layers.1``, ...) and its other top-level parts, in the order of its parameters.

    Raises:
        UsageError: a pattern fits no parameter, or nothing is left to train.

    >>> from flambeau import nn
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    >>> [
    ...     (group["lr"], group["weight_decay"], len(group["params"]))
    ...     for group in parameter_groups(net, 0.1, weight_decay=0.01, rates={"0.*": 0.5})
    ... ]
    [(0.05, 0.01, 1), (0.05, 0.0, 1), (0.1, 0.01, 1), (0.1, 0.0, 1)]
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not named:
        raise UsageError("the model has no parameters to train", "unfreeze some: requires_grad_(True)")
    rates = dict(rates or {})
    _check_patterns(rates, [name for name, _ in named])
    depth = _depths([name for name, _ in named])
    groups: dict[tuple[float, float], list[Any]] = {}
    for name, parameter in named:
        factor = layer_decay ** (max(depth.values()) - depth[_block(name)])
        for pattern, rate in rates.items():
            if fnmatchcase(name, pattern):
                factor = rate
        decay = weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((lr * factor, decay), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]


class Freeze(Callback):
    """Keeps parts of the model as they are, for the whole run or up to an epoch.

    Frozen parameters get no gradient, and norm layers with running statistics whose parameters are all frozen stay in
    eval mode, so that the statistics do not move either.

    Args:
        patterns: names of parameters, such as ``["backbone.*"]``.
        until: epochs after which they are trained like the rest (they need to be in the optimizer); None for never.

    Raises:
        UsageError: a pattern fits no parameter (when the run starts).
    """

    def __init__(self, patterns: Iterable[str], until: int | None = None) -> None:
        self.patterns = tuple(patterns)
        self.until = until

    def on_start(self, run: Run) -> None:
        names = [name for name, _ in run.model.named_parameters()]
        _check_patterns(self.patterns, names)
        if all(self._names(name) for name in names) and self.until is None:
            raise UsageError("all parameters of the model are frozen", "freeze fewer, or set an epoch to unfreeze at")

    def on_epoch_start(self, run: Run) -> None:
        frozen = self.until is None or run.counters.epoch < self.until
        for name, parameter in run.model.named_parameters():
            if self._names(name):
                parameter.requires_grad_(not frozen)
                if frozen:
                    parameter.grad = None
        for name, module in run.model.named_modules():
            own = [f"{name}.{key}".lstrip(".") for key, _ in module.named_parameters(recurse=False)]
            if frozen and own and hasattr(module, "running_mean") and all(map(self._names, own)):
                module.eval()

    def _names(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.patterns)


def _block(name: str) -> str:
    """The block of a parameter: its path up to the first number, else its first part."""
    parts = name.split(".")[:-1] or [name]
    for index, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: index + 1])
    return parts[0]


def _depths(names: list[str]) -> dict[str, int]:
    return {block: depth for depth, block in enumerate(dict.fromkeys(map(_block, names)))}


def _check_patterns(patterns: Iterable[str], names: list[str]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            tops = [f"{top}.*" for top in dict.fromkeys(name.partition(".")[0] for name in names)]
            hint = did_you_mean(near(pattern, [*names, *tops])) or f"its parts are {', '.join(tops[:12])}"
            raise UsageError(f"no parameter of the model is named {pattern!r}", hint)
