"""Speed against what it must be compared with: ``python examples/benchmark.py BENCHMARK``.

BENCHMARK is ``sa_node``, ``cvfr``, ``kh``, ``nmode``, ``nonexpansive`` or ``robustness``.

Every round times each variant once, one after the other, so that a busy machine slows all of them alike;
figures are medians over the rounds, ratios are medians of the ratios within a round.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchattacks
import yaml
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional
from torchdiffeq import odeint

from lightning_attractors.data import MNISTDataModule
from lightning_attractors.dynamics import FlowMap, KHConv2d, normalized_update
from lightning_attractors.models import CVFR, SANODE, AttractorClassifier, BackpropCNN, NonexpansiveNet
from lightning_attractors.models.base import OPTIMIZATION_SETTINGS
from lightning_attractors.robustness import fgsm_radii, pgd_radii

Run = Callable[[], object]
NODES, BATCH, EULER_STEPS = 784, 250, 55
# Krotov–Hopfield with the best published filters. Few images are timed: time goes with their number.
GRID, WIDTH, P, M, DELTA = 20, 4, 4.0, 5, 0.1
BATCH_KH, TIMED_IMAGES, TRAINING_IMAGES = 1000, 100, 50_000
# nmODE as published for MNIST.
BATCH_NMODE, NEURONS, DECAY, TIME = 256, 2048, 3.0, 1.0
# Non-expansive networks: the networks and batches of these configs.
NONEXPANSIVE = ("nonexpansive_mnist", "nonexpansive_cifar10")
CONSTRAINED_LIMIT = 1.5
# Adversarial radii: scan and tolerance of ours, and on how many images the loop by hand is timed.
SCAN, TOLERANCE, ATTACKED, BY_HAND, PGD_STEPS, PGD_BATCH = 1 / 255, 1e-6, 10_000, 100, 40, 256


def rounds(variants: dict[str, Run], count: int) -> dict[str, list[float]]:
    """Seconds of each variant in each of ``count`` rounds, after one round of warming up."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(count + 1):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in seconds.items()}


