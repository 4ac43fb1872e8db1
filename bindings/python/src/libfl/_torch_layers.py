# SPDX-License-Identifier: Apache-2.0
"""From calls of PyTorch to layers of libfl. A part of libfl.torch, imported
with it only.

Every node of the traced graph stands for a layer's output, a parameter, a
constant, or a number that only shapes are made of. A handler looks at one
module or call, refuses what libfl computes differently, and adds a layer.
"""
from __future__ import annotations

import dataclasses
from typing import Any, Callable, NoReturn, Sequence, Tuple, Union

from ._err import UnsupportedError
from ._torch_trace import BATCH, Trace, place, torch
from .layers import Attention, From, Layer

nn = torch.nn
Shape = Tuple[int, ...]

SUPPORTED = (
    "Linear, Conv2d, Embedding, LayerNorm, GroupNorm, MultiheadAttention "
    "(self-attention, batch_first), MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, "
    "mean over an image or over tokens, Flatten and reshape to [n, -1], ReLU, "
    "GELU, SiLU, Tanh, Sigmoid, Softmax, Dropout, Identity, their functional "
    "forms, sums of two layers or of a sequence and a Parameter, and modules "
    "made of these")


@dataclasses.dataclass(frozen=True)
class Value:
    """Output of a layer: `shape` for one sample, as libfl sees it."""

    layer: str
    shape: Shape


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter used as it is, or a constant (without a name)."""

    name: str
    tensor: Any


@dataclasses.dataclass(frozen=True)
class Weight:
    """Where a tensor of the model comes from: `source` is its name in the
    module's state_dict, `value` what it holds."""

    source: str
    value: Any


# Layers that libfl makes of several, in this order.
PARTS = {Attention: (".in_proj", ".heads", ".out_proj")}


class Refused(Exception):
    """Why a node has no counterpart."""


