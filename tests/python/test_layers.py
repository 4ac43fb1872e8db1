# SPDX-License-Identifier: Apache-2.0
"""Layers: what each computes against loops or numpy in double, the graph, the
modules, and errors that name the layer."""
import dataclasses
import math

import numpy as np
import pytest

import libfl as fl

CLOSE = dict(rtol=1e-4, atol=1e-5)


def outputs(layers, shape, x, seed=3, **tensors):
    """What layers make of x, and the tensors they had."""
    with fl.Model([fl.Input(shape), *layers, fl.MeanSquaredError()],
                  seed=seed) as model:
        for name, value in tensors.items():
            model[name] = value
        return model.predict(x), dict(model)


def draw(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


HEAD = [fl.Dense(2, name="head")]


def conv_by_loops(x, w, b, stride, padding, groups):
    n, channels, height, width = x.shape
    filters, per_group, kh, kw = w.shape
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (padding, padding),
                                      (padding, padding)))
    rows = (height + 2 * padding - kh) // stride + 1
    columns = (width + 2 * padding - kw) // stride + 1
    y = np.zeros((n, filters, rows, columns))
    for f in range(filters):
        first = f // (filters // groups) * per_group
        for i in range(rows):
            for j in range(columns):
                window = x[:, first:first + per_group,
                           i * stride:i * stride + kh,
                           j * stride:j * stride + kw]
                y[:, f, i, j] = (window * w[f]).sum((1, 2, 3)) + b[f]
    return y


@pytest.mark.parametrize("channels, size, layer", [
    (1, (5, 5), fl.Conv2d(1, 1)),
    (1, (9, 7), fl.Conv2d(3)),
    (3, (8, 8), fl.Conv2d(17, padding=1)),
    (4, (11, 9), fl.Conv2d(6, (5, 3), stride=2, padding=2)),
    (4, (6, 6), fl.Conv2d(8, groups=2)),
    (5, (7, 7), fl.Conv2d(5, padding=1, groups=5)),
    (2, (3, 3), fl.Conv2d(4, 3))])
def test_convolution_is_the_sum_over_its_windows(rng, channels, size, layer):
    x = draw(rng, 3, channels, *size)
    got, tensors = outputs([layer, fl.Flatten()], (channels, *size), x)
    want = conv_by_loops(x, tensors["conv2d1.weight"],
                         tensors["conv2d1.bias"], layer.stride, layer.padding,
                         layer.groups)
    assert np.allclose(got, want.reshape(3, -1), **CLOSE)


@pytest.mark.parametrize("size, stride, padding", [
    (2, None, 0), (3, 2, 0), (3, None, 1), (1, 1, 0), (2, 1, 1)])
def test_pools_take_the_largest_and_the_mean_of_windows(rng, size, stride,
                                                        padding):
    x = draw(rng, 2, 3, 7, 6)
    step = stride or size
    edge = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    low, zero = np.pad(x, edge, constant_values=-np.inf), np.pad(x, edge)
    places = [[(i, j) for j in range(0, low.shape[3] - size + 1, step)]
              for i in range(0, low.shape[2] - size + 1, step)]

    def pooled(padded, function):
        return np.stack([np.stack([function(
            padded[:, :, i:i + size, j:j + size], axis=(2, 3))
            for i, j in row], -1) for row in places], -2).reshape(2, -1)

    for layer, padded, function in (
            (fl.MaxPool2d(size, stride, padding), low, np.max),
            (fl.AvgPool2d(size, stride, padding), zero, np.mean)):
        net = [fl.Conv2d(3, 1, groups=3, name="same"), layer, fl.Flatten()]
        got, _ = outputs(net, (3, 7, 6), x, **{
            "same.weight": np.ones((3, 1, 1, 1)), "same.bias": np.zeros(3)})
        assert np.allclose(got, pooled(padded, function), **CLOSE), layer


def test_mean_is_over_pixels_and_over_tokens(rng):
    x = draw(rng, 4, 3, 5, 6)
    got, tensors = outputs([fl.Mean(), *HEAD], (3, 5, 6), x)
    assert np.allclose(got, x.mean((2, 3)) @ tensors["head.weight"].T
                       + tensors["head.bias"], **CLOSE)
    x = draw(rng, 4, 7, 3)
    got, tensors = outputs([fl.Mean(), *HEAD], (7, 3), x)
    assert np.allclose(got, x.mean(1) @ tensors["head.weight"].T
                       + tensors["head.bias"], **CLOSE)


