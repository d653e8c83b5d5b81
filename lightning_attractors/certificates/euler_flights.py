r"""Flights under Euler's method from L2 balls: everything of an image that no radius changes, computed once.

A deviation from the trajectory c_k of an image is δ_k = Φ_k u + w_k, with u in the ball of radius r, and Φ_k
the product of the Jacobians J_k = diag(1 + Δt r′) + Δt W diag(s′). The rest is w_k = Σ_{i<k} Ψ_ki t_i with
Ψ_ki = J_{k−1} … J_{i+1} and what the Jacobian leaves over, t_i = Δt (½r″δ_i² + W ½s″δ_i²).

To a margin that does Σ_k ⟨λ_{k+1}, t_k⟩, with its adjoint λ: no product of norms. Its second order in u is
uᵀHu, H = Σ_k Φ_kᵀ diag(Δt (½r″ ∘ λ_{k+1} + ½s″ ∘ Wᵀλ_{k+1})) Φ_k, exactly, so that only third order
need be boxed. Where nodes are few, that of every node of every δ_k, Q_k(u, u), is taken out of w_k, too: then
t_i is what the second derivatives leave over.

Of Φ, Q and Ψ only lengths of rows and bounds of norms are kept: what is left for a radius is arithmetic with
vectors of N numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_attractors.certificates.flights import MOST_NODES_OF_BLOCKS, Flight
from lightning_attractors.certificates.margin_forms import MarginForms
from lightning_attractors.certificates.tubes import SLACK, bend, bent_forms, spectral_bound, spectral_norm
from lightning_attractors.dynamics.planted import Pointwise

# The norm of Φ_k is off by the eighth root of the nodes at most, which the product of the ‖J_k‖ makes up for.
_SQUARINGS = 1
# Of more nodes than MOST_NODES_OF_BLOCKS, H is made of this many margins only, which come nearest to 0.
_FEW_MARGINS = 2


@dataclass(frozen=True)
class PreparedFlight:
    """What is known of the trajectories of B images before a radius is asked for, over k = 0 … steps − 1.

    Attributes:
        flight: the map.
        labels: shape (B,).
        centers: c_k, and the end, shape (steps + 1, B, N).
        rows: lengths of the rows of Φ_k, and of the last, shape (steps + 1, B, N).
        norms: bounds of ‖Φ_k‖₂, and of the last, shape (steps + 1, B).
        seconds: bounds of |Q_k(u, u)|, ‖u‖₂ ≤ 1, node by node, and of its length, (steps + 1, B, N) and
            (steps + 1, B); 0 where second order is left to w.
        carried: for every k, and the last, what is known of the Ψ_ki.
        jacobians: bounds of ‖J_k‖₂, shape (steps, B).
        adjoints: λ_{k+1} of every margin, shape (steps, B, K, N).
        gradients: lengths of the margins' gradients at the images, ‖λ_0‖₂, shape (B, K).
        forms: the margins that are known to second order.
        coupling_norm: bound of ‖Δt W‖₂.
    """

    flight: Flight
    labels: Tensor
    centers: Tensor
    rows: Tensor
    norms: Tensor
    seconds: tuple[Tensor, Tensor]
    carried: list[_Carried]
    jacobians: Tensor
    adjoints: Tensor
    gradients: Tensor
    forms: MarginForms
    coupling_norm: float

    def first_order(self) -> Tensor:
        """Radii (B,) at which first order alone would lose the label: about the most there is to prove."""
        margins = self.flight.margins_at(self.centers[-1], torch.zeros_like(self.centers[-1]), self.labels)
        radii = margins / self.gradients.clamp(min=1e-300)
        return radii.scatter(1, self.labels[:, None], torch.inf).amin(dim=1).clamp(min=0)

    def holds(self, radii: Tensor) -> Tensor:
        """Whether all states within L2 radii (B,) of the first ones keep the label, shape (B,)."""
        flight, dt = self.flight, self.flight.dt
        lost, by_form = radii[:, None] * self.gradients, self.forms.lost(radii)
        straight, left = radii, list[tuple[Tensor, Tensor]]()
        alive = torch.ones_like(radii, dtype=torch.bool)
        for k, center in enumerate(self.centers[:-1]):
            known = self._deviation(k, radii, left, straight)
            alive &= flight.inside(center.abs() + known.reach)
            rounding = dt * flight.rounding(center.abs() + known.reach)
            bends = [bend(h, center, known.reach) for h in (flight.reaction, flight.emission)]
            thirds = [_third_order(h, center, known) for h in (flight.reaction, flight.emission)]
            boxed, beyond = self._lost(k, known, bends, thirds)
            rounded = (self.adjoints[k].abs() @ rounding[:, :, None])[..., 0]
            lost = lost + boxed + rounded
            by_form = by_form + beyond + rounded.gather(1, self.forms.classes)

            noise = torch.linalg.vector_norm(rounding, dim=1)
            own, emitted = bends
            growth = dt * own.amax(dim=1) + self.coupling_norm * emitted.amax(dim=1)
            (own, own_length), (emitted, emitted_length) = map(self._left_over, [known] * 2, bends, thirds)
            bent = dt * own_length + self.coupling_norm * emitted_length
            box = dt * own + dt * emitted @ flight.coupling.abs().T + rounding
            left.append(
                (box * SLACK, torch.minimum(bent + noise, torch.linalg.vector_norm(box, dim=1)) * SLACK)
            )
            straight = ((self.jacobians[k] + growth) * straight + noise) * SLACK
        known = self._deviation(len(left), radii, left, straight)
        alive &= flight.inside(self.centers[-1].abs() + known.reach)
        classes = self.forms.classes
        lost = lost.scatter(1, classes, torch.minimum(lost.gather(1, classes), by_form))
        margins = flight.margins_at(self.centers[-1], known.reach, self.labels) - lost * SLACK
        return alive & (margins.scatter(1, self.labels[:, None], torch.inf) > 0).all(dim=1)

    def _deviation(
        self, k: int, radii: Tensor, left: list[tuple[Tensor, Tensor]], straight: Tensor
    ) -> _Deviation:
        """What is known of δ_k, given bounds of all |t_i| and ‖t_i‖₂ up to there and one of ‖δ_k‖₂."""
        first = radii[:, None] * self.rows[k]
        by_node, by_length = self.seconds
        beyond, length = radii.square()[:, None] * by_node[k], radii.square() * by_length[k]
        if k:
            rest, its = self.carried[k].of(*(torch.stack(bounds) for bounds in zip(*left, strict=True)))
            beyond, length = beyond + rest, length + its
            length = torch.minimum(length, torch.linalg.vector_norm(beyond, dim=1))
        reach = first + beyond
        lengths = [radii * self.norms[k] + length, torch.linalg.vector_norm(reach, dim=1), straight]
        return _Deviation(first, beyond, length, reach, torch.stack(lengths).amin(dim=0))

    def _left_over(
        self, known: _Deviation, bent: Tensor, thirds: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Bounds of |h(c + δ) − h − h′δ|, less ½h″(Φu)² where Q has that: by node (B, N), of lengths (B,)."""
        if not self.flight.second_order:
            return bent * known.reach, known.length_of(bent)
        crossed, third = thirds
        by_node = crossed * known.beyond + third * known.reach
        by_norm = crossed.amax(dim=1) * known.beyond_length + third.amax(dim=1) * known.length
        return by_node, torch.minimum(by_norm, torch.linalg.vector_norm(by_node, dim=1))

    def _lost(
        self, k: int, known: _Deviation, bends: list[Tensor], thirds: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """Bounds of |⟨λ_{k+1}, t_k⟩|, shape (B, K), and of what of it is of third order, shape (B, C)."""
        flight = self.flight
        adjoint = flight.dt * self.adjoints[k]
        lost, beyond = torch.zeros_like(self.gradients), torch.zeros_like(self.forms.slopes[:, :, 0])
        weighted = ((flight.reaction, adjoint), (flight.emission, adjoint @ flight.coupling))
        for (h, weights), bent, (crossed, third) in zip(weighted, bends, thirds, strict=True):
            if h.is_affine:
                continue
            lost = lost + _inner(weights * bent[:, None], known.reach, known.length)
            few = _of_classes(weights, self.forms.classes)
            beyond = beyond + _inner(few * crossed[:, None], known.beyond, known.beyond_length)
            beyond = beyond + _inner(few * third[:, None], known.reach, known.length)
        return lost, beyond


@dataclass(frozen=True)
class _Deviation:
    """Bounds of |Φu|, of |δ − Φu| and of |δ|: node by node (B, N), and of the lengths (B,)."""

    first: Tensor
    beyond: Tensor
    beyond_length: Tensor
    reach: Tensor
    length: Tensor

    def length_of(self, slopes: Tensor) -> Tensor:
        """Bound (B,) of ‖s ∘ δ‖₂ for slopes (B, N)."""
        by_norm = slopes.amax(dim=1) * self.length
        return torch.minimum(by_norm, torch.linalg.vector_norm(slopes * self.reach, dim=1))


def _third_order(h: Pointwise, center: Tensor, known: _Deviation) -> tuple[Tensor, Tensor]:
    """The s and t with |h(c + δ) − h − h′δ − ½h″(Φu)²| ≤ s |δ − Φu| + t |δ|, each of shape (B, N)."""
    # δ² − (Φu)² = (δ + Φu) (δ − Φu)
    crossed = h.derivative(center, 2).abs() / 2 * (known.reach + known.first)
    low, high = h.range(center - known.reach, center + known.reach, 3)
    return crossed, torch.maximum(-low, high).clamp(min=0) / 6 * known.reach.square()


def prepare(flight: Flight, states: Tensor, labels: Tensor) -> PreparedFlight:
    """Follow the trajectories of states (B, N), float64, with everything that no radius changes."""
    dt, coupling = flight.dt, flight.dt * flight.coupling
    centers, leaks, slopes = [states], list[Tensor](), list[Tensor]()
    for _ in range(flight.steps):
        leaks.append(1 + dt * flight.reaction.derivative(centers[-1], 1))
        slopes.append(flight.emission.derivative(centers[-1], 1))
        centers.append(flight.state_step(centers[-1]))
    coupling_norm = float(spectral_norm(coupling))
    jacobians = [_jacobian_norm(coupling, coupling_norm, d, s) for d, s in zip(leaks, slopes, strict=True)]

    adjoint, adjoints = flight.readout[labels][:, None] - flight.readout, list[Tensor]()
    for d, s in zip(reversed(leaks), reversed(slopes), strict=True):
        adjoints.insert(0, adjoint)
        adjoint = d[:, None] * adjoint + s[:, None] * (adjoint @ coupling)
    gradients = torch.linalg.vector_norm(adjoint, dim=2) * SLACK
    classes = _nearest(flight, centers[-1], labels, gradients)

    transition = torch.eye(flight.nodes, dtype=states.dtype, device=states.device).expand(len(states), -1, -1)
    rows, norms = [torch.ones_like(states)], [torch.ones_like(states[:, 0])]
    products = _Carried.none(states)
    carried = [products]
    bending = _Bending.none(flight, states)
    seconds = [bending.bounds()]
    form = states.new_zeros(*classes.shape, flight.nodes, flight.nodes)
    for k, (d, s, jacobian) in enumerate(zip(leaks, slopes, jacobians, strict=True)):
        curved = _curvature(flight, centers[k], _of_classes(adjoints[k], classes))
        form += transition.mT[:, None] @ (curved[..., None] * transition[:, None])
        bending = bending.advanced(flight, centers[k], transition)
        seconds.append(bending.bounds())
        transition = _through(coupling, d, s, transition)
        rows.append(torch.linalg.vector_norm(transition, dim=2) * SLACK)
        norms.append(torch.minimum(spectral_norm(transition, _SQUARINGS), norms[-1] * jacobian))
        products = products.advanced(coupling, d, s, jacobian)
        carried.append(products if flight.nodes <= MOST_NODES_OF_BLOCKS else products.measured())
    return PreparedFlight(
        flight,
        labels,
        torch.stack(centers),
        torch.stack(rows),
        torch.stack(norms),
        (torch.stack([by_node for by_node, _ in seconds]), torch.stack([length for _, length in seconds])),
        carried,
        torch.stack(jacobians),
        torch.stack(adjoints),
        gradients,
        MarginForms.of(classes, form, _of_classes(adjoint, classes)),
        coupling_norm,
    )


@dataclass(frozen=True)
class _Carried:
    """What is known of the Ψ_ki of one k: bounds of norms and rows, and where nodes are few, themselves.

    Attributes:
        norms: shape (k, B).
        rows: lengths of their rows, shape (k, B, N).
        products: shape (k, B, N, N), or None.
    """

    norms: Tensor
    rows: Tensor
    products: Tensor | None

    @classmethod
    def none(cls, states: Tensor) -> _Carried:
        batch, nodes = states.shape
        return cls(*(states.new_empty(0, batch, *size) for size in ((), (nodes,), (nodes, nodes))))

    def advanced(self, coupling: Tensor, leaks: Tensor, slopes: Tensor, jacobian: Tensor) -> _Carried:
        assert self.products is not None
        products = _through(coupling, leaks, slopes, self.products)
        few = len(coupling) <= MOST_NODES_OF_BLOCKS
        known = spectral_bound(products) if few else spectral_norm(products, _SQUARINGS)
        norms = torch.minimum(self.norms * jacobian * SLACK, known)
        rows = torch.linalg.vector_norm(products, dim=3) * SLACK
        identity = torch.eye(len(coupling), dtype=coupling.dtype, device=coupling.device)
        return _Carried(
            torch.cat([norms, torch.ones_like(jacobian)[None]]),
            torch.cat([rows, torch.ones_like(leaks)[None]]),
            torch.cat([products, identity.expand(1, *products.shape[1:])]),
        )

    def measured(self) -> _Carried:
        """Without the products."""
        return _Carried(self.norms, self.rows, None)

    def of(self, boxes: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds of |Σ_i Ψ_ki t_i| (B, N) and its length (B,), for |t_i| (k, B, N) and ‖t_i‖₂ (k, B)."""
        length = (self.norms * lengths).sum(dim=0)
        terms = self.rows * lengths[..., None]
        if self.products is not None:
            terms = torch.minimum(terms, (self.products.abs() @ boxes[..., None])[..., 0])
        rest = torch.minimum(length[:, None].expand_as(boxes[0]), terms.sum(dim=0))
        length = torch.minimum(length, torch.linalg.vector_norm(rest, dim=1))
        return rest * SLACK, length * SLACK


@dataclass(frozen=True)
class _Bending:
    """The second order of all nodes at one step: Q, shape (B, N, N, N); (B, N, 0, 0) where it is not kept."""

    quadratic: Tensor

    @classmethod
    def none(cls, flight: Flight, states: Tensor) -> _Bending:
        size = flight.nodes if flight.second_order else 0
        return cls(states.new_zeros(*states.shape, size, size))

    def advanced(self, flight: Flight, center: Tensor, transition: Tensor) -> _Bending:
        quadratic = self.quadratic
        if not quadratic.shape[-1]:
            return self
        own, emitted = (
            bent_forms(h, center, h.derivative(center, 1), quadratic, transition)
            for h in (flight.reaction, flight.emission)
        )
        coupled = (flight.coupling @ emitted.flatten(2)).view_as(emitted)
        return _Bending(quadratic + flight.dt * (own + coupled))

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Of |Q(u, u)|, ‖u‖₂ ≤ 1: node by node (B, N), and of its length (B,)."""
        if not self.quadratic.shape[-1]:
            nothing = self.quadratic.new_zeros(self.quadratic.shape[:2])
            return nothing, nothing[:, 0]
        return spectral_bound(self.quadratic), spectral_norm(self.quadratic.flatten(2))


def _through(coupling: Tensor, leaks: Tensor, slopes: Tensor, matrices: Tensor) -> Tensor:
    """J M for matrices (..., B, N, N)."""
    return leaks[..., None] * matrices + coupling @ (slopes[..., None] * matrices)


def _curvature(flight: Flight, center: Tensor, adjoint: Tensor) -> Tensor:
    """The diagonal (B, C, N) of a step's second order in margins of adjoints (B, C, N)."""
    total = torch.zeros_like(adjoint)
    for h, weights in ((flight.reaction, adjoint), (flight.emission, adjoint @ flight.coupling)):
        total = total + flight.dt * weights * (h.derivative(center, 2) / 2)[:, None]
    return total


def _nearest(flight: Flight, ends: Tensor, labels: Tensor, gradients: Tensor) -> Tensor:
    """The classes (B, C) whose margins are least for their gradients (B, K), the label not among them."""
    margins = flight.margins_at(ends, ends.abs(), labels) / gradients.clamp(min=1e-300)
    others = margins.scatter(1, labels[:, None], torch.inf)
    count = margins.shape[1] - 1
    if flight.nodes > MOST_NODES_OF_BLOCKS:
        count = min(count, _FEW_MARGINS)
    return others.topk(count, largest=False).indices


def _of_classes(vectors: Tensor, classes: Tensor) -> Tensor:
    """Those of (B, K, N) that belong to classes (B, C), shape (B, C, N)."""
    return vectors.gather(1, classes[:, :, None].expand(-1, -1, vectors.shape[2]))


def _jacobian_norm(coupling: Tensor, coupling_norm: float, leaks: Tensor, slopes: Tensor) -> Tensor:
    """Bounds (B,) of ‖diag(d) + Δt W diag(s)‖₂: that of the middles of d and s, and how far d and s vary."""
    middle = (leaks.amin() + leaks.amax()) / 2
    slope = (slopes.amin() + slopes.amax()) / 2
    shared = spectral_norm(middle * torch.eye(len(coupling)).to(coupling) + slope * coupling)
    varied = coupling_norm * (slopes - slope).abs().amax(dim=1)
    return (shared + (leaks - middle).abs().amax(dim=1) + varied) * SLACK


def _inner(weights: Tensor, reach: Tensor, length: Tensor) -> Tensor:
    """Bounds (B, K) of |⟨w, δ⟩| for weights of shape (B, K, N)."""
    by_norm = torch.linalg.vector_norm(weights, dim=2) * length[:, None]
    return torch.minimum(by_norm, (weights.abs() @ reach[:, :, None])[..., 0])
