# SPDX-License-Identifier: Apache-2.0
"""What each module and call of PyTorch becomes. A part of libfl.torch,
imported with it only.

A handler refuses every attribute that libfl's layer has not; what it lets
pass computes the same.
"""
from __future__ import annotations

from typing import Any, Callable

from . import layers
from ._torch_layers import (CALLS, MODULES, Converter, Parameter, Refused,
                            Shape, Value)
from ._torch_trace import torch

nn = torch.nn

ACTIVATIONS = {"relu": layers.ReLU, "gelu": layers.GELU, "silu": layers.SiLU,
               "tanh": layers.Tanh, "sigmoid": layers.Sigmoid}
MOST_POOL = 15  # largest window of libfl's pool2d


def call(*names: str) -> Callable[[Any], Any]:
    def file(handler: Any) -> Any:
        for name in names:
            CALLS[name] = handler
        return handler
    return file


def module(*kinds: Any) -> Callable[[Any], Any]:
    def file(handler: Any) -> Any:
        for kind in kinds:
            MODULES[kind] = handler
        return handler
    return file


def bind(node: Any, **defaults: Any) -> dict[str, Any]:
    """Arguments of a call by name, those behind the first."""
    bound = dict(defaults)
    for name, value in zip(defaults, node.args[1:]):
        bound[name] = value
    for name, value in node.kwargs.items():
        if name in bound:
            bound[name] = value
    return bound


def first(node: Any) -> Any:
    """The tensor that a call or a module is applied to."""
    return node.args[0] if node.args else node.kwargs.get("input")


def want(is_so: bool, text: str) -> None:
    if not is_so:
        raise Refused(text)


def square(value: Any, what: str) -> int:
    """A size that is the same in both directions."""
    sizes = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    want(all(isinstance(size, int) and size == sizes[0] for size in sizes),
         f"{what} {value}: want the same in both directions")
    return int(sizes[0])


# ---- layers with weights ---------------------------------------------------

@module(nn.Linear)
def linear(to: Converter, node: Any, layer: Any) -> None:
    x = to.value(node, first(node))
    want(len(x.shape) in (1, 2), f"takes {list(x.shape)}, want a vector or a "
         "sequence [tokens, width]")
    units = layer.out_features
    to.add(node, layers.Dense(units), x, x.shape[:-1] + (units,), {
        ".weight": (layer.weight, 0.0, tuple(layer.weight.shape)),
        ".bias": (layer.bias, 0.0, (units,))})


def conv_padding(layer: Any) -> int:
    if layer.padding == "valid":
        return 0
    if layer.padding == "same":
        size = square(layer.kernel_size, "kernel_size")
        want(size % 2 == 1, "padding 'same': want an odd kernel")
        return size // 2
    return square(layer.padding, "padding")


@module(nn.Conv2d)
def conv2d(to: Converter, node: Any, layer: Any) -> None:
    x = to.value(node, first(node))
    want(square(layer.dilation, "dilation") == 1, "dilation: want 1")
    want(layer.padding_mode == "zeros", "padding_mode: want zeros")
    height, width = layer.kernel_size
    conv = layers.Conv2d(layer.out_channels, (height, width),
                         square(layer.stride, "stride"), conv_padding(layer),
                         layer.groups)
    to.add(node, conv, x, to.batch_shape(node), {
        ".weight": (layer.weight, 0.0, tuple(layer.weight.shape)),
        ".bias": (layer.bias, 0.0, (layer.out_channels,))})


def norm_weights(layer: Any, width: int) -> dict[str, Any]:
    return {".weight": (layer.weight, 1.0, (width,)),
            ".bias": (layer.bias, 0.0, (width,))}


@module(nn.LayerNorm)
def layer_norm(to: Converter, node: Any, layer: Any) -> None:
    x = to.value(node, first(node))
    want(len(layer.normalized_shape) == 1 and len(x.shape) in (1, 2),
         "want one normalised dimension, the last of a vector or sequence")
    to.add(node, layers.LayerNorm(layer.eps), x, x.shape,
           norm_weights(layer, x.shape[-1]))


@module(nn.GroupNorm)
def group_norm(to: Converter, node: Any, layer: Any) -> None:
    x = to.value(node, first(node))
    want(len(x.shape) == 3, f"takes {list(x.shape)}, want an image")
    to.add(node, layers.GroupNorm(layer.num_groups, layer.eps), x, x.shape,
           norm_weights(layer, x.shape[0]))


