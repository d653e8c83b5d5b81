"""A CUDA device that only pretends: tensors there know shape, dtype and device, and have no values.

An operation on tensors of two devices fails, and so does reading a value. There is no backward pass:
gradients with respect to images and states are zeros.
"""

from contextlib import contextmanager
from types import SimpleNamespace

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torchmetrics import Metric
from torchmetrics.aggregation import BaseAggregator

from lightning_attractors.certificates import guards

CUDA = torch.device("cuda", 0)


@contextmanager
def pretended_cuda(monkeypatch):
    """Gives a list, of the devices that generators are asked for."""
    asked, generator = [], torch.Generator

    def on_cpu(device="cpu"):
        asked.append(torch.device(device).type)
        return generator()

    monkeypatch.setattr(torch, "Generator", on_cpu)
    unseen = {"_get_current_function_mode_stack": list, "_get_current_dispatch_mode_stack": list}
    monkeypatch.setattr(guards, "overrides", SimpleNamespace(**unseen))
    monkeypatch.setattr(guards, "_python_dispatch", SimpleNamespace(**unseen))
    monkeypatch.setattr(guards, "_PLAIN_TENSORS", (*guards._PLAIN_TENSORS, FakeTensor))
    monkeypatch.setattr(torch.autograd, "grad", lambda outputs, inputs, **_: (torch.zeros_like(inputs),))
    # torchmetrics looks for nan in what it averages
    averaged = BaseAggregator, "_cast_and_nan_check_input", lambda _, x, weight: (x, weight)
    monkeypatch.setattr(*averaged)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield asked


def there(value):
    """A tensor of that shape and dtype on the pretended device."""
    pretended = torch.empty(value.shape, dtype=value.dtype, device=CUDA)
    if isinstance(value, torch.nn.Parameter):
        return torch.nn.Parameter(pretended, value.requires_grad)
    return pretended


def move(model):
    """Put a model where ``model.to(device)`` would, which cannot take values away from tensors."""
    for part in model.modules():
        for store in (part._parameters, part._buffers):
            store.update({name: there(value) for name, value in store.items() if value is not None})
        if isinstance(part, Metric):
            vars(part).update({name: there(vars(part)[name]) for name in part._defaults})
        vars(part).update({"_device": CUDA} if "_device" in vars(part) else {})
    return model
