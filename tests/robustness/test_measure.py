"""A measurement without Lightning, of a classifier whose radii are known."""

import subprocess
import sys
import warnings
from dataclasses import replace

import pytest
import torch

from lightning_attractors.errors import SettingError
from lightning_attractors.robustness import (
    PGD,
    BrokenCertificateError,
    Certificate,
    CertificateReport,
    GradientAttack,
    MaskingCheck,
    MeasureSettings,
    Share,
    fgsm_radii,
    measure,
    register_attack,
)

COUNT = 30
EVERYTHING = MeasureSettings(confidence=0.0, batch_size=8, masking=False)


def bright(images):
    """Tells by their mean whether images are bright."""
    mean = images.flatten(1).mean(dim=1)
    return 40 * torch.stack([0.5 - mean, mean - 0.5], dim=1)


def pictures():
    images = torch.linspace(0.2, 0.8, COUNT).view(-1, 1, 1, 1) + 0.1 * torch.rand(COUNT, 1, 3, 3) - 0.05
    return images, (images.mean(dim=(1, 2, 3)) > 0.5).long()


def batches(size=7):
    return list(zip(*(part.split(size) for part in pictures()), strict=True))


def exact(images, labels):
    return (images.double().mean(dim=(1, 2, 3)) - 0.5).abs() * (1 - 1e-6)


def radii_of(report, name):
    return report.attacks[name].images.radii


def test_a_classifier_that_is_always_wrong_has_a_report_too():
    images, labels = pictures()
    report = measure(bright, [(images, 1 - labels)], ["fgsm_radius"], settings=MeasureSettings(batch_size=8))
    assert report.masking is None
    assert not radii_of(report, "fgsm_radius").any()


def test_a_measurement_is_the_search_over_all_images():
    torch.manual_seed(0)
    report = measure(bright, batches(), ["fgsm_radius", "pgd_radius"], settings=EVERYTHING)
    torch.manual_seed(0)
    expected = fgsm_radii(bright, *pictures()).radii
    torch.testing.assert_close(radii_of(report, "fgsm_radius"), expected, atol=2e-6, rtol=0)
    assert report.attacks["pgd_radius"].robustness == pytest.approx(0.15, abs=0.05)
    assert report.certificate is None
    assert report.masking is None


def test_at_most_so_many_images_are_measured():
    settings = MeasureSettings(max_images=11, batch_size=4, masking=False)
    report = measure(bright, batches(), ["replace_pixels"], [0.5], settings)
    assert report.attacks["replace_pixels"].images.index.tolist() == list(range(11))


@pytest.mark.parametrize(("most", "others"), [(8, True), (28, True), (COUNT, False), (None, False)])
def test_it_is_known_whether_others_were_left_out(most, others):
    settings = replace(EVERYTHING, max_images=most)
    report = measure(bright, batches(7), ["replace_pixels"], [0.5], settings)
    assert report.attacks["replace_pixels"].others is others


def test_a_report_is_printed_as_its_lines():
    report = measure(bright, batches(), ["fgsm_radius", "pgd_radius"], settings=EVERYTHING)
    first, second = str(report).splitlines()
    assert first.startswith("robustness  fgsm_radius in L∞  ")
    assert "30 images, 30 count" in second


def test_first_images_of_too_few_classes_are_warned_of():
    settings = MeasureSettings(max_images=8, batch_size=4, masking=False)
    with pytest.warns(UserWarning, match="^the first 8 images are of 1 of 2 classes: shuffle the images"):
        measure(bright, batches(), ["fgsm_radius"], settings=settings)  # dark ones come first
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure(bright, batches(), ["fgsm_radius"], settings=replace(settings, max_images=None))


def test_random_numbers_are_left_as_they_were():
    def attack(logits_fn, images, labels, strength):
        return torch.rand_like(images)

    torch.manual_seed(3)
    expected = torch.rand(1)
    given, settings = batches(), MeasureSettings(batch_size=8)
    torch.manual_seed(3)
    measure(bright, given, [attack], [0.1], settings)
    assert torch.equal(torch.rand(1), expected)


def test_inference_mode_and_no_grad_change_nothing():
    attacks, strengths = ["pgd_radius", PGD("l2", steps=2), "torchattacks.FGSM"], [0.1, 0.2]
    given = batches()
    expected = measure(bright, given, attacks, strengths, EVERYTHING)
    for mode in (torch.inference_mode(), torch.no_grad()):
        with mode:
            copies = [(images.clone(), labels.clone()) for images, labels in given]
            found = measure(bright, copies, attacks, strengths, EVERYTHING)
        for name in expected.attacks:
            assert torch.equal(radii_of(found, name), radii_of(expected, name))


def test_results_are_told_as_they_come():
    told = []
    settings = MeasureSettings(batch_size=8)
    options = {"settings": settings, "certificate": Certificate(exact), "on_result": told.append}
    report = measure(bright, batches(), ["fgsm_radius"], **options)
    assert [type(result) for result in told[:2]] == [CertificateReport, MaskingCheck]
    assert told[2:] == [report.attacks["fgsm_radius"]]
    assert told[:2] == [report.certificate, report.masking]


