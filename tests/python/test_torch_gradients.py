# SPDX-License-Identifier: Apache-2.0
"""Gradients of every layer against PyTorch's in float64: the same small net,
weights and batch in both."""
import copy

import numpy as np
import pytest

import libfl as fl
from torch_nets import (F, Calls, gradients, labels, nn, same_gradients,
                        torch)

pytestmark = pytest.mark.usefixtures("seeded_torch")


def agree(net, x, y, loss=None, torch_loss=F.cross_entropy):
    """Compare a module's model with the module itself."""
    same_gradients(fl.from_torch(net, x, loss=loss),
                   copy.deepcopy(net).double(), x, y, torch_loss)


# The layer lies between others, so that what it passes back is seen, too.
IMAGE_LAYERS = {
    "conv_1x1": nn.Conv2d(5, 7, 1),
    "conv_3x3": nn.Conv2d(5, 7, 3, padding=1),
    "conv_3x3_wide": nn.Conv2d(5, 48, 3, padding=1),
    "conv_5x5": nn.Conv2d(5, 7, 5),
    "conv_3x5_strided": nn.Conv2d(5, 7, (3, 5), stride=2, padding=2),
    "conv_groups": nn.Conv2d(5, 10, 3, padding=1, groups=5),
    "max_pool": nn.MaxPool2d(2),
    "max_pool_overlapping": nn.MaxPool2d(3, stride=2, padding=1),
    "avg_pool": nn.AvgPool2d(2),
    "avg_pool_overlapping": nn.AvgPool2d(3, stride=1, padding=1),
    "group_norm": nn.GroupNorm(5, 5),
    "group_norm_of_all": nn.GroupNorm(1, 5),
    "relu": nn.ReLU(), "gelu": nn.GELU(), "silu": nn.SiLU(),
    "tanh": nn.Tanh(), "sigmoid": nn.Sigmoid(),
}


@pytest.mark.parametrize("name", IMAGE_LAYERS)
@pytest.mark.parametrize("size", [6, 9])
def test_layer_of_an_image(name, size):
    net = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1),
                        copy.deepcopy(IMAGE_LAYERS[name]), nn.Flatten(),
                        nn.LazyLinear(3))
    x = torch.randn(6, 2, size, size)
    net(x)
    agree(net, x, labels(6))


@pytest.mark.parametrize("channels", [16, 32])
def test_deep_convolutions(channels):
    net = nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(channels, 2 * channels, 3, padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(2 * channels, 3))
    agree(net, torch.randn(5, 1, 12, 12), labels(5))


@pytest.mark.parametrize("inputs, units", [(1, 3), (7, 5), (33, 17),
                                           (128, 64)])
def test_dense(inputs, units):
    net = nn.Sequential(nn.Linear(inputs, units), nn.Tanh(),
                        nn.Linear(units, 3))
    agree(net, torch.randn(9, inputs), labels(9))


@pytest.mark.parametrize("layer", [
    nn.Linear(12, 12), nn.LayerNorm(12), nn.Softmax(-1), nn.GELU(),
    nn.MultiheadAttention(12, 3, batch_first=True)], ids=lambda layer: type(
        layer).__name__)
@pytest.mark.parametrize("tokens", [1, 7, 17])
def test_layer_of_a_sequence(layer, tokens):
    def forward(net, x):
        y = net.before(x)
        if isinstance(layer, nn.MultiheadAttention):
            z = net.layer(y, y, y, need_weights=False)[0]
        else:
            z = net.layer(y)
        return net.head((y + z).mean(1))
    net = Calls(forward, before=nn.Linear(5, 12), layer=copy.deepcopy(layer),
                head=nn.Linear(12, 3))
    agree(net, torch.randn(6, tokens, 5), labels(6))


