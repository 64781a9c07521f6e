"""Modules beside PyTorch's: hooks and their order, state dicts, containers, errors in calls."""

import copy
import pickle
import warnings
from collections import OrderedDict

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import flambeau
from flambeau import nn

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook")
LIBRARIES = [(torch, torch.nn), (flambeau, nn)]


def both(scenario):
    """The traces of a scenario in both libraries."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [scenario(*library) for library in LIBRARIES]


def agree(scenario):
    theirs, mine = both(scenario)
    assert mine == theirs


def values(grads):
    return None if grads is None else tuple(None if g is None else np.round(g.tolist(), 5).tolist() for g in grads)


def network(lib, layers):
    net = layers.Sequential(layers.Linear(3, 4), layers.Tanh(), layers.Linear(4, 2))
    for k, p in enumerate(net.parameters()):
        p.data = lib.arange(p.numel(), dtype=lib.float32).reshape(p.shape) * 0.1 - 0.3 + 0.05 * k
    return net


class TwoInTwoOut:
    """A module with two inputs and two outputs, for either library."""

    def __new__(cls, layers):
        class Pair(layers.Module):
            def forward(self, a, b, scale=2.0):
                return a * scale + b, a * b

        return Pair()


# -- backward hooks --------------------------------------------------------------------------------------------------
def test_full_backward_hooks_of_a_chain():
    def scenario(lib, layers):
        trace = []
        net = network(lib, layers)
        for k, layer in enumerate(net):
            layer.register_full_backward_hook(lambda m, i, o, k=k: trace.append(("post", k, values(i), values(o))))
            layer.register_full_backward_pre_hook(lambda m, o, k=k: trace.append(("pre", k, values(o))))
        net.register_full_backward_hook(lambda m, i, o: trace.append(("net", values(i), values(o))))
        x = lib.tensor([[0.5, -1.0, 2.0]], requires_grad=True)
        net(x).sum().backward()
        trace.append(values([x.grad, *[p.grad for p in net.parameters()]]))
        return trace

    agree(scenario)


@pytest.mark.parametrize("needs", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("use", [0, 1, 2])
def test_full_backward_hooks_of_several_inputs_and_outputs(needs, use):
    def scenario(lib, layers):
        trace = []
        pair = TwoInTwoOut(layers)
        pair.register_full_backward_hook(lambda m, i, o: trace.append((values(i), values(o))))
        pair.register_full_backward_pre_hook(lambda m, o: trace.append(values(o)))
        a = lib.tensor([1.0, 2.0], requires_grad=needs[0])
        b = lib.tensor([3.0, 4.0], requires_grad=needs[1])
        first, second = pair(a, b, 3.0)
        output = [first.sum(), second.sum(), first.sum() + (second * second).sum()][use]
        if output.requires_grad:
            output.backward()
        trace.append(values([a.grad, b.grad]))
        return trace

    agree(scenario)


def test_backward_hooks_replace_gradients():
    def scenario(lib, layers):
        trace = []
        pair = TwoInTwoOut(layers)
        pair.register_full_backward_pre_hook(lambda m, o: tuple(None if g is None else g * 2 for g in o))
        pair.register_full_backward_hook(lambda m, i, o: tuple(None if g is None else g + 1 for g in i))
        pair.register_full_backward_hook(lambda m, i, o: trace.append((values(i), values(o))))
        first = pair.register_full_backward_hook(lambda m, i, o: trace.append("first"), prepend=True)
        a, b = (lib.tensor(v, requires_grad=True) for v in ([1.0, 2.0], [3.0, 4.0]))
        sum(o.sum() for o in pair(a, b)).backward()
        first.remove()
        sum(o.sum() for o in pair(a, b)).backward()
        return trace, values([a.grad, b.grad])

    agree(scenario)


def test_backward_hooks_of_a_layer_whose_input_needs_no_gradient():
    def scenario(lib, layers):
        trace = []
        net = network(lib, layers)
        net[0].register_full_backward_hook(lambda m, i, o: trace.append((values(i), values(o))))
        net(lib.tensor([[0.5, -1.0, 2.0]])).sum().backward()
        return trace, values([p.grad for p in net.parameters()])

    agree(scenario)


def test_backward_hooks_that_return_the_wrong_number_raise():
    for lib, layers in LIBRARIES:
        layer = layers.Linear(2, 2)
        layer.register_full_backward_hook(lambda m, i, o: (i[0], i[0]))
        with pytest.raises(RuntimeError, match="invalid number of grad_input"):
            layer(lib.ones(1, 2, requires_grad=True)).sum().backward()
        layer = layers.Linear(2, 2)
        layer.register_full_backward_hook(lambda m, i, o: o)
        with pytest.raises(RuntimeError, match="where no input requires"):
            layer(lib.ones(1, 2)).sum().backward()


def test_second_order_flows_through_backward_hooks():
    def scenario(lib, layers):
        net = network(lib, layers)
        seen = []
        net.register_full_backward_hook(lambda m, i, o: seen.append(i[0].requires_grad) or (i[0] * 2,))
        x = lib.tensor([[0.5, -1.0, 2.0]], requires_grad=True)
        (g,) = lib.autograd.grad(net(x).sum(), x, create_graph=True)
        (g * g).sum().backward()
        return seen, values([x.grad])

    agree(scenario)


# -- forward hooks ---------------------------------------------------------------------------------------------------
def test_always_called_hooks_and_global_hooks():
    def scenario(lib, layers):
        modules = torch.nn.modules.module if lib is torch else nn.module
        trace = []

        class Fails(layers.Module):
            def forward(self, x):
                raise KeyError("no")

        failing = Fails()
        failing.register_forward_hook(lambda m, a, o: trace.append(("always", o)), always_call=True)
        failing.register_forward_hook(lambda m, a, o: trace.append("never"))
        with pytest.raises(KeyError):
            failing(1)
        net = network(lib, layers)
        net[0].register_forward_hook(lambda m, a, o: trace.append("own"))
        net[0].register_forward_pre_hook(lambda m, a: trace.append("own pre"))
        name = lambda m: type(m).__name__
        handles = [
            modules.register_module_forward_pre_hook(lambda m, a: trace.append(("pre", name(m)))),
            modules.register_module_forward_hook(lambda m, a, o: trace.append(("post", name(m), tuple(o.shape)))),
            modules.register_module_full_backward_hook(lambda m, i, o: trace.append(("back", name(m), len(i)))),
            modules.register_module_full_backward_pre_hook(lambda m, o: trace.append(("before", name(m), len(o)))),
        ]
        net(lib.ones(1, 3, requires_grad=True)).sum().backward()
        for handle in handles:
            handle.remove()
        net(lib.ones(1, 3))
        kinds = [
            modules.register_module_parameter_registration_hook(lambda m, n, p: trace.append(("parameter", n))),
            modules.register_module_module_registration_hook(lambda m, n, p: trace.append(("module", n))),
            modules.register_module_buffer_registration_hook(lambda m, n, p: trace.append(("buffer", n))),
        ]
        layers.Sequential(layers.BatchNorm1d(2))
        for handle in kinds:
            handle.remove()
        layers.Linear(1, 1)
        return trace

    agree(scenario)


def test_hooks_with_kwargs():
    def scenario(lib, layers):
        trace = []
        pair = TwoInTwoOut(layers)
        pair.register_forward_pre_hook(lambda m, a, k: (a, {"scale": k["scale"] + 1}), with_kwargs=True)
        pair.register_forward_hook(lambda m, a, k, o: trace.append((len(a), k)), with_kwargs=True)
        trace.append(values(pair(lib.ones(2), lib.ones(2), scale=5.0)))
        pair.register_forward_pre_hook(lambda m, a, k: a[0], with_kwargs=True)
        with pytest.raises(RuntimeError, match="must return None or a tuple"):
            pair(lib.ones(2), lib.ones(2), scale=5.0)
        return trace

    agree(scenario)


# -- state dicts -----------------------------------------------------------------------------------------------------
def test_state_dict_hooks_and_extra_state():
    def scenario(lib, layers):
        trace = []

        class Counted(layers.Linear):
            count = 3

            def get_extra_state(self):
                return {"count": self.count}

            def set_extra_state(self, state):
                trace.append(state)
                self.count = state["count"]

        net = layers.Sequential(Counted(1, 1), layers.BatchNorm1d(1))
        net[0].register_state_dict_pre_hook(lambda m, prefix, keep: trace.append(("pre", prefix, keep)))
        net[1].register_state_dict_post_hook(lambda m, sd, prefix, meta: sd.__delitem__(prefix + "running_mean"))
        state = net.state_dict()
        trace.append((list(state), type(state).__name__, sorted(state._metadata.items())))
        trace.append(list(net.state_dict(prefix="p.", keep_vars=True)))
        net[0].count = 5
        trace.append([sorted(k) for k in net.load_state_dict(state, strict=False)])
        trace.append(net[0].count)

        def excuse(module, keys):
            trace.append([sorted(keys.missing_keys), sorted(keys.unexpected_keys)])
            keys.missing_keys.clear()

        net.register_load_state_dict_post_hook(excuse)
        trace.append(str(net.load_state_dict(state)))
        del state["0._extra_state"]
        state["0.more"] = state["more.below"] = lib.ones(1)
        trace.append([sorted(k) for k in net.load_state_dict(state, strict=False)])
        return trace

    agree(scenario)


def test_overridden_loading_and_saving():
    def scenario(lib, layers):
        class Renamed(layers.Linear):
            def _save_to_state_dict(self, destination, prefix, keep_vars):
                super()._save_to_state_dict(destination, prefix, keep_vars)
                destination[prefix + "w"] = destination.pop(prefix + "weight")

            def _load_from_state_dict(self, state_dict, prefix, *args):
                if prefix + "w" in state_dict:
                    state_dict[prefix + "weight"] = state_dict.pop(prefix + "w") * 2
                super()._load_from_state_dict(state_dict, prefix, *args)

        net = layers.Sequential(Renamed(2, 2, bias=False))
        net[0].weight.data = lib.ones(2, 2)
        state = net.state_dict()
        result = net.load_state_dict(state)
        return list(state), str(result), net[0].weight.tolist()

    agree(scenario)


def test_assigning_while_loading():
    def scenario(lib, layers):
        net = layers.BatchNorm1d(2)
        net.weight.requires_grad_(False)
        state = {k: v.to(lib.float64) if v.dtype.is_floating_point else v for k, v in net.state_dict().items()}
        net.load_state_dict(state, assign=True)
        return [(k, str(v.dtype).split(".")[-1], v.requires_grad) for k, v in net.state_dict(keep_vars=True).items()]

    agree(scenario)


def test_walking_and_setting_submodules():
    def scenario(lib, layers):
        shared = layers.Linear(1, 1)
        net = layers.Sequential(OrderedDict(a=shared, b=layers.Sequential(shared, layers.BatchNorm1d(1))))
        net.none = None
        trace = [
            [k for k, _ in net.named_modules()],
            [k for k, _ in net.named_modules(prefix="p", remove_duplicate=False)],
            [k for k, _ in net.named_modules(memo={net.b})],
            [k for k, _ in net.named_parameters("q")],
            [k for k, _ in net.named_parameters(remove_duplicate=False)],
            [k for k, _ in net.named_parameters(recurse=False)],
            [k for k, _ in net.named_buffers()],
            [k for k, _ in net.named_children()],
        ]
        net.set_submodule("b.0", layers.Tanh())
        trace.append([k for k, _ in net.named_modules()])
        with pytest.raises(AttributeError):
            net.set_submodule("b.9", layers.Tanh(), strict=True)
        with pytest.raises(ValueError):
            net.set_submodule("", layers.Tanh())
        for path in ("b.7", "b.0.weight"):
            with pytest.raises(AttributeError):
                net.get_submodule(path)
        visited = []
        net.apply(lambda m: visited.append(type(m).__name__))
        return trace, visited

    agree(scenario)


@pytest.mark.parametrize("method", ["half", "double", "bfloat16", "float"])
def test_changing_the_dtype(method):
    def scenario(lib, layers):
        net = layers.Sequential(layers.Linear(2, 2), layers.BatchNorm1d(2))
        net(lib.ones(3, 2)).sum().backward()
        assert getattr(net, method)() is net
        tensors = [*net.state_dict().values(), *[p.grad for p in net.parameters()]]
        return [str(t.dtype).split(".")[-1] for t in tensors]

    agree(scenario)


def test_to_refuses_integers_and_takes_all_forms():
    for lib, layers in LIBRARIES:
        net = layers.Linear(1, 1)
        with pytest.raises(TypeError, match="floating point or complex dtypes"):
            net.to(lib.int32)
        for args, kwargs in [
            (("cpu",), {}), ((lib.float64,), {}), (("cpu", lib.float64), {}), ((lib.ones(1, dtype=lib.float64),), {}),
            ((), {"dtype": lib.float64, "non_blocking": True}), ((), {"device": "cpu"}), ((lib.device("cpu"),), {}),
        ]:  # fmt: skip
            assert net.to(*args, **kwargs) is net
        assert net.weight.dtype is lib.float64
        assert net.to_empty(device="cpu").weight.shape == (1, 1)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(clone):
    for lib, layers in LIBRARIES:
        net = network(lib, layers)
        net[2].weight = net[2].weight
        net.tied = net[0].weight
        twin = clone(net)
        assert twin.tied is twin[0].weight and twin.tied is not net.tied
        x = lib.ones(1, 3)
        assert twin(x).tolist() == net(x).tolist()
        del twin.__dict__["_load_state_dict_post_hooks"]
        twin.__setstate__(dict(twin.__dict__))
        assert not twin._load_state_dict_post_hooks and twin(x).tolist() == net(x).tolist()


# -- containers ------------------------------------------------------------------------------------------------------
def test_containers():
    def scenario(lib, layers):
        name = lambda modules: [type(m).__name__ for m in modules]
        trace = []
        s = layers.Sequential(layers.ReLU(), layers.Tanh(), layers.Sigmoid())
        trace.append(name(s.pop(slice(0, 1))) + name([s.pop(-1)]) + name(s))
        s += layers.Sequential(layers.GELU())
        s.insert(1, layers.SiLU())
        s.insert(-1, layers.Mish())
        trace.append((name(s), list(s._modules)))
        trace.append((name(s * 2), name(2 * s)))
        s *= 2
        s.extend([layers.ReLU()])
        trace.append((name(s), name(s[1:-1:2]), list(s[2:]._modules)))
        for bad in (lambda: s * 0, lambda: s + layers.ModuleList()):
            with pytest.raises(ValueError):
                bad()
        with pytest.raises(IndexError):
            s.insert(50, layers.ReLU())
        m = layers.ModuleList([layers.ReLU(), layers.Tanh()])
        m.insert(0, layers.GELU())
        m += [layers.SiLU()]
        trace.append((name(m), name([m.pop(0)]), name(m.pop(slice(1, None))), list(m._modules)))
        trace.append((name(m + [layers.ReLU()]), len(m), "ReLU" in str(m)))
        d = layers.ModuleDict({"b": layers.ReLU(), "a": layers.Tanh()})
        d.update([("c", layers.GELU())])
        trace.append((list(d), name(d.values()), "a" in d, name([d.pop("a")]), len(d), [k for k, _ in d.items()]))
        d.clear()
        trace.append(list(d))
        p = layers.ParameterDict({"b": lib.zeros(1), "a": lib.zeros(2)})
        q = layers.ParameterDict(OrderedDict(z=lib.zeros(3), a=lib.ones(1)))
        trace.append((list(p), list(q), list(p | q), list(reversed(q)), [tuple(v.shape) for v in (p | q).values()]))
        p |= q
        p.setdefault("new", lib.zeros(4))
        p.setdefault("a", lib.zeros(4))
        trace.append(
            (list(p), tuple(p["a"].shape), p.popitem()[0], p.get("none"), list(p.copy()), list(p.fromkeys("xy")))
        )
        trace.append(list(p.state_dict()))
        v = layers.ParameterList([lib.zeros(1), layers.Parameter(lib.zeros(2))])
        v += [lib.zeros(3)]
        v[0] = lib.zeros(5)
        trace.append(([tuple(t.shape) for t in v], len(v[1:]), list(v.state_dict()), type(v[0]).__name__))
        return trace

    agree(scenario)
