"""Function transforms beside `torch.func` and `torch.autograd.functional`: the same functions, the same numbers."""

import inspect
import zlib

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import flambeau as fb
from flambeau import nn

pytestmark = pytest.mark.filterwarnings("ignore")


def draw(name, *shape, low=-1.0, high=1.0):
    return np.random.default_rng(zlib.crc32(f"{name}{shape}".encode())).uniform(low, high, shape)


def theirs(value):
    return map_nested(torch.from_numpy, value, np.ndarray)


def ours(value):
    return map_nested(fb.from_numpy, value, np.ndarray)


def map_nested(function, value, kind):
    if isinstance(value, dict):
        return {k: map_nested(function, v, kind) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(map_nested(function, v, kind) for v in value)
    return function(value) if isinstance(value, kind) else value


def same(a, b, rtol=1e-9, atol=1e-11):
    """Structure, shapes, dtypes and values."""
    if isinstance(b, dict):
        assert isinstance(a, dict) and list(a) == list(b)
        for k in b:
            same(a[k], b[k], rtol, atol)
    elif isinstance(b, tuple | list):
        assert isinstance(a, tuple | list) and len(a) == len(b)
        assert isinstance(a, list) == isinstance(b, list)
        for x, y in zip(a, b, strict=True):
            same(x, y, rtol, atol)
    else:
        assert tuple(a.shape) == tuple(b.shape) and str(a.dtype).partition(".")[2] == str(b.dtype).partition(".")[2]
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=rtol, atol=atol)


def both(function, *args, rtol=1e-9, atol=1e-11):
    """`function(library, transforms, *args)` with both libraries."""
    expected = function(torch, torch.func, *theirs(args))
    same(function(fb, fb.func, *ours(args)), expected, rtol, atol)


# -- transforms --------------------------------------------------------------------------------------------------
X, Y, M = draw("x", 4), draw("y", 4), draw("m", 4, 3)

TRANSFORMS = {
    "grad": lambda t, f, x: f.grad(lambda x: t.sin(x).sum())(x),
    "grad of two": lambda t, f, x, y: f.grad(lambda x, y: (x * y.exp()).sum(), (0, 1))(x, y),
    "grad, negative argnum": lambda t, f, x, y: f.grad(lambda x, y: (x * y.exp()).sum(), -1)(x, y),
    "grad, aux": lambda t, f, x: f.grad(lambda x: ((x**3).sum(), {"twice": x * 2}), has_aux=True)(x),
    "grad and value": lambda t, f, x: f.grad_and_value(lambda x: (x**3).sum())(x),
    "grad and value, aux": lambda t, f, x: f.grad_and_value(lambda x: ((x**3).sum(), x + 1), has_aux=True)(x),
    "grad of a dict": lambda t, f, x, y: f.grad(lambda d: (d["a"] * d["b"][0]).sum())({"a": x, "b": [y]}),
    "grad of an unused argument": lambda t, f, x, y: f.grad(lambda x, y: y.sum())(x, y),
    "grad of a constant": lambda t, f, x: f.grad(lambda x: t.tensor(2.0, dtype=t.float64))(x),
    "grad of grad": lambda t, f, x: f.grad(lambda x: f.grad(lambda x: (x**4).sum())(x).sum())(x),
    "grad of grad by another": lambda t, f, x, y: f.grad(lambda x: (f.grad(lambda z: t.sin(x * z).sum())(y) * x).sum())(
        x
    ),
    "perturbations are kept apart": lambda t, f, x, y: f.grad(lambda x: x[0] * f.grad(lambda z: x[0] + z[0])(y)[0])(x),
    "no_grad inside": lambda t, f, x: f.grad(lambda x: (x * _no_grad(t, lambda: x * x)).sum())(x),
    "vjp": lambda t, f, x, y: (lambda pair: (pair[0], pair[1](y)))(f.vjp(lambda x: t.sin(x) * x, x)),
    "vjp of several": lambda t, f, x, y: (lambda pair: (pair[0], pair[1]((y, x))))(
        f.vjp(lambda a, b: (a * b, a.exp()), x, y)
    ),
    "vjp, aux": lambda t, f, x, y: (lambda p: (p[0], p[1](y), p[2]))(f.vjp(lambda x: (x**2, x + 1), x, has_aux=True)),
    "jvp": lambda t, f, x, y: f.jvp(lambda x: t.sin(x) * x.sum(), (x,), (y,)),
    "jvp of several": lambda t, f, x, y: f.jvp(lambda a, b: {"p": a * b, "q": a}, (x, y), (y, x)),
    "jvp of jvp": lambda t, f, x, y: f.jvp(lambda x: f.jvp(t.exp, (x,), (y,))[1], (x,), (y,)),
    "linearize": lambda t, f, x, y: (lambda p: (p[0], p[1](y)))(f.linearize(lambda x: t.sin(x).sum(), x)),
    "jacrev": lambda t, f, x: f.jacrev(lambda x: t.outer(x, x.exp()))(x),
    "jacrev of several": lambda t, f, x, y: f.jacrev(lambda a, b: (a * b, (a**2).sum()), (0, 1))(x, y),
    "jacrev, dict and aux": lambda t, f, x, y: f.jacrev(lambda d: ({"o": d["a"] * d["b"]}, d["a"]), has_aux=True)(
        {"a": x, "b": y}
    ),
    "jacrev, chunks": lambda t, f, x: f.jacrev(lambda x: t.outer(x, x.exp()), chunk_size=3)(x),
    "jacfwd": lambda t, f, x: f.jacfwd(lambda x: t.outer(x, x.exp()))(x),
    "jacfwd of several": lambda t, f, x, y: f.jacfwd(lambda a, b: (a * b, (a**2).sum()), (0, 1))(x, y),
    "jacfwd, aux": lambda t, f, x: f.jacfwd(lambda x: (x**2, x + 1), has_aux=True)(x),
    "jacrev of jacrev": lambda t, f, x: f.jacrev(f.jacrev(lambda x: (x**3).prod()))(x),
    "jacfwd of jacfwd": lambda t, f, x: f.jacfwd(f.jacfwd(lambda x: (x**3).prod()))(x),
    "jacrev of jacfwd": lambda t, f, x: f.jacrev(f.jacfwd(lambda x: t.tanh(x).prod()))(x),
    "hessian": lambda t, f, x: f.hessian(lambda x: (x.sin() * x.sum()).sum())(x),
    "hessian of several": lambda t, f, x, y: f.hessian(lambda a, b: (a * b * a).sum(), (0, 1))(x, y),
    "third derivative": lambda t, f, x: f.jacrev(f.hessian(lambda x: (x**4).sum() * x[0]))(x),
}


