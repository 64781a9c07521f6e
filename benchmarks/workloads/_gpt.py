"""A GPT (Radford et al. 2019): pre-norm blocks, learned positions, output weights tied to the embedding."""


class Cache:
    """Keys and values of all layers in buffers for `capacity` tokens: written in place, read as views."""

    def __init__(self, torch, capacity: int):
        self.torch, self.capacity, self.buffers, self.lengths = torch, capacity, {}, {0: 0}

    def attend(self, layer: int, qkv, heads: int):
        torch, (q, k, v) = self.torch, split(qkv, heads)
        batch, _, count, width = q.shape
        if layer not in self.buffers:
            shape = (batch, heads, self.capacity, width)
            self.buffers[layer] = [torch.empty(shape, device=qkv.device) for _ in range(2)]
        start = self.lengths.get(layer, 0)
        stop = self.lengths[layer] = start + count
        for buffer, new in zip(self.buffers[layer], (k, v), strict=True):
            buffer[:, :, start:stop] = new
        k, v = (buffer[:, :, :stop] for buffer in self.buffers[layer])
        return attend(torch, q, k, v)

    def positions(self, count: int, device):
        start = self.length
        return self.torch.arange(start, start + count, device=device)

    @property
    def length(self) -> int:
        return self.lengths[max(self.lengths)]

    def truncate(self, length: int):
        self.lengths = dict.fromkeys(self.lengths, length)


def new_cache(torch, layers: int, capacity: int):
    """The library's own, where it has one: PyTorch leaves it to its users."""
    if torch.__name__ == "flambeau":
        from flambeau_nlp.cache import KVCache

        return KVCache(layers, capacity)
    return Cache(torch, capacity)


def new_writer(torch, model):
    """`write(tokens, cache)` gives the logits of the next token; compiled where the library has that for a cache."""
    if torch.__name__ == "flambeau":
        from flambeau_nlp.cache import compiled_writer

        return compiled_writer(model, last=True)
    return lambda tokens, cache: model(tokens, cache=cache, last=True)


def split(qkv, heads: int):
    batch, count, width = qkv.shape
    width //= 3
    return [part.view(batch, count, heads, width // heads).transpose(1, 2) for part in qkv.split(width, dim=2)]


def attend(torch, q, k, v):
    batch, heads, count, width = q.shape
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=count > 1)  # one new token sees everything
    return y.transpose(1, 2).reshape(batch, count, heads * width)


def gpt(torch, vocabulary: int, length: int, layers: int, width: int, heads: int):
    """`model(tokens, cache=None, last=False)` gives logits; a `cache` is read and extended."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln_1 = nn.LayerNorm(width)
            self.qkv = nn.Linear(width, 3 * width)
            self.proj = nn.Linear(width, width)
            self.ln_2 = nn.LayerNorm(width)
            self.mlp = nn.Sequential(
                nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
            )

        def forward(self, x, cache, layer):
            qkv = self.qkv(self.ln_1(x))
            y = attend(torch, *split(qkv, heads)) if cache is None else cache.attend(layer, qkv, heads)
            x = x + self.proj(y)
            return x + self.mlp(self.ln_2(x))

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.wte = nn.Embedding(vocabulary, width)
            self.wpe = nn.Embedding(length, width)
            self.blocks = nn.ModuleList(Block() for _ in range(layers))
            self.ln_f = nn.LayerNorm(width)

        def forward(self, tokens, cache=None, last=False):
            count, device = tokens.shape[1], tokens.device
            positions = torch.arange(count, device=device) if cache is None else cache.positions(count, device)
            x = self.wte(tokens) + self.wpe(positions)
            for layer, block in enumerate(self.blocks):
                x = block(x, cache, layer)
            if last:
                x = x[:, -1:]
            if hasattr(self.wte, "unembed"):  # quantized
                return self.wte.unembed(self.ln_f(x))
            return nn.functional.linear(self.ln_f(x), self.wte.weight)

    return GPT()


def gpt2(torch):
    """The size of GPT-2 small: 124 million parameters."""
    return gpt(torch, vocabulary=50257, length=1024, layers=12, width=768, heads=12)


def greedy(torch, device, weights: str = "float32", prompt: int = 64, count: int = 8):
    """A workload that writes `count` tokens behind a prompt, the likeliest each time, in one precision."""
    from ._common import integers, set_weights

    model = set_weights(torch, gpt2(torch), device).eval()
    if weights != "float32" and hasattr(torch, "quantize"):
        torch.quantize.quantize_(model, weights, embeddings=["wte"])
    ids = torch.from_numpy(integers(50257, 1, prompt)).to(device)
    write, cache = new_writer(torch, model), new_cache(torch, 12, prompt + count)
    with torch.inference_mode():
        first = write(ids, cache).argmax(-1)

    def step():
        cache.truncate(prompt)
        token, logits = first, []
        with torch.inference_mode():
            for _ in range(count):
                logits.append(write(token, cache))
                token = logits[-1].argmax(-1)
        # Rounded weights give other values than the peer's; how far off is measured in docs/reports/decode.md.
        return tuple(logits) if weights == "float32" else ()

    return {weights: step}
