# SPDX-License-Identifier: Apache-2.0
"""LoRA and bottleneck adapters against the same thing built by hand in
PyTorch, in float64: loss, gradients, steps, and what has to stay as it is."""
import copy

import numpy as np
import pytest

import libfl as fl
from torch_nets import F, Calls, gradients, labels, nn, same_gradients, torch

pytestmark = pytest.mark.usefixtures("seeded_torch")


class Lora(nn.Linear):
    """y = x W^T + b + alpha / rank x A^T B^T; W and b are fixed."""

    def __init__(self, base, rank, alpha):
        super().__init__(base.in_features, base.out_features)
        self.lora_a = nn.Parameter(torch.empty(rank, self.in_features))
        self.lora_b = nn.Parameter(torch.empty(self.out_features, rank))
        self.scale = alpha / rank
        self.weight.requires_grad_(False)
        self.bias.requires_grad_(False)

    def forward(self, x):
        return F.linear(x, self.weight, self.bias) + self.scale * F.linear(
            F.linear(x, self.lora_a), self.lora_b)


class Adapted(nn.Linear):
    """y + up(act(down(y))) of y = x W^T + b; W and b are fixed."""

    def __init__(self, base, width, act):
        super().__init__(base.in_features, base.out_features)
        self.down = nn.Linear(self.out_features, width)
        self.up = nn.Linear(width, self.out_features)
        self.act = act
        self.weight.requires_grad_(False)
        self.bias.requires_grad_(False)

    def forward(self, x):
        y = F.linear(x, self.weight, self.bias)
        return y + self.up(self.act(self.down(y)))


class ByHand(nn.Module):
    """Self-attention made of two linear layers, which may be replaced."""

    def __init__(self, base):
        super().__init__()
        width = base.embed_dim
        self.heads = base.num_heads
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x, *_, need_weights, attn_mask=None):
        n, tokens, width = x.shape
        q, k, v = self.in_proj(x).view(
            n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(2, 3) / q.shape[-1] ** .5
        if attn_mask is not None:
            scores = scores.masked_fill(attn_mask, -float("inf"))
        y = torch.softmax(scores, -1) @ v
        return self.out_proj(y.transpose(1, 2).reshape(
            n, tokens, width)), None


def by_hand(net, chosen, trained, wrap):
    """A copy in float64 with the linear layers `chosen` wrapped; of the
    others, those whose name begins with `trained` are trained."""
    result = copy.deepcopy(net)
    for name, part in net.named_modules():
        if isinstance(part, nn.MultiheadAttention):
            setattr(result, name, ByHand(part))
    for name, parameter in result.named_parameters():
        parameter.requires_grad_(bool(trained) and name.startswith(trained))
    for name in chosen:
        *home, last = name.split(".")
        home = result.get_submodule(".".join(home))
        setattr(home, last, wrap(getattr(home, last)))
    return result.double()


def load(module, model):
    """Give a module that is made by hand the model's tensors."""
    module.load_state_dict({
        name.replace("in_proj_", "in_proj."): value
        for name, value in model.state_dict().items()})


def draw(model, names):
    """Give tensors values as if they had been trained."""
    for name, value in model.items():
        if name.endswith(names):
            model[name] = .3 * torch.randn(value.shape).numpy()


def block():
    """A transformer's block between dense layers."""
    def forward(net, x):
        x = net.rise(x) + net.p
        y = net.n1(x)
        x = x + net.att(y, y, y, attn_mask=net.mask, need_weights=False)[0]
        x = x + net.narrow(F.gelu(net.wide(net.n2(x))))
        return net.head(x.mean(1))
    net = Calls(forward, rise=nn.Linear(5, 12), n1=nn.LayerNorm(12),
                p=nn.Parameter(torch.randn(7, 12)), n2=nn.LayerNorm(12),
                att=nn.MultiheadAttention(12, 3, batch_first=True),
                wide=nn.Linear(12, 20), narrow=nn.Linear(20, 12),
                head=nn.Linear(12, 3))
    net.register_buffer("mask", torch.ones(7, 7).triu(1).bool())
    return net, torch.randn(6, 7, 5)


def dense():
    return nn.Sequential(nn.Linear(9, 16), nn.Tanh(), nn.Linear(16, 12),
                         nn.SiLU(), nn.Linear(12, 3)), torch.randn(8, 9)


def image():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(36, 10), nn.Tanh(), nn.Linear(10, 3)), torch.randn(
            8, 2, 8, 8)


