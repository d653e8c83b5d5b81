"""Constraint and certificate of many nodes: norms of powers against eigenvalues."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import torch
from benchmarks.timing import report, rounds
from rich.table import Table

from lightning_attractors.callbacks import StabilityCertificate
from lightning_attractors.certificates import jacobian, spectrum
from lightning_attractors.models import CVFR, SANODE, AttractorClassifier

CLASSES = 10


@dataclass(frozen=True)
class Kind:
    """A model with a coupling as far from normal as trained ones are."""

    family: type[SANODE] | type[CVFR]
    strength: float
    jacobians: int  # how many different ones 10 attractors have, flow and step

    def build(self, shape: tuple[int, int, int]) -> AttractorClassifier:
        torch.manual_seed(0)
        model = self.family(CLASSES, shape, coupling="projected").eval()
        with torch.no_grad():
            weight = model.coupling.get_parameter("weight")
            weight.copy_(self.strength * torch.randn_like(weight))
        return model


KINDS = [Kind(SANODE, 0.6, 2), Kind(CVFR, 0.4, 2 * CLASSES)]
SHAPES = {784: (1, 28, 28), 3072: (3, 32, 32)}


def large(count: int) -> None:
    """Seconds of constraint and certificate, and of the eigenvalues that they do without."""
    title = f"Stability of {CLASSES} attractors, projected coupling, seconds, median of {count}"
    table = Table("model", "nodes", "constraint", "eigenvalues of A", "certificate", "spectra", title=title)
    for kind in KINDS:
        for nodes, shape in SHAPES.items():
            table.add_row(kind.family.__name__, str(nodes), *_row(kind, shape, count))
    note = "spectra: of one Jacobian by eigenvalues, times those that differ"
    report(table, note + "; up to 1024 nodes the two columns before them take eigenvalues too")


def _row(kind: Kind, shape: tuple[int, int, int], count: int) -> list[str]:
    model = kind.build(shape)
    exact = kind.build(shape).double()
    with torch.no_grad():
        matrix = exact.coupling.matrix()
        of_flow = jacobian(exact.vector_field, exact.attractors[0].double())
    variants = {
        "certificate": lambda: StabilityCertificate().certify(model),
        "spectrum": lambda: spectrum(of_flow),
    }
    if isinstance(model, SANODE):
        variants |= {"constraint": model.keep_stable_, "eigenvalues": lambda: torch.linalg.eigvals(matrix)}
    seconds = {name: statistics.median(found) for name, found in rounds(variants, count).items()}
    own = [f"{seconds[name]:.2f}" if name in seconds else "–" for name in ("constraint", "eigenvalues")]
    spectra = f"{seconds['spectrum']:.2f} × {kind.jacobians}"
    return [*own, f"{seconds['certificate']:.2f}", spectra]
