import pytest
import torch
from flying import on_sphere

from lightning_attractors.certificates.tubes import (
    Remainders,
    Spread,
    Tube,
    apply,
    ball,
    reduced,
    spectral_bound,
    spectral_norm,
)
from lightning_attractors.dynamics.planted import Cubic, Hill

FUNCTIONS = [Cubic(-1.0), Cubic(1.6, -1.6), Hill(0.1), Hill(2.0)]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def normal(generator, *shape):
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def random_tube(generator, norm="l2", second_order=True, nodes=6, batch=3, blocks=4, size=0.2):
    """A tube of which no part is zero, with remainders of few nodes, of many, and bounded in either way."""
    remainders = Remainders()
    for n in range(blocks):
        box = normal(generator, batch, nodes).abs() * (0.05 if n % 2 else 10.0)
        weight = normal(generator, batch, nodes).abs() * (10.0 if n % 2 else 0.05)
        remainders.add(box, weight if n else weight.clamp(max=0.02))
    quadratic = size**2 * normal(generator, batch, nodes, nodes, nodes)
    return Tube(
        normal(generator, batch, nodes),
        size * normal(generator, batch, nodes, nodes),
        (quadratic + quadratic.mT) if second_order else None,
        normal(generator, batch, blocks, nodes, nodes),
        remainders,
        norm,
    )


def samples(generator, tube, count=4000):
    """u (S, B, D) of the ball and t (S, B, M, N) of the remainders, most of them at the edge."""
    batch, nodes = tube.center.shape
    u = on_sphere((count, batch, tube.linear.shape[2]), tube.norm, generator)
    u[::5] *= torch.rand(len(u[::5]), batch, 1, dtype=torch.float64, generator=generator)
    kept = []
    for box, weight in zip(tube.remainders.boxes, tube.remainders.weights, strict=True):
        t = on_sphere((count, batch, nodes), "l2", generator) * weight
        t = torch.minimum(torch.maximum(t, -box), box)
        corner = on_sphere((count, batch, nodes), "linf", generator) * box
        corner /= (corner / weight).norm(dim=-1, keepdim=True).clamp(min=1)
        kept.append(torch.where(torch.arange(count)[:, None, None] % 2 == 0, t, corner))
    return u, torch.stack(kept, dim=2) if kept else u.new_zeros(count, batch, 0, nodes)


def points(tube, u, t):
    """c + Φu + Q(u, u) + Σ P_j t_j, shape (S, B, N), for as many t as the tube depends on."""
    x = tube.center + torch.einsum("bnd,sbd->sbn", tube.linear, u)
    if tube.quadratic is not None:
        x = x + torch.einsum("bnde,sbd,sbe->sbn", tube.quadratic, u, u)
    return x + torch.einsum("bmrn,sbmn->sbr", tube.blocks, t[:, :, : tube.blocks.shape[1]])


@pytest.mark.parametrize("shape", [(5, 7), (7, 5), (3, 6, 6), (2, 130, 140), (140, 131), (1, 4)])
def test_spectral_norms_are_bounds_and_near(generator, shape):
    matrices = normal(generator, *shape)
    exact, rows = torch.linalg.matrix_norm(matrices, 2), min(shape[-2:])
    for found, factor in (
        (spectral_norm(matrices), rows ** (1 / 128) if rows > 128 else 1 + 1e-6),
        (spectral_norm(matrices, squarings=1), rows ** (1 / 8) if rows > 128 else 1 + 1e-6),
        (spectral_bound(matrices), rows**0.25),
    ):
        assert found.shape == exact.shape
        assert (found >= exact * (1 - 1e-13)).all()
        assert (found <= exact * factor * (1 + 1e-6)).all()


@pytest.mark.parametrize("rows", [8, 150])
@pytest.mark.parametrize("size", [1e-120, 1.0, 1e120])
def test_spectral_norms_of_rank_one_and_of_the_identity(generator, rows, size):
    one, other = normal(generator, rows), normal(generator, rows + 3)
    exact = size * one.norm() * other.norm()
    for found in (
        spectral_norm(size * torch.outer(one, other)),
        spectral_norm(size * torch.outer(other, one)),
    ):
        assert exact * (1 - 1e-13) <= found <= exact * (1 + 1e-6)
    identity = size * torch.eye(rows, dtype=torch.float64)
    assert size * (1 - 1e-13) <= spectral_norm(identity) <= size * rows ** (1 / 128) * (1 + 1e-6)


