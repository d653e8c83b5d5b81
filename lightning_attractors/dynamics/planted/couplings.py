"""Coupling matrices A that have planted columns as eigenvectors exactly."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_attractors.errors import require
from lightning_attractors.linalg import MOST_NODES_BY_EIGENVALUES, power_norms

CouplingName = Literal["spectral", "projected"]


class Coupling(nn.Module, ABC):
    """A trainable matrix A (N, N) with A ψ = λ ψ for every planted ψ and its eigenvalue λ.

    What enters A is an orthonormal basis Q (N, K) of the planted span, on which A acts as A Q = Q T: the
    matrix is the same and everything built on it is better conditioned.

    Args:
        planted: planted columns, one per row, shape (K, N), linearly independent.
        eigenvalues: their eigenvalues, shape (K,); 0 if not given.

    Attributes:
        constrain_interval: optimizer steps after which :meth:`constrain_` is due.
    """

    constrain_interval: int
    planted: Tensor
    planted_eigenvalues: Tensor

    def __init__(self, planted: Tensor, eigenvalues: Tensor | None = None) -> None:
        super().__init__()
        rank = int(torch.linalg.matrix_rank(planted.double()))
        require(
            rank == len(planted), "planted", f"rank {rank}", f"{len(planted)} columns must be independent"
        )
        # A copy: what becomes of the caller's tensor must not change the matrix.
        self.register_buffer("planted", planted.clone())
        values = planted.new_zeros(len(planted)) if eigenvalues is None else eigenvalues.to(planted)
        self.register_buffer("planted_eigenvalues", values.clone(), persistent=False)

    @property
    def num_nodes(self) -> int:
        """Number of nodes N."""
        return self.planted.shape[1]

    def planted_basis(self) -> Tensor:
        """Q, shape (N, K): as exact as the module's present dtype, so that a float64 copy is exact too."""
        return self.planted_frame()[0]

    def planted_frame(self) -> tuple[Tensor, Tensor]:
        """Q and A Q = Ψ Λ R⁻¹, where Ψ = Q R are the planted columns, both of shape (N, K)."""
        dtype = torch.promote_types(self.planted.dtype, torch.float32)  # there is no QR in lower precision
        columns = self.planted.T.to(dtype)
        basis, triangle = torch.linalg.qr(columns)
        scaled = columns * self.planted_eigenvalues.to(dtype)
        image = torch.linalg.solve_triangular(triangle, scaled, upper=True, left=False)
        return basis.to(self.planted.dtype), image.to(self.planted.dtype)

    @abstractmethod
    def matrix(self) -> Tensor:
        """The coupling matrix A, shape (N, N), differentiable in the parameters."""

    @abstractmethod
    def modes(self) -> Tensor:
        """A real basis Φ as columns, shape (N, N).

        The first K are Q, each an eigenvector where the planted ones share one eigenvalue; where each has
        its own, Q only spans the same space. The others are eigenvectors, or the real and imaginary parts of
        a pair.
        """

    @abstractmethod
    def eigenvalues(self) -> Tensor:
        """All N eigenvalues of A, complex128, the K planted ones included."""

    @abstractmethod
    def constrain_(self, low: Tensor, high: Tensor) -> None:
        """Bring every trained eigenvalue into a disc of the complex plane that holds 0, in place.

        Tensors on the device of the coupling, so that nothing waits for their values.

        Args:
            low: where the disc begins on the real axis, a scalar below 0; −∞, with ``high`` = ∞, for no disc.
            high: where it ends, a scalar above 0.
        """


class SpectralCoupling(Coupling):
    r"""A = Φ Λ Φ⁻¹ with trained eigenvalues and eigenvectors (Marino et al., 2024).

    Φ = [Q | V]: Q spans the K planted columns, the N − K trained ones start orthonormal and random with
    eigenvalues drawn from N(−5, 1). One linear solve per call of ``matrix``.

    Args:
        planted: planted columns, one per row, shape (K, N).
        eigenvalues: their eigenvalues, shape (K,); 0 if not given.
    """

    constrain_interval = 1

    def __init__(self, planted: Tensor, eigenvalues: Tensor | None = None) -> None:
        super().__init__(planted, eigenvalues)
        num_classes = len(planted)
        free = self.num_nodes - num_classes
        basis = self.planted_basis()
        frame, _ = torch.linalg.qr(torch.cat([basis, torch.randn(self.num_nodes, free)], dim=1))
        self.eigenvectors = nn.Parameter(frame[:, num_classes:].contiguous())
        self.trained_eigenvalues = nn.Parameter(torch.randn(free) - 5.0)

    def modes(self) -> Tensor:
        return torch.cat([self.planted_basis(), self.eigenvectors], dim=1)

    def matrix(self) -> Tensor:
        basis, planted = self.planted_frame()
        modes = torch.cat([basis, self.eigenvectors], dim=1)
        image = torch.cat([planted, self.eigenvectors * self.trained_eigenvalues], dim=1)
        # solve() would wait for the device, to see whether Φ is singular: then A is not finite, nor the loss
        coupling: Tensor = torch.linalg.solve_ex(modes, image, left=False)[0]
        return coupling

    @torch.no_grad()
    def eigenvalues(self) -> Tensor:
        return torch.cat([self.planted_eigenvalues, self.trained_eigenvalues]).to(torch.complex128)

    @torch.no_grad()
    def constrain_(self, low: Tensor, high: Tensor) -> None:
        self.trained_eigenvalues.clamp_(low, high)


