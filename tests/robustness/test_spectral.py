import json

import lightning as L
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from robustness_runs import EXAMPLES, example

from lightning_attractors.errors import SettingError
from lightning_attractors.models import SANODE
from lightning_attractors.robustness import SpectralProbe, robust_fraction

NODES, COUNT = 6, 4000


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def linear():
    """States (M, N) and targets, oblique modes Φ, and a linear map Φ D Φ⁻¹ with given D."""
    modes = torch.randn(NODES, NODES, generator=seeded(1), dtype=torch.float64) + 2 * torch.eye(NODES)
    decay = torch.linspace(0, 1, NODES, dtype=torch.float64)
    matrix = modes @ torch.diag(decay) @ torch.linalg.inv(modes)
    states = torch.rand(COUNT, NODES, generator=seeded(2), dtype=torch.float64)
    return lambda x: x @ matrix.T, modes, decay, states


def test_a_linear_map_degrades_by_what_it_leaves_of_each_mode(linear):
    final_states, modes, decay, states = linear
    targets = final_states(states)
    probe = SpectralProbe(final_states, modes, states, targets, batch_size=999)
    # Mode j leaves σ² d_j² ‖φ_j‖² on average; φ_j is a column
    expected = 0.25 * decay**2 * modes.square().sum(dim=0)
    found = probe.mode_errors(0.5, seeded())
    torch.testing.assert_close(found, expected, rtol=0.1, atol=1e-12)
    # Independent noise on a random half leaves half of their sum
    fractions = torch.tensor([0.0, 0.5, 1.0])
    found = probe.fraction_errors(0.5, fractions, seeded())
    torch.testing.assert_close(found, fractions.double() * expected.sum(), rtol=0.1, atol=1e-12)


def test_the_reference_is_the_error_without_noise(linear):
    final_states, modes, _, states = linear
    targets = torch.zeros_like(states)
    probe = SpectralProbe(final_states, modes, states, targets)
    clean = final_states(states).square().sum(dim=1).mean()
    fractions = torch.tensor([0.0, 1.0])
    torch.testing.assert_close(probe.fraction_errors(0.0, fractions), clean.expand(2))
    torch.testing.assert_close(probe.mode_errors(0.0), clean.expand(NODES))
    torch.testing.assert_close(probe.fraction_errors(3.0, fractions)[0], clean)


@settings(max_examples=30, deadline=None)
@given(fractions=st.lists(st.floats(0, 1), min_size=2, max_size=6), seed=st.integers(0, 99))
def test_larger_fractions_keep_the_noise_of_smaller_ones(fractions, seed):
    starts = []

    def keep(states):
        starts.append(states)
        return states

    probe = SpectralProbe(keep, torch.eye(NODES), torch.zeros(5, NODES), torch.zeros(5, NODES))
    errors = probe.fraction_errors(1.0, torch.tensor(sorted(fractions)), seeded(seed))
    assert (errors.diff() >= 0).all()
    for fraction, smaller, larger in zip(sorted(fractions)[:-1], starts[:-1], starts[1:], strict=True):
        assert ((smaller != 0).sum(dim=1) == round(float(torch.tensor(fraction)) * NODES)).all()
        assert ((smaller == larger) | (smaller == 0)).all()


def test_robust_fraction_stops_at_the_first_degradation():
    fractions = torch.tensor([0.0, 0.25, 0.5, 0.75])
    errors = torch.tensor([0.1, 0.14, 0.2, 0.02])
    assert robust_fraction(fractions, errors, scale=1.0) == 0.25
    assert robust_fraction(fractions, errors, scale=1.0, tolerance=0.2) == 0.75
    assert robust_fraction(fractions, errors, scale=0.01) == 0.0


def test_bad_input_is_refused_in_one_line():
    good = {"modes": torch.eye(3), "states": torch.ones(2, 3), "targets": torch.ones(2, 3)}
    for changed, message in (
        ({"modes": torch.eye(2)}, r"modes=\(2, 2\): must be \(3, 3\)"),
        ({"states": torch.ones(0, 3)}, r"states=\(0, 3\)"),
        ({"targets": torch.ones(3)}, r"targets=\(3,\)"),
        ({"batch_size": 0}, "batch_size=0"),
    ):
        with pytest.raises(SettingError, match=message):
            SpectralProbe(lambda states: states, **{**good, **changed})
    probe = SpectralProbe(lambda states: states, **good)
    with pytest.raises(SettingError, match="sigma=-1"):
        probe.mode_errors(-1)
    with pytest.raises(SettingError, match=r"fractions=.*1\.5"):
        probe.fraction_errors(1, torch.tensor([1.5]))
    fractions = torch.tensor([0.0, 1.0])
    for errors, scale, message in (
        (torch.tensor([0.0, torch.nan]), 1.0, "errors=.*finite"),
        (torch.zeros(3), 1.0, "errors=.*each of 2"),
        (torch.zeros(2), 0.0, "scale=0"),
    ):
        with pytest.raises(SettingError, match=message):
            robust_fraction(fractions, errors, scale)


def test_the_example_leaves_curves_of_a_run(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES / "studies"))
    spectrum = example("studies/sa_node_spectrum")
    trainer = L.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
    trainer.strategy.connect(SANODE(num_classes=2, image_shape=(1, 7, 7), steps=3))
    trainer.save_checkpoint(tmp_path / "checkpoints" / "best.ckpt")
    letters = {"class_path": "lightning_attractors.data.LettersDataModule", "init_args": {"letters": "AB"}}
    (tmp_path / "config.yaml").write_text(json.dumps({"data": letters}))
    monkeypatch.setattr("sys.argv", ["", str(tmp_path), "--sigmas", "0", "5", "--images", "20"])
    spectrum.main()
    summary = json.loads((tmp_path / "spectrum.json").read_text())
    assert summary["robust_fraction"]["0"] == 1.0
    assert summary["robust_fraction"]["5"] < 1.0
    assert len((tmp_path / "spectrum_fractions.csv").read_text().splitlines()) == 1 + 2 * 51
    assert len((tmp_path / "spectrum_modes.csv").read_text().splitlines()) == 1 + 2 * 49
    assert (tmp_path / "spectrum.png").stat().st_size > 0