ALL_OF_BLOCK = ["rise", "att.in_proj", "att.out_proj", "wide", "narrow"]

# The net, with_lora's options, the layers that get one, what stays trained.
LORA = {
    "dense": (dense, {"rank": 3}, ["0", "2"], "4"),
    "dense_of_rank_1": (dense, {"rank": 1, "alpha": .5}, ["0", "2"], "4"),
    "rank_above_the_widths": (dense, {"rank": 20}, ["0", "2"], "4"),
    "one_layer_alone": (dense, {"layers": "2", "trained": ""}, ["2"], ""),
    "dense_behind_images": (image, {"rank": 2}, ["4"], "6"),
    "attention": (block, {"rank": 4, "layers": "att"},
                  ["att.in_proj", "att.out_proj"], "head"),
    "queries_alone": (block, {"rank": 2, "layers": "in_proj", "trained": ""},
                      ["att.in_proj"], ""),
    "block": (block, {"rank": 2, "alpha": 4}, ALL_OF_BLOCK, "head"),
    "block_with_a_trained_norm": (
        block, {"layers": "wide", "trained": "n2"}, ["wide"], "n2"),
}

# The same of with_adapters.
ADAPTERS = {
    "dense": (dense, {"width": 5}, ["0", "2"], "4"),
    "width_1": (dense, {"width": 1, "layers": "0", "activation": fl.Tanh},
                ["0"], "4"),
    "dense_behind_images": (image, {"activation": fl.ReLU}, ["4"], "6"),
    "where_sums_are": (block, {"width": 4}, ["att.out_proj", "narrow"], "head"),
    "attention": (block, {"layers": "att", "activation": fl.SiLU,
                          "trained": ""}, ["att.in_proj", "att.out_proj"],
                  ""),
}

ACTIVATIONS = {fl.GELU: nn.GELU, fl.Tanh: nn.Tanh, fl.ReLU: nn.ReLU,
               fl.SiLU: nn.SiLU}


class Pair:
    """The model with adapters, its base, the same by hand, and a batch."""

    def __init__(self, kind, name):
        make, options, chosen, trained = (
            LORA if kind == "lora" else ADAPTERS)[name]
        self.net, self.x = make()
        self.y = labels(len(self.x))
        self.base = fl.from_torch(self.net, self.x)
        if kind == "lora":
            self.model = self.base.with_lora(**options, seed=3)
            rank, alpha = options.get("rank", 8), options.get("alpha", 16)
            self.exact = by_hand(self.net, chosen, trained,
                                 lambda base: Lora(base, rank, alpha))
        else:
            self.model = self.base.with_adapters(**options, seed=3)
            act = ACTIVATIONS[options.get("activation", fl.GELU)]
            width = options.get("width", 16)
            self.exact = by_hand(self.net, chosen, trained,
                                 lambda base: Adapted(base, width, act()))
        load(self.exact, self.model)

    def drawn(self):
        """As after a training: at first lora_b and up are zero."""
        draw(self.model, (".lora_a", ".lora_b", ".up.weight", ".up.bias"))
        load(self.exact, self.model)
        return self

    def fixed(self):
        """Names of tensors that are not trained."""
        return [info.name for info in self.model.tensors()
                if not info.is_trainable]


