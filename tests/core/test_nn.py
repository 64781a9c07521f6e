"""Modules: registration, walking, state dicts, hooks, errors, containers, and layers in what PyTorch cannot tell."""

import copy
import math
import pickle
import traceback

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flambeau
from flambeau import nn, optim
from flambeau.nn import functional as F


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x):
        return F.relu(self.norm(self.conv(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleList([Block(3), Block(3)])
        self.head = nn.Linear(3, 2)
        self.register_buffer("scale", flambeau.ones(1), persistent=False)

    def forward(self, x):
        for block in self.encoder:
            x = block(x)
        return self.head(x.mean((2, 3)) * self.scale)


# -- registration ----------------------------------------------------------------------------------------------------


def test_assignment_registers_and_replaces():
    module = nn.Module()
    module.x = 3
    module.x = nn.Parameter(flambeau.zeros(2))
    assert dict(module.named_parameters()).keys() == {"x"} and "x" not in module.__dict__
    module.x = nn.Linear(1, 1)
    assert list(module._modules) == ["x"] and not module._parameters
    module.x = nn.Buffer(flambeau.zeros(2), persistent=False)
    assert list(module._buffers) == ["x"] and not module._modules and not module.state_dict()
    module.x = flambeau.ones(3)
    assert list(module._buffers) == ["x"]
    del module.x
    assert not hasattr(module, "x")


def test_registered_names_keep_their_position():
    module = nn.Linear(2, 2)
    module.weight = nn.Parameter(flambeau.ones(2, 2))
    assert list(module._parameters) == ["weight", "bias"]
    module.bias = None
    assert list(module._parameters) == ["weight", "bias"] and len(list(module.parameters())) == 1


def test_wrong_assignments_raise():
    module = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="cannot assign Tensor as parameter 'weight'"):
        module.weight = flambeau.ones(2, 2)
    with pytest.raises(KeyError, match="already exists"):
        module.register_buffer("weight", flambeau.ones(1))
    with pytest.raises(KeyError, match=r"without '\.'"):
        module.add_module("a.b", nn.ReLU())
    with pytest.raises(AttributeError, match="'Linear' object has no attribute 'wieght'"):
        _ = module.wieght
    with pytest.raises(TypeError, match="must be a Tensor"):
        nn.Parameter([1.0])

    class Late(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match=r"call super\(\).__init__\(\) before assigning 'layer'"):
        Late()


def test_walking():
    net = Net()
    assert [name for name, _ in net.named_modules()][:4] == ["", "encoder", "encoder.0", "encoder.0.conv"]
    assert [name for name, _ in net.named_children()] == ["encoder", "head"]
    assert net.get_submodule("encoder.1.conv") is net.encoder[1].conv
    assert net.get_parameter("head.bias") is net.head.bias
    with pytest.raises(AttributeError, match="has no sub-module '7'"):
        net.get_submodule("encoder.7.conv")
    seen = []
    net.apply(lambda module: seen.append(type(module).__name__))
    assert seen[0] == "Conv2d" and seen[-1] == "Net"
    assert not any(module.training for module in net.eval().modules())


def test_shared_modules_and_parameters_come_once():
    layer = nn.Linear(2, 2)
    both = nn.Sequential(layer, layer)
    assert len(list(both.parameters())) == 2 and len(list(both.modules())) == 2
    assert list(both.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert len(list(both.named_parameters(remove_duplicate=False))) == 4


def test_moving_between_dtypes_keeps_the_parameters():
    net = Net()
    weight = net.head.weight
    optimizer = optim.SGD(net.parameters(), 0.1)
    net.double()
    assert net.head.weight is weight and weight.dtype is flambeau.float64
    assert net.encoder[0].norm.num_batches_tracked.dtype is flambeau.int64
    net(flambeau.randn(2, 3, 4, 4, dtype=flambeau.float64)).sum().backward()
    optimizer.step()
    with pytest.raises(TypeError, match="floating point"):
        net.to(flambeau.int64)
    assert net.to("cpu", flambeau.float16).scale.dtype is flambeau.float16


@pytest.mark.parametrize("dtype", [flambeau.float16, flambeau.bfloat16])
def test_low_precision_training_step(dtype):
    net = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 1)).to(dtype)
    for make in (optim.SGD, optim.AdamW):
        optimizer = make(net.parameters(), lr=0.01)
        net(flambeau.randn(5, 4).to(dtype)).sum().backward()
        optimizer.step()
    assert all(p.dtype is dtype and bool(p.isfinite().all()) for p in net.parameters())


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_are_whole_and_apart(clone):
    net = Net().eval()
    net.head.weight.requires_grad_(False)
    other = clone(net)
    x = flambeau.randn(2, 3, 4, 4)
    assert (net(x) == other(x)).all()
    assert isinstance(other.head.weight, nn.Parameter) and not other.head.weight.requires_grad
    assert "scale" not in other.state_dict()
    other.head.bias.array[...] = 7
    assert not (net.head.bias == 7).any()


# -- state dicts -----------------------------------------------------------------------------------------------------


def test_state_dict_shares_memory_and_loads_back():
    net, other = Net(), Net()
    state = net.state_dict()
    assert "scale" not in state and not state["head.weight"].requires_grad
    assert state["head.weight"].array is net.head.weight.array
    assert net.state_dict(keep_vars=True)["head.weight"] is net.head.weight
    result = other.load_state_dict(state)
    assert repr(result) == "<All keys matched successfully>" and result.missing_keys == []
    assert all((a == b).all() for a, b in zip(net.parameters(), other.parameters(), strict=True))
    assert state["head.weight"].array is not other.head.weight.array


def test_loading_reports_everything_at_once_and_changes_nothing():
    net = Net()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = {key: value + 1 for key, value in before.items()}
    del state["head.bias"]
    state["extra"] = flambeau.ones(1)
    state["head.weight"] = flambeau.ones(2, 5)
    with pytest.raises(RuntimeError) as caught:
        net.load_state_dict(state)
    message = str(caught.value)
    assert message.startswith("Error(s) in loading state_dict for Net:")
    assert 'Missing key(s) in state_dict: "head.bias"' in message
    assert 'Unexpected key(s) in state_dict: "extra"' in message
    assert "size mismatch for head.weight" in message and "(2, 5)" in message and "(2, 3)" in message
    with pytest.raises(RuntimeError, match="size mismatch"):
        net.load_state_dict(state, strict=False)
    assert all((value == before[key]).all() for key, value in net.state_dict().items())
    del state["head.weight"]
    result = net.load_state_dict(state, strict=False)
    assert result == (["head.weight", "head.bias"], ["extra"])


def test_a_common_prefix_is_pointed_out():
    net = Net()
    with pytest.raises(RuntimeError, match=r"start with 'module\.': remove this prefix"):
        net.load_state_dict({f"module.{key}": value for key, value in net.state_dict().items()})
    with pytest.raises(TypeError, match="mapping"):
        net.load_state_dict([1])


def test_assign_takes_the_tensors():
    net = nn.Linear(2, 2)
    weight = flambeau.ones(2, 2, dtype=flambeau.float64)
    net.load_state_dict({"weight": weight, "bias": flambeau.zeros(2)}, assign=True)
    assert net.weight.array is weight.array and isinstance(net.weight, nn.Parameter) and net.weight.requires_grad


def test_old_checkpoints_and_renamed_keys():
    norm = nn.BatchNorm2d(3)
    state = norm.state_dict()
    del state["num_batches_tracked"]
    assert norm.load_state_dict(state).missing_keys == []

    def rename(module, state_dict, prefix, metadata, strict, missing, unexpected, errors):
        state_dict[prefix + "weight"] = state_dict.pop(prefix + "gamma")

    norm.register_load_state_dict_pre_hook(rename)
    given = {**state, "gamma": state["weight"] * 3}
    del given["weight"]
    norm.load_state_dict(given)
    assert (norm.weight == 3).all() and "gamma" in given


def test_loading_arrays_of_other_dtypes_casts():
    net = nn.Linear(2, 2)
    net.load_state_dict({"weight": np.eye(2), "bias": np.arange(2)})
    assert net.weight.dtype is flambeau.float32 and net.bias.tolist() == [0.0, 1.0]


# -- calls, hooks, errors --------------------------------------------------------------------------------------------


def test_hooks():
    net = nn.Linear(2, 2)
    calls = []
    first = net.register_forward_pre_hook(lambda module, args: calls.append("pre") or (args[0] * 0,))
    net.register_forward_hook(lambda module, args, output: output + 1)
    net.register_forward_hook(lambda module, args, kwargs, output: calls.append(kwargs), with_kwargs=True)
    net.register_forward_pre_hook(lambda module, args, kwargs: calls.append("first"), prepend=True, with_kwargs=True)
    assert (net(flambeau.ones(1, 2)) == net.bias + 1).all()
    assert calls == ["first", "pre", {}]
    first.remove()
    assert not (net(flambeau.ones(1, 2)) == net.bias + 1).all()
    with net.register_forward_hook(lambda *a: 5):
        assert net(flambeau.ones(1, 2)) == 5
    assert net(flambeau.ones(1, 2)) is not 5  # noqa: F632
    with pytest.raises(NotImplementedError, match="register_full_backward_hook"):
        net.register_backward_hook(lambda *a: None)


def test_backward_hooks_see_and_replace_gradients():
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
    seen = []
    net[1].register_full_backward_pre_hook(lambda module, grad_output: (grad_output[0] * 0 + 1,))
    net[1].register_full_backward_hook(lambda module, grad_input, grad_output: seen.append((grad_input, grad_output)))
    handle = net[0].register_full_backward_hook(lambda module, grad_input, grad_output: (grad_input[0] * 0,))
    x = flambeau.ones(1, 2, requires_grad=True)
    (net(x) * 5).sum().backward()
    ((grad_input,), (grad_output,)), slope = seen[0], 1 - net(x).detach() ** 2
    assert grad_output.tolist() == [[1.0, 1.0, 1.0]] and x.grad.tolist() == [[0.0, 0.0]]
    np.testing.assert_allclose(grad_input.tolist(), slope.tolist(), rtol=1e-6)
    handle.remove()
    net(x).sum().backward()
    assert x.grad.numpy().any()


def test_failing_hooks_that_are_always_called_do_not_hide_the_error():
    net = nn.Linear(2, 2)
    net.register_forward_hook(lambda *a: 1 / 0, always_call=True)
    with pytest.raises(RuntimeError, match="linear"), pytest.warns(UserWarning, match="division by zero"):
        net(flambeau.ones(1, 3))


@pytest.mark.parametrize("depth", [1, 3])
def test_the_printed_traceback_ends_with_the_module_path(depth):
    """The path is a note: Python prints it as the last line, below the message with op, shapes and the mend."""
    net = Net()
    for _ in range(depth - 1):
        net = nn.Sequential(net)
    with pytest.raises(RuntimeError) as caught:
        net(flambeau.ones(2, 4, 5, 5))
    lines = "".join(traceback.format_exception(caught.value)).rstrip().splitlines()
    place = "Net.encoder.0.conv" if depth == 1 else "Sequential" + ".0" * (depth - 1) + ".encoder.0.conv"
    assert lines[-1] == f"in {place} (Conv2d)"
    assert "conv" in lines[-2] and "[2, 4, 5, 5]" in lines[-2].replace("(", "[").replace(")", "]")


def test_errors_of_dtype_and_shape_name_op_and_mend():
    with pytest.raises(RuntimeError, match=r"in_features") as caught:
        nn.Sequential(nn.Linear(3, 2))(flambeau.ones(1, 4))
    assert "linear" in str(caught.value) and "1x4" in str(caught.value)
    assert caught.value.__notes__ == ["in Sequential.0 (Linear)"]
    with pytest.raises(ValueError, match=r"input has dtype .*float64 .*\.to\(dtype\)"):
        nn.LSTM(2, 2)(flambeau.ones(3, 1, 2, dtype=flambeau.float64))


def test_half_finished_loading_changes_nothing_without_hooks():
    net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    before = {k: v.tolist() for k, v in net.state_dict().items()}
    state = {k: v * 0 + 7 for k, v in net.state_dict().items()}
    state["1.weight"] = flambeau.ones(2, 2)
    with pytest.raises(RuntimeError, match=r"size mismatch for 1\.weight"):
        net.load_state_dict(state, strict=False)
    assert {k: v.tolist() for k, v in net.state_dict().items()} == before


def test_errors_name_the_module_path_once():
    net = Net()
    with pytest.raises(Exception) as caught:
        net(flambeau.ones(2, 4, 5, 5))
    assert caught.value.__notes__ == ["in Net.encoder.0.conv (Conv2d)"]
    with pytest.raises(Exception) as caught:
        nn.Linear(3, 2)(flambeau.ones(1, 4))
    assert caught.value.__notes__ == ["in Linear"]
    with pytest.raises(NotImplementedError, match="Bare has no forward"):
        type("Bare", (nn.Module,), {})()(1)


def test_unknown_arguments_raise():
    with pytest.raises(TypeError, match="biass"):
        nn.Linear(2, 2, biass=False)


# -- containers ------------------------------------------------------------------------------------------------------


def test_sequential():
    layers = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 3))
    assert len(layers) == 3 and layers[-1].out_features == 3 and len(layers[1:]) == 2
    layers.append(nn.Tanh()).insert(0, nn.Identity())
    assert [type(m).__name__ for m in layers] == ["Identity", "Linear", "ReLU", "Linear", "Tanh"]
    assert list(layers._modules) == ["0", "1", "2", "3", "4"]
    del layers[0]
    layers[-1] = nn.Sigmoid()
    assert [type(m).__name__ for m in layers] == ["Linear", "ReLU", "Linear", "Sigmoid"]
    assert len(layers + layers) == 8
    assert list(nn.Sequential({"a": nn.ReLU(), "b": nn.Tanh()})._modules) == ["a", "b"]
    with pytest.raises(IndexError):
        _ = layers[4]