@pytest.mark.parametrize("rows", [8, 150])
def test_spectral_norms_of_nothing_and_of_what_is_no_number(rows):
    assert spectral_norm(torch.zeros(rows, rows, dtype=torch.float64)) < 1e-100
    for wrong in (torch.nan, torch.inf):
        matrices = torch.ones(3, rows, rows, dtype=torch.float64)
        matrices[1, 0, 0] = wrong
        found = spectral_norm(matrices)
        assert found[1] == torch.inf
        assert rows * (1 - 1e-13) <= found[0] == found[2] <= rows * (1 + 1e-6)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_ball_under_linear_maps_is_exact(generator, norm):
    center, radius = normal(generator, 2, 6), torch.tensor([0.5, 2.0], dtype=torch.float64)
    matrix = normal(generator, 6, 6)
    start = ball(center, radius, norm)
    mapped = 3.0 * (start.mapped(matrix) + start * 2.0)
    total = 3 * (matrix + 2 * torch.eye(6, dtype=torch.float64))
    rows = total.norm(dim=1) if norm == "l2" else total.abs().sum(dim=1)
    torch.testing.assert_close(mapped.center, center @ total.T)
    torch.testing.assert_close(mapped.reach(), radius[:, None] * rows, rtol=1e-8, atol=0)


@pytest.mark.parametrize("second_order", [True, False])
def test_sums_multiples_and_products_act_on_every_point_as_on_the_tube(generator, second_order):
    tube = random_tube(generator, second_order=second_order)
    u, t = samples(generator, tube, 50)
    shorter = random_tube(generator, second_order=second_order, blocks=2)
    matrix = normal(generator, 3, 4, 6)
    x, y = points(tube, u, t), points(shorter, u, t)
    torch.testing.assert_close(points(tube + shorter * -0.5, u, t), x - 0.5 * y)
    torch.testing.assert_close(points(-0.5 * shorter + tube, u, t), x - 0.5 * y)
    expected = torch.einsum("brn,sbn->sbr", matrix, x)
    torch.testing.assert_close(points(tube.mapped(matrix), u, t), expected)
    torch.testing.assert_close(points(tube.mapped(matrix[0]), u, t)[:, 0], expected[:, 0])


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("second_order", [True, False])
def test_no_point_of_a_tube_is_beyond_its_reach_or_its_length(generator, norm, second_order):
    tube = random_tube(generator, norm, second_order)
    u, t = samples(generator, tube)
    x, known = points(tube, u, t), Spread.of(tube)
    off = (x - tube.center).abs()
    assert (off <= known.reach).all()
    assert ((x - tube.center).norm(dim=2) <= known.length).all()
    first = torch.einsum("bnd,sbd->sbn", tube.linear, u)
    assert (first.abs() <= known.first).all()
    beyond = x - tube.center - first
    assert (beyond.abs() <= known.beyond).all()
    assert (beyond.norm(dim=2) <= known.length_beyond).all()


@pytest.mark.parametrize("which", range(4))
def test_remainders_are_never_larger_than_said(generator, which):
    tube = random_tube(generator, blocks=which + 1)
    _, t = samples(generator, tube)
    total = torch.einsum("bmrn,sbmn->sbr", tube.blocks, t)
    assert (total.abs() <= tube.remainders.rows(tube.blocks)).all()
    assert (total.norm(dim=2) <= tube.remainders.length(tube.blocks)).all()


def test_rows_of_a_remainder_are_reached():
    remainders, one = Remainders(), torch.ones(1, 4, dtype=torch.float64)
    row = torch.tensor([[[[3.0, -4.0, 0.0, 0.0]]]], dtype=torch.float64)
    remainders.add(one, 100 * one)
    torch.testing.assert_close(remainders.rows(row), torch.full((1, 1), 7.0, dtype=torch.float64))
    remainders = Remainders()
    remainders.add(100 * one, one)
    torch.testing.assert_close(remainders.rows(row), torch.full((1, 1), 5.0, dtype=torch.float64))


def test_the_length_of_remainders_in_one_direction_is_their_sum():
    remainders = Remainders()
    for size in (1.0, 3.0, 0.5):
        remainders.add(torch.ones(1, 1).double(), torch.full((1, 1), size).double())
    torch.testing.assert_close(
        remainders.length(torch.ones(1, 3, 1, 1).double()), torch.tensor([4.5]).double()
    )