@pytest.mark.parametrize("layer, function", [
    (fl.ReLU(), lambda v: max(v, 0.0)),
    (fl.GELU(), lambda v: v * 0.5 * (1 + math.erf(v / math.sqrt(2)))),
    (fl.SiLU(), lambda v: v / (1 + math.exp(-v))),
    (fl.Tanh(), math.tanh),
    (fl.Sigmoid(), lambda v: 1 / (1 + math.exp(-v)))])
def test_activations_are_their_formulas(rng, layer, function):
    x = 3 * draw(rng, 5, 9)
    got, tensors = outputs([fl.Dense(9), layer], (9,), x)
    before = (x.astype(np.float64) @ tensors["dense1.weight"].T
              + tensors["dense1.bias"])
    assert np.allclose(got, np.vectorize(function)(before), **CLOSE)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_softmax_is_over_the_last_dimension(rng):
    x = draw(rng, 4, 6, 5)
    got, tensors = outputs([fl.Dense(3), fl.Softmax()], (6, 5), x)
    before = x @ tensors["dense1.weight"].T + tensors["dense1.bias"]
    assert got.shape == (4, 6, 3)
    assert np.allclose(got, softmax(before), **CLOSE)


SPARSE = [fl.Input((3,)), fl.SparseEmbedding(4), fl.Flatten(), fl.Dense(1),
          fl.From("sparseembedding1"), fl.FactorisationMachine(),
          fl.Add("dense1"), fl.BinaryCrossEntropy()]


def test_sparse_embedding_has_no_tensor():
    with fl.Model(SPARSE, seed=1) as model:
        layer = model.layers()[1]
        assert (layer.kind, layer.shape) == ("sparse_embedding", (3, 4))
        assert layer.tensors == () and layer.parameters == 0
        assert list(model) == ["dense1.weight", "dense1.bias"]
        assert "sparse_embedding" in repr(model)
        with fl.Model.from_description(model.description) as again:
            assert again.description == model.description
            assert [info.kind for info in again.layers()] == [
                info.kind for info in model.layers()]


def test_fixed_rows_are_described_as_fixed():
    fixed = [fl.SparseEmbedding(4, trainable=False) if i == 1 else layer
             for i, layer in enumerate(SPARSE)]
    with fl.Model(fixed) as a, fl.Model(SPARSE) as b:
        assert a.description != b.description
        assert a.schema == b.schema


@pytest.mark.parametrize("dtype", ["u8", "i8", "i4", "u1", ">u8"])
def test_rows_of_any_ids_are_somebody_elses(dtype):
    x, y = np.arange(6).reshape(2, 3).astype(dtype), np.ones((2, 1))
    with fl.Model(SPARSE, seed=1) as model:
        for use in (model.step, model.fit, model.evaluate, model.accumulate):
            with pytest.raises(fl.NotAllowedError, match="has no rows"):
                use(x, y)
        with pytest.raises(fl.NotAllowedError, match="has no rows"):
            model.predict(x)


def test_sparse_ids_are_integers():
    with fl.Model(SPARSE, seed=1) as model:
        for bad, error in (([[0., 1., 2.]], TypeError),
                           ([["a", "b", "c"]], TypeError),
                           ([[0, 1]], ValueError)):
            with pytest.raises(error, match="x: got"):
                model.predict(bad)


def test_sparse_embedding_that_is_refused_is_named():
    for net, error in (
            ([fl.Input((3, 4)), fl.SparseEmbedding(4, name="w")],
             fl.DimError),
            ([fl.Input((3,)), fl.SparseEmbedding(0, name="w")],
             fl.ArgumentError),
            ([fl.Input((3,)), fl.ReLU(), fl.SparseEmbedding(2, name="w")],
             fl.NotAllowedError)):
        with pytest.raises(error, match="sparse_embedding w"):
            fl.Model([*net, fl.Flatten(), *HEAD, fl.MeanSquaredError()])


@pytest.mark.parametrize("fields, width", [(2, 1), (3, 8), (9, 13)])
def test_interactions_are_the_dot_products_of_pairs(rng, fields, width):
    x = draw(rng, 5, fields, width)
    exact = x.astype(np.float64)
    rows, columns = np.tril_indices(fields, -1)
    pairs = (exact @ exact.transpose(0, 2, 1))[:, rows, columns]
    shape = (fields, width)
    zero = {"positions1.weight": np.zeros(shape)}
    got, _ = outputs([fl.Positions(), fl.PairwiseDots()], shape, x, **zero)
    assert np.allclose(got, pairs, **CLOSE)
    got, _ = outputs([fl.Positions(), fl.FactorisationMachine()], shape, x,
                     **zero)
    assert np.allclose(got, pairs.sum(1, keepdims=True), **CLOSE)