def test_module_list_and_dict():
    modules = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])
    modules += [nn.ReLU()]
    assert repr(modules).splitlines()[1] == "  (0-2): 3 x Linear(in_features=2, out_features=2, bias=True)"
    assert len(modules[1:]) == 3 and isinstance(modules[1:], nn.ModuleList) and modules[-1] is modules[3]
    del modules[0]
    assert len(modules) == 3 and list(modules._modules) == ["0", "1", "2"]
    table = nn.ModuleDict({"a": nn.Linear(1, 1)})
    table["b"] = nn.ReLU()
    assert list(table) == ["a", "b"] and "a" in table and table.pop("b") is not None and len(table) == 1


def test_parameter_list_and_dict():
    values = nn.ParameterList([flambeau.zeros(2), nn.Parameter(flambeau.ones(3))])
    values.append(flambeau.ones(1))
    assert list(values.state_dict()) == ["0", "1", "2"] and len(values) == 3
    assert all(isinstance(value, nn.Parameter) for value in values)
    table = nn.ParameterDict({"left": flambeau.zeros(2)})
    table["right"] = flambeau.ones(1)
    assert list(table.state_dict()) == ["left", "right"] and [k for k, _ in table.items()] == ["left", "right"]
    del table["left"]
    assert "left" not in table and len(list(table.parameters())) == 1