def _no_grad(t, function):
    with t.no_grad():
        return function()


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transform(name):
    function = TRANSFORMS[name]
    both(function, *(X, Y)[: len(inspect.signature(function).parameters) - 2])


BATCHED = {
    "vmap of grad": lambda t, f, m: f.vmap(f.grad(lambda x: t.sin(x).prod()))(m),
    "vmap of grad of grad": lambda t, f, m: f.vmap(f.grad(lambda x: f.grad(lambda x: (x**4).sum())(x).sum()))(m),
    "vmap of vmap": lambda t, f, m: f.vmap(f.vmap(lambda a, b: a * b, (0, None)), (None, 0))(m[0], m[:, 1]),
    "vmap of vmap of grad": lambda t, f, m: f.vmap(f.vmap(f.grad(t.sin)))(m),
    "vmap of jacrev": lambda t, f, m: f.vmap(f.jacrev(lambda x: t.outer(x, x.cos())))(m),
    "vmap of jacfwd": lambda t, f, m: f.vmap(f.jacfwd(lambda x: t.outer(x, x.cos())))(m),
    "vmap of hessian": lambda t, f, m: f.vmap(f.hessian(lambda x: x.exp().prod()))(m),
    "vmap of jvp": lambda t, f, m: f.vmap(lambda x, v: f.jvp(lambda x: x.exp() * x.sum(), (x,), (v,)))(m, m + 1),
    "vmap of vjp": lambda t, f, m: f.vmap(lambda x, v: f.vjp(lambda x: x.exp() * x.sum(), x)[1](v))(m, m + 1),
    "jacrev of vmap": lambda t, f, m: f.jacrev(f.vmap(lambda x: x.exp().sum()))(m),
    "grad of vmap": lambda t, f, m: f.grad(lambda m: f.vmap(lambda x: x.prod())(m).sum())(m),
    "grad of vmap of grad": lambda t, f, m: f.grad(lambda m: f.vmap(f.grad(lambda x: (x**3).prod()))(m).sum())(m),
    "grad by what is the same for all": lambda t, f, m: f.vmap(f.grad(lambda w, x: t.sin((w * x).sum())), (None, 0))(
        m[0], m
    ),
    "jacrev by what is the same for all": lambda t, f, m: f.vmap(f.jacrev(lambda w, x: t.sin(w * x)), (None, 0))(
        m[0], m
    ),
    "a closure over the batch": lambda t, f, m: f.vmap(lambda x: f.grad(lambda w: (w * x).exp().sum())(m[0]))(m),
    "in_dims": lambda t, f, m: f.vmap(lambda a, b: t.outer(a, b), (1, 0))(m, m[:3]),
    "negative in_dim": lambda t, f, m: f.vmap(lambda a: a.cumsum(0), -1)(m),
    "nested in_dims": lambda t, f, m: f.vmap(lambda d, c: d["a"] * d["b"] + c, ({"a": 0, "b": 1}, None))(
        {"a": m, "b": m.T}, 2.0
    ),
    "out_dims": lambda t, f, m: f.vmap(lambda a: (a, {"b": a.sum()}), 0, (1, {"b": 0}))(m),
    "out_dims of one": lambda t, f, m: f.vmap(lambda a: a * 2, out_dims=-1)(m),
    "an output that is the same for all": lambda t, f, m: f.vmap(lambda a: (a, m[0] * 2))(m),
    "chunks": lambda t, f, m: f.vmap(lambda a: (a.sin(), a.sum()), chunk_size=3)(m),
    "keywords are the same for all": lambda t, f, m: f.vmap(lambda a, scale: a * scale)(m, scale=m),
    "in place": lambda t, f, m: f.vmap(_in_place)(m),
    "grad in place": lambda t, f, m: f.vmap(f.grad(lambda x: _in_place(x).sum()))(m),
}


