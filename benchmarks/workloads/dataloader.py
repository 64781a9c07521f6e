"""An epoch over 2048 images of 3x64x64 bytes: to float, in batches of 64, by each library's own loader, 2 processes."""

import importlib

import numpy as np

ITEMS = (2048, "images")
COMPILES = False


class Images:
    """A dataset for either library; the library is kept by name, so that it travels to any kind of process."""

    def __init__(self, library: str):
        self.library = library
        generator = np.random.default_rng(0)
        self.images = generator.integers(0, 256, (ITEMS[0], 3, 64, 64), dtype=np.uint8)
        self.labels = generator.integers(0, 10, ITEMS[0])

    def __len__(self) -> int:
        return ITEMS[0]

    def __getitem__(self, index):
        torch = importlib.import_module(self.library)
        return torch.from_numpy(self.images[index]).float().div(255.0), int(self.labels[index])


def make(torch, device):
    images = Images(torch.__name__)
    loader = torch.utils.data.DataLoader(images, batch_size=64, num_workers=2, persistent_workers=True)

    def step():
        total = labels = 0.0
        for x, y in loader:
            total += x[-1, 0].sum().item()
            labels += y.sum().item()
        return total, labels

    return step