# -- layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, shape, channels", [
    ("Dropout", (400, 300), False), ("Dropout1d", (300, 200, 5), True), ("Dropout2d", (300, 100, 2, 2), True),
    ("Dropout3d", (200, 100, 2, 2, 1), True),
])  # fmt: skip
def test_dropout(name, shape, channels):
    flambeau.manual_seed(3)
    layer, x = getattr(nn, name)(0.3), flambeau.ones(*shape, requires_grad=True)
    output = layer(x)
    values = output.detach().numpy()
    assert abs((values == 0).mean() - 0.3) < 0.02
    np.testing.assert_allclose(np.unique(values), [0, 1 / 0.7], rtol=1e-6)
    if channels:
        assert (values.reshape(*shape[:2], -1).std(-1) == 0).all()
    output.sum().backward()
    assert (x.grad == output).all()
    assert layer.eval()(x) is x
    flambeau.manual_seed(3)
    assert (layer.train()(x) == output).all()
    with pytest.raises(ValueError, match="between 0 and 1"):
        getattr(nn, name)(1.5)


def test_alpha_dropout_keeps_mean_and_variance():
    flambeau.manual_seed(0)
    for layer, shape in ((nn.AlphaDropout(0.2), (400, 400)), (nn.FeatureAlphaDropout(0.2), (400, 400, 2))):
        values = layer(flambeau.randn(*shape)).numpy()
        assert abs(values.mean()) < 0.02 and abs(values.std() - 1) < 0.02


