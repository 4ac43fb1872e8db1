# SPDX-License-Identifier: Apache-2.0
"""What the tests that need PyTorch share; they are skipped without it."""
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
nn = torch.nn
F = torch.nn.functional

TOLERANCE = 1e-4


class Calls(nn.Module):
    """Named parts, and a forward given as a function."""

    def __init__(self, forward, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


def image(channels=3, size=8):
    return torch.randn(2, channels, size, size)


def sequence(tokens=6, width=8):
    return torch.randn(2, tokens, width)


def labels(*shape):
    return torch.randint(0, 3, shape)


def gradients(model):
    """Of what is trained, by the names of the module, in its shapes."""
    flat, result = model.gradient.copy(), {}
    assert flat.size == model.weight_count
    for info in model.tensors():
        if info.is_trainable:
            values = flat[info.offset:info.offset + info.count]
            result[info.name] = values.reshape(info.shape)
    return {source: result[name].reshape(shape)
            for source, (name, shape) in model._sources.items()
            if name in result}


def same_gradients(model, exact, x, y, torch_loss=F.cross_entropy):
    """Compare loss and all gradients of one batch with those of a module in
    float64: for each tensor the largest difference is at most 1e-4 of the
    largest value; where the gradient is zero but for rounding (a bias that a
    norm takes away), 1e-5 of the net's largest."""
    value = torch_loss(exact(x.double() if x.is_floating_point() else x),
                       y.double() if y.is_floating_point() else y)
    value.backward()
    assert model.accumulate(x, y) == pytest.approx(value.item(), rel=1e-5)
    found = gradients(model)
    expected = {name: parameter for name, parameter
                in exact.named_parameters() if parameter.requires_grad}
    assert found.keys() == expected.keys()
    whole = max(p.grad.abs().max().item() for p in expected.values())
    for name, parameter in expected.items():
        want = parameter.grad.numpy()
        largest = np.abs(want).max()
        if largest < 1e-12 * whole:  # zero but for rounding
            largest = .1 * whole
        assert np.abs(found[name] - want).max() <= TOLERANCE * largest, name
