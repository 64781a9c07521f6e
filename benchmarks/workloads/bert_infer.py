"""An encoder of the size of BERT-base (Devlin et al. 2018; 110 million parameters): 1 and 8 sequences of 128."""

from ._common import Call, integers, set_weights

VOCABULARY, LAYERS, WIDTH, HEADS = 30522, 12, 768, 12


def encoder(torch):
    nn = torch.nn

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
            self.output = nn.Linear(WIDTH, WIDTH)
            self.norm1 = nn.LayerNorm(WIDTH, eps=1e-12)
            self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
            self.norm2 = nn.LayerNorm(WIDTH, eps=1e-12)

        def forward(self, x, mask):
            batch, count, _ = x.shape
            q, k, v = (
                part(x).view(batch, count, HEADS, WIDTH // HEADS).transpose(1, 2)
                for part in (self.query, self.key, self.value)
            )
            y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            x = self.norm1(x + self.output(y.transpose(1, 2).reshape(batch, count, WIDTH)))
            return self.norm2(x + self.down(nn.functional.gelu(self.up(x))))

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(VOCABULARY, WIDTH)
            self.positions = nn.Embedding(512, WIDTH)
            self.kinds = nn.Embedding(2, WIDTH)
            self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
            self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

        def forward(self, tokens, kinds, present):
            positions = torch.arange(tokens.shape[1], device=tokens.device)
            x = self.norm(self.words(tokens) + self.positions(positions) + self.kinds(kinds))
            mask = present[:, None, None, :]
            for layer in self.layers:
                x = layer(x, mask)
            return x

    return Encoder()


def make(torch, device):
    model = set_weights(torch, encoder(torch), device).eval()

    def case(batch):
        tokens = torch.from_numpy(integers(VOCABULARY, batch, 128)).to(device)
        kinds = torch.zeros_like(tokens)
        present = torch.arange(128, device=device)[None, :] < 128 - torch.arange(batch, device=device)[:, None]

        def step(tokens, kinds, present):
            with torch.no_grad():
                return model(tokens, kinds, present)

        return Call(step, tokens, kinds, present)

    return {"1x128": case(1), "8x128": case(8)}
