"""Randomised smoothing, of a linear classifier whose smoothed radii are known in closed form."""

import math

import pytest
import torch
from scipy.stats import binomtest
from torch.distributions import Normal

from lightning_attractors.errors import SettingError
from lightning_attractors.robustness import (
    PGD,
    Certificate,
    KeptVotes,
    MeasureSettings,
    Share,
    Smoothing,
    Vote,
    draw,
    lower_bound,
    measure,
    smoothed_radii,
    write_report,
)
from lightning_attractors.robustness.smoothing import vote

COUNT, SIGMA = 40, 0.25
QUICK = Smoothing(SIGMA, samples=200, selection=20)
PLAIN = MeasureSettings(confidence=0.0, batch_size=16, masking=False, smoothing=QUICK)


def linear(images):
    """Tells by a weighted mean whether images are bright; images anywhere will do."""
    weights = torch.linspace(-1, 2, 9)
    score = (images.flatten(1) - 0.5) @ weights
    return 40 * torch.stack([-score, score], dim=1)


def pictures(count=COUNT):
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(count, 1, 3, 3, generator=generator)
    return images, linear(images).argmax(dim=1)


def true_radii(images):
    """How far away the boundary is, which the smoothed classifier shares with the linear one."""
    return (linear(images)[:, 1] / 40).abs() / torch.linspace(-1, 2, 9).norm()


def columns(found):
    return [column.tolist() for column in found]


@pytest.mark.parametrize("alpha", [0.001, 0.05])
@pytest.mark.parametrize(
    ("count", "samples"), [(0, 10), (1, 10), (7, 10), (10, 10), (990, 1000), (99983, 100000)]
)
def test_the_bound_is_the_exact_one(count, samples, alpha):
    expected = binomtest(count, samples, alternative="greater").proportion_ci(1 - alpha, "exact").low
    assert lower_bound(count, samples, alpha) == pytest.approx(expected, abs=1e-12)
    if count == samples:
        assert lower_bound(count, samples, alpha) == pytest.approx(alpha ** (1 / samples))


def test_radii_are_below_the_true_ones_and_as_large_as_the_samples_allow():
    images, labels = pictures()
    settings = Smoothing(SIGMA, samples=1000, alpha=0.001)
    found, true = smoothed_radii(linear, images, settings, seed=1), true_radii(images)
    assert (found.radii <= true).all()
    likely = Normal(0.0, 1.0).cdf(true / SIGMA)
    deviations = (1000 * likely * (1 - likely)).sqrt()
    assert ((found.counts - 1000 * likely).abs() <= 4 * deviations + 1).all()
    sure = found.classes >= 0
    assert sure.sum() > 30
    assert torch.equal(found.classes[sure], labels[sure])


def test_an_image_near_the_boundary_has_no_class():
    found = smoothed_radii(linear, torch.full((4, 1, 3, 3), 0.5), QUICK)
    assert found.classes.tolist() == [-1] * 4
    assert found.radii.tolist() == [0.0] * 4
    assert (found.lower < 0.5).all()


@pytest.mark.parametrize("size", [1, 7, 50, 64, 1000])
def test_the_noise_is_the_same_in_batches_of_any_size(size):
    images, _ = pictures(3)
    seen = []

    def watched(noisy):
        seen.append(noisy)
        return linear(noisy)

    vote(watched, images[1], 1, Smoothing(SIGMA, samples=130, selection=20, batch_size=size), seed=4)
    assert max(map(len, seen)) <= size
    given = torch.cat(seen)
    seen.clear()
    vote(watched, images[1], 1, Smoothing(SIGMA, samples=130, selection=20), seed=4)
    assert torch.equal(torch.cat(seen), given)
    assert given.shape[0] == 150
    noise = (given - images[1]) / SIGMA
    assert abs(float(noise.mean())) < 0.1
    assert float(noise.std()) == pytest.approx(1, abs=0.05)
    assert given.min() < 0
    assert given.max() > 1


