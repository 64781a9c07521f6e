"""A training step of ResNet-18: 32 images of 64x64, 200 classes, SGD with momentum and weight decay."""

from ._common import array, integers, set_weights, train_step
from ._resnet import resnet18

ITEMS = (32, "images")


def make(torch, device):
    model = set_weights(torch, resnet18(torch, classes=200), device)
    x = torch.from_numpy(array(32, 3, 64, 64)).to(device)
    y = torch.from_numpy(integers(200, 32)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    return train_step(torch, model, optimizer, x, y)