def test_causal_attention():
    def forward(net, x):
        y = net.before(x)
        return net.head((y + net.att(y, y, y, attn_mask=net.mask,
                                     need_weights=False)[0]).mean(1))
    net = Calls(forward, before=nn.Linear(5, 12), head=nn.Linear(12, 3),
                att=nn.MultiheadAttention(12, 2, batch_first=True))
    net.register_buffer("mask", torch.ones(9, 9).triu(1).bool())
    agree(net, torch.randn(4, 9, 5), labels(4))


def test_embedding_and_positions():
    net = Calls(lambda net, x: net.head((net.embed(x) + net.p).mean(1)),
                embed=nn.Embedding(11, 12), head=nn.Linear(12, 3),
                p=nn.Parameter(torch.randn(6, 12)))
    agree(net, torch.randint(0, 11, (8, 6)), labels(8))


class Fields(nn.Module):
    """Of the vectors of a sample's fields, what a recommender makes."""

    def __init__(self, kind):
        super().__init__()
        self.e = nn.Embedding(11, 8)
        self.deep = nn.Linear(4 * 8, 5)
        self.top = nn.Linear(5, 1)
        if kind == "dlrm":
            self.pairs = nn.Linear(6, 5)

    def forward(self, ids):
        v = self.e(ids)
        h = self.deep(v.flatten(1))
        if not hasattr(self, "pairs"):
            return .5 * (v.sum(1) ** 2 - (v ** 2).sum(1)).sum(
                1, keepdim=True) + self.top(F.relu(h))
        rows, columns = torch.tril_indices(4, 4, -1)
        z = torch.bmm(v, v.transpose(1, 2))[:, rows, columns]
        return self.top(F.relu(h + self.pairs(z)))


FIELDS = {
    "fm": [fl.Flatten(), fl.Dense(5, name="deep"), fl.ReLU(),
           fl.Dense(1, name="top"), fl.From("e"), fl.FactorisationMachine(),
           fl.Add("top")],
    "dlrm": [fl.Flatten(), fl.Dense(5, name="deep"), fl.From("e"),
             fl.PairwiseDots(), fl.Dense(5, name="pairs"), fl.Add("deep"),
             fl.ReLU(), fl.Dense(1, name="top")],
}


@pytest.mark.parametrize("kind", FIELDS)
def test_recommender(kind):
    net = Fields(kind)
    model = fl.Model([fl.Input((4,)), fl.Embedding(11, 8, name="e"),
                      *FIELDS[kind], fl.BinaryCrossEntropy()])
    model.load({name: value.detach().numpy()
                for name, value in net.named_parameters()})
    model._sources = {name: (name, tuple(value.shape))
                      for name, value in net.named_parameters()}
    same_gradients(model, net.double(), torch.randint(0, 11, (9, 4)),
                   torch.rand(9, 1), F.binary_cross_entropy_with_logits)


def test_transformer_block():
    def forward(net, x):
        x = net.up(x) + net.p
        y = net.n1(x)
        x = x + net.att(y, y, y, need_weights=False)[0]
        x = x + net.v(F.gelu(net.u(net.n2(x))))
        return net.head(net.n(x).mean(1))
    net = Calls(
        forward, up=nn.Linear(28, 64), p=nn.Parameter(torch.randn(28, 64)),
        n1=nn.LayerNorm(64), n2=nn.LayerNorm(64), n=nn.LayerNorm(64),
        att=nn.MultiheadAttention(64, 4, batch_first=True),
        u=nn.Linear(64, 128), v=nn.Linear(128, 64), head=nn.Linear(64, 3))
    agree(net, torch.randn(4, 28, 28), labels(4))


def test_residual_of_convolutions():
    def forward(net, x):
        x = F.relu(net.a(x))
        x = F.relu(x + net.c(F.silu(net.b(x))))
        return net.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
    net = Calls(forward, a=nn.Conv2d(2, 8, 3), head=nn.Linear(8, 3),
                b=nn.Conv2d(8, 8, 3, padding=1),
                c=nn.Conv2d(8, 8, 3, padding=1))
    agree(net, torch.randn(4, 2, 8, 8), labels(4))