@module(nn.Embedding)
def embedding(to: Converter, node: Any, layer: Any) -> None:
    want(layer.padding_idx is None and layer.max_norm is None
         and not layer.scale_grad_by_freq,
         "padding_idx, max_norm, scale_grad_by_freq: want none of them")
    rows, width = layer.weight.shape
    ids = to.operand(first(node))
    if isinstance(ids, Parameter) and ids.tensor.dim() == 1 \
            and torch.equal(ids.tensor, torch.arange(rows)):
        to.keep(node, to.parameter(layer.weight))  # all positions in order
        return
    x = to.value(node, first(node))
    want(len(x.shape) == 1, f"takes {list(x.shape)}, want ids [tokens]")
    to.add(node, layers.Embedding(rows, width), x, x.shape + (width,), {
        ".weight": (layer.weight, 0.0, (rows, width))})


@module(nn.MultiheadAttention)
def attention(to: Converter, node: Any, layer: Any) -> None:
    inputs = (node.args + tuple(
        node.kwargs[name] for name in ("query", "key", "value")
        if name in node.kwargs))[:3]
    want(len(inputs) == 3 and inputs[0] is inputs[1] is inputs[2],
         "want self-attention: one tensor as query, key and value")
    want(layer.batch_first, "want batch_first=True")
    want(layer.in_proj_weight is not None and layer.bias_k is None
         and not layer.add_zero_attn,
         "kdim, vdim, add_bias_kv, add_zero_attn: want none of them")
    want(layer.dropout == 0, "dropout of attention weights: want 0")
    x = to.value(node, inputs[0])
    width = layer.embed_dim
    want(len(x.shape) == 2, f"takes {list(x.shape)}, want a sequence")
    heads = layers.Attention(layer.num_heads,
                             is_causal(to, node, x.shape[0]))
    to.add(node, heads, x, x.shape, {
        ".in_proj.weight": (layer.in_proj_weight, 0.0, (3 * width, width)),
        ".in_proj.bias": (layer.in_proj_bias, 0.0, (3 * width,)),
        ".out_proj.weight": (layer.out_proj.weight, 0.0, (width, width)),
        ".out_proj.bias": (layer.out_proj.bias, 0.0, (width,))})


def is_causal(to: Converter, node: Any, tokens: int) -> bool:
    """Whether the mask hides what comes after each token."""
    names = ("query", "key", "value", "key_padding_mask", "need_weights",
             "attn_mask", "average_attn_weights", "is_causal")
    given = dict(zip(names, node.args))
    given.update(node.kwargs)
    want(given.get("key_padding_mask") is None,
         "key_padding_mask: want none")
    if given.get("attn_mask") is None:
        return False
    mask = to.operand(given["attn_mask"])
    want(isinstance(mask, Parameter), "attn_mask: want a constant")
    hidden = mask.tensor  # type: ignore[union-attr]
    want(tuple(hidden.shape) == (tokens, tokens),
         f"attn_mask: want {tokens} x {tokens}")
    after = torch.ones(tokens, tokens).triu(1).bool()
    if hidden.dtype == torch.bool:
        is_so = torch.equal(hidden, after)
    else:
        causal = torch.zeros(tokens, tokens).masked_fill(after, -float("inf"))
        is_so = torch.equal(hidden.float(), causal)
    want(is_so, "attn_mask: want none, or one that hides exactly the tokens "
         "behind each")
    return True


# ---- layers without weights ------------------------------------------------

def activate(to: Converter, node: Any, name: str) -> None:
    x = to.loose(first(node))
    to.add(node, ACTIVATIONS[name](), x, x.shape)


@module(nn.ReLU, nn.SiLU, nn.Tanh, nn.Sigmoid)
def activation(to: Converter, node: Any, layer: Any) -> None:
    activate(to, node, type(layer).__name__.lower())


@call("relu", "silu", "tanh", "sigmoid")
def activation_call(to: Converter, node: Any) -> None:
    name = getattr(node.target, "__name__", str(node.target))
    activate(to, node, name.rstrip("_"))


@module(nn.GELU)
def gelu(to: Converter, node: Any, layer: Any) -> None:
    want(layer.approximate == "none", "approximate: want 'none'")
    activate(to, node, "gelu")


@call("gelu")
def gelu_call(to: Converter, node: Any) -> None:
    want(bind(node, approximate="none")["approximate"] == "none",
         "approximate: want 'none'")
    activate(to, node, "gelu")


def add_softmax(to: Converter, node: Any, dim: Any) -> None:
    x = to.value(node, first(node))
    want(len(x.shape) in (1, 2) and dim in (-1, len(x.shape)),
         f"dim {dim}: want the last one of a vector or sequence")
    to.add(node, layers.Softmax(), x, x.shape)