def _in_place(x):
    y = x * 2
    y += 1
    y.mul_(x)
    y[0] = y[1] * 3
    y[1:] += 5
    return y.sin_()


@pytest.mark.parametrize("name", BATCHED)
def test_batched_transform(name):
    both(BATCHED[name], M)


# -- functions under vmap ----------------------------------------------------------------------------------------
F = {torch: torch.nn.functional, fb: nn.functional}
SIX = draw("six", 5, 2, 3, 6)  # a batch of 5 images of 2 x 3 x 6, or sequences
SQUARE = draw("square", 5, 3, 3) + 2 * np.eye(3)
LABELS = np.random.default_rng(0).integers(0, 3, (5, 2, 6))

FUNCTIONS = {
    "sort": lambda t, x: tuple(t.sort(x, dim=-1, descending=True)),
    "topk": lambda t, x: tuple(t.topk(x, 2, -1)),
    "max": lambda t, x: (x.max(), *x.max(1)),
    "argmax": lambda t, x: (x.argmax(), x.argmax(-1, keepdim=True)),
    "var": lambda t, x: (x.var(), x.std(1), x.mean((0, 2), keepdim=True)),
    "norm": lambda t, x: (x.norm(), t.linalg.vector_norm(x, 3, dim=-1), t.linalg.norm(x[0])),
    "cumulative": lambda t, x: (x.cumsum(1), x.cumprod(-1), x.logcumsumexp(2)),
    "einsum": lambda t, x: t.einsum("cij,ckj->ik", x, x),
    "matmul": lambda t, x: (x @ x.mT, x[0] @ x[0, 0], x[0, :, 0] @ x[0]),
    "indexing": lambda t, x: (
        x[0], x[..., 1], x[:, [0, 2]], x[:, None, 1:, ::2],
        x[t.tensor([1, 0]), :, [2, 3]],
    ),
    "shapes": lambda t, x: (x.flatten(1), x.permute(2, 0, 1), x.transpose(0, -1), x.unsqueeze(1), x.view(-1, 6)),
    "joins": lambda t, x: (
        t.cat([x, x + 1], 1), t.stack([x, t.zeros_like(x)], -1),
        x.repeat(2, 1, 1), x.expand(3, 2, 3, 6),
    ),
    "splits": lambda t, x: (*x.split(2, -1), *x.chunk(2), *x.unbind(1)),
    "movement": lambda t, x: (x.flip(0), x.roll(1, -1), x.roll(2), x.movedim(0, 2), x.diagonal(0, 1, 2), x.tril()),
    "selection": lambda t, x: (t.where(x > 0, x, 0.0), x.masked_fill(x > 0, 2.0), x.clamp(-0.5, 0.5)),
    "gather": lambda t, x: (x.gather(-1, (x > 0).long()), t.zeros_like(x).scatter(-1, (x > 0).long(), x)),
    "index_select": lambda t, x: (x.index_select(1, t.tensor([0, 2])), t.index_select(x, -1, t.tensor([5]))),
    "logic": lambda t, x: ((x > 0).any(), (x > 0).all(1), x.isfinite(), (x > 0) & (x < 0.5)),
    "softmax": lambda t, x: (x.softmax(0), F[t].log_softmax(x, -1), x.logsumexp(1)),
    "activations": lambda t, x: (
        F[t].gelu(x), F[t].silu(x), F[t].elu(x),
        F[t].glu(x, -1), F[t].prelu(x, x.new_ones(1)),
    ),
    "layer_norm": lambda t, x: (F[t].layer_norm(x, (6,), x[0, 0], x[0, 1]), F[t].layer_norm(x, (3, 6))),
    "group_norm": lambda t, x: F[t].group_norm(x, 3, x[0, :, 0], x[1, :, 0]),
    "batch_norm": lambda t, x: F[t].batch_norm(x, None, None, x[0, :, 0], None, training=True),
    "instance_norm": lambda t, x: F[t].instance_norm(x),
    "pools": lambda t, x: (F[t].max_pool2d(x, 2), F[t].avg_pool1d(x, 2), F[t].adaptive_avg_pool2d(x, 2)),
    "pad": lambda t, x: (
        F[t].pad(x, (1, 2)), F[t].pad(x, (1, 1, 1, 1), mode="reflect"),
        F[t].pad(x, (1, 1), mode="circular"),
    ),
    "interpolate": lambda t, x: (
        F[t].interpolate(x, scale_factor=2),
        F[t].interpolate(x[None], (5, 4), mode="bilinear"),
    ),
    "conv2d": lambda t, x: (
        F[t].conv2d(x, x[:, None, :2, :2].repeat(1, 2, 1, 1)),
        F[t].conv2d(x, t.ones(4, 2, 2, 2, dtype=x.dtype)),
    ),
    "conv1d by groups": lambda t, x: F[t].conv1d(x, x[:1, :, :2].reshape(3, 1, 2), x[0, :, 0], padding=1, groups=3),
    "conv_transpose2d": lambda t, x: F[t].conv_transpose2d(x[None], t.ones(2, 3, 2, 2, dtype=x.dtype), stride=2),
    "linear": lambda t, x: (F[t].linear(x, x[0], x[0, :, 0]), F[t].linear(x, t.ones(2, 6, dtype=x.dtype))),
    "attention": lambda t, x: (
        F[t].scaled_dot_product_attention(x, x * 2, x), F[t].scaled_dot_product_attention(x, x, x, is_causal=True)
    ),
    "losses": lambda t, x: (
        F[t].mse_loss(x, x.flip(0)), F[t].smooth_l1_loss(x, x * 2), F[t].kl_div(x.log_softmax(-1), x.softmax(-1)),
        F[t].binary_cross_entropy_with_logits(x, (x > 0).double()),
    ),
    "cosine_similarity": lambda t, x: F[t].cosine_similarity(x[0], x[1], -1),
    "one_hot": lambda t, x: F[t].one_hot((x > 0).long(), 3),
    "arithmetic": lambda t, x: (x**2 / (x + 3), x % 2, t.maximum(x, x.mean()), t.lerp(x, x * 2, 0.3), -x.abs()),
    "dtypes": lambda t, x: (x.float() * x.sum(), x[0, 0, 0] * t.ones(3), x.long() + 1, x.sum() > 0),
    "constants": lambda t, x: (x + t.arange(6), t.ones(3, 6, dtype=x.dtype) - x, 2 - x, t.full((2,), 1.0) + x[0, 0, 0]),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_under_vmap(name):
    both(lambda t, f, x: f.vmap(lambda x: FUNCTIONS[name](t, x))(x), SIX, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n != "one_hot"])  # PyTorch cannot do that one
