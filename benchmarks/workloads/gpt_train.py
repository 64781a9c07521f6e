"""A training step of a small GPT: 6 layers, width 384, 6 heads, 65 characters, 8 sequences of 256, AdamW, clipping."""

from ._common import integers, set_weights
from ._gpt import gpt

VOCABULARY, LENGTH, BATCH = 65, 256, 8
ITEMS = (BATCH * LENGTH, "tokens")


def make(torch, device):
    nn = torch.nn
    model = set_weights(torch, gpt(torch, VOCABULARY, LENGTH, layers=6, width=384, heads=6), device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
    tokens = torch.from_numpy(integers(VOCABULARY, BATCH, LENGTH + 1)).to(device)
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].reshape(-1)

    def step():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs).view(-1, VOCABULARY), targets)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item(), norm

    return step
