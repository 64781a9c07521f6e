"""A small residual convolutional network for digits, with batch norm, AdamW and gradient clipping."""

import argparse
import json

import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.optim.lr_scheduler import OneCycleLR


class Block(nn.Module):
    def __init__(self, channels, out, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding="same", bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.short = nn.Conv2d(channels, out, 1, stride) if stride != 1 or channels != out else nn.Identity()

    def forward(self, x):
        h = F.relu(self.bn1(self.conv1(x)), inplace=True)
        h = self.bn2(self.conv2(h))
        h += self.short(x)
        return F.relu(h)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.blocks = nn.ModuleList([Block(8, 8), Block(8, 16, 2)])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(16, 10)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        x = F.max_pool2d(self.stem(x), 2, stride=1)
        for block in self.blocks:
            x = block(x)
        return self.head(torch.flatten(self.pool(x), 1))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--create", action="store_true")
    args = parser.parse_args()

    dtype = getattr(torch, args.dtype)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.from_numpy(digits.images / 16).unsqueeze(1).to(device, dtype)
    labels = torch.from_numpy(digits.target).long().to(device)
    images = (images - images.mean()) / images.std()
    model = Net().to(device=device, dtype=dtype)
    if args.create:
        torch.save({"model": model.state_dict(), "note": "first weights"}, args.weights)
    else:
        checkpoint = torch.load(args.weights, map_location=device)
        model.load_state_dict(checkpoint["model"])
    decay = [p for n, p in model.named_parameters() if p.ndim > 1]
    rest = [p for n, p in model.named_parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}], lr=1e-3
    )
    scheduler = OneCycleLR(optimizer, max_lr=[3e-3, 3e-3], total_steps=20)

    losses = []
    model.train()
    for step in range(20):
        rows = slice(step * 32, (step + 1) * 32)
        loss = F.cross_entropy(model(images[rows]), labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.step()
        scheduler.step()
        losses.append(float(loss))
    model.eval()
    with torch.no_grad():
        logits = model(images[640:840])
        losses.append(F.nll_loss(logits.log_softmax(dim=1), labels[640:840]).item())
    print(json.dumps(losses))


if __name__ == "__main__":
    main()
