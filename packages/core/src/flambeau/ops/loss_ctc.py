"""Connectionist temporal classification (Graves et al. 2006), in log space, vectorised over the batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import backends
from ..tensor import Tensor, raw_of
from ._op import composite, op
from .elementwise import exp, logaddexp, where
from .index import getitem, place
from .reduce import sum
from .shape import pad_constant, reshape, stack

# Stands for log(0): far below every log-probability, yet finite, so that differences of two of them are not NaN.
_NEVER = -1e30


class _Lattice:
    """The paths that spell the targets: blank, label, blank, …, in `width` states for every sequence.

    shape: of the log-probabilities (T, N, C); labels: (N, width) class of each state; skip: (N, width) whether a state
    may be entered from two states before; last: (N,) the final time step; ends: (N,) the final blank's state.
    """

    def __init__(self, xp: Any, shape: tuple, targets: Any, input_lengths: Any, target_lengths: Any, blank: int):
        n, s = targets.shape
        self.xp, self.shape, self.width = xp, tuple(shape), 2 * s + 1
        self.labels = xp.full((n, self.width), blank, np.int64)
        self.labels[:, 1::2] = targets
        self.skip = xp.zeros((n, self.width), bool)
        self.skip[:, 2:] = (self.labels[:, 2:] != blank) & (self.labels[:, 2:] != self.labels[:, :-2])
        self.last, self.ends = input_lengths - 1, 2 * target_lengths
        state = xp.arange(self.width)[None, :]
        self.inside = state <= self.ends[:, None]
        self.first = self.inside & (state < 2)
        self.final = (state == self.ends[:, None]) | ((state == self.ends[:, None] - 1) & (self.ends[:, None] > 0))
        t, _, c = self.shape
        lead = xp.arange(t * n).reshape(t, n, 1) * c
        self.flat = (lead + self.labels[None]).ravel()

    def emissions(self, log_probs: Any) -> Any:
        """Log-probability of each state's class at each time: (T, N, width)."""
        t, n, _ = self.shape
        return reshape(getitem(reshape(log_probs, (-1,)), (self.flat,)), (t, n, self.width))

    def moved(self, x: Any, steps: int) -> Any:
        """State s holds what state s - steps held; states without a source hold log(0)."""
        width = x.shape[1]
        if steps > 0:
            kept = x[:, : max(width - steps, 0)]
            return pad_constant(kept, ((0, 0), (min(steps, width), 0)), _NEVER)
        kept = x[:, min(-steps, width) :]
        return pad_constant(kept, ((0, 0), (0, min(-steps, width))), _NEVER)

    def alphas(self, emissions: Any) -> list:
        """For each time: the log-probability of all ways into each state, its own emission included."""
        alpha = where(self.first, emissions[0], _NEVER)
        out = [alpha]
        for t in range(1, self.shape[0]):
            ways = logaddexp(alpha, self.moved(alpha, 1))
            ways = where(self.skip, logaddexp(ways, self.moved(alpha, 2)), ways)
            alpha = where(self.inside, ways + emissions[t], _NEVER)
            out.append(alpha)
        return out

    def betas(self, emissions: Any) -> list:
        """For each time: the log-probability of all ways from each state to the end, without its own emission."""
        xp, steps = self.xp, self.shape[0]
        start = xp.where(self.final, 0.0, _NEVER).astype(raw_of(emissions).dtype)
        skip = xp.zeros_like(self.skip)
        skip[:, :-2] = self.skip[:, 2:]
        beta = start
        out = [beta]
        for t in range(steps - 2, -1, -1):
            ahead = where(self.inside, beta + emissions[t + 1], _NEVER)
            ways = logaddexp(ahead, self.moved(ahead, -1))
            ways = where(skip, logaddexp(ways, self.moved(ahead, -2)), ways)
            beta = where((self.last == t)[:, None], start, ways)
            out.append(beta)
        return out[::-1]

    def likelihood(self, alphas: list) -> Any:
        """log p(targets) for each sequence: (N,)."""
        xp = self.xp
        n = self.shape[1]
        flat = reshape(stack(alphas, 0), (-1,))
        at = (xp.maximum(self.last, 0) * n + xp.arange(n)) * self.width + self.ends
        whole = getitem(flat, (at,))
        shorter = where(self.ends > 0, getitem(flat, (xp.maximum(at - 1, 0),)), _NEVER)
        total = logaddexp(whole, shorter)
        # An empty input spells the empty target only.
        return where(self.last >= 0, total, xp.where(self.ends == 0, 0.0, _NEVER).astype(raw_of(flat).dtype))


@op(
    vjp=dict(
        log_probs=lambda g, log_probs, targets, input_lengths, target_lengths, blank: ctc_grad(
            g, log_probs, targets, input_lengths, target_lengths, blank
        )
    ),
    samples=lambda t: [
        (t(4, 2, 3, low=-3, high=-0.5), np.array([[1, 2], [2, 2]]), np.array([4, 4]), np.array([2, 2])),
        (t(4, 2, 3, low=-3, high=-0.5), np.array([[0, 1], [0, 0]]), np.array([4, 3]), np.array([2, 0]), 2),
    ],
    method=False,
)
def ctc(xp, log_probs, targets, input_lengths, target_lengths, blank=0):
    """-log p(targets) for each sequence, (N,): log_probs (T, N, C), targets (N, S); inf where no path fits."""
    lattice = _Lattice(xp, log_probs.shape, targets, input_lengths, target_lengths, blank)
    likelihood = lattice.likelihood(lattice.alphas(lattice.emissions(log_probs)))
    return xp.where(likelihood < 0.1 * _NEVER, np.inf, -likelihood).astype(log_probs.dtype)


