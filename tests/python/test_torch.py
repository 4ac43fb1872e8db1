# SPDX-License-Identifier: Apache-2.0
"""libfl.from_torch: what is taken over from a PyTorch module."""
import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

import libfl as fl
from torch_nets import F, Calls, image, nn, sequence, torch

pytestmark = pytest.mark.usefixtures("seeded_torch")


def same(module, sample, tolerance=1e-5, **options):
    """Make the model; both have to give the same for other samples, too."""
    model = fl.from_torch(module, sample, **options)
    x = (torch.flip(sample, [0]) if not sample.is_floating_point()
         else torch.randn(5, *sample.shape[1:]))
    module.eval()
    with torch.no_grad():
        expected = module(x).numpy()
    found = model.predict(x.numpy()).reshape(expected.shape)
    np.testing.assert_allclose(found, expected, rtol=0,
                               atol=tolerance * np.abs(expected).max())
    return model


# ---- layers ----------------------------------------------------------------

IMAGE_LAYERS = {
    "conv": nn.Conv2d(3, 4, 3),
    "conv_strided": nn.Conv2d(3, 4, (3, 5), stride=2, padding=1),
    "conv_same": nn.Conv2d(3, 4, 5, padding="same"),
    "conv_valid": nn.Conv2d(3, 4, 2, padding="valid"),
    "conv_depthwise": nn.Conv2d(3, 6, 3, groups=3),
    "group_norm": nn.GroupNorm(3, 3, eps=1e-3),
    "max_pool": nn.MaxPool2d(2),
    "max_pool_overlapping": nn.MaxPool2d(3, stride=2, padding=1),
    "avg_pool": nn.AvgPool2d(2),
    "avg_pool_padded": nn.AvgPool2d(3, 1, 1),
    "adaptive_windows": nn.AdaptiveAvgPool2d(4),
    "adaptive_none": nn.AdaptiveAvgPool2d((8, None)),
    "gelu": nn.GELU(), "silu": nn.SiLU(), "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(), "relu": nn.ReLU(inplace=True),
    "identity": nn.Identity(), "dropout": nn.Dropout(.3),
}


@pytest.mark.parametrize("name", IMAGE_LAYERS)
def test_layer_of_an_image_is_the_same(name):
    net = nn.Sequential(copy.deepcopy(IMAGE_LAYERS[name]), nn.Flatten(),
                        nn.LazyLinear(4))
    net(image())
    same(net, image())


@pytest.mark.parametrize("pool", [
    nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((1, 1))])
def test_global_pool_is_the_mean(pool):
    model = same(nn.Sequential(nn.Conv2d(3, 4, 3), pool, nn.Flatten(),
                               nn.Linear(4, 3)), image())
    assert model.output_count == 3


def test_sequence_layers_are_the_same():
    net = Calls(lambda net, x: net.head(net.norm(net.drop(net.act(net.up(
        x)))).mean(1)), up=nn.Linear(8, 12), act=nn.GELU(),
        drop=nn.Dropout(.1), norm=nn.LayerNorm(12), head=nn.Linear(12, 3))
    same(net, sequence())


@pytest.mark.parametrize("mask", [None, "bool", "float"])
def test_attention_is_the_same(mask):
    hidden = torch.ones(6, 6).triu(1).bool()
    if mask == "float":
        hidden = torch.zeros(6, 6).masked_fill(hidden, -float("inf"))
    net = Calls(lambda net, x: net.head((x + net.att(
        x, x, x, attn_mask=net.mask, need_weights=False)[0]).mean(1)),
        att=nn.MultiheadAttention(8, 2, batch_first=True),
        head=nn.Linear(8, 3), mask=None)
    if mask:
        del net.mask
        net.register_buffer("mask", hidden)
    model = same(net, sequence())
    assert list(model)[:2] == ["att.in_proj.weight", "att.in_proj.bias"]


def test_attention_may_be_unpacked():
    def forward(net, x):
        y, _ = net.att(query=x, key=x, value=x)
        return net.head(y.mean(dim=1))
    same(Calls(forward, att=nn.MultiheadAttention(8, 4, batch_first=True),
               head=nn.Linear(8, 3)), sequence())