# ---- dropout ---------------------------------------------------------------
# Its mask is read from libfl and given to PyTorch.

class Masked(nn.Module):
    """Dropout with the mask given: what stays is scaled up."""

    def __init__(self, mask, rate):
        super().__init__()
        self.register_buffer("factor", mask / (1 - rate))

    def forward(self, x):
        return x * self.factor


def training_output(layers, count, steps=0):
    """What layers of libfl give in step `steps` of training, for `count`
    samples of ones: [count, -1], which a dense layer behind them gets. Its
    weights are zero and unit k's error is one for sample k only, so row k of
    its gradient is sample k."""
    with fl.Model([fl.Input((1,)), *layers, fl.Dense(count, name="seen"),
                   fl.MeanSquaredError()]) as model:
        for name, tensor in model.items():
            if name.endswith(".bias") and not name.startswith("seen"):
                model[name] = np.ones_like(tensor)
        x, y = np.ones((count, 1)), -count**2 / 2 * np.eye(count)
        for _ in range(steps):
            model.step(x, y, 0)
        model.accumulate(x, y)
        size = model["seen.weight"].size
        return model.gradient[-size - count:-count].reshape(count, -1).copy()


def dense_dropout(units, rate):
    return [fl.Dense(units, name="first"), fl.Dropout(rate)]


NEARLY_ONE = float(np.nextafter(np.float32(1), np.float32(0)))


@pytest.mark.parametrize("rate", [.01, .1, .5, .9, .999])
def test_dropout_keeps_its_part_and_scales_it(rate):
    found = training_output(dense_dropout(4096, rate), 32)
    kept = found != 0
    assert found[kept] == pytest.approx(1 / (1 - rate), rel=1e-4)
    sigma = np.sqrt(rate * (1 - rate) / kept.size)
    assert abs(kept.mean() - (1 - rate)) < 5 * sigma
    # Any two samples agree as often as chance does, in 5 sigma.
    both = (1 - rate) ** 2 + rate ** 2
    spread = np.sqrt(both * (1 - both) / kept.shape[1])
    for k in range(1, len(kept)):
        assert abs((kept[0] == kept[k]).mean() - both) < 5 * spread


def test_dropout_of_nothing_keeps_every_bit():
    assert (training_output(dense_dropout(4096, 0), 32) == 1).all()


def test_dropout_of_nearly_everything_is_finite():
    # One element in 2^24 stays: none of these, and none has a gradient.
    with fl.Model([fl.Input((7,)), *dense_dropout(37, NEARLY_ONE),
                   fl.Dense(3, name="last"), fl.MeanSquaredError()],
                  seed=1) as model:
        x, y = np.ones((9, 7)), np.ones((9, 3))
        model["last.bias"] = np.zeros(3)
        assert model.accumulate(x, y) == 1
        gradient = model.gradient.copy()
        assert np.flatnonzero(gradient).tolist() == list(
            range(gradient.size - 3, gradient.size))
        assert np.isfinite(model.predict(x)).all()


