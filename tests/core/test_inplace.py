"""In-place changes: views, their bases, saved values, history; each against PyTorch's rules."""

import gc
import weakref

import numpy as np
import pytest

import flambeau as fb


def leaf(*values):
    return fb.tensor([float(v) for v in values], requires_grad=True, dtype=fb.float64)


def test_views_share_memory():
    x = fb.arange(12.0).reshape(3, 4).clone()
    views = [
        x[0],
        x[0, 0],
        x[:, 1:3],
        x.T,
        x.reshape(4, 3),
        x.transpose(0, 1),
        x.unsqueeze(0),
        x.detach(),
        x.expand(2, 3, 4),
    ]
    for v in views:
        assert np.shares_memory(v.array, x.array)
        assert v.detach()._base is None
    x[0, 0].fill_(7)
    assert x[0, 0].item() == 7
    assert views[0]._base is x and x.T[0]._base is x


def test_change_of_a_base_reaches_its_views():
    x = leaf(1, 2, 3)
    y = x * 2
    first, rest = y[0], y[1:]
    y.mul_(3)
    (first + rest.sum()).backward()
    assert x.grad.tolist() == [6, 6, 6]


def test_change_of_a_view_reaches_base_and_siblings():
    x, w = leaf(1, 2, 3), leaf(10, 20)
    y = x * 2
    view, sibling = y[:2], y[1:]
    view.mul_(w)
    assert y.tolist() == [20, 80, 6] and sibling.tolist() == [80, 6]
    (y * fb.tensor([1.0, 2.0, 3.0], dtype=fb.float64)).sum().backward(retain_graph=True)
    assert x.grad.tolist() == [20, 80, 6] and w.grad.tolist() == [2, 8]
    x.grad = w.grad = None
    sibling.sum().backward()
    assert x.grad.tolist() == [0, 40, 2] and w.grad.tolist() == [0, 4]


def test_view_of_a_view():
    x, w = leaf(*range(6)), leaf(5)
    y = (x * 1).reshape(2, 3)
    y[1][1:].copy_(w)
    (y * fb.arange(6, dtype=fb.float64).reshape(2, 3)).sum().backward()
    assert x.grad.tolist() == [0, 1, 2, 3, 0, 0] and w.grad.tolist() == [9]


def test_plain_buffer_takes_up_history():
    w = leaf(1, 2)
    buffer = fb.zeros(3, dtype=fb.float64)
    row, other = buffer[0], buffer[:2]
    row.copy_(w[1] * 4)
    assert buffer.requires_grad and other.requires_grad and other.grad_fn is not None
    other.sum().backward()
    assert w.grad.tolist() == [0, 4]


@pytest.mark.parametrize("item", [1, slice(0, 2), [0, 2], (Ellipsis, 1), np.array([True, False, True])], ids=str)
def test_setitem(item):
    x, w = leaf(1, 2, 3), leaf(5)
    y = x * 2
    y[item] = w if np.ndim(np.zeros(3)[item]) else w[0]
    (y * y).sum().backward()
    expected = 8 * np.array([1.0, 2, 3])
    expected[item] = 0
    assert x.grad.tolist() == expected.tolist()
    assert w.grad.tolist() == [10.0 * np.size(np.zeros(3)[item])]


def test_setitem_in_a_loop_records_what_it_wrote():
    x = leaf(0.5)
    out = fb.zeros(5, 1, dtype=fb.float64)
    state = x
    for t in range(5):
        state = state * 2
        out[t] = state
    out.sum().backward()
    assert x.grad.tolist() == [62]


def test_setitem_errors():
    x = fb.zeros(3, 2)
    with pytest.raises(RuntimeError, match=r"\[5\]"):
        x[0] = fb.zeros(5)
    with pytest.raises(IndexError, match=r"\[3, 2\]"):
        x[7] = 1.0
    x[1] = fb.ones(1, 1, 2)  # leading dimensions of size 1 are dropped
    assert x[1].tolist() == [1, 1]


def test_stale_saved_value_raises():
    x = leaf(1, 2)
    y = x * 3
    z = y * y
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an in-place"):
        z.sum().backward()
    y = x + 1
    z = y * 2  # saves nothing of y
    y[0] = 5.0
    z.sum().backward()