def ratio(numerator: list[float], denominator: list[float]) -> float:
    """Median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def training_step(model: AttractorClassifier, dtype: torch.dtype, images: Tensor, labels: Tensor) -> Run:
    """Our training step: forward, loss, backward and Adam."""
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            states = model.final_state(images)
        loss = (states - model.attractors[labels]).square().sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def bare_products(coupling: str, dtype: torch.dtype, euler_steps: int = EULER_STEPS) -> Run:
    """The matrix products of a training step and nothing else; for the spectral coupling its solve too."""
    states, adjoints = torch.rand(BATCH, NODES, dtype=dtype), torch.rand(BATCH, NODES, dtype=dtype)
    matrix = torch.rand(NODES, NODES, dtype=dtype)
    modes = torch.linalg.qr(torch.randn(NODES, NODES)).Q.requires_grad_()
    values = torch.randn(NODES)

    def run() -> None:
        if coupling == "spectral":
            torch.linalg.solve(modes, modes * values, left=False).sum().backward()
        for _ in range(euler_steps):
            states @ matrix.T  # forward
            adjoints @ matrix  # backward, to the states
            adjoints.T @ states  # backward, to the coupling

    return run


def published_step(images: Tensor, labels: Tensor) -> Run:
    """The published algorithm: A re-formed with a matrix inverse at every Euler step, in float64."""
    model = SANODE(coupling="spectral", steps=EULER_STEPS).double()
    optimizer = torch.optim.Adam(model.parameters())
    start = images.flatten(1).double()
    planted, planted_values = model.coupling.planted_basis(), torch.zeros(10, dtype=torch.float64)

    def step() -> None:
        x = start
        for _ in range(EULER_STEPS):
            modes = torch.cat([planted, model.coupling.eigenvectors], dim=1)
            values = torch.cat([planted_values, model.coupling.trained_eigenvalues])
            matrix = modes @ torch.diag(values) @ torch.linalg.inv(modes)
            reaction = 4 * model.gamma.abs() * x * (0.25 - x * x)
            x = (x + 0.1 * (reaction + model.beta * x @ matrix.T)).clamp(-5, 5)
        loss = (x - model.attractors[labels]).square().sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def batch() -> tuple[Tensor, Tensor]:
    """Random images and labels, the same ones every time."""
    torch.manual_seed(0)
    return torch.rand(BATCH, 1, 28, 28), torch.arange(BATCH) % 10


def precision_name(dtype: torch.dtype) -> str:
    """What the trainer calls it."""
    return "bf16-mixed" if dtype == torch.bfloat16 else "float32"


def sa_node(count: int) -> None:
    """Training step of SA-nODE against the published algorithm and against its bare matrix products."""
    images, labels = batch()
    kinds = [(c, d) for c in ("projected", "spectral") for d in (torch.float32, torch.bfloat16)]
    variants: dict[str, Run] = {"published": published_step(images, labels)}
    for coupling, dtype in kinds:
        model = SANODE(coupling=coupling, steps=EULER_STEPS)
        variants[f"step {coupling} {dtype}"] = training_step(model, dtype, images, labels)
        variants[f"bare {coupling} {dtype}"] = bare_products(coupling, dtype)
    seconds = rounds(variants, count)
    title = f"SA-nODE training step, N={NODES}, B={BATCH}, {EULER_STEPS} Euler steps, median of {count}"
    table = Table("coupling", "precision", "step", "step / bare", "published / step", title=title)
    for coupling, dtype in kinds:
        step = seconds[f"step {coupling} {dtype}"]
        table.add_row(
            coupling,
            precision_name(dtype),
            f"{1e3 * statistics.median(step):.0f} ms",
            f"{ratio(step, seconds[f'bare {coupling} {dtype}']):.2f}",
            f"{ratio(seconds['published'], step):.0f}",
        )
    console = Console()
    console.print(table)
    console.print(
        f"published: {statistics.median(seconds['published']):.2f} s; {torch.get_num_threads()} threads"
    )


def cvfr(count: int) -> None:
    """Training step of CVFR with noise against the one without, and against its bare matrix products."""
    images, labels = batch()
    variants: dict[str, Run] = {}
    for dtype in (torch.float32, torch.bfloat16):
        for sigma in (0.0, 0.1):
            model = CVFR(coupling="projected", sigma=sigma)
            variants[f"{sigma} {dtype}"] = training_step(model, dtype, images, labels)
        variants[f"bare {dtype}"] = bare_products("projected", dtype, model.steps)
    seconds = rounds(variants, count)
    title = f"CVFR training step, N={NODES}, B={BATCH}, {model.steps} Euler steps, median of {count}"
    table = Table(
        "precision", "σ = 0", "σ = 0.1", "noisy / deterministic", "deterministic / bare", title=title
    )
    for dtype in (torch.float32, torch.bfloat16):
        quiet, noisy = seconds[f"0.0 {dtype}"], seconds[f"0.1 {dtype}"]
        table.add_row(
            precision_name(dtype),
            f"{1e3 * statistics.median(quiet):.0f} ms",
            f"{1e3 * statistics.median(noisy):.0f} ms",
            f"{ratio(noisy, quiet):.2f}",
            f"{ratio(quiet, seconds[f'bare {dtype}']):.2f}",
        )
    Console().print(table)


def dense_update(patches: Tensor, filters: Tensor) -> Tensor:
    """The published update of the filters (F, D): all ranks sorted, and a gain for every unit and patch."""
    patches = patches / patches.norm(p=P, dim=1, keepdim=True)
    currents = patches @ (filters.sign() * filters.abs() ** (P - 1)).T
    order = currents.sort(dim=1, descending=True).indices
    gains = torch.zeros_like(currents)
    gains.scatter_(1, order[:, :1], 1.0)
    gains.scatter_(1, order[:, M - 1 : M], -DELTA)
    update = gains.T @ patches - (gains * currents).sum(dim=0)[:, None] * filters
    return update / update.abs().max()


def unfolded(images: Tensor) -> Tensor:
    """All patches, shape (B, positions, D)."""
    return functional.unfold(images, WIDTH).transpose(1, 2)


def bare_currents(images: Tensor, filters: Tensor) -> Run:
    """The float32 product that gives the currents of all patches, in pieces that fit the cache."""
    pieces = unfolded(images).flatten(0, 1).split(2048)

    def run() -> None:
        for piece in pieces:
            filters @ piece.T

    return run


def by_position(layer: KHConv2d, images: Tensor) -> None:
    """One update per position of the patches, each of the patches of all images there."""
    for update in layer.plasticity_by_position(images, M, DELTA):
        normalized_update(update)


def dense_by_position(images: Tensor, filters: Tensor) -> None:
    """The same, densely."""
    for patches in unfolded(images).unbind(dim=1):
        dense_update(patches, filters)


def peak_memory(count: int) -> float:
    """GiB that the process needed at most while it computed one update of that many images (on Linux)."""
    layer, images = KHConv2d(3, GRID**2, WIDTH, P), torch.rand(count, 3, 32, 32)
    layer.plasticity(images, M, DELTA)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def kh(count: int) -> None:
    """A pass of local learning against the dense version, and against the product of the currents."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        gibibytes = pool.apply(peak_memory, (BATCH_KH,))
    torch.manual_seed(0)
    layer, images = KHConv2d(3, GRID**2, WIDTH, P), torch.rand(TIMED_IMAGES, 3, 32, 32)
    # By position the batch must be whole, so that a strip of each image is timed.
    strips = torch.rand(BATCH_KH, 3, 32, WIDTH + 2)
    filters = layer.weight.detach().flatten(1)
    variants: dict[str, Run] = {
        "batch": lambda: layer.plasticity(images, M, DELTA),
        "batch, dense": lambda: dense_update(unfolded(images).flatten(0, 1), filters),
        "position": lambda: by_position(layer, strips),
        "position, dense": lambda: dense_by_position(strips, filters),
        "bare product": bare_currents(images, filters),
    }
    positions = (33 - WIDTH) ** 2
    timed = dict.fromkeys(variants, TIMED_IMAGES * positions)
    timed["position"] = timed["position, dense"] = BATCH_KH * 3 * (33 - WIDTH)
    epochs = {
        name: [value * TRAINING_IMAGES * positions / timed[name] for value in values]
        for name, values in rounds(variants, count).items()
    }
    title = (
        f"Krotov–Hopfield filter epoch, K={GRID}, w={WIDTH}, p={P:g}, m={M}, batch {BATCH_KH}, "
        f"{TRAINING_IMAGES} images, extrapolated from {TIMED_IMAGES}, median of {count}"
    )
    table = Table("one update per", "epoch", "/ bare product", "dense", "dense / it", title=title)
    for name in ("batch", "position"):
        values, dense = epochs[name], epochs[f"{name}, dense"]
        table.add_row(
            name,
            f"{statistics.median(values):.0f} s",
            f"{ratio(values, epochs['bare product']):.2f}",
            f"{statistics.median(dense):.0f} s",
            f"{ratio(dense, values):.1f}",
        )
    console = Console()
    console.print(table)
    console.print(f"peak memory at batch {BATCH_KH}: {gibibytes:.2f} GiB; {torch.get_num_threads()} threads")


