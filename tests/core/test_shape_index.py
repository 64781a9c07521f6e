"""Shape, index, order, reduction, creation and random functions: views, gradients, edges and errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flambeau as fb
import flambeau.nn.functional as F
from flambeau.testing import gradcheck, gradgradcheck


def _random(*shape, seed=0):
    return fb.tensor(np.random.default_rng(seed).uniform(-1, 1, shape), requires_grad=True)


def _array(t):
    return t.detach().numpy()


# -- views ------------------------------------------------------------------------------------------------------
VIEWS = {
    "diagonal": lambda x: x.diagonal(1),
    "unfold": lambda x: x.unfold(1, 2, 2),
    "select": lambda x: x.select(0, 1),
    "one element": lambda x: x[1, 2],
    "one element of a row": lambda x: x[1][2],
    "narrow": lambda x: x.narrow(1, 1, 2),
    "unbind": lambda x: x.unbind(1)[2],
    "split": lambda x: x.split(2, 1)[1],
    "split of sizes": lambda x: x.split([1, 2, 1], 1)[1],
    "chunk": lambda x: x.chunk(2)[0],
    "tensor_split": lambda x: x.tensor_split(3, 1)[1],
    "hsplit": lambda x: x.hsplit(2)[1],
    "movedim": lambda x: x.movedim(0, 1),
    "expand": lambda x: x[:1].expand(5, 4),
    "T": lambda x: x.T,
    "swapaxes": lambda x: x.swapaxes(0, 1),
    "unflatten": lambda x: x.unflatten(1, (2, -1)),
    "squeeze": lambda x: x[:1].squeeze(0),
    "as_strided": lambda x: x.as_strided((2, 2), (1, 4), 1),
    "atleast_3d": fb.atleast_3d,
    "ravel": lambda x: x.ravel(),
    "broadcast_to": lambda x: fb.broadcast_to(x, (2, 3, 4)),
    "view": lambda x: fb.ops.shape.view(x, (2, 6)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_share_memory(name):
    x = fb.arange(12.0).reshape(3, 4)
    assert np.may_share_memory(VIEWS[name](x).array, x.array)
    assert VIEWS[name](x).array.ndim >= 0


@pytest.mark.parametrize("name", ["diagonal", "unfold", "select", "one element of a row", "unbind", "as_strided"])
def test_views_can_be_written_to(name):
    x = fb.zeros(3, 4)
    VIEWS[name](x).fill_(1)
    assert x.sum().item() == VIEWS[name](x).numel()


def test_view_never_copies():
    x = fb.arange(6).reshape(2, 3)
    view = fb.ops.shape.view
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        view(x.T, (6,))
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        view(x, (4, 2))
    assert view(x.T, (3, 2)).tolist() == [[0, 3], [1, 4], [2, 5]]
    assert view(fb.zeros(2, 0), (0, 7)).shape == (0, 7)


def test_view_as_another_type():
    x = fb.tensor([1.0, -2.0])
    bits = fb.ops.shape.view_dtype(x, fb.int32)
    assert bits.tolist() == [0x3F800000, -0x40000000] and bits.dtype is fb.int32
    assert fb.ops.shape.view_dtype(x, fb.uint8).shape == (8,)
    assert np.may_share_memory(bits.array, x.array)


def test_as_strided_reads_the_storage():
    x = fb.arange(12.0)
    part = x[4:8]
    assert part.as_strided((2,), (1,)).tolist() == [4, 5]
    assert part.as_strided((2, 2), (3, 1), 0).tolist() == [[0, 1], [3, 4]]
    with pytest.raises(RuntimeError, match="out of bounds"):
        x.as_strided((13,), (1,))


# -- indexing ---------------------------------------------------------------------------------------------------
def test_integers_do_not_count_among_index_arrays():
    x = fb.arange(120).reshape(2, 3, 4, 5)
    i = fb.tensor([0, 1])
    assert x[0, :, i].shape == (3, 2, 5)
    assert x[:, 0, :, i].shape == (2, 4, 2)
    assert x[i, :, 0, i].shape == (2, 3)
    assert x[i, :, i].shape == (2, 3, 5)
    assert x[..., 0, i].shape == (2, 3, 2)
    assert x[None, i, 0].shape == (1, 2, 4, 5)
    assert x[0, fb.ones(3, 4, dtype=fb.bool), 1].shape == (12,)
    assert x[True].shape == (1, 2, 3, 4, 5) and x[False].shape == (0, 2, 3, 4, 5)


def test_gradient_of_mixed_indices():
    i = fb.tensor([1, 1, 3])
    assert gradcheck(lambda x: x[0, :, i], [_random(2, 3, 4)])
    assert gradgradcheck(lambda x: x[0, :, i] ** 3, [_random(2, 3, 4)])
    assert gradcheck(lambda x: x[:, [0, 0, 1]], [_random(2, 3, 4)])
    assert gradcheck(lambda x: x[x > 0], [_random(3, 4)])


@given(st.data())
def test_slices_agree_with_numpy(data):
    shape = tuple(data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=3)))
    index = []
    for n in shape:
        kind = data.draw(st.sampled_from(["slice", "none", "int", "skip"]))
        if kind == "int" and n:
            index.append(data.draw(st.integers(-n, n - 1)))
        elif kind == "none":
            index += [None, slice(None)]
        else:
            bound = st.none() | st.integers(-5, 5)
            index.append(slice(data.draw(bound), data.draw(bound), data.draw(st.integers(1, 3))))
    a = np.arange(np.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(fb.tensor(a)[tuple(index)].numpy(), a[tuple(index)])


def test_negative_positions_are_errors():
    x = fb.zeros(3, 4)
    for call in (
        lambda: x.gather(1, fb.tensor([[-1]])),
        lambda: x.scatter(1, fb.tensor([[4]]), 1.0),
        lambda: x.index_select(0, fb.tensor([3])),
    ):
        with pytest.raises(RuntimeError, match="out of bounds"):
            call()


# -- gradients --------------------------------------------------------------------------------------------------
INDEX = fb.tensor([[0, 1, 1, 2], [2, 2, 0, 1]])
ZEROS = fb.tensor([[1.5, 0.0, -2.0, 0.0], [0.5, -1.0, 2.0, 3.0], [0.0, 1.0, 1.0, 2.0]], dtype=fb.float64)


def _slopes(x):
    return fb.gradient(x, spacing=(0.5, fb.tensor([0.0, 1, 3, 4, 7], dtype=fb.float64)), edge_order=2)


GRADIENTS = {
    "cumprod": (lambda x: x.cumprod(1), ZEROS),
    "prod": (lambda x: x.prod(1), ZEROS),
    "prod of all": (lambda x: x[1].prod(), ZEROS),
    "logcumsumexp": (lambda x: x.logcumsumexp(0), _random(5, 3)),
    "cummax": (lambda x: x.cummax(1).values ** 2, _random(3, 5)),
    "cummin": (lambda x: x.cummin(0).values ** 2, _random(3, 5)),
    "std": (lambda x: x.std(1, correction=0), _random(3, 4)),
    "var_mean": (lambda x: fb.var_mean(x, (0, 2))[0], _random(2, 3, 2)),
    "quantile": (lambda x: x.quantile(fb.tensor([0.2, 0.7], dtype=fb.float64), 1) ** 2, _random(3, 5)),
    "median": (lambda x: x.median(1).values ** 2, _random(3, 5)),
    "median of all": (lambda x: x.median() ** 2, _random(3, 5)),
    "kthvalue": (lambda x: x.kthvalue(2, 0).values ** 2, _random(3, 5)),
    "topk": (lambda x: x.topk(2, 1).values ** 2, _random(3, 12)),
    "aminmax": (lambda x: x.aminmax(dim=1).min * x.aminmax(dim=1).max, _random(3, 5)),
    "reflect": (lambda x: F.pad(x, (2, 1), "reflect") ** 2, _random(2, 3, 4)),
    "circular": (lambda x: F.pad(x, (2, -1), "circular") ** 2, _random(2, 3, 4)),
    "replicate": (lambda x: F.pad(x, (2, 1), "replicate") ** 2, _random(2, 3, 4)),
    "unfold": (lambda x: x.unfold(1, 3, 2) ** 2, _random(2, 7)),
    "slice_scatter": (lambda x: x.slice_scatter(x[:, :2] ** 2, 1, 0, 4, 2), _random(3, 5)),
    "select_scatter": (lambda x: x.select_scatter(x[0] ** 2, 0, -1), _random(3, 5)),
    "diagonal_scatter": (lambda x: x.diagonal_scatter(x[0, :3] ** 2, 1), _random(4, 4)),
    "as_strided": (lambda x: x.as_strided((3, 2), (2, 3), 1) ** 2, _random(3, 4)),
    "repeat_interleave": (lambda x: x.repeat_interleave(fb.tensor([0, 2, 1]), 0) ** 2, _random(3, 4)),
    "gradient": (lambda x: fb.stack([(s**2).sum() for s in _slopes(x)]), _random(4, 5)),
    "trapezoid": (lambda x: fb.trapezoid(x**2, x.cumsum(1)), _random(3, 5)),
    "diff": (lambda x: x.diff(2, 0, append=x[:1]) ** 2, _random(4, 2)),
    "vander": (lambda x: fb.vander(x, 4), fb.tensor([0.5, 0.0, -2.0], dtype=fb.float64)),
    "take": (lambda x: x.take(INDEX) ** 2, _random(3, 4)),
    "put": (lambda x: x.put(fb.tensor([1, 5]), x[0, :2] ** 2, accumulate=True), _random(3, 4)),
    "masked_scatter": (lambda x: x.masked_scatter(ZEROS != 0, x.flip((0,)) ** 2), _random(3, 4)),
    "index_fill": (lambda x: x.index_fill(1, fb.tensor([0, 2]), x[0, 0] ** 2), _random(3, 4)),
    "index_copy": (lambda x: x.index_copy(0, fb.tensor([2, 0]), x[:2] ** 2), _random(3, 4)),
    "index_add": (lambda x: x.index_add(0, fb.tensor([2, 2]), x[:2] ** 2, alpha=3), _random(3, 4)),
    "index_reduce": (lambda x: x.index_reduce(0, fb.tensor([2, 2]), x[:2] + 1, "mean"), _random(3, 4)),
    "block_diag": (lambda x: fb.block_diag(x, x[0] ** 2, x[0, 0]), _random(2, 3)),
    "cartesian_prod": (lambda x: fb.cartesian_prod(x[0], x[1] ** 2), _random(2, 3)),
    "embedding": (lambda x: F.embedding(INDEX, x, scale_grad_by_freq=False) ** 2, _random(3, 4)),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_of_first_and_second_order(name):
    function, x = GRADIENTS[name]
    x = x.detach().clone().requires_grad_()
    assert gradcheck(function, [x])
    assert gradgradcheck(function, [x])


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("reduce", ["sum", "mean", "prod", "amax", "amin"])
def test_scatter_reduce(reduce, include_self):
    x, src = _random(3, 4), _random(3, 4, seed=1)

    def function(x, src):
        return x.scatter_reduce(0, INDEX, src, reduce, include_self=include_self)

    assert gradcheck(function, [x, src])
    assert gradgradcheck(function, [x, src])
    expected = _array(x).copy()
    rows = [[[] for _ in range(4)] for _ in range(3)]
    for i in range(2):
        for j in range(4):
            rows[INDEX[i, j].item()][j].append(_array(src)[i, j])
    fold = {"sum": np.sum, "mean": np.mean, "prod": np.prod, "amax": np.max, "amin": np.min}[reduce]
    for i in range(3):
        for j in range(4):
            if rows[i][j]:
                expected[i, j] = fold(rows[i][j] + ([expected[i, j]] if include_self else []))
    np.testing.assert_allclose(_array(function(x, src)), expected)


def test_ties_share_the_gradient_of_extremes():
    for function in (fb.amax, lambda x: x.max(), lambda x: x.aminmax().max):
        x = fb.tensor([1.0, 3.0, 3.0], requires_grad=True)
        function(x).backward()
        assert x.grad.tolist() == [0, 0.5, 0.5]
    x = fb.tensor([[1.0, 3.0, 3.0]], requires_grad=True)
    x.max(1).values.sum().backward()
    assert x.grad.tolist() == [[0, 1, 0]]


def test_std_of_equal_numbers_has_gradient_zero():
    x = fb.ones(4, requires_grad=True)
    x.std().backward()
    assert x.grad.tolist() == [0, 0, 0, 0]


def test_rows_used_often_get_a_scaled_gradient():
    table = fb.zeros(4, 2, requires_grad=True)
    fb.ops.index.embedding(fb.tensor([1, 1, 3, 0]), table, 0, True).sum().backward()
    assert table.grad.tolist() == [[0, 0], [1, 1], [0, 0], [1, 1]]


# -- order and reductions ---------------------------------------------------------------------------------------
def test_results_are_named():
    x = fb.tensor([[3.0, 1.0, 2.0]])
    for result in (x.sort(), x.topk(2), x.kthvalue(1), x.mode(), x.median(1), x.cummax(1), x.max(1)):
        assert result._fields == ("values", "indices")
    assert x.aminmax()._fields == ("min", "max")
    assert fb.histogram(x, 3)._fields == ("hist", "bin_edges")


def test_nan_is_the_largest():
    x = fb.tensor([2.0, float("nan"), 1.0])
    assert x.argsort().tolist() == [2, 0, 1] and x.argsort(descending=True).tolist() == [1, 0, 2]
    assert np.isnan(x.median().item()) and x.nanmedian().item() == 1
    assert x.median(0).indices.item() == 1
    assert np.isnan(x.quantile(0.5).item()) and x.nanquantile(0.5).item() == 1.5
    assert x.nanmean().item() == 1.5 and x.nansum().item() == 3
    assert x.cummax(0).indices.tolist() == [0, 1, 1]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_unique(values):
    x = fb.tensor(values)
    found, inverse, counts = x.unique(return_inverse=True, return_counts=True)
    assert found.tolist() == sorted(set(values)) and found[inverse].tolist() == values
    assert counts.tolist() == [values.count(v) for v in found.tolist()]
    runs, inverse, counts = x.unique_consecutive(return_inverse=True, return_counts=True)
    assert runs[inverse].tolist() == values and runs.repeat_interleave(counts).tolist() == values
    rows, inverse = fb.stack([x, x], 1).unique(dim=0, return_inverse=True)
    assert rows[:, 0].tolist() == sorted(set(values)) and rows[inverse][:, 1].tolist() == values


@given(st.integers(1, 40), st.integers(0, 5), st.booleans())
def test_topk_is_the_head_of_sort(n, seed, largest):
    x = fb.tensor(np.random.default_rng(seed).permutation(n))
    k = max(n // 6, 1)
    assert x.topk(k, largest=largest).values.tolist() == x.sort(descending=largest).values[:k].tolist()
    assert x[x.topk(k).indices].tolist() == x.topk(k).values.tolist()


@given(st.integers(1, 20), st.integers(0, 5))
def test_running_results(n, seed):
    a = np.random.default_rng(seed).integers(-3, 4, (n, 2)).astype(float)
    x = fb.tensor(a)
    np.testing.assert_array_equal(x.cummax(0).values.numpy(), np.maximum.accumulate(a))
    np.testing.assert_array_equal(x.cummin(0).values.numpy(), np.minimum.accumulate(a))
    np.testing.assert_allclose(x.logcumsumexp(0).numpy(), np.logaddexp.accumulate(a))
    index = x.cummax(0).indices.numpy()
    assert (np.diff(index, axis=0) >= 0).all()


def test_running_log_sum_exp_without_underflow():
    x = fb.tensor([-1000.0, -1000.0, 0.0, float("-inf")], dtype=fb.float64, requires_grad=True)
    out = x.logcumsumexp(0)
    np.testing.assert_allclose(_array(out), [-1000, -1000 + np.log(2), 0, 0])
    out[1].backward()
    np.testing.assert_allclose(x.grad.numpy(), [0.5, 0.5, 0, 0])


def test_reductions_of_nothing():
    x = fb.zeros(2, 0)
    assert x.sum().item() == 0 and x.prod().item() == 1 and np.isnan(x.mean().item())
    assert x.sum(1).tolist() == [0, 0] and x.logsumexp(1).tolist() == [-np.inf] * 2
    assert x.all().item() is True and x.any().item() is False
    assert x.amax(0).shape == (0,) and x.argmax(0).shape == (0,)
    assert np.isnan(x.var().item()) and np.isnan(fb.ones(1).var().item())
    for call in (x.amax, lambda: x.amax(1), x.argmin, lambda: x.max(1), lambda: x.median(1)):
        with pytest.raises(IndexError):
            call()


def test_dtypes_of_reductions():
    x = fb.tensor([1, 2], dtype=fb.int32)
    assert x.sum().dtype is fb.int64 and x.sum(dtype=fb.int32).dtype is fb.int32
    assert x.cumsum(0).dtype is fb.int64 and x.prod(dtype=fb.float16).dtype is fb.float16
    assert x.logsumexp(0).dtype is fb.float32
    assert fb.tensor([1], dtype=fb.uint8).any().dtype is fb.uint8
    assert fb.ones(2, dtype=fb.float16).var().dtype is fb.float16
    assert fb.ones(2, dtype=fb.complex64).var().dtype is fb.float32
    with pytest.raises(RuntimeError, match="floating-point"):
        x.mean()
    with pytest.raises(IndexError):
        fb.tensor(1.0).sum(1)


def test_histograms():
    x = fb.tensor([1.0, 2.0, 2.0, 3.0])
    assert fb.histc(x, 4, 0, 4).tolist() == [0, 1, 2, 1]
    hist, edges = fb.histogram(x, 2, range=(0.0, 4.0), weight=fb.tensor([1.0, 2, 3, 4]))
    assert hist.tolist() == [1, 9] and edges.tolist() == [0, 2, 4]
    assert fb.histogram(x, 2, density=True).hist.sum().item() == pytest.approx(1)
    counts, edges = fb.histogramdd(fb.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), [2, 2])
    assert counts.tolist() == [[0, 1], [1, 1]] and len(edges) == 2


# -- shapes -----------------------------------------------------------------------------------------------------
def test_joins():
    a, b = fb.tensor([1, 2]), fb.tensor([3.0, 4.0])
    assert fb.cat([fb.zeros(0), a.reshape(1, 2)], 1).shape == (1, 2)  # PyTorch lets 1-d tensors without elements join
    assert fb.hstack([a, b]).tolist() == [1, 2, 3, 4] and fb.hstack([a, b]).dtype is fb.float32
    assert fb.vstack([a, b]).shape == (2, 2) and fb.dstack([a, b]).shape == (1, 2, 2)
    assert fb.column_stack([a, b]).tolist() == [[1, 3], [2, 4]]
    assert fb.block_diag(a, fb.tensor(5)).tolist() == [[1, 2, 0], [0, 0, 5]]
    assert fb.combinations(a, 2, True).tolist() == [[1, 1], [1, 2], [2, 2]]
    assert fb.broadcast_shapes((2, 1), 3, ()) == (2, 3)
    assert fb.tile(a, (2, 2)).shape == (2, 4) and fb.tile(fb.zeros(2, 3), (2,)).shape == (2, 6)
    with pytest.raises(RuntimeError, match="do not broadcast"):
        fb.broadcast_shapes((2,), (3,))
    with pytest.raises(RuntimeError, match="cannot be concatenated"):
        fb.cat([fb.tensor(1), a])
    with pytest.raises(RuntimeError, match="divisible"):
        fb.zeros(3, 4).hsplit(3)


def test_repeat_interleave():
    x = fb.tensor([[1, 2], [3, 4]])
    assert x.repeat_interleave(2).tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert x.repeat_interleave(fb.tensor([1, 2]), 0).tolist() == [[1, 2], [3, 4], [3, 4]]
    assert fb.repeat_interleave(fb.tensor([2, 0, 1])).tolist() == [0, 0, 2]
    with pytest.raises(RuntimeError, match="output_size"):
        x.repeat_interleave(2, 0, output_size=3)


def test_complex_transposes():
    x = fb.tensor([[1 + 2j, 3j]])
    assert fb.adjoint(x).tolist() == [[1 - 2j], [-3j]]
    with pytest.raises(RuntimeError, match="no two last dimensions"):
        fb.adjoint(x[0])


def test_padding_errors():
    with pytest.raises(RuntimeError, match="smaller than the dimension"):
        F.pad(fb.zeros(1, 1, 3), (3, 0), "reflect")
    with pytest.raises(RuntimeError, match="wrapping around more than once"):
        F.pad(fb.zeros(1, 1, 3), (4, 0), "circular")
    with pytest.raises(NotImplementedError, match="is not known"):
        F.pad(fb.zeros(1, 1, 3), (1, 0), "mirror")


# -- creation ---------------------------------------------------------------------------------------------------
def test_dtypes_of_new_tensors():
    assert fb.full((2,), 1).dtype is fb.int64 and fb.full((2,), True).dtype is fb.bool
    assert fb.full((2,), 1j).dtype is fb.complex64 and fb.full((2,), 1.0).dtype is fb.float32
    assert fb.arange(3).dtype is fb.int64 and fb.arange(3.0).dtype is fb.float32
    assert fb.arange(0, 1, 0.25).tolist() == [0, 0.25, 0.5, 0.75]
    assert fb.linspace(0, 10, 5, dtype=fb.int64).tolist() == [0, 2, 5, 7, 10]
    assert fb.linspace(0, 1j, 2).dtype is fb.complex64
    assert fb.zeros(size=(2, 3)).shape == (2, 3) and fb.rand(size=(2,)).shape == (2,)
    assert fb.zeros_like(fb.ones(2), dtype=fb.int8, memory_format=None).dtype is fb.int8
    assert fb.empty_strided((2, 3), (1, 2)).stride() == (1, 2)
    assert fb.tril_indices(2, 2).tolist() == [[0, 1, 1], [0, 0, 1]]
    with pytest.raises(NotImplementedError, match="strided"):
        fb.zeros(2, layout="sparse_coo")
    with pytest.raises(TypeError):
        fb.zeros(2, size=(3,))


def test_tensors_over_given_memory():
    a = np.arange(4.0)
    assert np.shares_memory(fb.asarray(a).array, a) and not np.shares_memory(fb.asarray(a, copy=True).array, a)
    with pytest.raises(ValueError, match="without a copy"):
        fb.asarray(a, dtype=fb.int64, copy=False)
    buffer = bytearray(a.tobytes())
    t = fb.frombuffer(buffer, dtype=fb.float64, offset=8)
    assert t.tolist() == [1, 2, 3]
    t[0] = 9
    assert np.frombuffer(buffer)[1] == 9
    x = fb.ones(2, requires_grad=True)
    assert fb.as_tensor(x) is x and fb.as_tensor(x, dtype=fb.float64).requires_grad


# -- random -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["exponential_", "geometric_", "cauchy_", "log_normal_", "random_"])
def test_distributions_that_fill(name):
    from flambeau.ops.random import FILLERS

    parameters = {"geometric_": (0.25,), "random_": (2, 6), "log_normal_": (0.5, 0.25)}.get(name, ())
    draw = lambda: FILLERS[name](fb.Generator().manual_seed(3), fb.zeros(20000), *parameters)
    values = draw()
    np.testing.assert_array_equal(values, draw())
    middle = {"exponential_": np.log(2), "geometric_": 3, "cauchy_": 0, "log_normal_": np.exp(0.5), "random_": 3.5}
    assert np.median(values) == pytest.approx(middle[name], abs=0.51 if name == "random_" else 0.05)


def test_random_tensors():
    g = fb.Generator().manual_seed(0)
    assert abs(fb.poisson(fb.full((5000,), 4.0), g).mean().item() - 4) < 0.2
    assert abs(fb.normal(fb.full((5000,), 4.0), 2.0, generator=g).std().item() - 2) < 0.1
    assert abs(fb.randn(5000, dtype=fb.complex64, generator=g).abs().square().mean().item() - 1) < 0.1
    assert set(fb.randint_like(fb.zeros(50), 2, 4, generator=g).tolist()) == {2, 3}
    assert fb.bernoulli(fb.zeros(4), 1.0, generator=g).tolist() == [1, 1, 1, 1]
    with pytest.raises(RuntimeError, match="probabilities"):
        fb.bernoulli(fb.tensor([2.0]))
    with pytest.raises(RuntimeError, match="low < high"):
        fb.randint(3, 3, (2,))
