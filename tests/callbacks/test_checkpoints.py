import lightning as L
import pytest
import torch
from refusals import refusal
from trainers import quiet_trainer

from lightning_attractors.callbacks import BestCheckpoint, LastCheckpoint


class Rising(L.LightningModule):
    """Logs a loss of 0, 1, 2 in its three epochs, and an accuracy that rises too."""

    def __init__(self, **attributes):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        for name, value in attributes.items():
            setattr(self, name, value)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", float(self.current_epoch))
        self.log("val/accuracy", float(self.current_epoch))
        self.log("val/level", 1.0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("attributes", "settings", "epoch"),
    [
        ({"monitor": "val/accuracy"}, {}, 2),
        ({"monitor": "val/loss", "monitor_mode": "min"}, {}, 0),
        ({"monitor": "val/loss"}, {"mode": "min"}, 0),
        ({"monitor": "val/loss", "monitor_mode": "min"}, {"monitor": "val/accuracy"}, 2),
        ({"monitor": "nothing"}, {}, 2),
        ({"monitor": "val/level"}, {}, 2),  # all as good: the longest trained
        ({"monitor": "val/level", "monitor_mode": "min"}, {}, 2),
    ],
)
def test_the_best_epoch_is_the_one_that_module_or_user_calls_best(tmp_path, attributes, settings, epoch):
    best = BestCheckpoint(dirpath=tmp_path, **settings)
    loader = torch.utils.data.DataLoader(torch.ones(2, 1))
    trainer = quiet_trainer(tmp_path, [best], max_epochs=3, enable_checkpointing=True, num_sanity_val_steps=0)
    trainer.fit(Rising(**attributes), loader, loader)
    assert torch.load(tmp_path / "best.ckpt", weights_only=False)["epoch"] == epoch


class Falling(Rising):
    """Has its best epoch first; before it trains on, nothing is known of its metric."""

    def validation_step(self, batch, batch_idx):
        self.log("val/accuracy", -float(self.current_epoch))


def fit(folder, epochs, ckpt_path=None, **settings):
    """Train so many epochs in a folder, and give the callback that chooses the best."""
    best = BestCheckpoint(dirpath=folder, **settings)
    callbacks = [best, LastCheckpoint()]
    callbacks[1].dirpath = str(folder)
    trainer = quiet_trainer(
        folder, callbacks, max_epochs=epochs, enable_checkpointing=True, num_sanity_val_steps=0
    )
    loader = torch.utils.data.DataLoader(torch.ones(2, 1))
    trainer.fit(Falling(monitor="val/accuracy"), loader, loader, ckpt_path=ckpt_path, weights_only=True)
    return best


def epoch(path):
    return torch.load(path, weights_only=True)["epoch"]


@pytest.mark.parametrize("top", [1, 2])
def test_a_run_that_goes_on_knows_its_best_epochs(tmp_path, top):
    settings = {"save_top_k": top, "filename": "best-{epoch}"}
    settings |= {"monitor": "val/accuracy"} if top > 1 else {}
    whole = fit(tmp_path / "whole", 5, **settings)
    fit(tmp_path / "part", 3, **settings)
    resumed = fit(tmp_path / "part", 5, tmp_path / "part" / "last.ckpt", **settings)
    names = [f"best-epoch={k}.ckpt" for k in range(top)]
    for folder in ("whole", "part"):
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == [*names, "last.ckpt"]
    assert epoch(resumed.best_model_path) == 0
    found, expected = resumed.state_dict(), whole.state_dict()
    for key in ("best_model_score", "kth_value", "current_score", "monitor"):
        assert found[key] == expected[key]
    for key in ("best_model_path", "kth_best_model_path"):
        assert found[key] == expected[key].replace("whole", "part")


def test_a_run_that_was_moved_knows_its_best_and_one_elsewhere_does_not(tmp_path):
    fit(tmp_path / "there", 2)
    (tmp_path / "there").rename(tmp_path / "here")
    last = tmp_path / "here" / "last.ckpt"
    best = fit(tmp_path / "here", 4, last)
    assert best.best_model_path == str(tmp_path / "here" / "best.ckpt")
    assert epoch(best.best_model_path) == 0
    elsewhere = fit(tmp_path / "new", 6, last)
    assert elsewhere.best_model_path == str(tmp_path / "new" / "best.ckpt")
    assert epoch(elsewhere.best_model_path) == 4
    assert epoch(tmp_path / "here" / "best.ckpt") == 0


def test_a_checkpoint_of_an_older_version_says_which_its_best_is(tmp_path):
    fit(tmp_path, 2)
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    (key,) = [key for key in content["callbacks"] if key.startswith("BestCheckpoint")]
    older = key.replace("'monitor': None", "'monitor': 'val/accuracy'")
    assert older != key
    content["callbacks"][older] = content["callbacks"].pop(key)
    torch.save(content, tmp_path / "last.ckpt")
    assert epoch(fit(tmp_path, 4, tmp_path / "last.ckpt").best_model_path) == 0


@pytest.mark.parametrize("path", ["{outside}/evil.ckpt", "{folder}/../evil.ckpt", "{folder}/missing.ckpt"])
def test_no_path_from_a_checkpoint_leads_out_of_the_runs_folder(tmp_path, path):
    folder = tmp_path / "run"
    fit(folder, 2)
    torch.save({"state_dict": {}}, tmp_path / "evil.ckpt")
    content = torch.load(folder / "last.ckpt", weights_only=True)
    evil = path.format(outside=tmp_path, folder=folder)
    for state in content["callbacks"].values():
        if "best_model_path" in state:
            state.update(best_model_path=evil, best_k_models={evil: torch.tensor(9.0)})
            state.update(kth_best_model_path=evil, last_model_path=evil)
    torch.save(content, folder / "last.ckpt")
    best = fit(folder, 2, folder / "last.ckpt")
    assert (best.best_model_path, best.kth_best_model_path, best.best_k_models) == ("", "", {})
    assert (tmp_path / "evil.ckpt").exists()


@pytest.mark.parametrize("name", ["last", "LAST", "../best", "/best", ".", ""])
def test_a_file_has_a_name_of_its_own_in_the_folder(name):
    assert refusal(BestCheckpoint, filename=name).startswith(f"checkpoint.filename='{name}': must")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"save_top_k": 2, "monitor": "val/accuracy"}, "checkpoint.filename='best': must tell several apart"),
        ({"save_top_k": -1}, "checkpoint.filename='best': must tell several apart"),
        ({"monitor": "val/loss"}, "checkpoint.mode=None: must be min or max"),
    ],
)
def test_settings_by_which_the_best_would_be_another_are_refused(settings, message):
    assert message in refusal(BestCheckpoint, **settings)
