"""Adversarial radii by FGSM against a loop by hand, and PGD against torchattacks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchattacks
from benchmarks.timing import Run, processor, ratio, rounds
from rich.console import Console
from torch import Tensor
from torch.nn import functional

from lightning_attractors.data import MNISTDataModule
from lightning_attractors.models import BackpropCNN
from lightning_attractors.robustness import fgsm_radii, pgd_radii

# Scan and tolerance of our radii, and on how many images the loop by hand is timed.
SCAN, TOLERANCE, ATTACKED, BY_HAND, PGD_STEPS, PGD_BATCH = 1 / 255, 1e-6, 10_000, 100, 40, 256


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and test images of MNIST with labels, if they are in ``data``; bright bands otherwise."""
    if Path("data/MNIST").is_dir():
        data = MNISTDataModule(root="data")
        data.setup()
        train, test = data.datasets["train"], data.datasets["test"]
        return (*train.__getitems__(range(len(train))), *test.__getitems__(range(ATTACKED)))
    labels = torch.arange(2 * ATTACKED) % 10
    images = 0.4 * torch.rand(len(labels), 1, 28, 28)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 4 + 2 * label : 6 + 2 * label] += 0.4
    return images[ATTACKED:], labels[ATTACKED:], images[:ATTACKED], labels[:ATTACKED]


def trained_cnn(images: Tensor, labels: Tensor) -> BackpropCNN:
    """A small CNN after one epoch."""
    torch.manual_seed(0)
    model = BackpropCNN(10, (1, 28, 28), grid=4, kernel_size=5, activation="ReLU", power=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for rows in torch.randperm(len(images)).split(250):
        optimizer.zero_grad()
        functional.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


def fails(model: torch.nn.Module, image: Tensor, label: Tensor, strength: float) -> bool:
    """Whether FGSM of one strength succeeds on one image."""
    moved = torchattacks.FGSM(model, eps=strength)(image, label)
    return bool(model(moved).argmax(dim=1) != label)


def radius_by_hand(model: torch.nn.Module, image: Tensor, label: Tensor) -> float:
    """The FGSM radius of one image: one strength after another, then bisection."""
    steps = round(1 / SCAN)
    if bool(model(image).argmax(dim=1) != label):
        return 0.0
    first = next((i for i in range(1, steps + 1) if fails(model, image, label, i * SCAN)), None)
    if first is None:
        return float("inf")
    lower, upper = (first - 1) * SCAN, first * SCAN
    while upper - lower > TOLERANCE:
        middle = (lower + upper) / 2
        lower, upper = (lower, middle) if fails(model, image, label, middle) else (middle, upper)
    return upper


def timed(run: Callable[[], Tensor]) -> tuple[Tensor, float, float]:
    """What a function gives, and the seconds it took: by the clock, and of processors."""
    start, processors = time.perf_counter(), time.process_time()
    found = run()
    return found, time.perf_counter() - start, time.process_time() - processors


def pgd_in_batches(model: torch.nn.Module, images: Tensor, labels: Tensor) -> Run:
    """The loop of torchattacks, which takes all steps with all images."""
    attack = torchattacks.PGD(model, eps=0.3, alpha=SCAN, steps=PGD_STEPS, random_start=False)

    def run() -> None:
        for part, of in zip(images.split(PGD_BATCH), labels.split(PGD_BATCH), strict=True):
            attack(part, of)

    return run


def robustness(count: int) -> None:
    """FGSM radii of 10,000 images against a loop by hand, and PGD against torchattacks."""
    train, train_labels, images, labels = digits()
    model = trained_cnn(train, train_labels)
    accuracy = float((model(images).argmax(dim=1) == labels).double().mean())
    console = Console()
    console.print(f"CNN with accuracy {accuracy:.4f}; {processor()}")
    ours, seconds, work = timed(lambda: fgsm_radii(model, images, labels, 1.0, SCAN, TOLERANCE).radii)
    rows = torch.arange(BY_HAND) * (len(images) // BY_HAND)
    theirs, slow, slow_work = timed(
        lambda: torch.tensor([radius_by_hand(model, images[[i]], labels[[i]]) for i in rows.tolist()])
    )
    # the hand's own rounding, and images at which a strength is a tie
    same = int(torch.isclose(ours[rows], theirs.double(), atol=1e-5, rtol=0).sum())
    share = len(images) / BY_HAND
    console.print(
        f"FGSM radii to {TOLERANCE:g}, {len(images)} images: {seconds:.1f} s ({work:.1f} s of processors); "
        f"by hand {slow * share:.0f} s ({slow_work * share:.0f} s), extrapolated from {BY_HAND} images, of "
        f"which {same} have the same radius: {slow * share / seconds:.0f} times faster "
        f"({slow_work * share / work:.0f} times less work)"
    )
    kept, of = images[: 8 * PGD_BATCH], labels[: 8 * PGD_BATCH]
    steps = pgd_radii(model, kept, of, 0.3, SCAN, PGD_STEPS).steps
    # an image is found to be wrong where its gradient would be taken next
    needed = int(torch.where(steps < 0, PGD_STEPS, (steps + 1).clamp(max=PGD_STEPS)).sum())
    variants: dict[str, Run] = {
        "ours": lambda: pgd_radii(model, kept, of, 0.3, SCAN, PGD_STEPS, PGD_BATCH),
        "torchattacks": pgd_in_batches(model, kept, of),
    }
    times = rounds(variants, count)
    taken = {"ours": needed, "torchattacks": PGD_STEPS * len(kept)}
    for name, values in times.items():
        console.print(
            f"PGD, {PGD_STEPS} steps, {len(kept)} images, batch {PGD_BATCH}, {name}: "
            f"{statistics.median(values):.2f} s for {taken[name]} gradients"
        )
    each = {name: [value / taken[name] for value in values] for name, values in times.items()}
    console.print(f"ours / torchattacks, per gradient: {ratio(each['ours'], each['torchattacks']):.2f}")