def test_gradient_under_vmap(name):
    def gradient(t, f, x):
        def total(x):
            outs = FUNCTIONS[name](t, x)
            outs = outs if isinstance(outs, tuple) else (outs,)
            return sum((o.double() * o.double()).sum() for o in outs if o.dtype in (t.float32, t.float64))

        return f.vmap(f.grad(lambda x: total(x) + (x * 0).sum()))(x)

    both(gradient, SIX, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{}, {"label_smoothing": 0.1}, {"ignore_index": 1}, {"reduction": "sum"}, {"weight": 1}]
)
def test_cross_entropy_per_sample(options):
    weight = draw("weight", 3, low=0.5)

    def gradients(t, f, x, y, w):
        extra = {**options, "weight": w} if "weight" in options else options
        return f.vmap(f.grad(lambda x, y: F[t].cross_entropy(x, y, **extra)))(x, y)

    both(gradients, draw("logits", 5, 2, 3, 6), LABELS, weight)


LINEAR_ALGEBRA = {
    "inv": lambda t, x: t.linalg.inv(x),
    "det": lambda t, x: (t.linalg.det(x), t.linalg.slogdet(x)[1]),
    "solve": lambda t, x: (t.linalg.solve(x, x.mT), t.linalg.solve(x, x[0])),
    "solve by a constant": lambda t, x: t.linalg.solve(t.eye(3, dtype=x.dtype) * 2, x),
    "cholesky": lambda t, x: t.linalg.cholesky(x @ x.mT),
    "svd": lambda t, x: t.linalg.svdvals(x),
    "eigh": lambda t, x: t.linalg.eigvalsh(x + x.mT),
    "matrix_exp": lambda t, x: t.matrix_exp(x),
    "matrix_norm": lambda t, x: t.linalg.matrix_norm(x),
    "trace": lambda t, x: x.diagonal().sum(),
}


