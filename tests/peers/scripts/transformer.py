"""A sequence-to-sequence transformer that learns to reverse and sort, with padding and causal masks."""

import argparse
import json
import math

import numpy as np
import torch
import torch.nn as nn


class PositionalEncoding(nn.Module):
    def __init__(self, d_model, max_len=64):
        super().__init__()
        position = torch.arange(max_len).unsqueeze(1)
        div_term = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
        pe = torch.zeros(max_len, 1, d_model)
        pe[:, 0, 0::2] = torch.sin(position * div_term)
        pe[:, 0, 1::2] = torch.cos(position * div_term)
        self.register_buffer("pe", pe)

    def forward(self, x):
        return x + self.pe[: x.size(0)]


class Seq2Seq(nn.Module):
    def __init__(self, tokens=12, d_model=32):
        super().__init__()
        self.source = nn.Embedding(tokens, d_model, padding_idx=0)
        self.target = nn.Embedding(tokens, d_model, padding_idx=0)
        self.position = PositionalEncoding(d_model)
        self.transformer = nn.Transformer(d_model, nhead=4, num_encoder_layers=2, num_decoder_layers=2,
                                          dim_feedforward=64, dropout=0.0, activation="gelu")  # fmt: skip
        self.generator = nn.Linear(d_model, tokens)
        self.scale = d_model**0.5

    def forward(self, src, tgt):
        mask = nn.Transformer.generate_square_subsequent_mask(tgt.size(0)).to(self.position.pe.dtype)
        hidden = self.transformer(
            self.position(self.source(src) * self.scale),
            self.position(self.target(tgt) * self.scale),
            tgt_mask=mask,
            src_key_padding_mask=(src == 0).transpose(0, 1),
            memory_key_padding_mask=(src == 0).transpose(0, 1),
        )
        return self.generator(hidden)


def batches(seed):
    rng = np.random.default_rng(seed)
    while True:
        src = np.zeros((8, 16), dtype=np.int64)
        tgt = np.zeros((9, 16), dtype=np.int64)
        tgt[0] = 1
        for b in range(16):
            n = rng.integers(4, 9)
            word = rng.integers(2, 12, n)
            src[:n, b] = word
            tgt[1 : n + 1, b] = word[::-1]
        yield torch.from_numpy(src), torch.from_numpy(tgt)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--create", action="store_true")
    args = parser.parse_args()

    torch.manual_seed(0)
    model = Seq2Seq().to(getattr(torch, args.dtype))
    if args.create:
        torch.save(model.state_dict(), args.weights)
    else:
        model.load_state_dict(torch.load(args.weights, weights_only=True))
    optimizer = torch.optim.Adam(model.parameters(), lr=1.0, betas=(0.9, 0.98), eps=1e-9)
    warmup = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: 32**-0.5 * min((s + 1) ** -0.5, (s + 1) * 100**-1.5)
    )
    criterion = nn.CrossEntropyLoss(ignore_index=0, reduction="sum")

    losses = []
    for _, (src, tgt) in zip(range(20), batches(0)):
        logits = model(src, tgt[:-1])
        gold = tgt[1:]
        loss = criterion(logits.permute(1, 2, 0), gold.t()) / (gold != 0).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        warmup.step()
        losses.append(loss.item())
    print(json.dumps(losses))


if __name__ == "__main__":
    main()