@pytest.mark.parametrize("width", [1, 7, 8, 9, 64, 65])
def test_layer_norm_has_mean_0_and_variance_1(rng, width):
    x = 3 * draw(rng, 4, 5, width) + 2
    scale, shift = draw(rng, width), draw(rng, width)
    got, _ = outputs([fl.LayerNorm()], (5, width), x, **{
        "layernorm1.weight": scale, "layernorm1.bias": shift})
    wide = x.astype(np.float64)
    normal = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(
        wide.var(-1, keepdims=True) + 1e-5)
    assert np.allclose(got, normal * scale + shift, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 3, 6])
def test_group_norm_is_over_each_group_of_channels(rng, groups):
    x = 2 * draw(rng, 3, 6, 4, 5) - 1
    scale, shift = draw(rng, 6), draw(rng, 6)
    got, _ = outputs([fl.GroupNorm(groups, epsilon=1e-3), fl.Flatten()],
                     (6, 4, 5), x, **{"groupnorm1.weight": scale,
                                      "groupnorm1.bias": shift})
    parts = x.astype(np.float64).reshape(3, groups, -1)
    normal = (parts - parts.mean(-1, keepdims=True)) / np.sqrt(
        parts.var(-1, keepdims=True) + 1e-3)
    want = (normal.reshape(x.shape) * scale[:, None, None]
            + shift[:, None, None])
    assert np.allclose(got, want.reshape(3, -1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tokens, width, heads", [(1, 4, 1), (5, 8, 2),
                                                  (28, 64, 4), (9, 6, 6)])
@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_weighs_values_by_softmax(rng, tokens, width, heads,
                                            is_causal):
    x = draw(rng, 2, tokens, width)
    got, t = outputs([fl.Attention(heads, is_causal, name="a")],
                     (tokens, width), x)
    qkv = (x.astype(np.float64) @ t["a.in_proj.weight"].T
           + t["a.in_proj.bias"])
    q, k, v = (part.reshape(2, tokens, heads, -1).transpose(0, 2, 1, 3)
               for part in np.split(qkv, 3, axis=-1))
    scores = q @ k.transpose(0, 1, 3, 2) / math.sqrt(width // heads)
    if is_causal:
        scores = np.where(np.tri(tokens, dtype=bool), scores, -np.inf)
    mixed = (softmax(scores) @ v).transpose(0, 2, 1, 3).reshape(x.shape)
    want = mixed @ t["a.out_proj.weight"].T + t["a.out_proj.bias"]
    assert np.allclose(got, want, **CLOSE)


def test_embedding_and_positions_are_rows_and_their_sum(rng):
    ids = rng.integers(0, 11, (6, 5))
    got, tensors = outputs([fl.Embedding(11, 3), fl.Positions()], (5,), ids)
    assert np.allclose(got, tensors["embedding1.weight"][ids]
                       + tensors["positions1.weight"], **CLOSE)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint16])
def test_ids_may_be_integers_of_any_kind(rng, dtype):
    ids = rng.integers(0, 11, (6, 5))
    net = [fl.Embedding(11, 3), fl.Mean(), *HEAD]
    want, _ = outputs(net, (5,), ids)
    got, _ = outputs(net, (5,), ids.astype(dtype))
    assert (got == want).all()


def test_ids_that_are_none_are_refused():
    with fl.Model([fl.Input((2,)), fl.Embedding(11, 3), fl.Mean(), *HEAD,
                   fl.CrossEntropy()], seed=1) as model:
        with pytest.raises(fl.RangeError):
            model.predict([[0, 11]])
        with pytest.raises(fl.RangeError):
            model.predict([[-1, 0]])
        with pytest.raises(TypeError, match="x: got dtype float64"):
            model.predict([[0.0, 1.0]])
        with pytest.raises(ValueError, match="want samples of 2 values"):
            model.predict([[0, 1, 2]])