def test_dropout_draws_another_mask_in_every_step():
    masks = [training_output(dense_dropout(4096, .5), 4, steps) != 0
             for steps in range(3)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert .4 < (masks[one] == masks[other]).mean() < .6


DROPOUT_NETS = {
    "vector": ((7,), lambda rate: [
        nn.Linear(7, 37), nn.Tanh(), nn.Dropout(rate), nn.Linear(37, 9)]),
    "two": ((7,), lambda rate: [
        nn.Linear(7, 40), nn.Dropout(rate), nn.Linear(40, 33), nn.GELU(),
        nn.Dropout(.5), nn.Linear(33, 9)]),
    "tokens": ((6, 5), lambda rate: [
        nn.Linear(5, 12), nn.Dropout(rate), nn.Flatten(), nn.Linear(72, 9)]),
    "image": ((2, 5, 5), lambda rate: [
        nn.Conv2d(2, 3, 3), nn.Dropout(rate), nn.ReLU(), nn.Flatten(),
        nn.Linear(27, 9)]),
}


def draw_masks(net, sample, steps):
    """The mask of each dropout, [9, ...], by its place in the net: read as in
    training_output, from the layers up to it."""
    masks = {}
    for place, part in enumerate(net):
        if not isinstance(part, nn.Dropout):
            continue
        head = copy.deepcopy(net[:place + 1])
        for name, parameter in head.named_parameters():
            nn.init.constant_(parameter, float(name.endswith("bias")))
        whole = head.eval()(sample).detach()
        probe = nn.Sequential(*head, nn.Flatten(), nn.Linear(
            whole[0].numel(), 9))
        nn.init.zeros_(probe[-1].weight)
        nn.init.zeros_(probe[-1].bias)
        model = fl.from_torch(probe, sample, loss=fl.MeanSquaredError())
        for _ in range(steps):
            model.step(sample, torch.zeros(9, 9), 0)
        model.accumulate(sample, -81 / 2 * torch.eye(9))
        seen = torch.from_numpy(gradients(model)[f"{place + 2}.weight"])
        masks[place] = (seen != 0).view(whole.shape)
        torch.testing.assert_close(
            seen.view(whole.shape), whole * masks[place] / (1 - part.p))
    return masks


@pytest.mark.parametrize("name", DROPOUT_NETS)
@pytest.mark.parametrize("rate", [.3, .95])
@pytest.mark.parametrize("steps", [0, 2])
def test_dropout(name, rate, steps):
    shape, parts = DROPOUT_NETS[name]
    net = nn.Sequential(*parts(rate))
    x, y = torch.randn(9, *shape), torch.randn(9, 9)
    exact = copy.deepcopy(net).double()
    for place, mask in draw_masks(net, x, steps).items():
        assert 0 < mask.double().mean() < 1
        exact[place] = Masked(mask.double(), net[place].p)
    model = fl.from_torch(net, x, loss=fl.MeanSquaredError())
    for _ in range(steps):
        model.step(x, y, 0)
    same_gradients(model, exact, x, y, F.mse_loss)


@pytest.mark.parametrize("name", DROPOUT_NETS)
def test_dropout_is_the_identity_in_evaluation(name):
    shape, parts = DROPOUT_NETS[name]
    net = nn.Sequential(*parts(.3))
    x, y = torch.randn(9, *shape), torch.randn(9, 9)
    plain = nn.Sequential(*(nn.Identity() if isinstance(part, nn.Dropout)
                            else part for part in net))
    model, other = (fl.from_torch(which, x, loss=fl.MeanSquaredError())
                    for which in (net, plain))
    assert (model.predict(x) == other.predict(x)).all()
    assert model.evaluate(x, y).loss == other.evaluate(x, y).loss
    exact = copy.deepcopy(net).double().eval()(x.double()).detach().numpy()
    assert model.predict(x) == pytest.approx(exact, abs=1e-5)


# ---- losses ----------------------------------------------------------------

def small():
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def test_label_smoothing_and_ignored_labels():
    y = torch.tensor([0, 1, 2, -1, 2, -1, 0])
    agree(small(), torch.randn(7, 6), y,
          fl.CrossEntropy(ignore_index=-1, label_smoothing=.1),
          lambda x, y: F.cross_entropy(x, y, ignore_index=-1,
                                       label_smoothing=.1))


def test_cross_entropy_of_tokens():
    agree(small(), torch.randn(5, 4, 6), labels(5, 4), fl.CrossEntropy(),
          lambda x, y: F.cross_entropy(x.flatten(0, 1), y.flatten()))


def test_mean_squared_error():
    agree(small(), torch.randn(7, 6), torch.randn(7, 3),
          fl.MeanSquaredError(), F.mse_loss)


def test_binary_cross_entropy():
    agree(small(), torch.randn(7, 6), torch.rand(7, 3),
          fl.BinaryCrossEntropy(), F.binary_cross_entropy_with_logits)
