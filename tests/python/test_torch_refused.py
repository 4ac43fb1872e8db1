# SPDX-License-Identifier: Apache-2.0
"""libfl.from_torch refuses what libfl does not compute, with the place
named."""
import re

import pytest

import libfl as fl
from torch_nets import F, Calls, image, nn, sequence, torch

pytestmark = pytest.mark.usefixtures("seeded_torch")


def refused(module, sample, match):
    with pytest.raises(fl.UnsupportedError, match=match) as caught:
        fl.from_torch(module, sample)
    return str(caught.value)


def test_refusal_names_the_module_its_place_and_what_there_is():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(
        nn.ReLU(), nn.BatchNorm2d(4)))
    text = refused(net, image(), r'module "1\.1" \(BatchNorm2d\)')
    assert "GroupNorm takes its place" in text
    assert "Supported are Linear, Conv2d" in text


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class Deep(nn.Module):
    """A module at "blocks.1.inner.1", four levels down."""

    def __init__(self, part):
        super().__init__()
        self.blocks = nn.ModuleList([
            Residual(nn.Linear(8, 8)),
            Residual(nn.Sequential(nn.Linear(8, 8), part))])
        self.ends = nn.ModuleDict({"head": nn.Linear(8, 3)})

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.ends["head"](x)


class OwnNorm(nn.BatchNorm1d):
    """Its forward is BatchNorm's, and depends on the number of dimensions."""


