"""A character-level LSTM language model, truncated backpropagation through time, tied weights."""

import argparse
import json
import math

import torch
from torch import nn, optim

TEXT = """The quick brown fox jumps over the lazy dog. Pack my box with five dozen liquor jugs. How vexingly quick daft
zebras jump! Sphinx of black quartz, judge my vow. The five boxing wizards jump quickly. Jackdaws love my big sphinx of
quartz. We promptly judged antique ivory buckles for the next prize. A mad boxer shot a quick, gloved jab to the jaw of
his dizzy opponent. Amazingly few discotheques provide jukeboxes. My girl wove six dozen plaid jackets."""


class Model(nn.Module):
    def __init__(self, vocabulary, size, layers):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, size)
        self.lstm = nn.LSTM(size, size, num_layers=layers, batch_first=True)
        self.head = nn.Linear(size, vocabulary)
        self.head.weight = self.embedding.weight
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens, state=None):
        hidden, state = self.lstm(self.embedding(tokens), state)
        return self.head(hidden), state


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--create", action="store_true")
    args = parser.parse_args()

    torch.manual_seed(0)
    symbols = sorted(set(TEXT))
    tokens = torch.tensor([symbols.index(c) for c in TEXT * 4], dtype=torch.long)
    batch, length = 4, 16
    columns = tokens[: tokens.size(0) // batch * batch].view(batch, -1).contiguous()
    model = Model(len(symbols), 32, 2)
    if args.dtype == "float64":
        model = model.double()
    if args.create:
        torch.save(model.state_dict(), args.weights)
    else:
        print(model.load_state_dict(torch.load(args.weights, map_location="cpu"), strict=True) and "", end="")
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=1e-2, betas=(0.9, 0.99), eps=1e-8)

    losses, state = [], None
    for step in range(20):
        x = columns[:, step * length : (step + 1) * length]
        y = columns[:, step * length + 1 : (step + 1) * length + 1]
        if state is not None:
            state = tuple(s.detach() for s in state)
        logits, state = model(x, state)
        loss = criterion(logits.reshape(-1, len(symbols)), y.reshape(-1))
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), 0.5)
        optimizer.step()
        losses.append(loss.item())
    assert math.isfinite(losses[-1])
    print(json.dumps(losses))


if __name__ == "__main__":
    main()
