"""Attention maps of transformers, and how they add up over the layers (Abnar & Zuidema 2020)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .. import ops
from ..autograd import no_grad
from ..tensor import Tensor
from ..utils.flop_counter import OpObserver
from .forward import as_extra, as_inputs, as_used, call

__all__ = ["AttentionRollout", "attention_maps", "attention_rollout"]


@contextlib.contextmanager
def attention_maps() -> Iterator[list[Tensor]]:
    """A list of the attention maps (…, heads, L, S) that models make inside the block, in their order.

    A map is what a softmax over the last dimension gives and a matrix product then uses: that is found in
    `nn.MultiheadAttention`, in ``scaled_dot_product_attention`` and in attention written out by hand.

    >>> import flambeau
    >>> layer = flambeau.nn.MultiheadAttention(8, 2, batch_first=True)
    >>> x = flambeau.randn(1, 5, 8)
    >>> with attention_maps() as maps:
    ...     _ = layer(x, x, x)
    >>> [m.shape for m in maps]
    [flambeau.Size([1, 2, 5, 5])]
    """
    watcher = _Maps()
    with watcher:
        yield watcher.found


class _Maps(OpObserver):
    takes_formulas = False  # attention then runs as the ops that it is made of

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []
        self._softmaxes: dict[int, Tensor] = {}  # kept, so that an id stays that of one Tensor

    def on_op(self, op: Any, values: list[Any], out: Any) -> None:
        if op.name == "softmax":
            given = dict(zip(op.params, values, strict=True))
            if isinstance(out, Tensor) and out.ndim > 2 and given["dim"] in (-1, out.ndim - 1):
                self._softmaxes[id(out)] = out
        elif op.name in ("where", "dropout", "cast"):  # rows that may look nowhere, a dropout that drops nothing
            if any(id(value) in self._softmaxes for value in values):
                self._softmaxes[id(out)] = out
        elif op.name == "matmul" and id(values[0]) in self._softmaxes:
            self.found.append(values[0].detach())

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        self._softmaxes.clear()


def attention_rollout(
    attentions: Sequence[Tensor], head_fusion: str = "mean", residual: bool = True, start_layer: int = 0
) -> Tensor:
    """How much each place of the last layer draws on each place of the input: (N, L, L), rows sum to 1.

    Each layer's map, with its heads fused, is mixed with the identity for the path around the attention and normalised;
    their product over the layers is the rollout (Abnar & Zuidema 2020, equation 1).

    Args:
        attentions: the layers' maps in their order, (N, heads, L, L) or (N, L, L).
        head_fusion: mean (the paper's), max or min over the heads.
        residual: mix with the identity, half and half.
        start_layer: the first layer that counts.

    Raises:
        ValueError: no maps, or maps that are not square and of one size.

    >>> import flambeau
    >>> attention_rollout([flambeau.full((1, 2, 2), 0.5)] * 2)
    tensor([[[0.625, 0.375],
             [0.375, 0.625]]])
    """
    if head_fusion not in ("mean", "max", "min"):
        raise ValueError(f"there is no head_fusion {head_fusion!r}; there are mean, max and min")
    chosen = list(attentions)[start_layer:]
    shapes = [tuple(a.shape) for a in chosen]
    if not chosen:
        raise ValueError(f"there are no attention maps from layer {start_layer} on, of {len(attentions)}")
    if any(len(s) not in (3, 4) or s[-1] != s[-2] or (s[0], s[-1]) != (shapes[0][0], shapes[0][-1]) for s in shapes):
        raise ValueError(
            f"rollout needs the self-attention of one sequence, (N, heads, L, L) in each layer, not {shapes}"
        )
    result: Tensor | None = None
    for attention in chosen:
        layer = attention.detach()
        if layer.ndim == 4:
            layer = layer.mean(1) if head_fusion == "mean" else getattr(ops, f"a{head_fusion}")(layer, 1)
        if residual:
            layer = (layer + ops.eye(layer.shape[-1], dtype=layer.dtype, device=layer.device)) / 2
        layer = layer / layer.sum(-1, True)
        result = layer if result is None else layer @ result
    assert result is not None
    return result


class AttentionRollout:
    """`attention_rollout` of the maps that a model makes, or returns.

    Args:
        model: a module or a function of the inputs. A module runs in evaluation mode.
        maps: a function of the model's output that returns the list of maps; without it they are caught while the
            model runs (`attention_maps`).

    >>> import flambeau
    >>> from flambeau import nn
    >>> layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    >>> AttentionRollout(nn.TransformerEncoder(layer, 3)).attribute(flambeau.randn(2, 5, 8)).shape
    flambeau.Size([2, 5, 5])
    """

    def __init__(self, model: Callable[..., Any], maps: Callable[[Any], Sequence[Tensor]] | None = None) -> None:
        self.model, self.maps = model, maps

    def attribute(
        self,
        inputs: Any,
        additional_forward_args: Any = None,
        head_fusion: str = "mean",
        residual: bool = True,
        start_layer: int = 0,
    ) -> Tensor:
        """The rollout (N, L, L); row i says where output place i draws from. Arguments as for `attention_rollout`.

        Raises:
            ValueError: the model makes no attention maps, or of several sizes.
        """
        found, _ = as_inputs(inputs)
        with as_used(self.model), no_grad():
            if self.maps is not None:
                maps = list(self.maps(call(self.model, found, as_extra(additional_forward_args))))
            else:
                with attention_maps() as maps:
                    call(self.model, found, as_extra(additional_forward_args))
        if not maps:
            raise ValueError("the model made no attention maps: pass maps=, a function of its output that returns them")
        return attention_rollout(maps, head_fusion, residual, start_layer)
