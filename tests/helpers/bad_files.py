"""Files that are not what their names say."""

import gzip
import os
import pickle
import zipfile

import numpy as np
import torch
from data_files import write_cifar10, write_idx, write_mnist

_WRONG = ("cut", "text", "none", "swapped", "few_labels", "label_99", "no_images", "small", "zipped")


class Foreign:
    """A type that only the writer of a checkpoint knows."""


def write_checkpoints(folder, good):
    """Files that ``--ckpt_path`` may name; ``good`` is a checkpoint that could be used."""
    content = torch.load(good, weights_only=False)
    weights = content["state_dict"]
    contents = {
        "list": [1, 2],
        "tensor": torch.ones(3),
        "weights": weights,
        "strings": {**content, "state_dict": dict.fromkeys(weights, "x")},
        "numbers": {**content, "state_dict": dict(enumerate(weights.values()))},
        "other_keys": {**content, "state_dict": {f"old.{name}": value for name, value in weights.items()}},
        "nan": {**content, "state_dict": {**weights, "gamma": torch.tensor(torch.nan)}},
        "no_optimizer": {name: value for name, value in content.items() if name != "optimizer_states"},
        "no_states": {**content, "optimizer_states": []},
        "odd_states": {**content, "optimizer_states": ["x"]},
        "no_schedulers": {name: value for name, value in content.items() if name != "lr_schedulers"},
        "no_loops": {**content, "loops": {}},
        "no_version": {**content, "pytorch-lightning_version": None},
        "epoch": {**content, "epoch": "three"},
        "other_model": {**content, "model_class": "CVFR"},
        "foreign": {**content, "mine": Foreign()},
    }
    for name, value in contents.items():
        torch.save(value, folder / f"{name}.ckpt")
    whole = good.read_bytes()
    (folder / "half.ckpt").write_bytes(whole[: len(whole) // 2])
    (folder / "text.ckpt").write_text("hello\n")
    with zipfile.ZipFile(folder / "zip.ckpt", "w") as archive:
        archive.writestr("a.txt", "hello")
    os.mkfifo(folder / "pipe")


def write_configs(folder):
    """Files that ``--config`` may name."""
    (folder / "binary.yaml").write_bytes(bytes(range(256)))
    texts = {
        "text": "just text",
        "empty": "",
        "list": "- 1\n- 2\n",
        "broken": "model: [1\n",
        "tabs": "model:\n\tclass_path: SANODE\n",
        "twice": "trainer:\n  max_epochs: 1\ntrainer:\n  max_steps: 3\n",
        "twice_within": "trainer:\n  max_epochs: 1\n  max_epochs: 2\n",
        "circle": "trainer: &a\n  max_epochs: *a\n",
        "tag": "trainer: !!python/object:os.system {}\n",
        "no_base": "base: nowhere.yaml\n",
        "callbacks": "callbacks: []\n",
        "unknown_class": "model:\n  class_path: SANODEE\n",
        "unknown_key": "model:\n  class_path: SANODE\n  init_args:\n    dtt: 1\n",
        "wrong_type": "model:\n  class_path: SANODE\n  init_args:\n    dt: abc\n",
        "unknown_section": "modell:\n  class_path: SANODE\n",
        "no_class": "model:\n  init_args:\n    dt: 0.1\n",
    }
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)


def write_data(folder):
    """Roots that ``--data.root`` may name, each with something wrong, and one of whole files: ``whole``."""
    whole = folder / "whole"
    for root in (whole.name, *_WRONG):
        write_mnist(folder / root, n_train=40, n_test=20)
        write_cifar10(folder / root, n_train=40, n_test=20)
    raw, batches = "MNIST/raw/train-images-idx3-ubyte", "cifar-10-batches-py/data_batch_1"
    labels = "MNIST/raw/train-labels-idx1-ubyte"
    for name in (raw, batches):
        content = (whole / name).read_bytes()
        (folder / "cut" / name).write_bytes(content[:-100])
        (folder / "text" / name).write_text("hello")
        (folder / "none" / name).unlink()
        (folder / "zipped" / name).write_bytes(gzip.compress(content)[:50])
    (folder / "swapped" / raw).write_bytes((whole / labels).read_bytes())
    write_idx(folder / "few_labels" / labels, np.zeros(7))
    write_idx(folder / "label_99" / labels, np.full(40, 99))
    write_idx(folder / "no_images" / raw, np.zeros((0, 28, 28)))
    write_idx(folder / "small" / raw, np.zeros((40, 14, 14)))
    entry = pickle.loads((whole / batches).read_bytes())
    changes = {"few_labels": {"labels": [0]}, "label_99": {"labels": [99] * 8}, "swapped": {"data": "hello"}}
    for root, change in changes.items():
        (folder / root / batches).write_bytes(pickle.dumps({**entry, **change}, protocol=2))
