"""A training step of a small convolutional network: 32x32 colour images, batch 32, batch normalisation, SGD."""

from ._common import array, integers, set_weights, train_step


def make(torch, device):
    nn = torch.nn
    layers = []
    for inputs, outputs, stride in [(3, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2)]:
        conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))
    set_weights(torch, model, device)
    x = torch.from_numpy(array(32, 3, 32, 32)).to(device)
    y = torch.from_numpy(integers(10, 32)).to(device)
    return train_step(torch, model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9), x, y)
