"""Is a certified basin ever left? ``python examples/studies/basin_soundness.py runs/sa_node/version_0``.

Certifies the L2 radius of test images of a finished run of SA-nODE or CVFR, given by its folder or by a
checkpoint in it, and attacks all of them at their own radii, in float64 by the unrolled map and in float32
as the model runs: random starts on the sphere, the worst directions of the first order (singular vectors of
the transition matrix at several times, gradients of the margins), and gradient descent of the margin with
restarts. Prints one table, and exits with 1 if a certificate is broken. The last column is how far from an
image its class changed, in its radii: the least of all images.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path

import finished_runs
import torch
import yaml
from torch import Tensor

from lightning_attractors import models
from lightning_attractors.certificates.flights import MOST_NODES_OF_BLOCKS, Flight
from lightning_attractors.certificates.traps import find_traps
from lightning_attractors.certificates.tube_radii import class_radii
from lightning_attractors.models import CVFR, SANODE
from lightning_attractors.models.basins import flight_of

CHUNK = 2000
# Beyond so many steps a tube is followed into a trap rather than to the end.
MANY_STEPS = 60
# Of images of many pixels, the directions of the largest singular values alone.
MOST_SINGULAR = 49
# A float32 number near a sphere may lie beyond it: starts of the model itself are drawn in by this share.
DRAWN_IN = 1e-5


def final(known: Flight, x: Tensor, steps: int) -> Tensor:
    """States after so many steps, in float64, clipped as those of the model are."""
    for _ in range(steps):
        x = known.state_step(x)
    return x


def lead(logits: Tensor, labels: Tensor) -> Tensor:
    """By how much the label is ahead, shape (n,)."""
    own = logits.gather(1, labels[:, None])[:, 0]
    return own - logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)


def margin(known: Flight, x: Tensor, labels: Tensor) -> Tensor:
    return lead(final(known, x, known.steps) @ known.readout.T + known.offsets, labels)


def random_directions(count: int, nodes: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(count, nodes, dtype=torch.float64), dim=1)


def worst_directions(known: Flight, x: Tensor, label: int) -> Tensor:
    """Directions (D, N) of unit length around one state: singular vectors, and gradients of all margins."""
    found = []
    for steps in {known.steps // 8, known.steps // 3, known.steps} - {0}:
        matrix = torch.func.jacfwd(lambda state, n=steps: final(known, state, n))(x)
        found.append(torch.linalg.svd(matrix).Vh[:MOST_SINGULAR])
    # the last one is the transition to the evaluation time
    rows = (known.readout[label] - known.readout) @ torch.func.jacfwd(
        lambda state: final(known, state, known.steps)
    )(x)
    found.append(torch.nn.functional.normalize(rows[torch.arange(len(rows)) != label], dim=1))
    one = torch.cat(found)
    return torch.cat([one, -one])


def descended(known: Flight, x: Tensor, radii: Tensor, labels: Tensor, u: Tensor, steps: int) -> Tensor:
    """Directions (n, N), along which the margin at the sphere has become smaller, after so many steps."""
    best, least = u, torch.full_like(radii, torch.inf)
    for step in range(steps + 1):
        u = u.detach().requires_grad_()
        found = margin(known, x + radii[:, None] * u, labels)
        better = found < least
        least, best = (
            torch.where(better, found.detach(), least),
            torch.where(better[:, None], u.detach(), best),
        )
        if step < steps:
            (slope,) = torch.autograd.grad(found.sum(), u)
            downhill = torch.nn.functional.normalize(slope, dim=1)
            u = torch.nn.functional.normalize(u - 2 * (1 - step / steps) ** 2 * downhill, dim=1)
    return best


class Tally:
    """What has been tried by one kind of attack: starts, counterexamples, and the smallest margin."""

    def __init__(self, model: SANODE | CVFR, known: Flight) -> None:
        self.model, self.known = model, known
        self.starts, self.broken, self.least = 0, 0, math.inf

    @torch.no_grad()
    def add(self, x: Tensor, radii: Tensor, labels: Tensor, u: Tensor) -> None:
        """Count what directions (n, N) do to states (n, N) at their radii (n,)."""
        inside = (x + (1 - DRAWN_IN) * radii[:, None] * u).float()
        running = lead(self.model(inside.view(-1, *self.model.image_shape)).double(), labels)
        exact = margin(self.known, x + radii[:, None] * u, labels)
        least = torch.minimum(running, exact)
        self.starts += len(u)
        self.broken += int((least <= 0).sum())
        self.least = min(self.least, float(least.min()))


def repeated(directions: list[Tensor], *of_images: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Directions of every image in chunks, with what there is of each image beside its own directions."""
    rows = torch.arange(len(directions)).repeat_interleave(torch.tensor([len(u) for u in directions]))
    for part, u in zip(rows.split(CHUNK), torch.cat(directions).split(CHUNK), strict=True):
        yield *(tensor[part] for tensor in of_images), u


