"""AdamW over the 62 parameters of a ResNet-18 (11.7 million numbers), the gradients given."""

import zlib

from ._common import array, set_weights
from ._resnet import resnet18


def make(torch, device):
    model = set_weights(torch, resnet18(torch), device)
    for name, parameter in model.named_parameters():
        parameter.grad = torch.from_numpy(array(*parameter.shape, seed=zlib.crc32(name.encode()))).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    watched = model.conv1.weight, model.fc.bias

    def step():
        optimizer.step()
        return watched

    return step