both = pytest.mark.parametrize("kind, name", [
    *(("lora", name) for name in LORA),
    *(("adapters", name) for name in ADAPTERS)])


@both
def test_it_begins_as_its_base(kind, name):
    pair = Pair(kind, name)
    expected = pair.net(pair.x).detach().numpy()
    assert pair.model.predict(pair.x) == pytest.approx(expected, abs=1e-5)
    same_gradients(pair.model, pair.exact, pair.x, pair.y)


@both
def test_gradients_are_those_made_by_hand(kind, name):
    pair = Pair(kind, name).drawn()
    same_gradients(pair.model, pair.exact, pair.x, pair.y)
    assert all(np.abs(value).max() > 0
               for value in gradients(pair.model).values())
    # What is fixed has no gradient: there is no room for one.
    trained = {name for name, parameter in pair.exact.named_parameters()
               if parameter.requires_grad}
    assert pair.model.gradient.size == sum(
        parameter.numel() for name, parameter in pair.exact.named_parameters()
        if name in trained)
    assert all(parameter.grad is None for name, parameter
               in pair.exact.named_parameters() if name not in trained)


@both
def test_steps_are_those_made_by_hand(kind, name):
    pair = Pair(kind, name).drawn()
    optimiser = torch.optim.SGD(
        [parameter for parameter in pair.exact.parameters()
         if parameter.requires_grad], .1)
    for _ in range(5):
        optimiser.zero_grad()
        loss = F.cross_entropy(pair.exact(pair.x.double()), pair.y)
        loss.backward()
        optimiser.step()
        assert pair.model.step(pair.x, pair.y, .1) == pytest.approx(
            loss.item(), rel=1e-4)
    expected = pair.exact.state_dict()
    for name, value in pair.model.state_dict().items():
        want = expected[name.replace("in_proj_", "in_proj.")].numpy()
        assert value.numpy() == pytest.approx(
            want, abs=1e-4 * np.abs(want).max()), name


@both
@pytest.mark.parametrize("optimiser", [
    fl.SGD(.1, momentum=.9, weight_decay=.1), fl.AdamW(.1, weight_decay=.1)],
    ids=lambda optimiser: type(optimiser).__name__)
def test_steps_leave_the_base_bit_by_bit(kind, name, optimiser):
    pair = Pair(kind, name).drawn()
    before = dict(pair.model)
    pair.model.optimiser = optimiser
    for _ in range(3):
        pair.model.step(pair.x, pair.y)
    fixed = pair.fixed()
    assert fixed and set(fixed) <= set(pair.base)
    for name, value in pair.model.items():
        is_same = value.tobytes() == before[name].tobytes()
        assert is_same == (name in fixed), name
    for name in fixed:
        assert pair.model[name].tobytes() == pair.base[name].tobytes()


@pytest.mark.parametrize("name", LORA)
def test_merged_lora_gives_the_same(name):
    pair = Pair("lora", name).drawn()
    expected = pair.exact(pair.x.double()).detach().numpy()
    assert pair.model.predict(pair.x) == pytest.approx(expected, abs=1e-5)
    merged = pair.model.merge_lora()
    assert merged.schema == pair.base.schema
    assert merged.predict(pair.x) == pytest.approx(expected, abs=1e-5)
    for part in pair.exact.modules():
        if isinstance(part, Lora):
            part.weight.data += part.scale * (
                part.lora_b @ part.lora_a).detach()
    # The module with the merged weights, and W + s B A, tensor by tensor.
    pair.net.load_state_dict(merged.state_dict())
    again = pair.net.double()(pair.x.double()).detach().numpy()
    assert again == pytest.approx(expected, abs=1e-5)
    folded = pair.exact.state_dict()
    for name, value in merged.state_dict().items():
        want = folded[name.replace("in_proj_", "in_proj.")].numpy()
        assert value.numpy() == pytest.approx(
            want, abs=1e-6 * np.abs(want).max()), name
