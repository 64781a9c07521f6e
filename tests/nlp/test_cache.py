"""The cache of keys and values: what it returns, how it grows, and that writing with it is writing without."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flambeau
from flambeau.compiler import Compiled
from flambeau_nlp.cache import KVCache, compiled_writer
from flambeau_nlp.decoding import continue_text
from flambeau_nlp.models.char_gpt import CharGPT, CharGPTConfig

CONFIG = dict(vocab_size=6, characters="abcd\n", context=12, width=16, layers=2, heads=2)


def array(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def attention(q, k, v):
    """Of the last token over all, (batch, heads, width)."""
    scores = np.einsum("bhd,bhtd->bht", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bht,bhtd->bhd", weights / weights.sum(-1, keepdims=True), v)


@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_a_cache_holds_what_was_appended(counts, capacity):
    cache, total = KVCache(2, capacity), sum(counts)
    keys, values = array(2, 2, 3, total, 4), array(2, 2, 3, total, 4, seed=1)
    start = 0
    for count in counts:
        for layer in range(2):
            new = [flambeau.from_numpy(a[layer][:, :, start : start + count]) for a in (keys, values)]
            found = cache.append(layer, *new)
            for part, whole in zip(found, (keys, values), strict=True):
                assert np.array_equal(part.numpy(), whole[layer][:, :, : start + count])
        start += count
    assert cache.length == total


def test_views_share_memory_until_the_buffer_grows():
    cache = KVCache(1, 4)
    first, _ = cache.append(0, flambeau.ones(1, 1, 2, 3), flambeau.ones(1, 1, 2, 3))
    second, _ = cache.append(0, flambeau.zeros(1, 1, 2, 3), flambeau.zeros(1, 1, 2, 3))
    assert np.shares_memory(first.numpy(), second.numpy())
    third, _ = cache.append(0, flambeau.zeros(1, 1, 1, 3), flambeau.zeros(1, 1, 1, 3))
    assert not np.shares_memory(second.numpy(), third.numpy())
    assert np.array_equal(third.numpy()[:, :, :4], second.numpy())


def test_truncating_forgets_the_last_tokens():
    cache = KVCache(1)
    cache.append(0, flambeau.zeros(1, 1, 5, 3), flambeau.zeros(1, 1, 5, 3))
    cache.truncate(2)
    keys, _ = cache.append(0, flambeau.ones(1, 1, 1, 3), flambeau.ones(1, 1, 1, 3))
    assert keys.numpy()[0, 0, :, 0].tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match="holds 3 tokens"):
        cache.truncate(4)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("float64", 1e-12)])
def test_attention_over_the_cache(dtype, tolerance):
    qkv = np.random.default_rng(0).standard_normal((2, 9, 3 * 8)).astype(dtype)
    cache = KVCache(1, 2)
    found = [cache.attend(0, flambeau.from_numpy(qkv[:, :5]), heads=2).numpy()]
    found += [cache.attend(0, flambeau.from_numpy(qkv[:, i : i + 1]), heads=2).numpy() for i in range(5, 9)]
    q, k, v = qkv.reshape(2, 9, 3, 2, 4).transpose(2, 0, 3, 1, 4).astype(np.float64)
    expected = [attention(q[:, :, i], k[:, :, : i + 1], v[:, :, : i + 1]).reshape(2, 8) for i in range(9)]
    np.testing.assert_allclose(np.concatenate(found, 1), np.stack(expected, 1), atol=tolerance)
    assert found[0].dtype == dtype


def test_half_precision_goes_through_the_op():
    qkv = flambeau.from_numpy(array(1, 4, 24)).to(flambeau.bfloat16)
    cache = KVCache(1)
    cache.attend(0, qkv[:, :3], 2)
    assert cache.attend(0, qkv[:, 3:], 2).dtype == flambeau.bfloat16


def test_what_does_not_fit_is_refused():
    cache, qkv = KVCache(1), flambeau.from_numpy(array(1, 3, 24))
    cache.attend(0, qkv, heads=2)
    with pytest.raises(ValueError, match="one at a time"):
        cache.attend(0, qkv, heads=2)
    with pytest.raises(ValueError, match="holds"):
        cache.attend(0, qkv[:, :1], heads=4)
    with pytest.raises(ValueError, match="do not fit"):
        cache.append(0, flambeau.zeros(1, 2, 1, 4), flambeau.zeros(1, 2, 2, 4))
    with pytest.raises(RuntimeError, match="no gradients"):
        cache.attend(0, qkv[:, :1].clone().requires_grad_(), heads=2)
    with pytest.raises(ValueError, match="at least 1"):
        KVCache(0)


@pytest.mark.parametrize("weights", [None, "int8", "int4"])
def test_a_model_says_the_same_with_a_cache(weights):
    flambeau.manual_seed(0)
    model = CharGPT(CharGPTConfig(**CONFIG)).eval()
    if weights:
        flambeau.quantize.quantize_(model, weights, embeddings=["embedding"])
    ids = flambeau.tensor([[1, 2, 3, 4, 5, 1, 2], [2, 2, 1, 3, 3, 5, 4]])
    with flambeau.inference_mode():
        whole, cache = model(ids), KVCache(2, 3)
        parts = [model(ids[:, :4], cache)] + [model(ids[:, i : i + 1], cache) for i in range(4, 7)]
    np.testing.assert_allclose(flambeau.cat(parts, 1).numpy(), whole.numpy(), atol=2e-6)


def test_text_past_the_context_is_that_of_whole_windows():
    flambeau.manual_seed(0)
    model = CharGPT(CharGPTConfig(**CONFIG)).eval()
    written = "".join(continue_text(model, "abca", 20, temperature=0))
    ids = ["\ufffdabcd\n".index(c) for c in "abca"]
    for character in written:
        with flambeau.inference_mode():
            scores = model(flambeau.tensor([ids[-12:]]))[0, -1].numpy()
        ids.append(1 + int(scores[1:].argmax()))
        assert "\ufffdabcd\n"[ids[-1]] == character


@pytest.mark.parametrize("weights", [None, "int8", "int4"])
def test_a_compiled_writer_says_the_same(weights):
    flambeau.manual_seed(0)
    model = CharGPT(CharGPTConfig(**CONFIG)).eval()
    if weights:
        flambeau.quantize.quantize_(model, weights, embeddings=["embedding"])
    ids = flambeau.tensor([[1, 2, 3, 4, 5, 1, 2, 3, 4], [2, 2, 1, 3, 3, 5, 4, 1, 1]])
    write, caches = compiled_writer(model), (KVCache(2, 4), KVCache(2, 4))
    with flambeau.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("error")  # a step that runs without a graph says so
        for turn in range(2):
            for part in (ids[:, :3], *(ids[:, i : i + 1] for i in range(3, 9))):  # the buffer grows twice
                found, expected = write(part, caches[0]), model(part, caches[1])
                assert np.array_equal(found.numpy(), expected.numpy())
                assert caches[0].length == caches[1].length
            for cache in caches:
                cache.truncate(0 if turn else 2)
            if not turn:
                again = ids[:, 2:3]
                assert np.array_equal(write(again, caches[0]).numpy(), model(again, caches[1]).numpy())
                for cache in caches:
                    cache.truncate(0)


def test_a_compiled_writer_makes_one_graph_for_all_positions(monkeypatch):
    made = []

    def compiled(function):
        made.append(Compiled(function))
        return made[0]

    monkeypatch.setattr(flambeau, "compile", compiled)
    model, cache = CharGPT(CharGPTConfig(**CONFIG)).eval(), KVCache(2, 12)
    write = compiled_writer(model)
    with flambeau.inference_mode():
        write(flambeau.tensor([[1, 2]]), cache)
        for _ in range(6):
            write(flambeau.tensor([[3]]), cache)
    assert sum(len(entries) for entries in made[0]._entries.values()) == 1 and not made[0].fallbacks


def test_a_compiled_writer_leaves_gradients_to_the_model():
    model, cache = CharGPT(CharGPTConfig(**CONFIG)).eval(), KVCache(2, 12)
    with flambeau.inference_mode():
        model(flambeau.tensor([[1, 2]]), cache)
    with pytest.raises(RuntimeError, match="no gradients"):
        compiled_writer(model)(flambeau.tensor([[3]]), cache)
