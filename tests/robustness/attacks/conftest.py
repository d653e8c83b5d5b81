import pytest
import torch
from torch import nn

COUNT = 60


@pytest.fixture(scope="module")
def network():
    """A small network with kinks, in float64, where no sign hangs on rounding."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = [nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 4)]
        network = nn.Sequential(*layers).double()
        for parameter in network.parameters():
            parameter.data.mul_(3)
    return network.eval()


@pytest.fixture(scope="module")
def data(network):
    images = torch.rand(COUNT, 1, 6, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    with torch.no_grad():
        labels = network(images).argmax(dim=1)
    labels[::10] = (labels[::10] + 1) % 4  # some that are wrong to begin with
    return images, labels
