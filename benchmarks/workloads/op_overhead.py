"""`((x * w) + b).relu()` on 10 elements, forward and backward: what the bookkeeping of an op costs."""

from ._common import array


def make(torch, device):
    x = torch.from_numpy(array(10, seed=1)).to(device)
    w = torch.from_numpy(array(10, seed=2)).to(device).requires_grad_()
    b = torch.from_numpy(array(10, seed=3)).to(device).requires_grad_()

    def step() -> float:
        w.grad = b.grad = None
        loss = ((x * w) + b).relu().sum()
        loss.backward()
        return w.grad.sum().item()

    return step