def test_add_and_from_make_a_graph(rng):
    x = draw(rng, 3, 6)
    net = [fl.Dense(4, name="a"), fl.Tanh(name="t"), fl.Dense(4, name="b"),
           fl.From("a"), fl.Sigmoid(name="s"), fl.Add("b", name="sum"),
           fl.Add("a")]
    got, t = outputs(net, (6,), x)
    a = x @ t["a.weight"].T + t["a.bias"]
    b = np.tanh(a) @ t["b.weight"].T + t["b.bias"]
    assert np.allclose(got, 1 / (1 + np.exp(-a)) + b + a, **CLOSE)
    with fl.Model([fl.Input((6,)), *net, fl.MeanSquaredError()]) as model:
        inputs = {layer.name: layer.inputs for layer in model.layers()}
        assert inputs["s"] == ("a",) and inputs["sum"] == ("s", "b")
        assert "add of s, b" in repr(model)
        assert "sigmoid of a" in repr(model)


def test_dropout_is_for_training_only(rng):
    x, y = draw(rng, 64, 50), rng.integers(0, 3, 64)
    with fl.Model([fl.Input((50,)), fl.Dropout(0.4), fl.Dense(3),
                   fl.CrossEntropy()], seed=1) as model, \
            fl.Model([fl.Input((50,)), fl.Dense(3), fl.CrossEntropy()],
                     seed=1) as plain:
        plain.load(model)
        assert (model.predict(x) == plain.predict(x)).all()
        assert model.evaluate(x, y).loss == plain.evaluate(x, y).loss
        assert abs(model.step(x, y) - plain.step(x, y)) > 1e-3


def test_dropout_zeroes_at_its_rate_and_scales_the_rest():
    with fl.Model([fl.Input((1000,)), fl.Dropout(0.4), fl.Dense(3),
                   fl.CrossEntropy()], seed=1) as model:
        model.accumulate(np.ones((1, 1000)), [0])
        # The gradient of a weight is that of its bias times the input.
        gradient = model.gradient.copy()
    seen = gradient[:3000].reshape(3, 1000) / gradient[3000:, None]
    kept = seen[0] != 0
    assert abs(kept.mean() - 0.6) < 0.06
    assert np.allclose(seen, np.where(kept, 1 / 0.6, 0), rtol=1e-4)


def cross_entropy(logits, labels, smoothing=0.0, ignore=-100):
    logs = np.log(softmax(logits.astype(np.float64)))
    counts = labels != ignore
    hit = np.take_along_axis(logs, np.where(counts, labels, 0)[..., None],
                             -1)[..., 0]
    losses = -(1 - smoothing) * hit - smoothing * logs.mean(-1)
    return losses[counts].mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_smooths_and_ignores(rng, smoothing):
    x, y = draw(rng, 20, 6), rng.integers(0, 4, 20)
    y[3:6] = -7
    with fl.Model([fl.Input((6,)), fl.Dense(4), fl.CrossEntropy(
            ignore_index=-7, label_smoothing=smoothing)], seed=1) as model:
        want = cross_entropy(model.predict(x), y, smoothing, -7)
        score = model.evaluate(x, y)
        assert score.loss == pytest.approx(want, rel=1e-4)
        assert score.class_count.sum() == 17
        hits = (model.predict(x).argmax(1) == y).sum()
        assert score.accuracy == hits / 17
        with pytest.raises(fl.RangeError):
            model.evaluate(x, np.full(20, -100))


def test_tokens_have_labels_of_their_own(rng):
    ids = rng.integers(0, 9, (12, 5))
    with fl.Model([fl.Input((5,)), fl.Embedding(9, 8), fl.Dense(3),
                   fl.CrossEntropy()], seed=1) as model:
        y = ids % 3
        assert model.predict(ids).shape == (12, 5, 3)
        assert model.evaluate(ids, y).loss == pytest.approx(
            cross_entropy(model.predict(ids), y), rel=1e-4)
        model.fit(ids, y, epochs=60, batch_size=4, learning_rate=0.5)
        score = model.evaluate(ids, y)
        assert score.accuracy == 1.0 and score.class_count.sum() == 60
        assert (model.predict(ids, top=1).classes[:, :, 0] == y).all()
        with pytest.raises(ValueError, match=r"y: got shape \[12\], "
                                             r"want \[12, 5\]"):
            model.evaluate(ids, y[:, 0])


