"""A training step of a small classifier of digits: 784-256-256-10, batch 128, Adam."""

from ._common import array, integers, set_weights, train_step


def make(torch, device):
    nn = torch.nn
    model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    set_weights(torch, model, device)
    x = torch.from_numpy(array(128, 784)).to(device)
    y = torch.from_numpy(integers(10, 128)).to(device)
    return train_step(torch, model, torch.optim.Adam(model.parameters(), lr=1e-3), x, y)
