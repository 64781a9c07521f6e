"""Making, reading, converting and indexing tensors; dtypes and promotion; seeded randomness."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flambeau as fb


def test_python_data_gets_pytorch_dtypes():
    assert fb.tensor([1, 2]).dtype is fb.int64
    assert fb.tensor([1.0, 2]).dtype is fb.float32
    assert fb.tensor(True).dtype is fb.bool
    assert fb.tensor(1j).dtype is fb.complex64
    assert fb.tensor(np.float64(1)).dtype is fb.float64
    assert fb.tensor([fb.tensor(1.0), fb.tensor(2.0)]).tolist() == [1.0, 2.0]


def test_tensor_copies_and_from_numpy_shares():
    a = np.ones(3, np.float32)
    copied, shared = fb.tensor(a), fb.from_numpy(a)
    a[0] = 5
    assert copied[0].item() == 1 and shared[0].item() == 5
    assert shared.numpy() is a


@pytest.mark.parametrize("bad", ["text", [[1, 2], [3]], np.array(["a"]), object()])
def test_data_that_is_no_numbers_is_refused(bad):
    with pytest.raises((TypeError, ValueError)):
        fb.tensor(bad)


def test_unsigned_16_has_no_counterpart():
    with pytest.raises(TypeError, match="uint16"):
        fb.from_numpy(np.ones(2, np.uint16))


def test_reading_values():
    x = fb.tensor([[1.5, 2.0], [3.0, 4.0]], requires_grad=True)
    assert x[0, 0].item() == 1.5 and x.tolist()[1] == [3.0, 4.0]
    with pytest.raises(RuntimeError, match="4 elements"):
        x.item()
    with pytest.raises(RuntimeError, match="detach"):
        x.numpy()
    with pytest.raises(RuntimeError, match="ambiguous"):
        bool(x)
    assert len(x) == 2 and [r.shape for r in x] == [(2,), (2,)]
    assert np.asarray(x.detach()).dtype == np.float32
    assert x.shape == (2, 2) and x.size(0) == 2 and x.shape.numel() == 4
    assert fb.tensor(3).__index__() == 3 and [10, 20, 30, 40][fb.tensor(2)] == 30


def test_repr():
    assert repr(fb.tensor([1.0, 2.0])) == "tensor([1., 2.])"
    assert "dtype=flambeau.float64" in repr(fb.zeros(1, dtype=fb.float64))
    assert "requires_grad=True" in repr(fb.zeros(1, requires_grad=True))
    assert "grad_fn=<mulBackward>" in repr(fb.zeros(1, requires_grad=True) * 2)


@pytest.mark.parametrize(
    ("index", "same"),
    [
        ((0,), True), ((slice(1, None, 2),), True), ((..., 1), True), ((None, 0), True), ((slice(None), [0, 2]), True),
        ((np.array([[0, 1], [2, 0]]),), True), ((slice(None), np.array([True, False, True, True])), True),
    ],
)  # fmt: skip
def test_indexing_is_numpys(index, same):
    a = np.arange(12.0).reshape(3, 4)
    t = fb.tensor(a)
    got = t[tuple(fb.tensor(i) if isinstance(i, np.ndarray) else i for i in index)]
    np.testing.assert_array_equal(got.numpy(), a[index])


def test_index_errors_name_the_shape():
    with pytest.raises(IndexError, match=r"\[3\]"):
        fb.zeros(3)[5]
    with pytest.raises(IndexError, match="integer or bool"):
        fb.zeros(3)[fb.tensor([0.5])]
    with pytest.raises(ValueError, match="negative step"):
        fb.zeros(3)[::-1]


def test_views_share_memory():
    x = fb.zeros(2, 3)
    for view in (x.view(6), x.t(), x[0], x.unsqueeze(0), x.narrow(1, 0, 2)):
        assert np.shares_memory(view.numpy(), x.numpy())
    assert not np.shares_memory(x.clone().numpy(), x.numpy())


def test_to_and_types():
    x = fb.ones(2)
    assert x.to(fb.float32) is x and x.to("cpu") is x
    assert x.double().dtype is fb.float64 and x.long().dtype is fb.int64 and x.half().dtype is fb.float16
    assert x.bfloat16().dtype is fb.bfloat16 and x.to(fb.zeros(1, dtype=fb.int32)).dtype is fb.int32
    assert x.to(fb.float32, False, True) is not x and x.to("cpu", copy=True) is not x
    with pytest.raises(ValueError, match="tpu"):
        x.to("tpu")


def test_casting_carries_gradients():
    x = fb.ones(3, requires_grad=True)
    x.double().sum().backward()
    assert x.grad.dtype is fb.float32 and x.grad.tolist() == [1, 1, 1]


def test_copy_and_pickle():
    x = fb.ones(3, requires_grad=True)
    y, z = copy.deepcopy(x), pickle.loads(pickle.dumps(x))
    for other in (y, z):
        assert other.requires_grad and other.tolist() == x.tolist() and other is not x
    with pytest.raises(RuntimeError, match="leaf"):
        copy.deepcopy(x * 2)


def test_numpy_operands_on_either_side():
    a = np.ones(3, np.float32)
    for out in (fb.ones(3) + a, a + fb.ones(3), a * fb.ones(3), 2 - fb.ones(3), 2 ** fb.ones(3)):
        assert isinstance(out, fb.Tensor)
    with pytest.raises(TypeError):
        fb.ones(3) @ "text"


CASES = [fb.bool, fb.uint8, fb.int8, fb.int32, fb.int64, fb.float16, fb.bfloat16, fb.float32, fb.float64, fb.complex64]


@given(st.sampled_from(CASES), st.sampled_from(CASES))
def test_promotion_is_symmetric_and_keeps_the_higher_category(a, b):
    p = fb.promote_types(a, b)
    assert p is fb.promote_types(b, a)
    assert p._category == max(a._category, b._category)
    assert (fb.zeros(2, dtype=a) + fb.ones(2, dtype=b)).dtype is p


def test_scalars_and_zero_dim_tensors_are_weak():
    assert (fb.ones(2) * 2.5).dtype is fb.float32
    assert (fb.ones(2, dtype=fb.int64) * 2.5).dtype is fb.float32
    assert (fb.ones(2, dtype=fb.float16) * fb.tensor(2.0, dtype=fb.float64)).dtype is fb.float16
    assert (fb.ones(2, dtype=fb.int32) + fb.tensor(1.5)).dtype is fb.float32
    assert (fb.tensor(1) / fb.tensor(2)).item() == 0.5
    assert (fb.ones(2, dtype=fb.uint8) + 1).dtype is fb.uint8
    assert (fb.tensor([True]) + 1).dtype is fb.int64
    assert fb.ones(2, dtype=fb.bool).sum().dtype is fb.int64


def test_seeds():
    fb.manual_seed(3)
    a = [fb.rand(4).tolist(), fb.randn(2, 2).tolist(), fb.randperm(5).tolist(), fb.randint(0, 9, (3,)).tolist()]
    state = fb.get_rng_state()
    b = fb.rand(3).tolist()
    fb.set_rng_state(state)
    assert fb.rand(3).tolist() == b
    fb.manual_seed(3)
    assert [fb.rand(4).tolist(), fb.randn(2, 2).tolist(), fb.randperm(5).tolist(), fb.randint(0, 9, (3,)).tolist()] == a
    g = fb.Generator().manual_seed(3)
    assert fb.rand(4, generator=g).tolist() == a[0]


@given(st.floats(0, 0.9), st.integers(0, 99))
def test_dropout_keeps_the_expectation(p, seed):
    g = fb.Generator().manual_seed(seed)
    out = fb.dropout(fb.ones(4000), p, True, generator=g)
    assert abs(out.mean().item() - 1) < 0.25
    kept = out.numpy()[out.numpy() != 0]
    np.testing.assert_allclose(kept, 1 / (1 - p), rtol=1e-6)


def test_multinomial():
    g = fb.Generator().manual_seed(0)
    w = fb.tensor([0.0, 1.0, 3.0])
    draws = fb.multinomial(w, 4000, True, generator=g).numpy()
    assert set(draws) == {1, 2} and abs((draws == 2).mean() - 0.75) < 0.05
    assert sorted(fb.multinomial(w, 2, generator=g).tolist()) == [1, 2]
    with pytest.raises(RuntimeError, match="fewer than 3"):
        fb.multinomial(w, 3)


def test_cuda_without_cupy_says_what_to_install():
    if fb.cuda.is_available():
        pytest.skip("a GPU is available")
    with pytest.raises(fb.FlambeauError, match=r"cuda"):
        fb.zeros(2).cuda()


def test_unknown_names_say_so():
    with pytest.raises(AttributeError, match="no_such_op"):
        fb.no_such_op


def test_einsum_against_numpy():
    rng = np.random.default_rng(0)
    a, b, c = rng.random((2, 3, 4)), rng.random((2, 4, 5)), rng.random((5, 6))
    for equation, args in (("bij,bjk->bik", (a, b)), ("bij,bjk,kl->il", (a, b, c)), ("bij->ji", (a,)),
                           ("...ij,...jk", (a, b)), ("bij,bjk->", (a, b))):  # fmt: skip
        got = fb.einsum(equation, *[fb.tensor(x) for x in args])
        np.testing.assert_allclose(got.numpy(), np.einsum(equation, *args), rtol=1e-12)
