"""A search for counterexamples to certificates, in float32 as the network runs, never outside the set."""

import torch


def inner_box(images, radii, bounds=None):
    """The float32 numbers of the box around float32 images, whose ends are float64."""
    radii = radii.view(-1, *[1] * (images.dim() - 1))
    lower, upper = images.double() - radii, images.double() + radii
    if bounds is not None:
        lower, upper = lower.clamp(min=bounds[0]), upper.clamp(max=bounds[1])
    low, high = lower.float(), upper.float()
    low = torch.where(low.double() < lower, low.nextafter(torch.tensor(torch.inf)), low)
    high = torch.where(high.double() > upper, high.nextafter(torch.tensor(-torch.inf)), high)
    return low, high


def smallest(score, low, high, restarts=6, steps=12):
    """The smallest score (B,) found in boxes: random points, vertices, gradient descent and line searches.

    Args:
        score: takes inputs (B, ...), gives the number of each to make small, differentiably.
        low: float32.
        high: float32.
    """
    best = torch.full((len(low),), torch.inf)
    middle = low + (high - low) / 2
    for restart in range(restarts):
        share = torch.rand_like(low)
        x = low + (high - low) * (share.round() if restart % 2 else share)
        for step in range(steps):
            x = x.clamp(low, high).requires_grad_()
            with torch.enable_grad():
                found = score(x)
                (slope,) = torch.autograd.grad(found.sum(), x)
            best = torch.minimum(best, found.detach())
            # whole vertices first, then ever smaller steps
            x = x.detach() - slope.sign() * (high - low) * 0.7**step
        for share in (0.25, 0.5, 0.75, 1.0):
            point = (middle + share * (x - middle)).clamp(low, high)
            best = torch.minimum(best, score(point).detach())
    return best


def margin(model, labels):
    """The score of a classifier: by how much the label leads."""

    def score(x):
        logits = model(x)
        others = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
        return logits.gather(1, labels[:, None])[:, 0] - others

    return score