def test_embedding_takes_ids():
    net = Calls(lambda net, x: net.head((net.embed(x) + net.p).mean(1)),
                embed=nn.Embedding(11, 8), head=nn.Linear(8, 3),
                p=nn.Parameter(torch.randn(1, 6, 8)))
    model = same(net, torch.randint(0, 11, (4, 6)))
    assert model["p.weight"].shape == (6, 8)


def test_embedded_positions_are_positions():
    net = Calls(lambda net, x: net.head((
        net.embed(x) + net.places(torch.arange(6))).mean(1)),
        embed=nn.Embedding(11, 8), places=nn.Embedding(6, 8),
        head=nn.Linear(8, 3))
    model = same(net, torch.randint(0, 11, (4, 6)))
    assert list(model.state_dict()) == ["embed.weight", "places.weight",
                                        "head.weight", "head.bias"]


def test_softmax_of_a_vector_and_of_a_sequence():
    same(nn.Sequential(nn.Linear(8, 4), nn.Softmax(-1)), torch.randn(2, 8))
    same(Calls(lambda net, x: torch.softmax(net.a(x), 2).flatten(1),
               a=nn.Linear(8, 4)), sequence())


CALLS = {
    "relu": lambda x: F.relu(x), "relu_": lambda x: x.relu_(),
    "gelu": lambda x: F.gelu(x), "silu": lambda x: F.silu(x),
    "tanh": lambda x: torch.tanh(x), "sigmoid": lambda x: x.sigmoid(),
    "max_pool": lambda x: F.max_pool2d(x, 2),
    "max_pool_named": lambda x: F.max_pool2d(x, kernel_size=3, stride=1),
    "avg_pool": lambda x: F.avg_pool2d(x, 2),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, 2),
    "mean": lambda x: x.mean((2, 3)), "mean_keep": lambda x: torch.mean(
        x, dim=[-1, -2], keepdim=True),
    "mean_squeezed": lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(),
    "sum": lambda x: x + F.relu(x), "sum_in_place": lambda x: F.relu(
        x).add_(x), "sum_of_itself": lambda x: torch.add(x, x),
}


@pytest.mark.parametrize("name", CALLS)
def test_call_on_an_image_is_the_same(name):
    def forward(net, x):
        x = CALLS[name](net.conv(x))
        return net.head(x.view(x.size(0), -1))
    net = Calls(forward, conv=nn.Conv2d(3, 4, 3, padding=1),
                head=nn.LazyLinear(3))
    net(image())
    same(net, image())


def test_dropout_is_that_of_training():
    def forward(net, x):
        return net.b(F.dropout(net.a(x), .5, net.training))
    net = Calls(forward, a=nn.Linear(8, 64), b=nn.Linear(64, 3)).eval()
    model = same(net, torch.randn(2, 8))
    x, y = torch.randn(64, 8), torch.randint(0, 3, (64,))
    losses = {round(model.step(x, y, 0), 6) for _ in range(4)}
    assert len(losses) == 4 and model.layers()[2].kind == "dropout"


@pytest.mark.parametrize("reshape", [
    lambda x: x.view(-1, 1, 8, 8), lambda x: x.unsqueeze(1),
    lambda x: x.reshape(x.shape[0], 1, 8, 8), lambda x: x[:, None]])
def test_input_may_be_reshaped_first(reshape):
    net = Calls(lambda net, x: net.b(F.relu(net.a(reshape(x))).flatten(1)),
                a=nn.Conv2d(1, 2, 3), b=nn.Linear(72, 3))
    same(net, torch.randn(2, 8, 8))


def test_sizes_may_be_unpacked():
    def forward(net, x):
        n, channels, height, width = x.shape
        return net.a(x.reshape(n, channels * height * width))
    same(Calls(forward, a=nn.Linear(192, 3)), image())