def test_losses_of_numbers_take_numbers(rng):
    x = draw(rng, 30, 4)
    for loss, y in ((fl.MeanSquaredError(), draw(rng, 30, 2)),
                    (fl.BinaryCrossEntropy(), rng.random((30, 2)))):
        with fl.Model([fl.Input((4,)), fl.Dense(2), loss], seed=1) as model:
            z = model.predict(x).astype(np.float64)
            if isinstance(loss, fl.MeanSquaredError):
                want = ((z - y) ** 2).mean()
            else:
                want = (np.logaddexp(0, z) - y * z).mean()
            score = model.evaluate(x, y)
            assert score.loss == pytest.approx(want, rel=1e-4)
            assert math.isnan(score.accuracy) and score.class_count.size == 0
            assert model.step(x, y) == pytest.approx(want, rel=1e-4)
            with pytest.raises(ValueError, match="y: got 30 values"):
                model.step(x, y[:, 0])
    with fl.Model([fl.Input((4,)), fl.Dense(1), fl.BinaryCrossEntropy()],
                  seed=1) as model:
        # Truth values as they come, one for each sample.
        model.fit(x, (x[:, 0] > 0).astype(int), epochs=40, learning_rate=0.5)
        assert ((model.predict(x)[:, 0] > 0) == (x[:, 0] > 0)).mean() > 0.9
        with pytest.raises(fl.RangeError):
            model.step(x, np.full(30, 1.5))


def test_shapes_and_parameters_of_layers_are_told():
    with fl.Model([fl.Input((1, 28, 28)), fl.Conv2d(6, 5, padding=2),
                   fl.MaxPool2d(), fl.Flatten(), fl.Dense(10),
                   fl.CrossEntropy()]) as model:
        layers = {layer.name: layer for layer in model.layers()}
    assert list(layers) == ["input", "conv2d1", "maxpool2d1", "flatten1",
                            "dense1", "crossentropy1"]
    conv = layers["conv2d1"]
    assert (conv.index, conv.kind, conv.shape, conv.parameters) == (
        1, "conv2d", (6, 28, 28), 156)
    assert conv.tensors == ("conv2d1.weight", "conv2d1.bias")
    assert layers["maxpool2d1"].kind == "max_pool2d"
    assert layers["flatten1"].shape == (6 * 14 * 14,)
    assert layers["dense1"].module == 1 and layers["dense1"].is_trained


def test_layers_without_a_module_have_one_of_their_own():
    with fl.Model([fl.Input((4,)), fl.Dense(4), fl.Dense(4, module=5),
                   fl.Dense(4), fl.LayerNorm(module=5), fl.Dense(4),
                   fl.Tensor("joins", [1]), fl.CrossEntropy()]) as model:
        modules = [info.module for info in model.tensors()]
    assert modules == [0, 0, 5, 5, 6, 6, 5, 5, 7, 7, 7]


def test_an_attention_is_one_module():
    net = [fl.Input((3, 4)), fl.Attention(2, name="a"), fl.Mean(),
           fl.Dense(2), fl.CrossEntropy()]
    with fl.Model(net) as model:
        assert [info.module for info in model.tensors()] == [0] * 4 + [1] * 2
        assert [layer.name for layer in model.layers()][1:4] == [
            "a.in_proj", "a.heads", "a.out_proj"]


def test_layers_that_are_not_trainable_stay(rng):
    x, y = draw(rng, 30, 5), rng.integers(0, 3, 30)
    with fl.Model([fl.Input((5,)), fl.Dense(6, trainable=False), fl.ReLU(),
                   fl.Dense(3), fl.Tensor("loose", [2]), fl.CrossEntropy()],
                  seed=1) as model:
        assert model.weight_count == 21 + 2
        before = dict(model)
        model.fit(x, y, epochs=2)
        assert (model["dense1.weight"] == before["dense1.weight"]).all()
        assert (model["dense2.weight"] != before["dense2.weight"]).any()
        assert "0, not trained" in repr(model)


@pytest.mark.parametrize("layers, kind, text", [
    ([fl.Dense(3), fl.Conv2d(4)], fl.DimError, "conv2d1"),
    ([fl.Dense(3), fl.MaxPool2d()], fl.DimError, "maxpool2d1"),
    ([fl.Dense(3), fl.GroupNorm(1, name="g")], fl.DimError, "g"),
    ([fl.Dense(3), fl.Attention(1, name="att")], fl.DimError, "att"),
    ([fl.Dense(3), fl.Mean(name="m")], fl.DimError, "m"),
    ([fl.Dense(3, name="d"), fl.Dense(4), fl.Add("d", name="sum")],
     fl.DimError, "sum"),
    ([fl.Dense(3), fl.Add("nobody", name="sum")], fl.NotFoundError,
     "nobody"),
    ([fl.Dense(3), fl.From("nobody")], fl.NotFoundError, "nobody"),
    ([fl.Dense(3), fl.Dropout(1.0, name="drop")], fl.ArgumentError, "drop"),
    ([fl.Dense(3), fl.LayerNorm(0.0, name="norm")], fl.ArgumentError,
     "norm"),
    ([fl.Dense(3), fl.Dense(3, name="dense1")], fl.ArgumentError, "dense1"),
    ([fl.Dense(3, name="x" * 128)], fl.ArgumentError, "name"),
    ([fl.Dense(3), fl.From("dense1"), fl.Dense(2, name="left"),
      fl.From("dense1"), fl.Dense(2)], fl.NotAllowedError, "left")])