class Converter:
    """`layers` and `weights` (by the names that libfl gives) of a graph."""

    def __init__(self, module: Any, trace: Trace, add_missing: bool) -> None:
        self._trace = trace
        self._add_missing = add_missing
        self._sources: dict[int, str] = {}
        self._tied: dict[int, str] = {}  # the other names of a tensor
        for name, tensor in module.state_dict(keep_vars=True).items():
            if self._sources.setdefault(id(tensor), name) != name:
                self._tied[id(tensor)] = name
        self._values: dict[Any, Union[Value, Parameter]] = {}
        self._used: set[int] = set()
        self._names: set[str] = set()
        self.input: Shape = ()
        self.output = ""
        self.layers: list[Layer] = []
        self.weights: dict[str, Weight] = {}

    def convert(self) -> None:
        for node in self._trace.nodes:
            try:
                self._node(node)
            except Refused as error:
                self._refuse(node, str(error))

    def _refuse(self, node: Any, why: str) -> NoReturn:
        raise UnsupportedError(
            f"from_torch: {place(node, self._trace.root)}: {why}. Supported "
            f"are {SUPPORTED}.") from None

    # ---- nodes -----------------------------------------------------------

    def _node(self, node: Any) -> None:
        shape = self._trace.shapes[node]
        if node.op == "placeholder":
            if self._names or shape is None:
                raise Refused("want one input")
            self._names.add("input")
            self.input = shape[1:]
            self._values[node] = Value("", shape[1:])
        elif node.op == "output":
            self._finish(node)
        elif node.op == "get_attr":
            if shape is not None:
                tensor = _attribute(self._trace.root, node.target)
                name = self._sources.get(id(tensor), "")
                is_trained = isinstance(tensor, nn.Parameter)
                self._values[node] = Parameter(name if is_trained else "",
                                               tensor)
        elif not node.users:
            if _is_in_place(node):
                raise Refused("changes a tensor without using the result")
        elif node.op == "call_module":
            module = self._trace.root.get_submodule(node.target)
            kind = layer_kind(module)
            if kind is None:
                raise Refused("there is no such layer in libfl"
                              + _hint(*(base.__name__ for base
                                        in type(module).__mro__)))
            MODULES[kind](self, node, module)
        else:
            self._call(node, shape)

    def _call(self, node: Any, shape: Shape | None) -> None:
        name = getattr(node.target, "__name__", str(node.target))
        name = name.rstrip("_")
        home = getattr(node.target, "__module__", None) or "torch"
        ours = home.split(".")[0] in ("torch", "_operator", "builtins")
        if shape is None and name not in CALLS:
            if any(self._values.get(n) for n in node.all_input_nodes) \
                    and name not in ("size", "getattr", "dim", "numel"):
                raise Refused("gives no tensor")
            return  # a size, or what is computed from sizes
        if not ours or name not in CALLS:
            raise Refused("there is no such call in libfl" + _hint(name))
        CALLS[name](self, node)

    def _finish(self, node: Any) -> None:
        result = node.args[0]
        value = self._values.get(result) if isinstance(
            result, torch.fx.Node) else None
        if not isinstance(value, Value) or not value.layer:
            raise Refused("want one tensor, made by a layer")
        if self.full_shape(result)[1:] != value.shape:
            raise Refused("want a dimension less: the output has trailing "
                          "sizes of 1 (flatten it)")
        if value.layer != self.output:
            raise Refused("is not what the last layer gives")

    # ---- what handlers ask for -------------------------------------------

    def value(self, node: Any, argument: Any) -> Value:
        """The layer's output that an argument is, of PyTorch's shape."""
        value = self.loose(argument)
        shape = self._trace.shapes[argument]
        if shape is None or shape[1:] != value.shape:
            raise Refused(f"takes {list(shape or ())[1:]} of a layer whose "
                          f"output is {list(value.shape)} in libfl (flatten "
                          "it, or no keepdim)")
        return value

    def loose(self, argument: Any) -> Value:
        """The same where trailing sizes of 1 do not matter."""
        value = None
        if isinstance(argument, torch.fx.Node):
            value = self._values.get(argument)
        if not isinstance(value, Value):
            raise Refused("its input is not the output of a layer")
        return value

    def operand(self, argument: Any) -> Value | Parameter | None:
        if not isinstance(argument, torch.fx.Node):
            return None
        return self._values.get(argument)

    def full_shape(self, node: Any) -> Shape:
        """PyTorch's shape of a tensor without a batch."""
        shape = self._trace.shapes[node]
        if shape is None:
            raise Refused("gives no tensor")
        return shape

    def batch_shape(self, node: Any) -> Shape:
        """PyTorch's shape of a sample, of what has to be a batch still."""
        shape = self.full_shape(node)
        if not shape or shape[0] != BATCH:
            raise Refused("changes the batch: want [n, ...], n being the "
                          "batch's")
        return shape[1:]

    def is_tuple(self, argument: Any) -> bool:
        return self._trace.shapes[argument] is None

    def parameter(self, tensor: Any) -> Parameter:
        return Parameter(self._sources.get(id(tensor), ""), tensor)

    def keep(self, node: Any, value: Value | Parameter) -> None:
        """The node is this value."""
        self._values[node] = value

    def set_input(self, node: Any, shape: Shape) -> None:
        """The input is reshaped before anything else: declare it so."""
        self.input = shape
        self._values[node] = Value("", shape)

    def is_alone(self, argument: Any, node: Any) -> bool:
        """Nothing else takes this tensor, but for its sizes."""
        return all(user is node or self._trace.shapes[user] is None
                   for user in argument.users)

    def add(self, node: Any, layer: Any, source: Value, shape: Shape,
            weights: dict[str, tuple[Any, float, Shape]] | None = None,
            name: str = "") -> None:
        """Add a layer that still has no name; `weights`: libfl's suffix ->
        (PyTorch's tensor or None, what stands for None, its shape)."""
        wanted = name or str(node.target if node.op == "call_module"
                             else node.name)
        name, number = wanted, 1
        while name in self._names:
            number += 1
            name = f"{wanted}_{number}"
        parts = [name + part for part in PARTS.get(type(layer), ("",))]
        self._names.update(parts)
        options: dict[str, Any] = {"name": name}
        if weights is not None:
            options["trainable"] = self._take(name, weights)
        if source.layer != self.output:
            self.layers.append(From(source.layer or "input"))
        self.layers.append(dataclasses.replace(layer, **options))
        self.output = parts[-1]
        self._values[node] = Value(parts[-1], shape)

    def _take(self, name: str,
              weights: dict[str, tuple[Any, float, Shape]]) -> bool:
        """Note where a layer's weights come from; true when trained."""
        flags = set()
        for suffix, (tensor, fill, shape) in weights.items():
            if tensor is None:
                if not self._add_missing:
                    raise Refused(
                        f"has no {suffix.rsplit('.', 1)[-1]}, and libfl's "
                        "layer always has one: add_missing=True adds it, "
                        f"initially {fill:g}, and it is trained")
                source = f"{name}{suffix}"
                tensor = torch.full(shape, fill)
            else:
                source = self._sources.get(id(tensor), "")
                flags.add(bool(tensor.requires_grad))
            if not source:
                raise Refused("its weights are computed, not parameters")
            if id(tensor) in self._tied:
                raise Refused(f'shares its weights: "{source}" is '
                              f'"{self._tied[id(tensor)]}", too')
            if id(tensor) in self._used:
                raise Refused("is called twice: libfl's layers have weights "
                              "of their own")
            self._used.add(id(tensor))
            self.weights[name + suffix] = Weight(source, tensor)
        if len(flags) > 1:
            raise Refused("some of its weights are frozen (requires_grad), "
                          "others are not: libfl freezes whole layers")
        return flags != {False}


def layer_kind(module: Any) -> Any:
    """The class whose handler fits: a subclass may change all but forward."""
    kinds: tuple[Any, ...] = type(module).__mro__
    for kind in kinds:
        if kind in MODULES and type(module).forward is kind.forward:
            return kind
    return None


def _attribute(root: Any, path: str) -> Any:
    for part in path.split("."):
        root = getattr(root, part)
    return root


def _is_in_place(node: Any) -> bool:
    name = getattr(node.target, "__name__", str(node.target))
    return (node.kwargs.get("inplace") is True or name == "iadd"
            or name.endswith("_") and not name.endswith("__"))


def _hint(*names: str) -> str:
    """`names`: of a call, or of a module's class and those it is based on."""
    for name in names:
        if name.lower() in ("logsoftmax", "log_softmax"):
            return " (leave it out: the loss takes logits)"
        if name.lower().lstrip("_").startswith("batchnorm"):
            return " (GroupNorm takes its place)"
    return ""


# Handlers by class of a module, and by name of a call; libfl._torch_calls
# files them.
MODULES: dict[Any, Callable[[Converter, Any, Any], None]] = {}
CALLS: dict[str, Callable[[Converter, Any], None]] = {}