class ProjectedCoupling(Coupling):
    """A = Q T Qᵀ + M (I − P) with M trained and P = Q Qᵀ the projector on the planted span.

    For one shared eigenvalue λ that is λ P + M (I − P). The same family of matrices as
    :class:`SpectralCoupling` (every A with the planted eigenvectors is of this form), reached without a solve
    and without an inverse that can become ill-conditioned. M starts as a random orthogonal matrix times
    ``scale``.

    The eigenvalues are not at hand, so ``constrain_`` computes them, unless norms of powers show that all of
    very many are in the disc; being linear in M but for the planted ones, they are brought into it by scaling
    M as a whole.

    Args:
        planted: planted columns, one per row, shape (K, N).
        eigenvalues: their eigenvalues, shape (K,); 0 if not given.
        scale: factor of the initial orthogonal matrix, above 0.
    """

    constrain_interval = 50

    def __init__(self, planted: Tensor, eigenvalues: Tensor | None = None, scale: float = 5.0) -> None:
        super().__init__(planted, eigenvalues)
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(self.num_nodes, self.num_nodes), scale))

    def matrix(self) -> Tensor:
        basis, planted = self.planted_frame()
        return torch.addmm(self.weight, planted - self.weight @ basis, basis.T)

    @torch.no_grad()
    def modes(self) -> Tensor:
        values, vectors = torch.linalg.eig(self.matrix().double())
        basis = self.planted_basis().to(vectors)
        outside = (vectors - basis @ (basis.mT @ vectors)).norm(dim=0)
        order = outside.argsort()[len(self.planted) :]
        values, vectors = values[order], vectors[:, order]
        # A conjugate pair of eigenvectors spans the same plane as its real and imaginary parts.
        real = nn.functional.normalize(torch.where(values.imag >= 0, vectors.real, vectors.imag), dim=0)
        return torch.cat([self.planted_basis(), real.to(self.planted)], dim=1)

    @torch.no_grad()
    def eigenvalues(self) -> Tensor:
        return torch.linalg.eigvals(self.matrix().double())

    @torch.no_grad()
    def constrain_(self, low: Tensor, high: Tensor) -> None:
        low, high = low.double(), high.double()
        center, radius = (low + high) / 2, (high - low) / 2
        basis = self.planted_basis()
        # M (I − P): its planted eigenvalues are 0, which the disc holds, its others are those of A.
        trained = torch.addmm(self.weight, self.weight @ basis, basis.T, alpha=-1).double()
        if len(trained) > MOST_NODES_BY_EIGENVALUES and _all_within(trained, float(center), float(radius)):
            return
        values = torch.linalg.eigvals(trained)
        outside = values[(values - center).abs() > radius]
        if len(outside) > 0:
            # |s λ − center| = radius is a quadratic in s, whose positive root lies below 1 outside the disc.
            squared, half = outside.abs().square(), center * outside.real
            root = (half.square() + squared * (radius**2 - center**2)).sqrt()
            self.weight.mul_(float(((half + root) / squared).min()))


def _all_within(matrix: Tensor, center: float, radius: float) -> bool:
    """Whether a few products show, in less time than eigenvalues take, that all of these are in a disc."""
    return math.isinf(radius) or power_norms(matrix, center, radius, math.inf) is not None


def make_coupling(name: CouplingName, planted: Tensor, eigenvalues: Tensor | None = None) -> Coupling:
    """Build the coupling called ``name`` on the planted columns (K, N) with their eigenvalues (K,), or 0.

    Raises:
        SettingError: if there is no coupling of that name.
    """
    kinds: dict[str, type[Coupling]] = {"spectral": SpectralCoupling, "projected": ProjectedCoupling}
    require(name in kinds, "coupling", name, f"must be one of {sorted(kinds)}")
    return kinds[name](planted, eigenvalues)
