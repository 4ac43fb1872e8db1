# SPDX-License-Identifier: Apache-2.0
"""Models made of PyTorch modules: `libfl.from_torch(module, sample)`; and a
PyTorch module over an embedding table, `libfl.torch.EmbeddingBag`.

Imported when it is asked for; the package does not need PyTorch. The module
is traced (torch.fx), each call becomes a layer of libfl, and the result is
compared with the module's on the sample before it is returned.
"""
from __future__ import annotations

from typing import Any, Mapping

import numpy as np

from . import _torch_calls as _torch_calls  # files the handlers
from ._err import UnsupportedError
from ._torch_embedding import EmbeddingBag as EmbeddingBag
from ._torch_layers import Converter, Weight, layer_kind
from ._torch_trace import run, torch, trace
from .context import Context
from .layers import Input, Layer, SoftmaxCrossEntropy
from .model import Model

# How far the two results may be apart, as a part of the largest value.
TOLERANCE = 1e-3


class TorchModel(Model):
    """A model that knows the names its tensors have in a PyTorch module, and
    what the module holds beside them (buffers, parameters that its forward
    does not use)."""

    _sources: dict[str, tuple[str, tuple[int, ...]]]
    _rest: dict[str, Any]
    _order: list[str]

    def _remember(self, module: Any, weights: Mapping[str, Weight]) -> None:
        self._sources = {weight.source: (name, tuple(weight.value.shape))
                         for name, weight in weights.items()}
        state = module.state_dict()
        self._rest = {name: value.detach().cpu().clone()
                      for name, value in state.items()
                      if name not in self._sources}
        added = [name for name in self._sources if name not in state]
        self._order = [*state, *added]

    def state_dict(self) -> dict[str, Any]:
        """Return copies of all tensors by the module's names, in its shapes
        and order: for `module.load_state_dict`. Biases that the module has
        not (`add_missing`) come last."""
        result = {}
        for source in self._order:
            if source in self._rest:
                result[source] = self._rest[source].clone()
            else:
                name, shape = self._sources[source]
                result[source] = torch.from_numpy(self[name].reshape(shape))
        return result

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set all tensors by the module's names, or none: names and shapes
        must be those of `state_dict()`. What is no tensor of the model, such
        as a mask, has to be as it was."""
        if set(state) != set(self._order):
            wrong = sorted(set(state) ^ set(self._order))
            raise ValueError(f"state: names do not agree: {wrong}")
        arrays = {}
        for source, value in state.items():
            tensor = torch.as_tensor(value).detach().cpu()
            if source in self._rest:
                if not torch.equal(tensor, self._rest[source]):
                    raise ValueError(f"{source}: is not trained by libfl and "
                                     "differs from the module's")
                continue
            name, shape = self._sources[source]
            if tuple(tensor.shape) != shape:
                raise ValueError(f"{source}: got shape {list(tensor.shape)}, "
                                 f"want {list(shape)}")
            arrays[name] = _array(tensor)
            if not np.isfinite(arrays[name]).all():
                raise ValueError(f"{source}: has a value that is not finite")
        for name, array in arrays.items():
            self[name] = array.reshape(self._index[name].shape)

    def _derived(self, function: Any, *arguments: Any) -> TorchModel:
        """With adapters or without them: tensors that the module has not
        have libfl's names."""
        model = super()._derived(function, *arguments)
        assert isinstance(model, TorchModel)
        known = {name: source for source, (name, _) in self._sources.items()}
        model._sources = {}
        for name, info in model._index.items():
            source = known.get(name, name)
            shape = self._sources[source][1] if name in known else info.shape
            model._sources[source] = name, shape
        model._rest = self._rest
        kept = [source for source in self._order
                if source in model._sources or source in model._rest]
        model._order = kept + [source for source in model._sources
                               if source not in kept]
        return model

    def __reduce__(self) -> Any:
        """Copies and pickles keep the names, too."""
        return _rebuild, (self.description, dict(self), self._sources,
                          self._rest, self._order)


def _rebuild(description: bytes, tensors: Mapping[str, Any],
             sources: dict[str, tuple[str, tuple[int, ...]]],
             rest: dict[str, Any], order: list[str]) -> TorchModel:
    model = TorchModel.from_description(description)
    assert isinstance(model, TorchModel)
    model.load(tensors)
    model._sources, model._rest, model._order = sources, rest, order
    return model


def from_torch(module: Any, sample: Any, *, loss: Layer | None = None,
               scale: float = 1.0, shift: float = 0.0,
               add_missing: bool = False,
               context: Context | None = None) -> TorchModel:
    """Make a model that computes what a torch.nn.Module computes, holding
    its weights; tensors and layers have the module's names.

    `sample`: a batch [n, ...] that the module takes, of floats or of ids.
    `loss`: a layer of libfl; softmax cross-entropy when there is none.
    `scale`, `shift`: of libfl.Input, applied before the module's first layer
    (uint8 pixels: scale 1/255); the sample is what comes out of them.
    `add_missing`: a Linear or Conv2d without bias, or a norm without weight
    and bias, gets one nevertheless, for libfl's layers always have them:
    zeros (ones for a norm's weight), which are trained from then on. Without
    it such layers are refused.
    A parameter that needs no gradient is no part of flat weights and updates.
    UnsupportedError names the first module or call that libfl has not,
    ValueError the one that cannot run on the sample, PyTorch's own error being
    the cause.
    """
    batch = torch.as_tensor(sample)
    if batch.dim() < 2 or len(batch) == 0:
        raise ValueError(f"sample: got shape {list(batch.shape)}, want a "
                         "batch [n, ...] of one or more")
    graph = trace(module, batch, lambda part: layer_kind(part) is not None)
    converter = Converter(module, graph, add_missing)
    converter.convert()
    layers = [Input(converter.input, scale, shift), *converter.layers,
              loss or SoftmaxCrossEntropy()]
    model = TorchModel(layers, context=context)
    for name, weight in converter.weights.items():
        model[name] = _array(weight.value).reshape(model._index[name].shape)
    model._remember(module, converter.weights)
    _compare(model, module, batch, scale, shift)
    return model


def _array(tensor: Any) -> Any:
    return tensor.detach().cpu().float().numpy()


def _compare(model: TorchModel, module: Any, batch: Any, scale: float,
             shift: float) -> None:
    """Prove on the sample that both compute the same."""
    expected = _array(run(module, batch))
    x = batch.detach().cpu().numpy()
    if batch.is_floating_point():
        x = (x - np.float32(shift)) / np.float32(scale)
    found = model.predict(x).reshape(expected.shape)
    largest = float(np.abs(expected).max(initial=0))
    difference = float(np.abs(found - expected).max(initial=0))
    if not difference <= TOLERANCE * (largest + 1e-6):
        raise UnsupportedError(
            f"from_torch: {type(module).__name__}: the model's output differs "
            f"from the module's by {difference:.3g} where the largest is "
            f"{largest:.3g}: forward does something that the trace does not "
            "show (in-place changes, values read while tracing, hooks)")
