"""Matrix products without gradients: squares of 512 to 2048 and the shapes of a transformer of width 768."""

from ._common import array

COMPILES = False  # one operation on what does not change: a compiler may compute it once
SHAPES = {
    "512": ((512, 512), (512, 512)),
    "1024": ((1024, 1024), (1024, 1024)),
    "2048": ((2048, 2048), (2048, 2048)),
    "projection": ((8, 128, 768), (768, 768)),
    "up": ((8, 128, 768), (768, 3072)),
    "down": ((8, 128, 3072), (3072, 768)),
    "scores": ((8, 12, 128, 64), (8, 12, 64, 128)),
    "one token": ((1, 768), (768, 3072)),
}


def make(torch, device):
    def case(left, right):
        a = torch.from_numpy(array(*left, seed=1)).to(device)
        b = torch.from_numpy(array(*right, seed=2)).to(device)
        return lambda: a @ b

    return {name: case(*shapes) for name, shapes in SHAPES.items()}