def test_noise_depends_on_seed_and_image_alone():
    images, _ = pictures()
    torch.manual_seed(0)
    found = columns(smoothed_radii(linear, images, QUICK))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert columns(smoothed_radii(linear, images, QUICK)) == found
    assert torch.equal(torch.get_rng_state(), state)
    assert vote(linear, images[7], 7, QUICK, 0).agreeing == found[1][7]
    assert columns(smoothed_radii(linear, images, QUICK, seed=1)) != found


def test_logits_that_are_nan_count_against_the_class():
    images, labels = pictures()
    far = true_radii(images).argmax()

    def partly(noisy):
        logits = linear(noisy)
        return torch.where(noisy[:, 0, 0, :1] > images[far, 0, 0, 0], math.nan, logits)

    whole = vote(linear, images[far], int(far), QUICK, 0)
    half = vote(partly, images[far], int(far), QUICK, 0)
    assert half.chosen == whole.chosen == labels[far]
    assert whole.agreeing > 190
    assert 70 < half.agreeing < 130
    assert vote(lambda noisy: linear(noisy) * math.nan, images[far], 0, QUICK, 0) == Vote(-1, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": 0.0}, "smoothing.sigma=0.0: must be finite and above 0"),
        ({"sigma": math.nan}, "smoothing.sigma=nan"),
        ({"samples": 0}, "smoothing.samples=0: must be at least 1"),
        ({"samples": 9}, "smoothing.samples=9: must be at least 10 with an alpha of 0.001, or no radius"),
        ({"samples": 1, "alpha": 0.5}, "smoothing.samples=1: must be at least 2"),
        ({"alpha": 0.0}, "smoothing.alpha=0.0: must be above 0 and below 1"),
        ({"alpha": 1.0}, "smoothing.alpha=1.0: must be above 0 and below 1"),
        ({"selection": 0}, "smoothing.selection=0: must be at least 1"),
        ({"batch_size": 0}, "smoothing.batch_size=0: must be at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(SettingError) as caught:
        Smoothing(**{"sigma": SIGMA, **settings})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("alpha", [0.001, 0.3, 0.5, 0.6])
def test_the_fewest_samples_that_are_accepted_can_certify(alpha):
    fewest = next(n for n in range(1, 50) if alpha ** (1 / n) > 0.5)
    assert Smoothing(SIGMA, fewest, alpha).reach > 0
    with pytest.raises(SettingError):
        Smoothing(SIGMA, fewest - 1, alpha)


def batches(size=7):
    return list(zip(*(part.split(size) for part in pictures()), strict=True))


def smoothed(settings=PLAIN, **options):
    return measure(linear, batches(), ["replace_pixels"], [0.5], settings, **options).smoothed


def test_a_measurement_has_what_the_function_gives():
    images, labels = pictures()
    told = []
    report = measure(linear, batches(), [PGD("l2", steps=2)], [0.1, 0.3], PLAIN, on_result=told.append)
    expected = smoothed_radii(linear, images, QUICK)
    found = report.smoothed
    assert told[0] is found
    assert found.images.index.tolist() == list(range(COUNT))
    for name in ("classes", "counts", "lower", "radii"):
        assert torch.equal(getattr(found.images, name), getattr(expected, name))
    right = (expected.classes == labels) & (expected.radii >= 0.1)
    assert found.summary({}, {})["certified_accuracy"]["0.1"] == pytest.approx(right.double().mean().item())
    lines = draw(report.attacks["PGD"])[""].axes[0].get_legend().get_texts()
    assert any("probability 1 − α per image" in line.get_text() for line in lines)


def test_radii_that_an_attack_breaks_are_no_broken_certificate():
    """What is attacked is another function: it errs where the noise does not see it."""

    def pierced(images):
        at = (images.flatten(1) - 0.9).abs().amax(dim=1) < 1e-3
        return torch.where(at[:, None], -1.0, 1.0) * torch.tensor([1.0, -1.0])

    def pierce(logits_fn, images, labels, strength):
        return torch.full_like(images, 0.9)

    given = [(torch.full((2, 1, 3, 3), 0.85), torch.zeros(2, dtype=torch.long))]
    report = measure(pierced, given, [pierce], [0.5], PLAIN)
    assert report.attacks["pierce"].images.distances.isfinite().all()
    assert (report.smoothed.images.radii > 0.15).all()
    report.require_certificate()


def test_a_certificate_in_l2_stands_beside_the_smoothed_one(tmp_path):
    certificate = Certificate(lambda images, labels: 0.9 * true_radii(images), "l2")
    report = measure(linear, batches(), ["fgsm_radius"], settings=PLAIN, certificate=certificate)
    labels = [line.get_label() for line in draw(report.smoothed)[""].axes[0].lines]
    assert labels[0] == "certified of the classifier itself"
    assert "holds with probability 1 − α per image" in labels[1]
    assert smoothed().itself(torch.ones(1)) is None
    write_report(report, tmp_path)
    names = {path.name for path in tmp_path.glob("smoothed*")}
    assert names == {f"smoothed.{end}" for end in ("csv", "json", "png", "pdf")}


def test_two_processes_that_share_find_what_one_does():
    alone = smoothed().images
    halves = [smoothed(share=Share(rank, 2)).images for rank in range(2)]
    assert all(len(half) < COUNT for half in halves)
    joined = type(alone).joined(halves)
    for name, value in vars(alone).items():
        if name != "certified":
            assert torch.equal(getattr(joined, name), value), name


class Interrupted:
    """The linear classifier, until it has been asked so often of noisy images."""

    def __init__(self, calls):
        self.left = calls

    def __call__(self, images):
        if images.min() < 0 or images.max() > 1:
            self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return linear(images)


def interrupted(folder, calls=12, rank=0):
    memory = KeptVotes(folder, "this", rank)
    with pytest.raises(KeyboardInterrupt):
        measure(Interrupted(calls), batches(), ["replace_pixels"], [0.5], PLAIN, memory=memory)


def test_what_is_done_when_interrupted_is_not_done_again(tmp_path):
    expected = smoothed().images
    interrupted(tmp_path)
    again = KeptVotes(tmp_path, "this")
    found = smoothed(memory=again)
    assert found.recalled == 12
    for name in ("classes", "counts", "radii"):
        assert torch.equal(getattr(found.images, name), getattr(expected, name))
    # α is of the radii, not of the votes
    surer = MeasureSettings(**{**vars(PLAIN), "smoothing": Smoothing(SIGMA, 200, 0.0001, 20)})
    assert smoothed(surer, memory=KeptVotes(tmp_path, "this")).recalled == COUNT


def test_several_processes_leave_what_one_goes_on_from(tmp_path):
    interrupted(tmp_path, 12, rank=0)
    interrupted(tmp_path, 5, rank=1)  # recalls 12, and adds 5
    assert smoothed(memory=KeptVotes(tmp_path, "this", rank=2)).recalled == 17


@pytest.mark.parametrize(
    "changed", [{"sigma": 0.3}, {"samples": 201}, {"selection": 21}, {"seed": 1}, {"classifier": "other"}]
)
def test_what_was_found_with_other_settings_is_not_used(changed, tmp_path):
    interrupted(tmp_path)
    settings = {**vars(PLAIN), **{name: value for name, value in changed.items() if name == "seed"}}
    own = {name: value for name, value in changed.items() if name in vars(QUICK)}
    settings["smoothing"] = Smoothing(**{**vars(QUICK), **own})
    memory = KeptVotes(tmp_path, changed.get("classifier", "this"))
    assert smoothed(MeasureSettings(**settings), memory=memory).recalled == 0


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "\x00\xff"])
def test_a_file_that_is_none_and_rows_of_other_images_are_not_used(content, tmp_path):
    interrupted(tmp_path)
    memory = KeptVotes(tmp_path, "this")
    memory.begin(QUICK.key(0))
    images, _ = pictures()
    assert memory.recall(0, images[0]) is not None
    assert memory.recall(0, images[1]) is None
    (tmp_path / "smoothed_votes_0.json").write_text(content)
    assert smoothed(memory=KeptVotes(tmp_path, "this")).recalled == 0
