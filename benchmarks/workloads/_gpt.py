"""A GPT (Radford et al. 2019): pre-norm blocks, learned positions, output weights tied to the embedding."""


class Cache:
    """Keys and values of all layers in buffers for `capacity` tokens: written in place, read as views."""

    def __init__(self, capacity: int):
        self.capacity, self.length, self.buffers = capacity, 0, {}

    def extend(self, torch, layer: int, key, value):
        if layer not in self.buffers:
            shape = (*key.shape[:2], self.capacity, key.shape[3])
            self.buffers[layer] = [torch.empty(shape, device=key.device) for _ in range(2)]
        stop = self.length + key.shape[2]
        for buffer, new in zip(self.buffers[layer], (key, value), strict=True):
            buffer[:, :, self.length : stop] = new
        return [buffer[:, :, :stop] for buffer in self.buffers[layer]]


def gpt(torch, vocabulary: int, length: int, layers: int, width: int, heads: int):
    """`model(tokens, cache=None, last=False)` gives logits; a `cache` is read and extended."""
    nn = torch.nn
    attend = nn.functional.scaled_dot_product_attention

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
            batch, count, _ = x.shape
            q, k, v = (
                part.view(batch, count, heads, width // heads).transpose(1, 2)
                for part in self.qkv(self.ln_1(x)).split(width, dim=2)
            )
            if cache is not None:
                k, v = cache.extend(torch, layer, k, v)
            y = attend(q, k, v, is_causal=count > 1)  # with a past there is one new token: it sees everything
            x = x + self.proj(y.transpose(1, 2).reshape(batch, count, width))
            return x + self.mlp(self.ln_2(x))

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.wte = nn.Embedding(vocabulary, width)
            self.wpe = nn.Embedding(length, width)
            self.blocks = nn.ModuleList(Block() for _ in range(layers))
            self.ln_f = nn.LayerNorm(width)

        def forward(self, tokens, cache=None, last=False):
            start = cache.length if cache is not None else 0
            positions = torch.arange(start, start + tokens.shape[1], device=tokens.device)
            x = self.wte(tokens) + self.wpe(positions)
            for layer, block in enumerate(self.blocks):
                x = block(x, cache, layer)
            if cache is not None:
                cache.length += tokens.shape[1]
            if last:
                x = x[:, -1:]
            if hasattr(self.wte, "unembed"):  # quantized
                return self.wte.unembed(self.ln_f(x))
            return nn.functional.linear(self.ln_f(x), self.wte.weight)

    return GPT()


def gpt2(torch):
    """The size of GPT-2 small: 124 million parameters."""
    return gpt(torch, vocabulary=50257, length=1024, layers=12, width=768, heads=12)