def test_gumbel_softmax_draws_from_the_distribution():
    flambeau.manual_seed(0)
    logits = flambeau.tensor([0.1, 0.6, 0.3]).log().expand(20000, 3).clone().requires_grad_()
    sample = F.gumbel_softmax(logits, hard=True)
    np.testing.assert_allclose(sample.detach().numpy().mean(0), [0.1, 0.6, 0.3], atol=0.02)
    assert set(np.unique(sample.detach().numpy().round(6))) == {0.0, 1.0}
    (sample * flambeau.arange(3)).sum().backward()
    assert (logits.grad != 0).any()


def test_inplace_activations_change_what_the_caller_holds():
    x = flambeau.tensor([-1.0, 2.0], requires_grad=True)
    y = x * 1
    out = nn.ReLU(inplace=True)(y)
    assert out is y and y.tolist() == [0.0, 2.0]
    (y * y).sum().backward()
    assert x.grad.tolist() == [0.0, 4.0]
    with pytest.raises(RuntimeError, match="leaf"):
        nn.ReLU(inplace=True)(x)
    memory = np.array([[-1.0, 2.0], [3.0, -4.0]])
    nn.Hardtanh(-0.5, 2.5, inplace=True)(flambeau.from_numpy(memory)[1])
    assert memory.tolist() == [[-1.0, 2.0], [2.5, -0.5]]
    net = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Sigmoid(), nn.SiLU(inplace=True)
    )
    net(flambeau.randn(2, 1, 3, 3)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


LOSSES = ["MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "BCELoss", "BCEWithLogitsLoss"]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shapes", [((4, 1), (4,)), ((4,), (4, 1)), ((4, 1), (1, 4))])
def test_losses_refuse_shapes_that_would_broadcast(name, shapes):
    a, b = (flambeau.rand(*shape) for shape in shapes)
    with pytest.raises(ValueError, match=r"(?i)shape"):
        getattr(nn, name)()(a, b)


def test_losses_name_bad_reductions():
    with pytest.raises(ValueError, match="'none', 'mean' or 'sum'"):
        nn.MSELoss(reduction="average")
    with pytest.raises(ValueError, match="average"):
        F.mse_loss(flambeau.ones(1), flambeau.ones(1), reduction="average")
    assert nn.MSELoss(size_average=False).reduction == "sum" and nn.MSELoss(reduce=False).reduction == "none"


def test_misuse_of_layers_is_named():
    with pytest.raises(ValueError, match=r"BatchNorm2d: expected 4D input \(got 3D input\)"):
        nn.BatchNorm2d(3)(flambeau.ones(2, 3, 4))
    with pytest.raises(RuntimeError, match="Expected 4, got 5"):
        nn.LSTM(4, 3)(flambeau.ones(2, 1, 5))
    with pytest.raises(RuntimeError, match=r"Expected hidden size \(1, 1, 3\)"):
        nn.GRU(4, 3)(flambeau.ones(2, 1, 4), flambeau.ones(1, 2, 3))
    with pytest.raises(ValueError, match="multiple of num_heads"):
        nn.MultiheadAttention(7, 2)
    with pytest.raises(ValueError, match="groups"):
        nn.Conv2d(3, 4, 3, groups=2)
    with pytest.raises(ValueError, match="strided"):
        nn.Conv2d(3, 4, 3, stride=2, padding="same")
    with pytest.raises(ValueError, match="proj_size is for LSTM"):
        nn.RNNBase("GRU", 2, 3, proj_size=2)


def test_dropout_between_recurrent_layers_only_in_training():
    layer = nn.LSTM(3, 4, 2, dropout=0.5)
    x = flambeau.randn(5, 2, 3)
    assert not (layer(x)[0] == layer(x)[0]).all()
    layer.eval()
    assert (layer(x)[0] == layer(x)[0]).all()


def test_the_same_seed_gives_the_same_model():
    flambeau.manual_seed(5)
    first = Net().state_dict()
    flambeau.manual_seed(5)
    assert all((value == first[key]).all() for key, value in Net().state_dict().items())


@given(
    size=st.integers(4, 9), kernel=st.integers(1, 3), stride=st.integers(1, 3), padding=st.integers(0, 2),
    dilation=st.integers(1, 2), channels=st.integers(1, 3),
)  # fmt: skip
def test_fold_is_the_transpose_of_unfold(size, kernel, stride, padding, dilation, channels):
    """<unfold(x), y> = <x, fold(y)> for all geometries that have a window."""
    if size + 2 * padding < dilation * (kernel - 1) + 1:
        return
    settings = dict(kernel_size=kernel, dilation=dilation, padding=padding, stride=stride)
    generator = np.random.default_rng(size)
    x = flambeau.tensor(generator.normal(size=(1, channels, size, size + 1)))
    columns = F.unfold(x, **settings)
    y = flambeau.tensor(generator.normal(size=tuple(columns.shape)))
    back = F.fold(y, (size, size + 1), **settings)
    assert math.isclose((columns * y).sum().item(), (x * back).sum().item(), rel_tol=1e-9, abs_tol=1e-9)


@given(factor=st.integers(1, 4), channels=st.integers(1, 3), height=st.integers(1, 4), width=st.integers(1, 4))
def test_pixel_unshuffle_undoes_pixel_shuffle(factor, channels, height, width):
    x = flambeau.randn(2, channels * factor**2, height, width)
    assert (F.pixel_unshuffle(F.pixel_shuffle(x, factor), factor) == x).all()


def test_initialisers_refuse_what_they_cannot_fill():
    with pytest.raises(ValueError, match="2 dimensions"):
        nn.init.eye_(flambeau.empty(3))
    with pytest.raises(ValueError, match="fan in"):
        nn.init.xavier_uniform_(flambeau.empty(3))
    with pytest.raises(ValueError, match="'fan_in' or 'fan_out'"):
        nn.init.kaiming_normal_(flambeau.empty(3, 3), mode="fan")
    with pytest.raises(ValueError, match="unsupported nonlinearity"):
        nn.init.calculate_gain("softmax")
    with pytest.raises(ValueError, match="a < b"):
        nn.init.trunc_normal_(flambeau.empty(3), a=1, b=0)


def test_clipping():
    w = flambeau.tensor([3.0, 4.0], requires_grad=True)
    assert nn.utils.clip_grad_norm_([w], 1.0).item() == 0.0
    w.grad = flambeau.tensor([math.inf, 1.0])
    with pytest.raises(RuntimeError, match="not finite"):
        nn.utils.clip_grad_norm_([w], 1.0, error_if_nonfinite=True)
    with pytest.raises(ValueError, match="3 elements, but the parameters need 2"):
        nn.utils.vector_to_parameters(flambeau.ones(3), [w])
