import csv

import pytest

from lightning_attractors.sweeps import Report, Settled, write_report


def settled(slot, value, gamma, kind, robust=True, **more):
    fit = {"R": 0.1 + gamma / 10, "uncertainty": 0.01, "accuracy": 0.9, "counts": slot != 1}
    found = {
        "folder": f"runs/s/version_{slot}",
        "metrics": {"val/accuracy": value, "test/accuracy": 0.9, "robustness/pgd/R": fit["R"]},
        "robustness": {"pgd": fit} if robust else {},
        "seconds": 2.5,
    }
    state = {"state": "complete", "error": None, **more}
    return Settled(
        slot, slot, state["state"], {"model.gamma": gamma, "kind": kind}, value, state["error"], found
    )


TRIALS = [
    settled(0, 0.5, 0.001, "a"),
    settled(1, 0.75, 1.0, "b"),
    Settled(2, 3, "failed", {"model.gamma": 2.0, "kind": "a"}, None, "gamma=2: too large", {}),
    Settled(3, 4, "pruned", {"model.gamma": 2.5, "kind": "a"}, None, None, {}),
    settled(4, 0.25, 0.1, "a"),
]


def report(trials=TRIALS, minimize=False):
    return Report("s", "val/accuracy", minimize, ["model.gamma", "kind"], trials)


def test_tables_have_every_trial_and_the_best_comes_first(tmp_path, quick_figures):
    written = write_report(report(), tmp_path)
    assert [path.name for path in written] == ["trials.csv", "trials.md", "parallel.png", "robustness.png"]
    rows = list(csv.DictReader((tmp_path / "trials.csv").open()))
    assert [row["trial"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert rows[1] == {
        "trial": "1",
        "version": "1",
        "state": "complete",
        "model.gamma": "1.0",
        "kind": "b",
        "val/accuracy": "0.75",
        "robustness/pgd/R": "0.2",
        "test/accuracy": "0.9",
        "seconds": "2.5",
        "folder": "runs/s/version_1",
        "error": "",
    }
    assert (rows[2]["state"], rows[2]["error"]) == ("failed", "gamma=2: too large")
    lines = (tmp_path / "trials.md").read_text().splitlines()
    assert lines[2] == "3 complete, 1 pruned, 1 failed; the largest val/accuracy first."
    assert lines[4] == "| trial | model.gamma | kind | val/accuracy | test/accuracy | R (pgd) | run |"
    assert lines[6] == "| 1 | 1 | b | 0.75 | 0.9 | 0.2 ± 0.01 | runs/s/version_1 |"
    assert [line.split(" | ")[0] for line in lines[6:9]] == ["| 1", "| 0", "| 4"]
    assert lines[10:] == [
        "- trial 2 failed, model.gamma=2, kind=a: gamma=2: too large",
        "",
        "- trial 3 pruned, model.gamma=2.5, kind=a",
    ]
    assert report(minimize=True).best.slot == 4


@pytest.mark.parametrize(
    ("trials", "names"),
    [
        ([], []),
        ([TRIALS[2]], []),
        ([settled(0, 0.5, 1.0, "a", robust=False)], ["parallel.png"]),
        ([TRIALS[0]], ["parallel.png", "robustness.png"]),
    ],
)
def test_there_are_pictures_of_what_there_is(trials, names, tmp_path):
    assert [path.name for path in write_report(report(trials), tmp_path)] == [
        "trials.csv",
        "trials.md",
        *names,
    ]
    for name in names:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