def attacked_ratio(known: Flight, x: Tensor, radii: Tensor, labels: Tensor, u: Tensor, steps: int) -> float:
    """The least share of its radius, above 1, at which the class of any of the states (n, N) changes."""
    least = math.inf
    for factor in (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0):
        if factor > least:
            break
        u = descended(known, x, factor * radii, labels, u, steps)
        fallen = margin(known, x + factor * radii[:, None] * u, labels) <= 0
        if bool(fallen.any()):
            low, high = torch.zeros_like(radii), torch.full_like(radii, factor)
            for _ in range(20):
                middle = (low + high) / 2
                right = margin(known, x + (middle * radii)[:, None] * u, labels) > 0
                low, high = torch.where(right, middle, low), torch.where(right, high, middle)
            least = min(least, float(high[fallen].min()))
    return least


def search(model: SANODE | CVFR, images: Tensor, labels: Tensor, arguments: argparse.Namespace) -> int:
    """Certify, attack, print the table; the number of counterexamples."""
    known = flight_of(model)
    x = images.flatten(1).double()
    traps = find_traps(known) if known.steps > MANY_STEPS and x.shape[1] <= MOST_NODES_OF_BLOCKS else None
    started = time.monotonic()
    radii = class_radii(known, x, labels, traps, seconds_per_image=arguments.seconds)
    spent = time.monotonic() - started
    certified = radii > 0
    text = f"{int(certified.sum())} of {len(images)} images certified in {spent:.0f} s"
    at = f"{int((radii >= arguments.radius).sum())} at {arguments.radius}"
    x, labels, radii = x[certified], labels[certified], radii[certified]
    print(f"{text}, {at}, median radius of these {radii.median():.4g}", flush=True)
    nodes, of_images = x.shape[1], (x, radii, labels)
    jobs = {
        "random starts": [random_directions(arguments.starts, nodes) for _ in x],
        "worst directions": [worst_directions(known, *pair) for pair in zip(x, labels.tolist(), strict=True)],
        "descent from them": [random_directions(arguments.restarts, nodes) for _ in x],
    }
    tallies = {kind: Tally(model, known) for kind in jobs}
    ratio = math.inf
    for kind, directions in jobs.items():
        for state, radius, label, u in repeated(directions, *of_images):
            if kind.startswith("descent"):
                u = descended(known, state, radius, label, u, arguments.steps)
                ratio = min(ratio, attacked_ratio(known, state, radius, label, u, arguments.steps))
            tallies[kind].add(state, radius, label, u)
    print(f"{'attack':20}{'images':>8}{'starts':>10}{'counterexamples':>17}{'least margin':>14}{'ratio':>8}")
    for kind, tally in tallies.items():
        shown = f"{ratio:.3f}" if kind.startswith("descent") else ""
        print(f"{kind:20}{len(x):8}{tally.starts:10}{tally.broken:17}{tally.least:14.4g}{shown:>8}")
    return sum(tally.broken for tally in tallies.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run, or a checkpoint in it")
    parser.add_argument("--images", type=int, default=100, help="test images")
    parser.add_argument("--radius", type=float, default=0.1, help="radius to count the images at")
    parser.add_argument("--starts", type=int, default=1000, help="random starts of each image")
    parser.add_argument("--restarts", type=int, default=10, help="descents of each image")
    parser.add_argument("--steps", type=int, default=20, help="steps of a descent")
    parser.add_argument("--seconds", type=float, default=60.0, help="time to certify an image")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    run = arguments.run.parent.parent if arguments.run.suffix == ".ckpt" else arguments.run
    settings = yaml.safe_load((run / "config.yaml").read_text())
    family = getattr(models, settings["model"]["class_path"].rpartition(".")[2])
    model = finished_runs.trained(run, family)
    images, labels = finished_runs.test_images(run, arguments.images)
    if search(model, images, labels, arguments):
        raise SystemExit("A CERTIFICATE IS BROKEN")


if __name__ == "__main__":
    main()
