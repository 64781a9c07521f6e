"""ResNet-18 on one 224x224 image."""

from ._common import Call, array, set_weights
from ._resnet import resnet18

ITEMS = (1, "images")


def make(torch, device):
    model = set_weights(torch, resnet18(torch), device).eval()
    x = torch.from_numpy(array(1, 3, 224, 224)).to(device)

    def step(x):
        with torch.no_grad():
            return model(x)

    return Call(step, x)
