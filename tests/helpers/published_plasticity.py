"""The rule of Krotov and Hopfield as they write it, to compare with."""

import torch


def dense(patches, filters, p, m, delta, ranking="current"):
    """The published rule, term by term: all currents, all ranks, a gain for every unit and patch."""
    v, W = patches.double(), filters.double()
    norms = v.abs().pow(p).sum(dim=1, keepdim=True).pow(1 / p)
    v = torch.where(norms > 0, v / norms, 0)
    currents = torch.einsum("kd,pd->pk", W.abs().pow(p - 2) * W, v)
    scores = currents
    if ranking == "activity":
        scores = currents / W.abs().pow(p).sum(dim=1).pow((p - 1) / p)
    order = scores.sort(dim=1, descending=True, stable=True).indices
    gains = torch.zeros_like(currents)
    gains.scatter_(1, order[:, :1], 1.0)
    gains.scatter_(1, order[:, m - 1 : m], -delta)
    change = v[:, None] - currents[:, :, None] * W  # (P, F, D)
    return torch.einsum("pk,pkd->kd", gains, change)


def assert_agrees(result, expected, tolerance=1e-5):
    assert (result.double() - expected).abs().max() <= tolerance * expected.abs().max()