def published_flow(gamma: Tensor) -> Tensor:
    """The published integration: dopri5 for every batch, differentiated through its steps."""
    span = torch.tensor([0.0, TIME])
    start = torch.zeros_like(gamma)
    states = odeint(
        lambda _, y: -DECAY * y + (y + gamma).sin().square(),
        start,
        span,
        rtol=1e-3,
        atol=1e-3,
        method="dopri5",
    )
    return states[-1]


def forward_and_backward(flow: Callable[[Tensor], Tensor], linear: torch.nn.Linear | None) -> Run:
    """An elementwise function of 256 × 2048 inputs, or of W x + b, and its gradients."""
    x = torch.randn(BATCH_NMODE, NODES)
    gamma = torch.randn(BATCH_NMODE, NEURONS, requires_grad=True)
    adjoint = torch.randn(BATCH_NMODE, NEURONS)

    def run() -> None:
        if linear is None:
            gamma.grad = None
            flow(gamma).backward(adjoint)
        else:
            linear.zero_grad()
            flow(linear(x)).backward(adjoint)

    return run


def nmode(count: int) -> None:
    """The flow of an nmODE layer against the published solver, and against a GELU of the same shape."""
    flow, linear = FlowMap(DECAY, TIME), torch.nn.Linear(NODES, NEURONS)
    kinds = {
        "flow map": flow,
        "flow map, compiled": torch.compile(flow),
        "GELU": functional.gelu,
        "GELU, compiled": torch.compile(functional.gelu),
        "dopri5": published_flow,
    }
    variants = {
        f"{kind}{product}": forward_and_backward(function, linear if product else None)
        for product in ("", ", with W x + b")
        for kind, function in kinds.items()
    }
    seconds = rounds(variants, count)
    title = (
        f"nmODE flow, forward + backward, {BATCH_NMODE}×{NEURONS}, λ={DECAY:g}, t̄={TIME:g}, "
        f"{torch.get_num_threads()} threads, median of {count}"
    )
    table = Table("", "time", "dopri5 / it", "it / GELU", title=title)
    for name, values in seconds.items():
        product = ", with W x + b" if name.endswith("b") else ""
        table.add_row(
            name,
            f"{1e3 * statistics.median(values):.2f} ms",
            f"{ratio(seconds[f'dopri5{product}'], values):.1f}",
            f"{ratio(values, seconds[f'GELU{product}']):.2f}",
        )
    Console().print(table)