@module(nn.Softmax)
def softmax(to: Converter, node: Any, layer: Any) -> None:
    add_softmax(to, node, layer.dim)


@call("softmax")
def softmax_call(to: Converter, node: Any) -> None:
    add_softmax(to, node, bind(node, dim=None)["dim"])


def drop(to: Converter, node: Any, rate: float) -> None:
    x = to.loose(first(node))
    want(rate < 1, "p: want less than 1")
    if rate == 0:
        to.keep(node, x)
    else:
        to.add(node, layers.Dropout(rate), x, x.shape)


@module(nn.Dropout)
def dropout(to: Converter, node: Any, layer: Any) -> None:
    drop(to, node, layer.p)


@call("dropout")
def dropout_call(to: Converter, node: Any) -> None:
    bound = bind(node, p=.5, training=True)
    want(isinstance(bound["training"], bool), "training: want self.training")
    drop(to, node, bound["p"] if bound["training"] else 0)


@module(nn.Identity)
def identity(to: Converter, node: Any, layer: Any) -> None:
    del layer
    to.keep(node, to.loose(first(node)))


# ---- pooling ---------------------------------------------------------------

def add_pool(to: Converter, node: Any, kind: Any,
             attributes: dict[str, Any]) -> None:
    x = to.value(node, first(node))
    size = square(attributes["kernel_size"], "kernel_size")
    want(size <= MOST_POOL, f"kernel_size: want <= {MOST_POOL}")
    want(not attributes["ceil_mode"], "ceil_mode: want False")
    pool = kind(size, square(attributes["stride"] or size, "stride"),
                square(attributes["padding"], "padding"))
    to.add(node, pool, x, to.batch_shape(node))


def max_pool(to: Converter, node: Any, attributes: dict[str, Any]) -> None:
    want(square(attributes["dilation"], "dilation") == 1, "dilation: want 1")
    want(not attributes["return_indices"], "return_indices: want False")
    add_pool(to, node, layers.MaxPool2d, attributes)


@module(nn.MaxPool2d)
def max_pool2d(to: Converter, node: Any, layer: Any) -> None:
    max_pool(to, node, vars(layer))


@call("max_pool2d")
def max_pool2d_call(to: Converter, node: Any) -> None:
    max_pool(to, node, bind(node, kernel_size=None, stride=None, padding=0,
                            dilation=1, ceil_mode=False,
                            return_indices=False))


def average_pool(to: Converter, node: Any, attributes: dict[str, Any]
                 ) -> None:
    want(square(attributes["padding"], "padding") == 0
         or attributes["count_include_pad"], "count_include_pad: want True")
    want(attributes["divisor_override"] is None,
         "divisor_override: want None")
    add_pool(to, node, layers.AvgPool2d, attributes)


@module(nn.AvgPool2d)
def avg_pool2d(to: Converter, node: Any, layer: Any) -> None:
    average_pool(to, node, vars(layer))


@call("avg_pool2d")
def avg_pool2d_call(to: Converter, node: Any) -> None:
    average_pool(to, node, bind(
        node, kernel_size=None, stride=None, padding=0, ceil_mode=False,
        count_include_pad=True, divisor_override=None))


