import math

import lightning as L
import pytest
from robustness_runs import COUNT, Bright, Certified, example, loader, measured, pictures
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, TensorDataset
from trainers import quiet_trainer

from lightning_attractors.callbacks import RobustnessCurve
from lightning_attractors.errors import SettingError


def refused_before_training(path, module, data, **settings):
    class Untrained(L.Callback):
        def on_train_batch_start(self, *arguments):
            pytest.fail("training has begun")

    callback = RobustnessCurve(**{"split": "val", **settings})
    module.validation_step = lambda batch, batch_idx: None
    trainer = quiet_trainer(path, [callback, Untrained()], max_epochs=1, num_sanity_val_steps=0)
    with pytest.raises(SettingError) as caught:
        trainer.fit(module, data, data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_does_not_fit_is_said_before_training(tmp_path):
    project = example("existing_project")
    dicts = DataLoader(project.Bands(8, seed=1), batch_size=4)
    message = refused_before_training(tmp_path, project.PlainCNN(), dicts)
    assert message.startswith("unpack_batch=None")
    assert "pixels" in message
    arguments = {**project.CURVE, "mean": None, "std": None}
    message = refused_before_training(tmp_path, project.PlainCNN(), dicts, **arguments)
    assert "must lie from 0 to 1; give mean and std" in message
    arguments = {**project.CURVE, "logits_fn": None}
    message = refused_before_training(tmp_path, project.PlainCNN(), dicts, **arguments)
    assert message.startswith("logits_fn=None: must give the logits: forward gives tuple")
    message = refused_before_training(tmp_path, Bright(math.nan), loader())
    assert "without nan" in message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attacks": []}, "at least one"),
        ({"attacks": ["pgd"]}, "attacks='pgd': must be an import path.*pgd_radius"),
        ({"attacks": ["torchattacks.Nothing"], "strengths": [0.1]}, "torchattacks.Nothing"),
        ({"attacks": ["no.such"], "strengths": [0.1]}, "no.such"),
        ({"attacks": ["torchattacks.FGSM"]}, "strengths=None"),
        ({"attacks": ["torchattacks.FGSM"], "strengths": [0.1, math.inf]}, "strengths=.*must be finite"),
        ({"attacks": ["gaussian_noise"], "strengths": [math.nan]}, "strengths=.*must be finite"),
        ({"attacks": ["torchattacks.CW"], "strengths": [1]}, "strength='eps'.*c, kappa"),
        (
            {"attacks": [{"class_path": "torchattacks.PGD", "init_args": {"stps": 3}, "strengths": [1]}]},
            "init_args='stps'.*alpha",
        ),
        ({"attacks": [{"class_path": "pgd_radius", "init_args": {"eps": 3}}]}, "init_args='eps'.*step_size"),
        ({"attacks": [{"class_path": "pgd_radius", "init_args": {"steps": 0}}]}, "steps=0"),
        ({"attacks": [{"class_path": "pgd_radius", "speed": 3}]}, "speed"),
        ({"attacks": [{"name": "x"}]}, "class_path"),
        ({"attacks": [{"class_path": "pgd_radius", "name": "a/b"}]}, "a/b"),
        ({"attacks": ["pgd_radius", "pgd_radius"]}, "names of their own"),
        ({"confidence": 1.5}, "confidence"),
        ({"max_images": 0}, "max_images"),
        ({"batch_size": 0}, "batch_size"),
        ({"split": "train"}, "split"),
        ({"seed": -1}, "seed"),
        ({"std": [0.0]}, "std"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(SettingError, match=message) as caught:
        RobustnessCurve(**settings)
    assert "\n" not in str(caught.value)


def test_an_attack_that_does_not_fit_the_model_is_named(tmp_path):
    attack = {"class_path": "torchattacks.Square", "init_args": {"norm": "L7"}, "strengths": [0.1]}
    with pytest.raises(SettingError, match=r"init_args=.*L7.*torchattacks.Square cannot attack"):
        measured(tmp_path, attacks=[attack])


def test_a_loader_of_this_rank_alone_is_refused(tmp_path):
    data = TensorDataset(*pictures())
    share = DistributedSampler(data, num_replicas=2, rank=0)
    shares = [DataLoader(data, sampler=share), DataLoader(data, batch_sampler=BatchSampler(share, 7, False))]
    for part in shares:
        message = refused_before_training(tmp_path, Bright(), part)
        assert message.startswith("sampler='DistributedSampler': must not share out the images of the val")
    alone = DistributedSampler(data, num_replicas=1, rank=0)
    _, found = measured(tmp_path, data=DataLoader(data, sampler=alone), attacks=["fgsm_radius"])
    assert found["images"]["all"] == COUNT


@pytest.mark.parametrize("name", ["mean", "std"])
def test_mean_and_std_are_one_or_one_for_every_channel(name, tmp_path):
    with pytest.raises(SettingError, match=rf"{name}=.*must be one number, or 1:"):
        measured(tmp_path, **{name: [0.5, 0.5, 0.5]})


@pytest.mark.parametrize("wrong", [lambda radii: radii[:, None], lambda radii: radii * math.nan])
def test_certificates_are_a_number_for_every_image(wrong, tmp_path):
    module = Certified()
    module.certified_radii = lambda images, labels: wrong(Certified().certified_radii(images, labels))
    with pytest.raises(SettingError, match=r"certified_radii=.*must give radii of shape \(16,\)"):
        measured(tmp_path, module, attacks=["fgsm_radius"])


def test_attacks_that_cannot_work_are_refused_before_training(tmp_path):
    square = {"class_path": "torchattacks.Square", "init_args": {"norm": "L7"}, "strengths": [0.1]}
    message = refused_before_training(tmp_path, Bright(), loader(), attacks=["fgsm_radius", square])
    assert "torchattacks.Square cannot attack" in message
    noise = {"class_path": "replace_pixels", "strengths": [0.1, -1.0, 0.2]}
    message = refused_before_training(tmp_path, Bright(-40.0), loader(), attacks=[noise])
    assert message.startswith("fraction=-1.0")


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda images: images + 1, "attacks='own': must give images from 0 to 1, not from 1."),
        (
            lambda images: images[:1],
            "attacks='own': must give images of the shape (2, 1, 4, 4) that it is given",
        ),
    ],
)
def test_an_attack_of_ones_own_that_gives_no_images_is_refused_before_training(give, message, tmp_path):
    def own(logits_fn, images, labels, strength):
        return give(images)

    settings = {"attacks": [own], "strengths": [0.1]}
    assert refused_before_training(tmp_path, Bright(), loader(), **settings).startswith(message)


def test_a_callable_that_takes_the_wrong_arguments_is_refused():
    with pytest.raises(SettingError, match=r"attacks='clamp': must take \(logits_fn, images") as caught:
        RobustnessCurve([{"class_path": Bright.forward, "name": "clamp"}], [0.1])
    assert "\n" not in str(caught.value)