@pytest.mark.parametrize("name", LINEAR_ALGEBRA)
def test_linear_algebra_under_vmap(name):
    both(lambda t, f, x: f.vmap(lambda x: LINEAR_ALGEBRA[name](t, x))(x), SQUARE, rtol=1e-7, atol=1e-9)
    both(
        lambda t, f, x: f.vmap(f.jacrev(lambda x: _first(LINEAR_ALGEBRA[name](t, x))))(x), SQUARE, rtol=1e-6, atol=1e-8
    )


def _first(out):
    return out[0] if isinstance(out, tuple) else out


# -- modules -----------------------------------------------------------------------------------------------------
def networks(library):
    n = library.nn
    return {
        "mlp": lambda: n.Sequential(n.Linear(6, 8), n.ReLU(), n.Linear(8, 3)),
        "norms": lambda: n.Sequential(n.Linear(6, 8), n.LayerNorm(8), n.GELU(), n.Linear(8, 3)),
        "conv": lambda: n.Sequential(
            n.Unflatten(1, (1, 2, 3)), n.Conv2d(1, 4, 2, padding=1), n.GroupNorm(2, 4), n.ReLU(inplace=True),
            n.Conv2d(4, 4, 2, groups=2), n.Flatten(), n.Linear(24, 3),
        ),
        "attention": lambda: n.Sequential(
            n.Unflatten(1, (3, 2)), n.TransformerEncoderLayer(2, 1, 4, dropout=0.0, batch_first=True), n.Flatten(),
            n.Linear(6, 3),
        ),
    }  # fmt: skip


def pair(name):
    """A network in both libraries with the same weights."""
    torch.manual_seed(0)
    there = networks(torch)[name]().double().train()
    here = networks(fb)[name]().double().train()
    here.load_state_dict({k: v.detach().numpy() for k, v in there.state_dict().items()})
    return here, there


@pytest.mark.parametrize("name", ["mlp", "norms", "conv", "attention"])
def test_per_sample_gradients(name):
    here, there = pair(name)
    x, y = draw("inputs", 5, 6), np.array([0, 1, 2, 0, 1])

    def gradients(t, f, model, x, y):
        parameters = {k: v.detach() for k, v in model.named_parameters()}

        def loss(p, x, y):
            return F[t].cross_entropy(f.functional_call(model, p, (x.unsqueeze(0),)), y.unsqueeze(0))

        return f.vmap(f.grad_and_value(loss), (None, 0, 0))(parameters, x, y)

    expected = gradients(torch, torch.func, there, *theirs((x, y)))
    same(gradients(fb, fb.func, here, *ours((x, y))), expected, 1e-7, 1e-9)


