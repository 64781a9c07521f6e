"""A GPT (Radford et al. 2019): pre-norm blocks, learned positions, output weights tied to the embedding."""


def gpt(torch, vocabulary: int, length: int, layers: int, width: int, heads: int):
    """`model(tokens, cache=None, last=False)` gives logits; `cache`, a list of (key, value), is read and extended."""
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

        def forward(self, x, past):
            batch, count, _ = x.shape
            q, k, v = (
                part.view(batch, count, heads, width // heads).transpose(1, 2)
                for part in self.qkv(self.ln_1(x)).split(width, dim=2)
            )
            if past is not None:
                k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
            y = attend(q, k, v, is_causal=past is None)  # with a past there is one new token: it sees everything
            x = x + self.proj(y.transpose(1, 2).reshape(batch, count, width))
            return x + self.mlp(self.ln_2(x)), (k, v)

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.wte = nn.Embedding(vocabulary, width)
            self.wpe = nn.Embedding(length, width)
            self.blocks = nn.ModuleList(Block() for _ in range(layers))
            self.ln_f = nn.LayerNorm(width)

        def forward(self, tokens, cache=None, last=False):
            start = cache[0][0].shape[2] if cache else 0
            positions = torch.arange(start, start + tokens.shape[1], device=tokens.device)
            x = self.wte(tokens) + self.wpe(positions)
            pasts = list(cache) if cache else [None] * layers
            if cache is not None:
                cache.clear()
            for block, past in zip(self.blocks, pasts):
                x, new = block(x, past)
                if cache is not None:
                    cache.append(new)
            if last:
                x = x[:, -1:]
            return nn.functional.linear(self.ln_f(x), self.wte.weight)

    return GPT()


def gpt2(torch):
    """The size of GPT-2 small: 124 million parameters."""
    return gpt(torch, vocabulary=50257, length=1024, layers=12, width=768, heads=12)