def test_a_sum_of_terms_is_within_the_remainder_made_of_them(generator):
    scales = normal(generator, 3, 2, 6).abs()
    scales[0, :, 0] = 0
    remainders, bounds, lengths = (
        Remainders(),
        normal(generator, 3, 2, 6).abs(),
        normal(generator, 3, 2).abs(),
    )
    remainders.add_sum(list(zip(scales, bounds, lengths, strict=True)))
    v = on_sphere((20_000, 3, 2, 6), "l2", generator) * lengths[..., None]
    # the longest vectors that lie at one node too
    v[:1000] = torch.eye(6, dtype=torch.float64)[torch.arange(1000) % 6][:, None, None] * lengths[..., None]
    v = torch.minimum(torch.maximum(v, -bounds), bounds)
    t = (scales * v).sum(dim=1)
    assert (t.abs() <= remainders.boxes[0]).all()
    assert ((t / remainders.weights[0].clamp(min=1e-300)).norm(dim=2) <= 1).all()


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: str(vars(function)))
@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize("with_error", [True, False])
@pytest.mark.parametrize("nodes", [1, 6])
def test_the_image_of_every_point_is_in_the_image_of_the_tube(
    generator, function, norm, second_order, with_error, nodes
):
    # one node alone reaches every bound at once, so that none can be smaller
    batch, blocks = (40, 1) if nodes == 1 else (3, 4)
    tube = random_tube(generator, norm, second_order, nodes, batch, blocks, size=0.1)
    u, t = samples(generator, tube, 400 if nodes == 1 else 4000)
    x, old = points(tube, u, t), tube.blocks.shape[1]
    error = normal(generator, *tube.center.shape).abs() if with_error else None
    values = function.derivative(x, 0)
    if error is not None:
        values = values + error * on_sphere(values.shape, "linf", generator)
    image = apply(function, tube, Spread.of(tube), error)
    assert ((values - image.center).abs() <= image.reach()).all()
    # what is not of the kept orders must be within the new remainder, node by node and in length
    rest = values - points(image, u, torch.cat([t, torch.zeros_like(t[:, :, :1])], dim=2))
    if image.blocks.shape[1] == old:
        torch.testing.assert_close(rest, torch.zeros_like(rest))
        return
    room = 1e-12 * values.abs().amax()
    assert (rest.abs() <= image.remainders.boxes[old] + room).all()
    assert ((rest / image.remainders.weights[old].clamp(min=1e-12)).norm(dim=2) <= 1 + 1e-9).all()


@pytest.mark.parametrize("second_order", [True, False])
def test_a_reduced_tube_holds_what_the_tube_holds(generator, second_order):
    tube = random_tube(generator, second_order=second_order, blocks=7)
    assert reduced(tube, most=7) is tube
    u, t = samples(generator, tube)
    x = points(tube, u, t)
    for most in (1, 2, 4, 6):
        smaller = reduced(tube, most)
        kept = smaller.blocks.shape[1] - 1
        assert kept == most // 2
        assert ((x - smaller.center).abs() <= smaller.reach()).all()
        assert ((x - smaller.center).norm(dim=2) <= Spread.of(smaller).length).all()
        # the sum of the old ones is what the first remainder is of
        old = torch.einsum("bmrn,sbmn->sbr", tube.blocks[:, : 7 - kept], t[:, :, : 7 - kept])
        assert (old.abs() <= smaller.remainders.boxes[0]).all()
        assert ((old / smaller.remainders.weights[0]).norm(dim=2) <= 1).all()
        torch.testing.assert_close(smaller.blocks[:, 1:], tube.blocks[:, 7 - kept :])
        for name in ("boxes", "weights"):
            young = zip(
                getattr(smaller.remainders, name)[1:], getattr(tube.remainders, name)[7 - kept :], strict=True
            )
            assert all(one is other for one, other in young)


def test_selected_images_are_as_they_were(generator):
    tube = random_tube(generator, batch=4)
    rows = torch.tensor([True, False, True, False])
    torch.testing.assert_close(tube.select(rows).reach(), tube.reach()[rows])
    torch.testing.assert_close(Spread.of(tube.select(rows)).length, Spread.of(tube).length[rows])


def test_an_image_that_overflows_leaves_the_others_as_they_are(generator):
    start = ball(normal(generator, 3, 6), torch.ones(3, dtype=torch.float64))
    wild = ball(start.center.clone(), torch.tensor([1.0, 1e200, 1.0], dtype=torch.float64))
    for _ in range(3):
        start, wild = (apply(Cubic(0.9, -0.1), tube, Spread.of(tube)) for tube in (start, wild))
    torch.testing.assert_close(wild.reach()[::2], start.reach()[::2])
    assert not (wild.reach()[1] < 1e100).any()
