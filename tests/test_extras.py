"""What works without the packages that are extras, and what says which to install."""

import sys
from importlib.metadata import PackageNotFoundError

import pytest
import torch
from robustness_runs import Bright, pictures

from lightning_attractors.dynamics.nmode import NMODELayer
from lightning_attractors.errors import SettingError
from lightning_attractors.extras import load_extra
from lightning_attractors.robustness import MeasureSettings, make_attacks, measure, versions


@pytest.fixture
def without(monkeypatch):
    """Hides packages, as if they were not installed."""
    return lambda *names: [monkeypatch.setitem(sys.modules, name, None) for name in names]


def test_what_a_robustness_curve_does_by_default_needs_none(without):
    without("torchattacks", "torchdiffeq", "shtab")
    report = measure(Bright().eval(), [pictures()], ["fgsm_radius", "pgd_radius"], settings=MeasureSettings())
    assert report.masking.black_box > 0
    assert report.attacks.keys() == {"fgsm_radius", "pgd_radius"}


@pytest.mark.parametrize("chosen", ["torchattacks.PGD", "torchattacks.attacks.pgd.PGD"])
def test_an_attack_of_torchattacks_says_what_to_install(chosen, without):
    without("torchattacks")
    with pytest.raises(SettingError) as caught:
        make_attacks([chosen], [0.1])
    install = "needs torchattacks: pip install 'lightning-attractors[attacks]'"
    assert str(caught.value) == f"attacks={chosen!r}: {install}"


def test_a_flow_without_a_flow_map_says_what_to_install(without):
    without("torchdiffeq")
    assert NMODELayer(3, 2)(torch.zeros(1, 3)).shape == (1, 2)
    with pytest.raises(SettingError) as caught:
        NMODELayer(3, 2, order=2)
    install = "needs torchdiffeq: pip install 'lightning-attractors[solvers]'"
    assert str(caught.value) == f"integration='dopri5': {install}"


def test_what_a_package_lacks_itself_is_not_taken_for_it(tmp_path, monkeypatch):
    (tmp_path / "shtab.py").write_text("import nowhere_at_all")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "shtab", raising=False)
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        load_extra("shtab", "print_completion", "bash")


def test_versions_are_those_of_what_is_installed(monkeypatch):
    assert {"python", "torch", "lightning"} <= versions().keys()

    def only_torch(name):
        if name != "torch":
            raise PackageNotFoundError(name)
        return "2"

    monkeypatch.setattr("lightning_attractors.robustness.summaries.version", only_torch)
    assert versions().keys() == {"python", "torch"}