@composite(
    samples=lambda t: [
        (t(2), t(4, 2, 3, low=-3, high=-0.5), np.array([[1, 2], [2, 2]]), np.array([4, 3]), np.array([2, 1]), 0)
    ],
    method=False,
)
def ctc_grad(g, log_probs, targets, input_lengths, target_lengths, blank):
    """The gradient of `ctc`: minus the probability of being in a class at a time, given the targets."""
    xp = backends.namespace([raw_of(log_probs)])
    plain = [raw_of(a) for a in (targets, input_lengths, target_lengths)]
    lattice = _Lattice(xp, log_probs.shape, *plain, blank)
    emissions = lattice.emissions(log_probs)
    alphas = lattice.alphas(emissions)
    likelihood = lattice.likelihood(alphas)
    lost = (raw_of(likelihood) < 0.1 * _NEVER)[None, :, None]
    alive = (xp.arange(lattice.shape[0])[:, None] <= lattice.last)[:, :, None]
    ways = stack(alphas, 0) + stack(lattice.betas(emissions), 0) - reshape(likelihood, (1, -1, 1))
    posterior = exp(where(alive & lattice.inside[None] & ~lost, ways, _NEVER)) * reshape(-g, (1, -1, 1))
    size = lattice.shape[0] * lattice.shape[1] * lattice.shape[2]
    out = reshape(place(reshape(posterior, (-1,)), (lattice.flat,), (size,)), lattice.shape)
    # No path: PyTorch's gradient is NaN there, as that of log(0) is, unless nobody asks for it.
    return where(lost & alive & (raw_of(g)[None, :, None] != 0), np.nan, out)


def _lengths(lengths: Any, name: str, n: int) -> np.ndarray:
    raw = raw_of(lengths)
    values = backends.of(raw).to_host(raw) if hasattr(raw, "dtype") else np.asarray(raw)
    values = np.atleast_1d(values).astype(np.int64)
    if values.shape != (n,):
        raise RuntimeError(f"ctc_loss: {name} must have one entry for each of the {n} sequences, not {values.shape}")
    return values


def ctc_loss(
    log_probs: Any,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Any:
    """Minus the log-probability that an unaligned target sequence is spelt (Graves et al. 2006).

    log_probs: (T, N, C) or (T, C), normalised over the C classes; targets: (N, S) padded, or all targets in one
    row (sum of target_lengths,); lengths: (N,). "mean" divides each loss by its target's length first.
    `zero_infinity` makes losses of targets that do not fit their input, and the gradients, 0.
    """

    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction!r} is not a reduction; use 'mean', 'sum' or 'none'")
    if log_probs.ndim == 2:
        single = targets if targets.ndim == 1 else reshape(targets, (-1,))
        out = ctc_loss(reshape(log_probs, (log_probs.shape[0], 1, -1)), single, input_lengths, target_lengths,
                       blank, reduction, zero_infinity)  # fmt: skip
        return reshape(out, ())
    steps, n, classes = log_probs.shape
    if not 0 <= blank < classes:
        raise RuntimeError(f"ctc_loss: blank {blank} must be one of the {classes} classes")
    wide = _lengths(input_lengths, "input_lengths", n)
    long = _lengths(target_lengths, "target_lengths", n)
    if (wide > steps).any() or (wide < 0).any() or (long < 0).any():
        raise RuntimeError(f"ctc_loss: input_lengths must be between 0 and {steps}, and target_lengths not negative")
    place_on = backends.of(raw_of(log_probs))
    host = backends.of(raw_of(targets)).to_host(raw_of(targets))
    table = np.full((n, int(long.max(initial=0))), blank, np.int64)
    if host.ndim == 1:
        if int(long.sum()) > len(host):
            raise RuntimeError(f"ctc_loss: target_lengths add up to {long.sum()}, but there are {len(host)} targets")
        table[np.arange(table.shape[1]) < long[:, None]] = host[: long.sum()]
    else:
        if host.ndim != 2 or len(host) != n or host.shape[1] < table.shape[1]:
            raise RuntimeError(f"ctc_loss: targets {host.shape} must be ({n}, at least {table.shape[1]}), or 1-d")
        table[:] = host[:, : table.shape[1]]
        table[np.arange(table.shape[1]) >= long[:, None]] = blank
    if table.size and (table.min() < 0 or table.max() >= classes):
        raise RuntimeError(f"ctc_loss: targets must be classes from 0 to {classes - 1}")
    where_to = place_on.device_of(raw_of(log_probs))
    there = [place_on.from_host(a, where_to) for a in (table, wide, long)]
    losses = ctc(log_probs, *there, blank)
    infinite = raw_of(losses) == np.inf
    if isinstance(log_probs, Tensor) and log_probs.requires_grad:
        # PyTorch's gradient is that of normalised log-probabilities: it has exp(log_probs) beside the posterior. The
        # sum is constant under log_softmax, so this adds to the gradient of `log_probs`, never to that of logits.
        mass = sum(exp(log_probs) * _alive(place_on.xp, steps, there[1], raw_of(log_probs).dtype), (0, 2))
        losses = losses + where(infinite, 0.0, mass - mass.detach())
    if zero_infinity:
        losses = where(infinite, 0.0, losses)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return sum(losses)
    return sum(losses / place_on.xp.maximum(there[2], 1)) / n


def _alive(xp: Any, steps: int, lengths: Any, dtype: Any) -> Any:
    return (xp.arange(steps)[:, None] < lengths)[:, :, None].astype(dtype)