@pytest.mark.parametrize("name", ["mlp", "norms", "conv"])
def test_ensemble(name):
    made = [pair(name) for _ in range(3)]
    for k, (here, there) in enumerate(made):
        with torch.no_grad():
            for p, q in zip(here.parameters(), there.parameters(), strict=True):
                q.mul_(1 + 0.1 * k)
                p.data.array[...] = q.detach().numpy()
    x = draw("inputs", 5, 6)

    def outputs(f, models, x):
        state = f.stack_module_state(models)
        return state, f.vmap(lambda p, b, x: f.functional_call(models[0], (p, b), (x,)), (0, 0, None))(*state, x)

    expected = outputs(torch.func, [m[1] for m in made], torch.from_numpy(x))
    same(outputs(fb.func, [m[0] for m in made], fb.from_numpy(x)), expected, 1e-7, 1e-9)


# -- torch.autograd.functional -----------------------------------------------------------------------------------
def two(t):
    return lambda a, b: (a * b.exp(), (a * a).sum())


AUTOGRAD = {
    "vjp": lambda t, a, x, y: a.vjp(lambda x: x.sin(), x, y),
    "vjp of several": lambda t, a, x, y: a.vjp(two(t), (x, y), (y, y.sum())),
    "vjp without v": lambda t, a, x, y: a.vjp(lambda x: x.sin().sum(), x),
    "jvp": lambda t, a, x, y: a.jvp(lambda x: x.sin() * x.sum(), x, y),
    "jvp of several": lambda t, a, x, y: a.jvp(two(t), (x, y), (y, x)),
    "jacobian": lambda t, a, x, y: a.jacobian(lambda x: t.outer(x, x.sin()), x),
    "jacobian of several": lambda t, a, x, y: a.jacobian(two(t), (x, y)),
    "jacobian, vectorized": lambda t, a, x, y: a.jacobian(two(t), (x, y), vectorize=True),
    "jacobian, forward": lambda t, a, x, y: a.jacobian(two(t), (x, y), vectorize=True, strategy="forward-mode"),
    "jacobian, unused": lambda t, a, x, y: a.jacobian(lambda x, y: x * 2, (x, y)),
    "hessian": lambda t, a, x, y: a.hessian(lambda x: (x.sin() * x.sum()).sum(), x),
    "hessian of several": lambda t, a, x, y: a.hessian(lambda x, y: (x * y * x).sum(), (x, y)),
    "hessian, vectorized": lambda t, a, x, y: a.hessian(lambda x, y: (x * y * x).sum(), (x, y), vectorize=True),
    "vhp": lambda t, a, x, y: a.vhp(lambda x: (x.sin() * x.sum()).sum(), x, y),
    "vhp of several": lambda t, a, x, y: a.vhp(lambda x, y: (x * y * x).sum(), (x, y), (y, x)),
    "hvp": lambda t, a, x, y: a.hvp(lambda x: (x.sin() * x.sum()).sum(), x, y),
    "hvp of several": lambda t, a, x, y: a.hvp(lambda x, y: (x * y * x).sum(), (x, y), (y, x)),
}


@pytest.mark.parametrize("name", AUTOGRAD)
def test_autograd_functional(name):
    from torch.autograd import functional

    expected = AUTOGRAD[name](torch, functional, *theirs((X, Y)))
    actual = AUTOGRAD[name](fb, fb.autograd.functional, *ours((X, Y)))
    if name == "jacobian, forward":  # PyTorch gives lists here, and tuples everywhere else
        expected = tuple(map(tuple, expected))
    same(actual, expected)


@pytest.mark.parametrize("name", ["vjp", "jvp", "jacobian", "hessian", "vhp", "hvp"])
def test_signature(name):
    here = inspect.signature(getattr(fb.autograd.functional, name)).parameters
    there = inspect.signature(getattr(torch.autograd.functional, name)).parameters
    assert [(p.name, p.default) for p in here.values()] == [(p.name, p.default) for p in there.values()]


def test_create_graph():
    def gradient(t, a, x):
        x = x.requires_grad_()
        a.jacobian(lambda x: x**3, x, create_graph=True).sum().backward()
        return x.grad

    expected = gradient(torch, torch.autograd.functional, torch.from_numpy(X.copy()))
    same(gradient(fb, fb.autograd.functional, fb.from_numpy(X.copy())), expected)