def test_stale_value_through_view_detach_and_numpy_sharing():
    for change in (lambda y: y[0].zero_(), lambda y: y.detach().zero_(), lambda y: y.T.mul_(2)):
        x = leaf(1, 2)
        y = x * 3
        z = y.sin()
        change(y)
        with pytest.raises(RuntimeError, match="modified by an in-place"):
            z.sum().backward()


def test_in_place_product_keeps_the_old_value():
    x, w = leaf(1, 2), leaf(3, 4)
    y = x * 2
    y.mul_(w)
    y.sum().backward()
    assert w.grad.tolist() == [2, 4] and x.grad.tolist() == [6, 8]


def test_leaves_are_protected():
    x = leaf(1, 2)
    for change in (lambda: x.zero_(), lambda: x[0].zero_(), lambda: x.__setitem__(0, 1.0), lambda: x.add_(1)):
        with pytest.raises(RuntimeError, match="leaf"):
            change()
    with fb.no_grad():
        x[0] = 5.0
        x.add_(1)
    assert x.tolist() == [6, 3] and x.is_leaf


def test_view_made_without_recording_is_refused():
    x = leaf(1, 2)
    y = x * 2
    with fb.no_grad():
        v = y[:1]
        v.mul_(2)
    with pytest.raises(RuntimeError, match="no_grad"):
        v.mul_(x[:1])


def test_zero_and_fill_cut_the_history_with_zeros():
    x, value = leaf(1, 2), fb.tensor(3.0, requires_grad=True, dtype=fb.float64)
    y = x * 2
    y.fill_(value)
    y.sum().backward()
    assert x.grad.tolist() == [0, 0] and value.grad.item() == 2
    y = x * 2
    y.zero_()
    assert y.requires_grad


def test_versions_count():
    x = fb.zeros(3)
    assert x._version == 0
    x.add_(1)
    x[0] = 2.0
    assert x._version == 2 == x[1:]._version


def test_shape_changes_in_place():
    x = leaf(1, 2, 3)
    y = x * 2
    y.unsqueeze_(0)
    assert y.shape == (1, 3)
    y.transpose_(0, 1).squeeze_(1)
    y.sum().backward()
    assert x.grad.tolist() == [2, 2, 2]


def test_dtype_of_the_target_is_kept():
    x = fb.zeros(2, dtype=fb.float32)
    w = leaf(1, 2)
    y = x + 0
    y.add_(w)
    assert y.dtype is fb.float32
    y.sum().backward()
    assert w.grad.dtype is fb.float64
    with pytest.raises(RuntimeError, match="can't be cast"):
        fb.zeros(2, dtype=fb.int64).add_(0.5)


def test_second_order_through_a_written_view():
    x = leaf(1, 2)
    y = x * x
    y[0].mul_(x[1])
    (g,) = fb.autograd.grad((y * y).sum(), x, create_graph=True)
    (h,) = fb.autograd.grad(g.sum(), x)
    a, b = 1.0, 2.0  # f = a^4 b^2 + b^4
    assert g.tolist() == pytest.approx([4 * a**3 * b**2, 2 * a**4 * b + 4 * b**3])
    assert h.tolist() == pytest.approx([12 * a * a * b * b + 8 * a**3 * b, 8 * a**3 * b + 2 * a**4 + 12 * b * b])


def test_many_views_do_not_pile_up():
    y = leaf(1, 2) * 2
    for _ in range(1000):
        y[0]
    assert len(y.__dict__["_views"]) < 40


def test_written_views_leave_no_cycles():
    gc.collect()
    gc.disable()
    try:
        x = leaf(1, 2)
        y = x * 2
        v = y[0]
        v.mul_(3)
        y.sum().backward()
        watched = [weakref.ref(y), weakref.ref(v)]
        del y, v
        assert [w() for w in watched] == [None, None]
    finally:
        gc.enable()


def test_out_argument():
    x, target = fb.ones(3), fb.zeros(3)
    assert fb.add(x, x, out=target) is target and target.tolist() == [2, 2, 2]
    empty = fb.empty(0)
    fb.exp(fb.zeros(2), out=empty)
    assert empty.tolist() == [1, 1]
    fb.cat([x, x], out=empty.new_empty(0))
    with pytest.raises(RuntimeError, match=r"\[3\]"):
        fb.add(fb.ones(2), 1, out=target)
    with pytest.raises(RuntimeError, match="differentiation"):
        fb.add(leaf(1), 1, out=target)
