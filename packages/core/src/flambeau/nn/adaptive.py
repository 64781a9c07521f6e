"""Softmax over many classes in clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .. import ops
from ..tensor import Tensor
from . import functional as F
from .containers import ModuleList, Sequential
from .linear import Linear
from .module import Module


class ASMoutput(NamedTuple):
    """The log-probability of each target, and minus their mean."""

    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """An approximate softmax for many classes, of which few are frequent (Grave et al. 2017).

    Classes are sorted by frequency; ``cutoffs`` says where each rarer cluster begins. Cluster i works in
    ``in_features / div_value ** i`` dimensions.

    >>> import flambeau
    >>> adaptive = AdaptiveLogSoftmaxWithLoss(16, 100, cutoffs=[10, 50])
    >>> adaptive(flambeau.randn(3, 16), flambeau.tensor([2, 40, 99])).output.shape
    flambeau.Size([3])
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        cutoffs = list(cutoffs)
        rising = all(a < b for a, b in zip([0, *cutoffs], [*cutoffs, n_classes], strict=True))
        if not cutoffs or not rising or any(int(c) != c for c in cutoffs):
            raise ValueError(
                f"cutoffs must be unique, positive integers in increasing order, below n_classes {n_classes}: {cutoffs}"
            )
        self.in_features = in_features
        self.n_classes = n_classes
        self.cutoffs = [*cutoffs, n_classes]
        self.div_value = div_value
        self.head_bias = head_bias
        self.shortlist_size = cutoffs[0]
        self.n_clusters = len(cutoffs)
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, bias=head_bias, device=device, dtype=dtype)
        self.tail = ModuleList()
        for i in range(self.n_clusters):
            width = int(in_features // div_value ** (i + 1))
            self.tail.append(
                Sequential(
                    Linear(in_features, width, bias=False, device=device, dtype=dtype),
                    Linear(width, self.cutoffs[i + 1] - self.cutoffs[i], bias=False, device=device, dtype=dtype),
                )
            )

    def reset_parameters(self) -> None:
        self.head.reset_parameters()
        for cluster in self.tail:
            for layer in cluster.children():
                layer.reset_parameters()

    def forward(self, input_: Tensor, target_: Tensor) -> ASMoutput:
        """input (N, in_features) with target (N,), or (in_features,) with ()."""
        if target_.ndim > 1 or input_.ndim != target_.ndim + 1 or (target_.ndim and len(input_) != len(target_)):
            raise RuntimeError(
                f"expected input (N, {self.in_features}) and target (N,), or ({self.in_features},) and (), "
                f"but got {list(input_.shape)} and {list(target_.shape)}"
            )
        input = input_ if target_.ndim else input_.unsqueeze(0)
        target = target_ if target_.ndim else target_.unsqueeze(0)
        if target.numel() and not 0 <= int(target.min()) <= int(target.max()) < self.n_classes:
            raise RuntimeError(
                f"target values should be in [0, {self.n_classes - 1}], but they span "
                f"{int(target.min())} to {int(target.max())}"
            )
        head = F.log_softmax(self.head(input), 1)
        place = target.clamp(max=self.shortlist_size - 1)  # in the head: the class itself, or its cluster
        rest = ops.zeros_like(head[:, 0])
        for i, cluster in enumerate(self.tail):
            low, high = self.cutoffs[i], self.cutoffs[i + 1]
            mine = (target >= low) & (target < high)
            rows = mine.nonzero().squeeze(1)
            if not rows.numel():
                continue
            place = ops.where(mine, self.shortlist_size + i, place)
            inner = F.log_softmax(cluster(input.index_select(0, rows)), 1)
            picked = inner.gather(1, (target.index_select(0, rows) - low).unsqueeze(1)).squeeze(1)
            rest = rest.index_add(0, rows, picked)
        output = rest + head.gather(1, place.unsqueeze(1)).squeeze(1)
        loss = -output.mean()
        return ASMoutput(output if target_.ndim else output.squeeze(0), loss)

    def log_prob(self, input: Tensor) -> Tensor:
        """The log-probabilities of all classes: (N, in_features) to (N, n_classes)."""
        head = F.log_softmax(self.head(input), 1)
        parts = [head[:, : self.shortlist_size]]
        for i, cluster in enumerate(self.tail):
            column = self.shortlist_size + i
            parts.append(F.log_softmax(cluster(input), 1) + head[:, column : column + 1])
        return ops.cat(parts, 1)

    def predict(self, input: Tensor) -> Tensor:
        """The most likely class of each row: (N, in_features) to (N,)."""
        return self.log_prob(input).argmax(1)