def classifier_step(model: NonexpansiveNet, images: Tensor, labels: Tensor) -> Run:
    """Forward, loss, backward, Adam and, in a constrained network, the retraction."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)

    def step() -> None:
        optimizer.zero_grad()
        model.margin_loss(model(images), labels).backward()
        optimizer.step()
        if model.constrained:
            model.retract_()

    return step


def nonexpansive(count: int) -> None:
    """Training step of a non-expansive network against its unconstrained twin's."""
    title = f"Non-expansive training step, {torch.get_num_threads()} threads, median of {count}"
    table = Table("config", "batch", "constrained", "twin", "constrained / twin", "limit", title=title)
    for name in NONEXPANSIVE:
        config = yaml.safe_load((Path(__file__).parent.parent / "configs" / f"{name}.yaml").read_text())
        size, settings = config["data"]["init_args"]["batch_size"], config["model"]["init_args"]
        shape = {key: value for key, value in settings.items() if key not in OPTIMIZATION_SETTINGS}
        torch.manual_seed(0)
        variants: dict[str, Run] = {}
        for constrained in (True, False):
            model = NonexpansiveNet(**shape, constrained=constrained)
            images = torch.rand(size, *model.hparams["image_shape"])
            variants[str(constrained)] = classifier_step(model, images, torch.arange(size) % 10)
        seconds = rounds(variants, count)
        table.add_row(
            name,
            str(size),
            *(f"{1e3 * statistics.median(seconds[str(kind)]):.1f} ms" for kind in (True, False)),
            f"{ratio(seconds['True'], seconds['False']):.2f}",
            f"{CONSTRAINED_LIMIT:g}",
        )
    Console().print(table)


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
    console.print(f"CNN with accuracy {accuracy:.4f}, {torch.get_num_threads()} threads")
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


BENCHMARKS = {
    "sa_node": sa_node,
    "cvfr": cvfr,
    "kh": kh,
    "nmode": nmode,
    "nonexpansive": nonexpansive,
    "robustness": robustness,
}


def main() -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("benchmark", choices=sorted(BENCHMARKS))
    parser.add_argument("--rounds", type=int, default=10, help="rounds to take the median of (default: 10)")
    arguments = parser.parse_args()
    BENCHMARKS[arguments.benchmark](arguments.rounds)


if __name__ == "__main__":
    main()
