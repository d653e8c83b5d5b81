"""What may be called as an attack, and what it may give."""

import functools
import math

import pytest
import torch
import torchattacks
from robustness_runs import Bright, pictures

from lightning_attractors.errors import SettingError
from lightning_attractors.robustness import CORRUPTIONS, gaussian_noise, register_attack
from lightning_attractors.robustness.attacks import Classifier, make_attacks

IMAGES, LABELS = pictures()


def keep(logits_fn, images, labels, strength):
    return images


def attacked(attack, **settings):
    (trial,) = make_attacks([{"class_path": attack, "name": "own", **settings}], [0.1])
    return trial(Classifier(Bright().eval(), IMAGES, LABELS, 16), [0, 1])


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (
            lambda images: images[:, :, :2],
            r"attacks='own': must give images of the shape \(16, 1, 4, 4\).*not",
        ),
        (lambda images: images + 1, r"attacks='own': must give images from 0 to 1, not from 1\."),
        (lambda images: images - 1, r"attacks='own': must give images from 0 to 1, not from -"),
        (lambda images: images * math.nan, "attacks='own': must give images from 0 to 1, not from nan"),
        (lambda images: images.tolist(), "attacks='own': must give images of the shape .* not list"),
    ],
)
def test_what_gives_no_images_is_refused(give, message):
    with pytest.raises(SettingError, match=message) as caught:
        attacked(lambda logits_fn, images, labels, strength: give(images))
    assert "\n" not in str(caught.value)


class Named:
    def __init__(self, share=1.0):
        self.share = share

    def __call__(self, logits_fn, images, labels, strength):
        return (images + self.share * strength).clamp(0, 1)


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (lambda images, labels: images, r"must take \(logits_fn, images, labels, strength\) and give images"),
        (lambda logits_fn, images, labels, strength, more: images, "missing a required argument: 'more'"),
        (lambda logits_fn, images, labels, *, strength: images, "must take"),
        (torchattacks.PGD(torch.nn.Flatten()), r"must take \(logits_fn.*it takes \(inputs"),
        (torch.nn.Flatten, "eps.*is no argument"),
        (3, "must have a class_path"),
        ({"class_path": keep, "init_args": {"size": 3}}, "init_args='size': is no argument of keep"),
        ({"class_path": Named(), "init_args": {"share": 3}}, "init_args='share': is no argument of Named"),
        ({"class_path": Named, "init_args": {"size": 3}}, r"init_args=.*Named:.*unexpected.*'size'"),
        ({"class_path": "gaussian_noise", "init_args": {"size": 3}}, "init_args='size': is no argument of"),
        ({"class_path": "pgd_radius", "init_args": {"norm": "l7"}}, "norm='l7': must be linf or l2"),
        (keep, "needs strengths"),
        (gaussian_noise, "needs strengths"),
    ],
)
def test_what_is_no_attack_is_refused(attack, message):
    strengths = None if message == "needs strengths" else [0.1]
    with pytest.raises(SettingError, match="strengths=None" if strengths is None else message) as caught:
        make_attacks([attack], strengths)
    assert "\n" not in str(caught.value)


def test_names_are_registered_once():
    register_attack("keep", keep)
    assert [trial.name for trial in make_attacks(["keep"], [0.1])] == ["keep"]
    for name in ("keep", "pgd_radius", "gaussian_noise"):
        with pytest.raises(SettingError, match=f"name='{name}': must be new") as caught:
            register_attack(name, keep)
        assert "\n" not in str(caught.value)
    with pytest.raises(SettingError, match=r"attack='pgd_radius': must be a callable"):
        register_attack("other", "pgd_radius")
    with pytest.raises(SettingError, match="must be a word"):
        register_attack("a.b", keep)


def test_classes_and_instances_are_attacks():
    expected = attacked(Named(0.5)).radii
    assert torch.equal(attacked(Named, init_args={"share": 0.5}).radii, expected)
    assert torch.equal(attacked(f"{__name__}.Named", init_args={"share": 0.5}).radii, expected)
    assert torch.equal(attacked(torchattacks.FGSM).radii, attacked("torchattacks.FGSM").radii)


def test_a_callable_may_ask_for_the_key_and_draws_the_same_without():
    seen = []

    def keyed(logits_fn, images, labels, strength, key):
        seen.append((tuple(key), torch.rand(1).item()))
        return images

    make = functools.partial(make_attacks, [keyed])
    for trial in (*make([0.1, 0.2]), *make([0.1])):
        trial(Classifier(Bright().eval(), IMAGES[:16], LABELS[:16], 16), [0, 1])
    assert len(seen) == 3
    assert len(set(seen)) == 1
    assert seen[0][0] == (0, 1, 0)


def test_corruptions_take_arguments_and_may_leave_the_unit_interval(monkeypatch):
    def stripes(images, strength, generator, period=2):
        return images + strength * (torch.arange(images.shape[-1]) % period == 0)

    by_function = attacked(stripes, init_args={"period": 1})
    monkeypatch.setitem(CORRUPTIONS, "stripes", stripes)
    (trial,) = make_attacks([{"class_path": "stripes", "init_args": {"period": 1}}], [0.1])
    assert trial.arguments == {"period": 1}
    found = trial(Classifier(Bright().eval(), IMAGES, LABELS, 16), [0, 1])
    assert torch.equal(found.adversarial, by_function.adversarial)
    assert not torch.equal(found.adversarial, attacked(stripes).adversarial)
    plain = attacked(gaussian_noise).adversarial
    assert torch.equal(plain, attacked("gaussian_noise").adversarial)