def adapt(to: Converter, node: Any, output_size: Any) -> None:
    """The mean of each channel, or windows of one size."""
    x = to.value(node, first(node))
    want(len(x.shape) == 3, f"takes {list(x.shape)}, want an image")
    sizes = output_size
    if not isinstance(output_size, (tuple, list)):
        sizes = (output_size, output_size)
    sizes = tuple(to.batch_shape(node)[1:]) if None in sizes else tuple(sizes)
    if sizes == (1, 1):
        to.add(node, layers.Mean(), x, x.shape[:1])
        return
    windows = [size // parts for size, parts in zip(x.shape[1:], sizes)]
    want(windows[0] == windows[1]
         and tuple(windows[0] * parts for parts in sizes) == x.shape[1:],
         f"output_size {output_size} of {list(x.shape[1:])}: want 1, or "
         "square windows of one size")
    if windows[0] == 1:
        to.keep(node, x)
        return
    add_pool(to, node, layers.AvgPool2d, {
        "kernel_size": windows[0], "stride": None, "padding": 0,
        "ceil_mode": False})


@module(nn.AdaptiveAvgPool2d)
def adaptive(to: Converter, node: Any, layer: Any) -> None:
    adapt(to, node, layer.output_size)


@call("adaptive_avg_pool2d")
def adaptive_call(to: Converter, node: Any) -> None:
    adapt(to, node, bind(node, output_size=1)["output_size"])


@call("mean")
def mean(to: Converter, node: Any) -> None:
    x = to.value(node, first(node))
    rank = len(x.shape) + 1
    dims = bind(node, dim=None, keepdim=False, dtype=None)["dim"]
    dims = dims if isinstance(dims, (tuple, list)) else [dims]
    whole = {3: [1], 4: [2, 3]}.get(rank)
    want(None not in dims and sorted(d % rank for d in dims) == whole,
         "want the mean over an image's height and width, or over a "
         "sequence's tokens")
    to.add(node, layers.Mean(), x, x.shape[:1] if rank == 4 else x.shape[1:])


# ---- shapes and sums -------------------------------------------------------

def squeezed(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)


def reshape_parameter(to: Converter, node: Any, value: Parameter) -> None:
    """Sizes of 1 come and go; the values stay."""
    shape = to.full_shape(node)
    want(squeezed(shape) == squeezed(tuple(value.tensor.shape)),
         "changes the shape of a parameter")
    to.keep(node, value)


def reshaped(to: Converter, node: Any) -> None:
    """Whatever turns each sample into one of another shape, in order."""
    operand = to.operand(first(node))
    if isinstance(operand, Parameter):
        reshape_parameter(to, node, operand)
        return
    x = to.loose(first(node))
    shape = to.batch_shape(node)
    if shape == x.shape or len(x.shape) == 1 \
            and squeezed(shape) == squeezed(x.shape):
        to.keep(node, x)
    elif not x.layer and to.is_alone(first(node), node):
        to.set_input(node, shape)
    else:
        want(len(shape) == 1, f"turns {list(x.shape)} into {list(shape)}: "
             "want [n, -1]")
        to.add(node, layers.Flatten(), x, shape)


@module(nn.Flatten, nn.Unflatten)
def flatten(to: Converter, node: Any, layer: Any) -> None:
    del layer
    reshaped(to, node)


for _name in ("view", "reshape", "flatten", "unflatten", "squeeze",
              "unsqueeze", "contiguous", "clone"):
    CALLS[_name] = reshaped


@call("getitem")
def getitem(to: Converter, node: Any) -> None:
    operand = to.operand(node.args[0])
    if operand is None:
        return  # one of a tensor's sizes
    if isinstance(operand, Parameter):
        reshape_parameter(to, node, operand)
        return
    if not to.is_tuple(node.args[0]):
        whole = (slice(None), None, ...)
        index = node.args[1] if isinstance(node.args[1], tuple) else (
            node.args[1],)
        want(all(any(part is one or part == one for one in whole)
                 for part in index), "takes a part of a tensor")
        reshaped(to, node)
        return
    want(node.args[1] == 0, "takes attention's weights, which libfl does not "
         "give")
    to.keep(node, operand)


@call("add", "iadd")
def add(to: Converter, node: Any) -> None:
    want(bind(node, other=None, alpha=1)["alpha"] == 1, "alpha: want 1")
    arguments = [first(node), bind(node, other=None)["other"]]
    operands = [to.operand(argument) for argument in arguments]
    if isinstance(operands[0], Parameter):
        operands.reverse()
        arguments.reverse()
    x, other = operands
    want(isinstance(x, Value), "want the output of a layer")
    if isinstance(other, Parameter):
        add_positions(to, node, to.value(node, arguments[0]), other)
        return
    want(isinstance(other, Value),
         "want the outputs of two layers, or a Parameter [tokens, width]")
    add_layers(to, node, x, other)  # type: ignore[arg-type]


def add_layers(to: Converter, node: Any, x: Value, other: Value) -> None:
    want(x.shape == other.shape,
         f"adds {list(other.shape)} to {list(x.shape)}: want equal shapes")
    want(other.layer != "" or x.layer != "", "adds the input to itself")
    to.add(node, layers.Add(other.layer or "input"), x, x.shape)


def add_positions(to: Converter, node: Any, x: Value, other: Parameter
                  ) -> None:
    want(other.name != "", "adds a constant: want a Parameter")
    shape = tuple(other.tensor.shape)
    want(len(x.shape) == 2 and shape in (x.shape, (1, *x.shape)),
         f"adds a Parameter {list(shape)} to {list(x.shape)}: want one "
         "[tokens, width], of a sequence's shape")
    to.add(node, layers.Positions(), x, x.shape,
           {".weight": (other.tensor, 0.0, x.shape)}, other.name)