class Choosing(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize("part, match", [
    (nn.BatchNorm1d(8), r"\(BatchNorm1d\): .*GroupNorm takes its place"),
    (OwnNorm(8), r"\(OwnNorm\): .*GroupNorm takes its place"),
    (nn.PReLU(), r"\(PReLU\): there is no such layer"),
    (nn.LogSoftmax(-1), r"\(LogSoftmax\): .*takes logits"),
    (nn.AlphaDropout(), r"\(AlphaDropout\): there is no such layer"),
    (Choosing(), r"\(Choosing\) cannot be traced")])
def test_module_deep_inside_is_named_by_path_and_class(part, match):
    refused(Deep(part), torch.randn(2, 8),
            r'module "blocks\.1\.inner\.1" ' + match)


def test_deep_modules_of_known_layers_are_not_refused():
    model = fl.from_torch(Deep(nn.Tanh()), torch.randn(2, 8))
    assert "blocks.1.inner.1" in {layer.name for layer in model.layers()}


@pytest.mark.parametrize("module, sample", [
    (nn.BatchNorm1d(8), (2, 8)), (nn.BatchNorm2d(3), (2, 3, 8, 8)),
    (OwnNorm(8), (2, 8)), (nn.LSTM(8, 8, batch_first=True), (2, 5, 8)),
    (nn.TransformerEncoderLayer(8, 2, batch_first=True), (2, 5, 8))])
def test_unknown_module_that_is_the_whole_is_named(module, sample):
    refused(module, torch.randn(*sample), re.escape(
        f"({type(module).__name__}): there is no such layer"))


def test_failure_that_forward_catches_is_not_named():
    def forward(net, x):
        try:
            x = net.choosing(x)
        except Exception:
            x = net.a(x)
        return x if x.sum() > 0 else -x
    text = refused(Calls(forward, a=nn.Linear(8, 8), choosing=Choosing()),
                   torch.randn(2, 8), "forward of Calls cannot be traced")
    assert "Choosing" not in text


def test_refusal_names_the_call_and_its_line():
    class Turned(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 1)
    net = nn.Sequential(nn.Linear(8, 8), Turned())
    text = refused(net, sequence(), r'call "permute" in module "1"')
    assert re.search(r"test_torch_refused\.py:\d+: return x\.permute", text)


IMAGE_REFUSED = {
    "dilation": (nn.Conv2d(3, 4, 3, dilation=2), "dilation"),
    "uneven stride": (nn.Conv2d(3, 4, 3, stride=(1, 2)), "stride"),
    "uneven padding": (nn.Conv2d(3, 4, 3, padding=(0, 1)), "padding"),
    "even same": (nn.Conv2d(3, 4, 2, padding="same"), "odd kernel"),
    "padding mode": (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
                     "padding_mode"),
    "no bias": (nn.Conv2d(3, 4, 3, bias=False), "add_missing=True"),
    "ceil mode": (nn.MaxPool2d(3, ceil_mode=True), "ceil_mode"),
    "dilated pool": (nn.MaxPool2d(2, dilation=2), "dilation"),
    "indices": (nn.MaxPool2d(2, return_indices=True), "return_indices"),
    "uncounted padding": (nn.AvgPool2d(3, padding=1,
                                       count_include_pad=False),
                          "count_include_pad"),
    "divisor": (nn.AvgPool2d(2, divisor_override=3), "divisor_override"),
    "uneven pool": (nn.MaxPool2d((2, 1)), "kernel_size"),
    "uneven windows": (nn.AdaptiveAvgPool2d(3), "square windows"),
    "approximate gelu": (nn.GELU("tanh"), "approximate"),
    "softmax of an image": (nn.Softmax(1), "want the last one"),
    "layer norm of an image": (nn.LayerNorm(8), "want one normalised"),
    "linear on an image": (nn.Linear(8, 4), "want a vector or a sequence"),
    "norm without weights": (nn.GroupNorm(3, 3, affine=False),
                             "has no weight"),
    "transposed": (nn.ConvTranspose2d(3, 3, 3), "no such layer"),
}


@pytest.mark.parametrize("name", IMAGE_REFUSED)
def test_what_computes_something_else_is_refused(name):
    layer, match = IMAGE_REFUSED[name]
    if name == "indices":
        net = Calls(lambda net, x: net.a(x)[0], a=layer)
    else:
        net = nn.Sequential(layer)
    refused(net, image(), match)


SEQUENCE_REFUSED = {
    "not batch first": (nn.MultiheadAttention(8, 2), {}, "batch_first"),
    "attention dropout": (nn.MultiheadAttention(8, 2, .1, batch_first=True),
                          {}, "dropout"),
    "key dimension": (nn.MultiheadAttention(8, 2, kdim=8, vdim=4,
                                            batch_first=True), {}, "kdim"),
    "bias of keys": (nn.MultiheadAttention(8, 2, add_bias_kv=True,
                                           batch_first=True), {}, "bias_kv"),
    "no bias": (nn.MultiheadAttention(8, 2, bias=False, batch_first=True),
                {}, "add_missing"),
    "another mask": (nn.MultiheadAttention(8, 2, batch_first=True),
                     {"attn_mask": torch.eye(6).bool()}, "attn_mask"),
    "padding mask": (nn.MultiheadAttention(8, 2, batch_first=True),
                     {"key_padding_mask": torch.zeros(7, 6).bool()},
                     "key_padding_mask"),
}


@pytest.mark.parametrize("name", SEQUENCE_REFUSED)
def test_other_attention_is_refused(name):
    layer, options, match = SEQUENCE_REFUSED[name]

    def forward(net, x):
        values = x if layer.vdim == 8 else net.short(x)
        return net.att(x, x, values, **options)[0].mean(1)
    net = Calls(forward, att=layer, short=nn.Linear(8, 4))
    if name == "key dimension":
        match = "self-attention"
    refused(net, sequence(), match)


def test_attention_weights_are_refused():
    net = Calls(lambda net, x: net.att(x, x, x)[1].flatten(1),
                att=nn.MultiheadAttention(8, 2, batch_first=True))
    refused(net, sequence(), "attention's weights")


CALLS_REFUSED = {
    "product": (lambda net, x: net.a(x) * 2, "no such call"),
    "sum with a number": (lambda net, x: net.a(x) + 1, "outputs of two"),
    "alpha": (lambda net, x: torch.add(x, net.a(x), alpha=2), "alpha"),
    "sum with a constant": (lambda net, x: net.a(x) + net.constant,
                            "want a Parameter"),
    "sum with a vector": (lambda net, x: net.a(x) + net.vector,
                          r"\[tokens, width\]"),
    "broadcast": (lambda net, x: x + net.a(x).mean(1, keepdim=True),
                  "equal shapes"),
    "part": (lambda net, x: net.a(x)[:, 0], "part of a tensor"),
    "mean of all": (lambda net, x: net.a(x).mean(), "want the mean"),
    "mean of channels": (lambda net, x: net.a(x).mean(2), "want the mean"),
    "batch": (lambda net, x: net.a(x).view(-1, 8), "batch"),
    "other shape": (lambda net, x: net.a(x).view(-1, 8, 6), r"\[n, -1\]"),
    "log softmax": (lambda net, x: F.log_softmax(net.a(x), -1),
                    "takes logits"),
    "softmax of tokens": (lambda net, x: torch.softmax(net.a(x), 1),
                          "want the last one"),
    "shared weights": (lambda net, x: net.a(net.a(x)), "called twice"),
    "functional weights": (lambda net, x: F.linear(x, net.a.weight),
                           '"linear"'),
    "gelu": (lambda net, x: F.gelu(net.a(x), approximate="tanh"),
             "approximate"),
    "nothing": (lambda net, x: x, "made by a layer"),
    "two outputs": (lambda net, x: (net.a(x), net.a(x)), "called twice|one "
                    "tensor"),
    "chunks": (lambda net, x: net.a(x).chunk(2, -1)[0], "no tensor"),
    "kept dimension": (lambda net, x: net.b(net.a(x).mean(1, keepdim=True)),
                       "keepdim"),
}


@pytest.mark.parametrize("name", CALLS_REFUSED)
def test_call_that_computes_something_else_is_refused(name):
    forward, match = CALLS_REFUSED[name]
    net = Calls(forward, a=nn.Linear(8, 8), b=nn.Linear(8, 3),
                vector=nn.Parameter(torch.randn(8)))
    net.register_buffer("constant", torch.randn(6, 8))
    refused(net, sequence(), match)


def test_changes_whose_result_is_not_used_are_refused():
    def forward(net, x):
        x = net.a(x)
        F.relu_(x)
        return x
    refused(Calls(forward, a=nn.Linear(8, 3)), torch.randn(2, 8),
            "without using the result")


def test_branches_on_values_are_refused():
    net = Calls(lambda net, x: net.a(x) if x.sum() > 0 else x,
                a=nn.Linear(8, 8))
    refused(net, torch.randn(2, 8), "cannot be traced")


def test_partly_frozen_layers_are_refused():
    net = nn.Linear(8, 3)
    net.bias.requires_grad_(False)
    refused(net, torch.randn(2, 8), "freezes whole layers")


def test_computed_weights_are_refused():
    net = nn.utils.weight_norm(nn.Linear(8, 3))
    refused(net, torch.randn(2, 8), "computed")


def test_tied_weights_are_refused():
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    net[1].weight = net[0].weight
    refused(net, torch.randn(2, 8), '"0.weight" is "1.weight", too')


def test_hidden_work_is_found_by_comparing():
    net = nn.Sequential(nn.Linear(8, 3))
    net[0].register_forward_hook(lambda module, x, y: y * 2)
    refused(net, torch.randn(2, 8), "differs from the module's")


@pytest.mark.parametrize("net, sample, place", [
    (nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.ReLU(), nn.Linear(5, 2))),
     torch.zeros(2, 4), r'module "1\.1" \(Linear\)'),
    (Residual(nn.Linear(4, 3)), torch.zeros(2, 4),
     r'call "add", test_torch_refused\.py:\d+: return x \+ self.inner\(x\)'),
    (nn.Sequential(nn.Embedding(3, 2), nn.Flatten()),
     torch.tensor([[0, 1], [2, 3]]), "Sequential")])
def test_samples_that_a_module_does_not_take_are_refused(net, sample, place):
    with pytest.raises(ValueError, match=r"^sample: got shape \[2, \d\], with "
                       f"which this cannot be run: {place}: ") as caught:
        fl.from_torch(net, sample)
    assert type(caught.value.__cause__) in (RuntimeError, IndexError)
    assert "While executing" not in str(caught.value)
