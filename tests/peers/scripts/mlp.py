"""A multi-layer perceptron that classifies handwritten digits."""

import argparse
import json

import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset


class MLP(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, width),
            nn.LayerNorm(width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 10),
        )

    def forward(self, x):
        return self.layers(x)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--create", action="store_true")
    args = parser.parse_args()

    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, args.dtype))
    digits = load_digits()
    data = TensorDataset(torch.tensor(digits.data / 16, dtype=torch.get_default_dtype()), torch.tensor(digits.target))
    loader = DataLoader(data, batch_size=32, shuffle=False)
    model = MLP()
    if args.create:
        torch.save(model.state_dict(), args.weights)
    else:
        model.load_state_dict(torch.load(args.weights))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)

    losses = []
    for step, (x, y) in enumerate(loader):
        if step == 20:
            break
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    print(json.dumps(losses))


if __name__ == "__main__":
    main()