def test_two_processes_that_share_find_what_one_does():
    given = batches()

    def attacked(share):
        report = measure(bright, given, ["torchattacks.PGD"], [0.1, 0.2], EVERYTHING, share=share)
        return report.attacks["PGD"].images

    alone = attacked(Share())
    halves = [attacked(Share(rank, 2)) for rank in range(2)]
    assert all(len(half) < COUNT for half in halves)
    joined = type(alone).joined(halves)
    for name in ("index", "radii", "distances", "withstood"):
        assert torch.equal(getattr(joined, name), getattr(alone, name))


def test_a_certificate_that_holds_and_one_that_does_not():
    report = measure(bright, batches(), ["fgsm_radius"], settings=EVERYTHING, certificate=Certificate(exact))
    report.require_certificate()
    assert report.certificate.curve.accuracy[0] == 1
    wrong = Certificate(lambda images, labels: 1.1 * exact(images, labels))
    report = measure(bright, batches(), ["fgsm_radius"], settings=EVERYTHING, certificate=wrong)
    with pytest.raises(BrokenCertificateError, match=r"within it in L∞ are fgsm_radius: images \["):
        report.require_certificate()


@pytest.mark.parametrize(("box", "breaks"), [((0.0, 1.0), False), ((-1.0, 2.0), True)])
def test_attacks_that_leave_the_box_break_no_certificate_of_it(box, breaks):
    """Within [0, 1] every image is of class 0; ``add_uniform`` goes farther."""

    def glaring(images):
        return 40 * torch.stack([1.1 - images.amax(dim=(1, 2, 3)), torch.zeros(len(images))], dim=1)

    given = [(0.5 + 0.5 * torch.rand(12, 1, 3, 3), torch.zeros(12, dtype=torch.long))]
    sure = Certificate(lambda images, labels: torch.ones(len(images)), box=box)
    report = measure(glaring, given, ["add_uniform"], [0.9], EVERYTHING, certificate=sure)
    assert report.attacks["add_uniform"].images.radii.isfinite().any()
    assert bool(report.attacks["add_uniform"].breaches) is breaks


def test_an_interruption_tells_what_is_done():
    told = []

    def attack(logits_fn, images, labels, strength):
        if len(told) == 1:
            raise KeyboardInterrupt
        told.append("a batch")
        return images

    with pytest.raises(KeyboardInterrupt):
        measure(bright, batches(), [attack], [0.1], EVERYTHING, on_result=told.append)
    assert not told[1].complete
    assert len(told[1].images) == 8


class Halfway(GradientAttack):
    """An attack of one's own: one step of the gradient attack's, in its norm, half as far as it may."""

    def __call__(self, logits_fn, images, labels, strength):
        gradient, _ = self.gradient(logits_fn, images, labels)
        return self.step(gradient, images, images, 0.5 * strength, strength)


def darken(logits_fn, images, labels, strength, floor=0.0):
    """An attack of one's own, as a function."""
    return (images - strength).clamp(floor, 1)


def test_attacks_of_ones_own():
    register_attack("darken", darken)
    attacks = [
        Halfway(),
        {"class_path": darken, "name": "by_hand"},
        {"class_path": "darken", "init_args": {"floor": 0.2}},
        {"class_path": f"{__name__}.darken", "name": "by_path"},
        {"class_path": f"{__name__}.Halfway", "init_args": {"norm": "l2"}, "name": "in_l2"},
        PGD("l2", steps=5),
    ]
    report = measure(bright, batches(), attacks, [0.1, 0.2, 0.4], EVERYTHING)
    assert list(report.attacks) == ["Halfway", "by_hand", "darken", "by_path", "in_l2", "PGD"]
    images, labels = pictures()
    margin = (images.mean(dim=(1, 2, 3)) - 0.5).abs()
    reached = radii_of(report, "Halfway")
    assert (reached[reached.isfinite()] / 2 >= margin[reached.isfinite()] - 0.06).all()
    assert torch.equal(radii_of(report, "by_hand"), radii_of(report, "by_path"))
    assert radii_of(report, "by_hand")[labels == 1].isfinite().any()
    assert radii_of(report, "by_hand")[labels == 0].isinf().all()
    assert report.attacks["darken"].trial.arguments == {"floor": 0.2}
    assert report.attacks["PGD"].trial.arguments == {
        "norm": "l2",
        "steps": 5,
        "step_size": None,
        "restarts": 1,
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "batches='none'"),
        ([torch.rand(2, 1, 3, 3)], "batches='Tensor': must be pairs"),
        ([(torch.rand(2, 9), torch.zeros(2))], r"images=\(2, 9\): must be floating point"),
        ([(torch.rand(2, 1, 3, 3) + 1, torch.zeros(2))], "images=.*must lie from 0 to 1"),
    ],
)
def test_batches_that_are_none_are_refused(given, message):
    with pytest.raises(SettingError, match=message) as caught:
        measure(bright, given, ["fgsm_radius"])
    assert "\n" not in str(caught.value)


def test_nothing_of_lightning_is_needed():
    script = (
        "import sys; sys.modules['lightning'] = None; import lightning_attractors.robustness as r; r.measure"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