@pytest.mark.parametrize(
    "call",
    [
        lambda t, a, x: a.jacobian(lambda x: t.zeros(2), x, strict=True),
        lambda t, a, x: a.vjp(lambda x: x * 2, x),
        lambda t, a, x: a.vjp(lambda x: x * 2, x, x[:2]),
        lambda t, a, x: a.hvp(lambda x: x * 2, x, x),
        lambda t, a, x: a.jacobian(lambda x, y: x * 2, (x, x), strict=True),
        lambda t, a, x: a.jacobian(lambda x: x * 2, x, strict=True, vectorize=True),
    ],
)
def test_functional_errors(call):
    with pytest.raises(RuntimeError):
        call(torch, torch.autograd.functional, torch.from_numpy(X))
    with pytest.raises(RuntimeError):
        call(fb, fb.autograd.functional, fb.from_numpy(X))


ERRORS = {
    "not a scalar": (RuntimeError, lambda t, f, x: f.grad(lambda x: x * 2)(x)),
    "argnums out of range": (RuntimeError, lambda t, f, x: f.grad(lambda x: x.sum(), 3)(x)),
    "argnums twice": (RuntimeError, lambda t, f, x: f.grad(lambda x, y: x.sum(), (0, 0))(x, x)),
    "aux missing": (RuntimeError, lambda t, f, x: f.grad(lambda x: x.sum(), has_aux=True)(x)),
    "tangent of another shape": (RuntimeError, lambda t, f, x: f.jvp(t.sin, (x,), (x[:2],))),
    "item": (RuntimeError, lambda t, f, x: f.vmap(lambda x: t.tensor(x.item()))(x)),
    "if": (RuntimeError, lambda t, f, x: f.vmap(lambda x: x if x > 0 else -x)(x)),
    "nonzero": (RuntimeError, lambda t, f, x: f.vmap(lambda x: t.nonzero(x))(x)),
    "mask": (RuntimeError, lambda t, f, x: f.vmap(lambda x: x.expand(2)[x.expand(2) > 0])(x)),
    "randomness": (RuntimeError, lambda t, f, x: f.vmap(lambda x: x + t.randn(2))(x)),
    "another randomness": (RuntimeError, lambda t, f, x: f.vmap(lambda x: x, randomness="yes")(x)),
    "sizes": (ValueError, lambda t, f, x: f.vmap(lambda x, y: x)(x, x[:2])),
    "nothing batched": (ValueError, lambda t, f, x: f.vmap(lambda x: x, None)(x)),
    "in_dims of another structure": (ValueError, lambda t, f, x: f.vmap(lambda x: x, (0, 0))(x)),
    "in_dim out of range": (ValueError, lambda t, f, x: f.vmap(lambda x: x, 1)(x)),
    "in_dim of a number": (ValueError, lambda t, f, x: f.vmap(lambda x, y: x, (0, 0))(x, 3)),
    "no arguments": (ValueError, lambda t, f, x: f.vmap(lambda: x)()),
    "out_dims": (ValueError, lambda t, f, x: f.vmap(lambda x: (x, x), 0, (0, 0, 0))(x)),
    "chunk_size": (ValueError, lambda t, f, x: f.vmap(lambda x: x, chunk_size=0)(x)),
    "unbatched in place": (RuntimeError, lambda t, f, x: f.vmap(lambda x: t.zeros(()).add_(x))(x)),
    "requires_grad_": (RuntimeError, lambda t, f, x: f.vmap(lambda x: x.requires_grad_())(x)),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    kind, call = ERRORS[name]
    with pytest.raises(kind):
        call(torch, torch.func, torch.from_numpy(X))
    with pytest.raises(kind):
        call(fb, fb.func, fb.from_numpy(X))


def test_signatures():
    for name in fb.func.__all__:
        here = inspect.signature(getattr(fb.func, name)).parameters
        there = inspect.signature(getattr(torch.func, name)).parameters
        assert [(p.name, p.default, p.kind) for p in here.values()] == [
            (p.name, p.default, p.kind) for p in there.values()
        ], name


@pytest.mark.parametrize("function", ["square", "exp", "abs", "product"])
def test_gradcheck_agrees_on_complex_functions(function):
    calls = {
        "square": lambda z: z * z, "exp": lambda z: z.exp(), "abs": lambda z: z.abs(),
        "product": lambda z: (z * z.conj()).real,
    }  # fmt: skip
    z = draw("z", 3) + 1j * draw("w", 3)
    assert torch.autograd.gradcheck(calls[function], torch.from_numpy(z).requires_grad_())
    assert fb.autograd.gradcheck(calls[function], fb.from_numpy(z).requires_grad_())
