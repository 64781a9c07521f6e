"""A training step of a U-Net (Ronneberger et al. 2015; 32 to 256 channels): 4 images of 128x128, 5 classes, Adam."""

from ._common import array, integers, set_weights, train_step

ITEMS = (4, "images")


def unet(torch, widths=(32, 64, 128, 256), classes=5):
    nn = torch.nn

    def double(inputs, outputs):
        layers = []
        for channels in (inputs, outputs):
            convolution = nn.Conv2d(channels, outputs, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers)

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.down = nn.ModuleList(double(a, b) for a, b in zip((3, *widths), widths))
            pairs = list(zip(widths[:0:-1], widths[-2::-1]))
            self.grow = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairs)
            self.up = nn.ModuleList(double(2 * b, b) for _, b in pairs)
            self.pool = nn.MaxPool2d(2)
            self.head = nn.Conv2d(widths[0], classes, 1)

        def forward(self, x):
            skips = []
            for i, block in enumerate(self.down):
                x = block(x if i == 0 else self.pool(x))
                skips.append(x)
            skips.pop()
            for grow, block in zip(self.grow, self.up):
                x = block(torch.cat([grow(x), skips.pop()], dim=1))
            return self.head(x)

    return UNet()


def make(torch, device):
    model = set_weights(torch, unet(torch), device)
    x = torch.from_numpy(array(4, 3, 128, 128)).to(device)
    y = torch.from_numpy(integers(5, 4, 128, 128)).to(device)
    return train_step(torch, model, torch.optim.Adam(model.parameters(), lr=1e-4), x, y)