def test_nested_modules_keep_their_names():
    block = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    net = nn.Sequential(nn.Sequential(block, nn.Identity()),
                        nn.Linear(8, 3))
    model = same(net, torch.randn(2, 8))
    assert list(model) == ["0.0.0.weight", "0.0.0.bias", "1.weight",
                           "1.bias"]


def test_a_layer_without_weights_may_be_called_twice():
    net = Calls(lambda net, x: net.b(net.act(net.a(net.act(x)))),
                a=nn.Linear(8, 8), b=nn.Linear(8, 3), act=nn.Tanh())
    same(net, torch.randn(2, 8))


def test_subclass_that_keeps_forward_is_the_same():
    class Wide(nn.Linear):
        def __init__(self, width):
            super().__init__(width, 4 * width)
    same(nn.Sequential(Wide(8), nn.ReLU(), nn.Linear(32, 3)),
         torch.randn(2, 8))


def test_modes_of_the_module_are_as_before():
    net = nn.Sequential(nn.Linear(8, 8), nn.Dropout(.5), nn.Linear(8, 3))
    net[1].eval()
    fl.from_torch(net, torch.randn(2, 8))
    assert net.training and net[0].training and not net[1].training


def test_scale_and_shift_are_of_the_input():
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    pixels = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    x = pixels.float() / 255 * 2 - 1
    model = fl.from_torch(net, x, scale=2 / 255, shift=-1)
    assert model.predict(pixels.numpy()) == pytest.approx(
        net(x).detach().numpy(), abs=1e-5)


def test_loss_may_be_another():
    net = nn.Linear(8, 2)
    model = fl.from_torch(net, torch.randn(2, 8), loss=fl.MeanSquaredError())
    x, y = torch.randn(6, 8), torch.randn(6, 2)
    assert model.step(x, y, 0) == pytest.approx(
        F.mse_loss(net(x), y).item(), rel=1e-5)


# ---- training, weights -----------------------------------------------------

def test_training_goes_on_where_pytorch_stopped():
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    model = fl.from_torch(net, torch.randn(2, 8))
    optimiser = torch.optim.SGD(net.parameters(), .1)
    for _ in range(20):
        x, y = torch.randn(6, 8), torch.randint(0, 3, (6,))
        optimiser.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimiser.step()
        assert model.step(x, y, .1) == pytest.approx(loss.item(), rel=1e-4)
    for name, tensor in model.state_dict().items():
        assert tensor.numpy() == pytest.approx(
            net.state_dict()[name].numpy(), abs=1e-4)


def everything():
    """A module of all kinds of tensors; two of them libfl does not train."""
    def forward(net, x):
        x = net.embed(x) + net.places
        x = x + net.att(x, x, x, attn_mask=net.mask, need_weights=False)[0]
        return net.head(net.norm(x).mean(1))
    net = Calls(forward, embed=nn.Embedding(11, 8), norm=nn.LayerNorm(8),
                att=nn.MultiheadAttention(8, 2, batch_first=True),
                head=nn.Linear(8, 3), spare=nn.Linear(2, 2),
                places=nn.Parameter(torch.randn(1, 6, 8)))
    net.register_buffer("mask", torch.ones(6, 6).triu(1).bool())
    return net, torch.randint(0, 11, (4, 6))


def test_state_has_the_names_shapes_and_order_of_the_module():
    net, sample = everything()
    state = fl.from_torch(net, sample).state_dict()
    expected = net.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_state_goes_both_ways():
    net, sample = everything()
    model = fl.from_torch(net, sample)
    other, _ = everything()
    with torch.no_grad():
        for tensor in other.parameters():
            tensor.add_(torch.randn_like(tensor))
        other.spare.load_state_dict(net.spare.state_dict())
    model.load_state_dict(other.state_dict())
    other.eval()
    assert model.predict(sample.numpy()) == pytest.approx(
        other(sample).detach().numpy(), abs=1e-5)
    net.load_state_dict(model.state_dict())
    assert torch.equal(net(sample), other(sample))


def test_state_is_a_copy():
    net = nn.Linear(8, 3)
    model = fl.from_torch(net, torch.randn(2, 8))
    model.state_dict()["weight"].zero_()
    assert model.state_dict()["weight"].abs().max() > 0