def test_layers_that_do_not_fit_are_named(layers, kind, text):
    with pytest.raises(kind, match=rf"\b{text}\b"):
        fl.Model([fl.Input((4,)), *layers, fl.CrossEntropy()])


@pytest.mark.parametrize("layer, kind, text", [
    (fl.Conv2d(0, name="c"), fl.ArgumentError, "c"),
    (fl.Conv2d(4, 9, name="c"), fl.FlError, "c"),
    (fl.Conv2d(4, padding=3, name="c"), fl.ArgumentError, "c"),
    (fl.Conv2d(3, groups=2, name="c"), fl.ArgumentError, "c"),
    (fl.Conv2d(4, stride=0, name="c"), fl.ArgumentError, "c"),
    (fl.Conv2d(-1, name="c"), ValueError, "c: filters: got -1"),
    (fl.Conv2d(2.5, name="c"), TypeError, "c: filters: got 2.5"),
    (fl.MaxPool2d(16, name="p"), fl.ArgumentError, "p"),
    (fl.AvgPool2d(2, padding=2, name="p"), fl.ArgumentError, "p"),
    (fl.MaxPool2d(2, 0, name="p"), ValueError, "p: got stride 0"),
    (fl.GroupNorm(3, name="g"), fl.ArgumentError, "g"),
    (fl.Softmax(name="s"), fl.DimError, "s")])
def test_attributes_out_of_range_are_named(layer, kind, text):
    with pytest.raises(kind, match=rf"\b{text}\b"):
        fl.Model([fl.Input((2, 6, 6)), layer, fl.Flatten(), fl.Dense(2),
                  fl.CrossEntropy(name="end")])


@pytest.mark.parametrize("loss, kind, text", [
    (fl.CrossEntropy(label_smoothing=1.5, name="end"), fl.ArgumentError,
     "end"),
    (fl.CrossEntropy(label_smoothing=math.nan, name="end"), fl.ArgumentError,
     "end"),
    (fl.CrossEntropy(ignore_index=2**31), ValueError, "ignore_index"),
    (fl.CrossEntropy(ignore_index=0.5), TypeError, "ignore_index")])
def test_losses_out_of_range_are_named(loss, kind, text):
    with pytest.raises(kind, match=rf"\b{text}\b"):
        fl.Model([fl.Input((4,)), fl.Dense(2), loss])


def test_images_at_the_loss_are_refused():
    with pytest.raises(fl.DimError, match="flatten"):
        fl.Model([fl.Input((1, 4, 4)), fl.Conv2d(2), fl.MeanSquaredError()])


def test_an_embedding_takes_the_models_input_only():
    with pytest.raises(fl.NotAllowedError, match="embedding1"):
        fl.Model([fl.Input((4,)), fl.Dense(4), fl.Embedding(3, 2), fl.Mean(),
                  *HEAD, fl.CrossEntropy()])


def test_layers_are_values():
    assert fl.Conv2d(8) == fl.Conv2d(8, kernel=3)
    assert len({fl.Dense(3), fl.Dense(3), fl.Dense(4)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        fl.Dense(3).units = 4


def test_a_transformer_learns(rng):
    x = draw(rng, 200, 6, 8)
    y = x[:, :, 0].argmax(1)
    block = [fl.LayerNorm(), fl.Attention(2, name="att"),
             fl.Add("start", name="middle"), fl.LayerNorm(), fl.Dense(32),
             fl.GELU(), fl.Dense(16), fl.Add("middle")]
    with fl.Model([fl.Input((6, 8)), fl.Dense(16),
                   fl.Positions(name="start"), *block, fl.LayerNorm(),
                   fl.Mean(), fl.Dense(6), fl.CrossEntropy()],
                  seed=1) as model:
        model.fit(x, y, epochs=50, optimiser=fl.Adam(3e-3))
        assert model.evaluate(x, y).accuracy > 0.9
