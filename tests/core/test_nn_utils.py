"""nn.utils: packing for any lengths, parametrisations and pruning in what PyTorch cannot tell."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flambeau
from flambeau import nn
from flambeau.nn.utils import parametrizations, parametrize, prune, rnn
from flambeau.testing.cases import op_cases

OPS = ("lstm_sequence", "gru_sequence", "rnn_sequence", "module_boundary")


@pytest.mark.parametrize("case", [c for c in op_cases() if c.op.name in OPS], ids=str)
def test_ops_of_layers(case):
    case.check_forms()
    case.check_precision()
    case.check_gradient(1)
    case.check_gradient(2)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4), bidirectional=st.booleans())
def test_the_walk_back_on_arrays_is_the_one_on_tensors(kind, lengths, bidirectional):
    layer = getattr(nn, kind)(2, 3, bidirectional=bidirectional, dtype=flambeau.float64)
    sequences = [flambeau.randn(n, 2, dtype=flambeau.float64) for n in lengths]
    results = []
    for create_graph in (False, True):
        output, final = layer(rnn.pack_sequence(sequences, enforce_sorted=False))
        final = final[1] if kind == "LSTM" else final
        total = output.data.square().sum() + final.sum()
        results.append(flambeau.autograd.grad(total, list(layer.parameters()), create_graph=create_graph))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-11, atol=1e-13)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.booleans(), st.integers(0, 2))
def test_packing_keeps_every_sequence(lengths, batch_first, extra):
    sequences = [flambeau.randn(n, 2) for n in lengths]
    packed = rnn.pack_sequence(sequences, enforce_sorted=False)
    assert packed.data.shape == (sum(lengths), 2) and packed.batch_sizes.sum() == sum(lengths)
    assert packed.batch_sizes[0] == len(lengths) and len(packed.batch_sizes) == max(lengths)
    for got, expected in zip(rnn.unpack_sequence(packed), sequences, strict=True):
        assert got.tolist() == expected.tolist()
    padded, found = rnn.pad_packed_sequence(packed, batch_first, total_length=max(lengths) + extra)
    assert found.tolist() == lengths and padded.shape[batch_first] == max(lengths) + extra
    again = rnn.pack_padded_sequence(padded, found, batch_first, enforce_sorted=False)
    assert all((a == b).all() for a, b in zip(packed, again, strict=True))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4), bidirectional=st.booleans())
def test_packed_sequences_give_what_each_sequence_alone_gives(kind, lengths, bidirectional):
    layer = kind(2, 3, bidirectional=bidirectional, dtype=flambeau.float64)
    sequences = [flambeau.randn(n, 2, dtype=flambeau.float64) for n in lengths]
    output, final = layer(rnn.pack_sequence(sequences, enforce_sorted=False))
    final = final[0] if kind is nn.LSTM else final
    for k, (sequence, got) in enumerate(zip(sequences, rnn.unpack_sequence(output), strict=True)):
        alone, last = layer(sequence)
        np.testing.assert_allclose(got.detach().numpy(), alone.detach().numpy(), atol=1e-12)
        last = last[0] if kind is nn.LSTM else last
        np.testing.assert_allclose(final[:, k].detach().numpy(), last.detach().numpy(), atol=1e-12)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_layer_is_its_cell_step_by_step(kind):
    layer = kind(2, 3)
    cell = {nn.LSTM: nn.LSTMCell, nn.GRU: nn.GRUCell, nn.RNN: nn.RNNCell}[kind](2, 3)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in layer.state_dict().items()})
    x, state = flambeau.randn(4, 5, 2), None
    output, _ = layer(x)
    for k in range(4):
        state = cell(x[k], state)
        hidden = state[0] if kind is nn.LSTM else state
        np.testing.assert_allclose(hidden.detach().numpy(), output[k].detach().numpy(), atol=1e-6)


def test_empty_batches_run_through_recurrent_layers():
    output, (h, c) = nn.LSTM(2, 3)(flambeau.ones(4, 0, 2))
    assert output.shape == (4, 0, 3) and h.shape == c.shape == (1, 0, 3)


def test_a_parametrized_layer_trains_and_saves():
    layer = parametrizations.weight_norm(nn.Linear(3, 3))
    twin = copy.deepcopy(layer)
    optimizer = flambeau.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        layer(flambeau.ones(1, 3)).square().sum().backward()
        optimizer.step()
    assert layer.weight.tolist() != twin.weight.tolist()
    twin.load_state_dict(layer.state_dict())
    assert twin.weight.tolist() == layer.weight.tolist()
    with pytest.raises(RuntimeError, match=r"state_dict\(\)"):
        pickle.dumps(layer)
    plain = parametrize.remove_parametrizations(layer, "weight")
    assert type(plain) is nn.Linear and plain.weight.tolist() == twin.weight.tolist()
    assert pickle.loads(pickle.dumps(plain)).weight.tolist() == plain.weight.tolist()


def test_parametrizations_move_to_another_module():
    source = parametrizations.orthogonal(nn.Linear(3, 3))
    target = parametrize.transfer_parametrizations_and_params(source, nn.Linear(3, 3))
    assert list(target.state_dict()) == list(source.state_dict())
    target.load_state_dict(source.state_dict())
    assert target.weight.tolist() == source.weight.tolist()


def test_parametrizations_that_change_shape_or_dtype_need_unsafe():
    class Double(nn.Module):
        def forward(self, x):
            return x.double()

    layer = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="keep dtype and shape unless unsafe=True"):
        parametrize.register_parametrization(layer, "weight", Double())
    assert list(layer.state_dict()) == ["weight", "bias"]
    parametrize.register_parametrization(layer, "weight", Double(), unsafe=True)
    assert layer.weight.dtype is flambeau.float64
    with pytest.raises(ValueError, match="does not have a parametrization on bias"):
        parametrize.remove_parametrizations(layer, "bias")


def test_pruned_entries_stay_zero_in_training():
    net = nn.Linear(4, 4)
    prune.random_unstructured(net, "weight", 0.5)
    optimizer = flambeau.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):
        net(flambeau.ones(1, 4)).square().sum().backward()
        optimizer.step()
    net(flambeau.ones(1, 4))
    assert ((net.weight == 0) == (net.weight_mask == 0)).all() and (net.weight_mask == 0).sum() == 8
    assert copy.deepcopy(prune.remove(net, "weight")).weight.tolist() == net.weight.tolist()


def test_functional_call_restores_after_an_error():
    net = nn.Linear(2, 2)
    before = net.weight
    with pytest.raises(RuntimeError):
        nn.utils.stateless.functional_call(net, {"weight": flambeau.ones(2, 3)}, flambeau.ones(2))
    assert net.weight is before
    with pytest.raises(TypeError, match="must be a Tensor"):
        nn.utils.stateless.functional_call(net, {"weight": [1.0]}, flambeau.ones(2))
    assert net.weight is before