def spoiled(state, name, value):
    return {**state, name: value}


@pytest.mark.parametrize("change, match", [
    (lambda s: {k: v for k, v in s.items() if k != "places"}, "places"),
    (lambda s: spoiled(s, "more", torch.zeros(1)), "more"),
    (lambda s: spoiled(s, "head.bias", torch.zeros(4)), "head.bias: got"),
    (lambda s: spoiled(s, "head.bias", torch.tensor([0, 0, np.inf])),
     "head.bias: has a value"),
    (lambda s: spoiled(s, "mask", ~s["mask"]), "mask: is not trained"),
    (lambda s: spoiled(s, "spare.bias", torch.zeros(2)),
     "spare.bias: is not trained")])
def test_state_that_does_not_fit_changes_nothing(change, match):
    net, sample = everything()
    model = fl.from_torch(net, sample)
    before = model.copy_weights()
    wrong = change({name: value + 1 if value.is_floating_point()
                    and not name.startswith("spare") else value
                    for name, value in net.state_dict().items()})
    with pytest.raises(ValueError, match=match):
        model.load_state_dict(wrong)
    assert np.array_equal(model.copy_weights(), before)


@pytest.mark.parametrize("again", [
    copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_know_the_names_too(again):
    net, sample = everything()
    model = again(fl.from_torch(net, sample))
    net.load_state_dict(model.state_dict())
    assert model.predict(sample.numpy()) == pytest.approx(
        net.eval()(sample).detach().numpy(), abs=1e-5)


def test_low_rank_updates_go_back_into_the_module():
    net, sample = everything()
    base = fl.from_torch(net, sample)
    tuned = base.with_lora(rank=2, seed=3)
    names = set(tuned.state_dict()) - set(net.state_dict())
    assert names and all(".lora_" in name for name in names)
    for _ in range(5):
        tuned.step(sample, torch.tensor([0, 1, 2, 0]), .5)
    merged = tuned.merge_lora()
    net.load_state_dict(merged.state_dict())
    found = net.eval()(sample).detach().numpy()
    assert found == pytest.approx(tuned.predict(sample.numpy()), abs=1e-5)
    assert np.abs(found - base.predict(sample.numpy())).max() > .01


def test_frozen_parameters_are_no_part_of_updates():
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3))
    net[0].requires_grad_(False)
    model = fl.from_torch(net, torch.randn(2, 8))
    assert model.weight_count == 27
    before = model["0.weight"]
    model.step(torch.randn(6, 8), torch.randint(0, 3, (6,)), .1)
    assert np.array_equal(model["0.weight"], before)
    assert len(model.state_dict()) == 4


def test_missing_biases_are_added_when_asked_for():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Flatten(),
                        nn.Linear(144, 3, bias=False))
    model = same(net, image(), add_missing=True)
    assert not model["0.bias"].any() and model["2.bias"].shape == (3,)
    state = model.state_dict()
    assert list(state) == ["0.weight", "2.weight", "0.bias", "2.bias"]
    model.load_state_dict(state)
    model.step(image(), torch.tensor([0, 1]), .1)
    assert model["2.bias"].any()


def test_missing_weights_of_a_norm_are_ones():
    net = nn.Sequential(nn.LayerNorm(8, elementwise_affine=False),
                        nn.Linear(8, 3))
    model = same(net, torch.randn(2, 8), add_missing=True)
    assert (model["0.weight"] == 1).all()


def test_double_modules_become_float32():
    net = nn.Linear(8, 3).double()
    model = fl.from_torch(net, torch.randn(2, 8).double())
    assert model["layer.weight"] == pytest.approx(net.weight.detach().numpy(),
                                            rel=1e-6)


@pytest.mark.parametrize("sample", [torch.randn(8), torch.randn(0, 8),
                                    torch.tensor(1.0)])
def test_samples_are_a_batch(sample):
    with pytest.raises(ValueError, match="sample"):
        fl.from_torch(nn.Linear(8, 3), sample)


def test_the_package_does_not_import_pytorch():
    code = "import sys, libfl; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
