# SPDX-License-Identifier: Apache-2.0
"""Embedding stores from Python: ids of all kinds, bags, and errors; against
dense tables of numpy, which are never hashed, cut or pruned."""
import copy

import numpy as np
import pytest

import libfl as fl

DIM = 8


@pytest.fixture
def store(context):
    """Return a function that makes a store."""
    def make(**options):
        return fl.EmbeddingStore(context=context, secret=bytes(range(16)),
                                 **options)
    return make


def draw_bags(rng, n_bags=6, most=5, ids=40, mode="sum", is_weighted=False):
    """(bags, ids of each, weights of each)."""
    sizes = rng.integers(0, most + 1, n_bags)
    flat = rng.integers(0, ids, sizes.sum())
    ends = np.cumsum(sizes)
    weights = rng.normal(size=flat.size).astype(np.float32)
    bags = fl.Bags(flat, ends - sizes, mode=mode,
                   weights=weights if is_weighted else None)
    factors = weights if is_weighted else np.ones(flat.size, np.float32)
    if mode == "mean":
        factors = factors / np.repeat(np.maximum(sizes, 1), sizes)
    cuts = ends[:-1]
    return bags, np.split(flat, cuts), np.split(factors, cuts)


class Dense:
    """Rows by id, updated by SGD or row-wise AdaGrad in float64."""

    def __init__(self, table, ids):
        self.rows = {int(i): table.lookup(np.array([[i]]))[0].astype(float)
                     for i in ids}
        self.squares = dict.fromkeys(self.rows, 0.)

    def forward(self, ids, factors):
        return np.array([sum((f * self.rows[int(i)] for i, f in zip(*bag)),
                             np.zeros(DIM)) for bag in zip(ids, factors)])

    def backward(self, ids, factors, gradient, rate, is_adaptive):
        sums = {}
        for bag, weights, g in zip(ids, factors, gradient):
            for i, f in zip(bag, weights):
                sums[int(i)] = sums.get(int(i), 0) + f * g
        for i, g in sums.items():
            if is_adaptive:
                self.squares[i] += (g * g).mean()
                g = g / (np.sqrt(self.squares[i]) + 1e-8)
            self.rows[i] -= rate * g


@pytest.mark.parametrize("optimiser", ["sgd", "row_adagrad"])
@pytest.mark.parametrize("mode", ["sum", "mean"])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_training_is_a_dense_tables(store, rng, optimiser, mode, is_weighted):
    with store(optimiser=optimiser, seed=3) as made:
        table = made.add_table(DIM)
        table.forward(np.arange(40)[None])
        dense = Dense(table, range(40))
        for _ in range(30):
            bags, ids, factors = draw_bags(rng, mode=mode,
                                           is_weighted=is_weighted)
            np.testing.assert_allclose(table.forward(bags),
                                       dense.forward(ids, factors),
                                       rtol=1e-4, atol=1e-5)
            gradient = rng.normal(size=(len(bags), DIM)).astype(np.float32)
            table.backward(bags, gradient, rate=.05)
            dense.backward(ids, factors, gradient.astype(float), .05,
                           optimiser == "row_adagrad")
        np.testing.assert_allclose(
            table.lookup(np.arange(40)[:, None]),
            [dense.rows[i] for i in range(40)], rtol=1e-4, atol=1e-5)


def test_unknown_ids_are_zeros_until_they_are_trained(store):
    with store() as made:
        table = made.add_table(DIM, init_scale=.5)
        ids = np.array([[3], [4]])
        assert (table.lookup(ids) == 0).all()
        first = table.forward(ids)
        assert (first != 0).all() and (first[0] != first[1]).any()
        assert .1 < first.std() < 1
        assert (table.lookup(ids) == first).all()


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.int32, np.uint8])
def test_ids_may_be_of_any_integer_type(store, dtype):
    with store() as made:
        table = made.add_table(DIM)
        rows = table.forward(np.array([[1], [7], [200 % 128]], np.int64))
        ids = np.array([[1], [7], [72]], dtype)
        assert (table.lookup(ids) == rows).all()
        assert (table.lookup(ids.tolist()) == rows).all()


def test_ids_are_any_64_bits_and_signed_ones_their_bits(store):
    with store() as made:
        table = made.add_table(DIM)
        rows = table.forward(np.array([[0], [-1], [-2**63]], np.int64))
        ids = np.array([[0], [2**64 - 1], [2**63]], np.uint64)
        assert (table.lookup(ids) == rows).all()
        assert len({row.tobytes() for row in rows}) == 3


def test_arrays_of_64_bits_are_not_copied():
    ids, offsets = np.arange(6), np.array([0, 2])
    bags = fl.Bags(ids, offsets)
    assert np.shares_memory(bags._ids, ids)
    assert np.shares_memory(bags._offsets, offsets)
    assert not np.shares_memory(fl.Bags(ids[::2], offsets)._ids, ids)


def test_bags_are_rows_or_begin_at_offsets(store):
    with store() as made:
        table = made.add_table(DIM)
        ids = np.arange(6)
        whole = table.forward(ids[:, None])
        for bags in (ids.reshape(2, 3), fl.Bags(ids, [0, 3])):
            np.testing.assert_allclose(table.lookup(bags), [
                whole[:3].sum(0), whole[3:].sum(0)], rtol=1e-6)
        gaps = table.lookup(fl.Bags(ids, [0, 0, 4, 6, 6]))
        np.testing.assert_allclose(gaps[1], whole[:4].sum(0), rtol=1e-6)
        assert (gaps[[0, 3, 4]] == 0).all()
        assert len(fl.Bags(ids, [0, 0, 4])) == 3
        assert table.lookup(fl.Bags(ids[:0], [0, 0])).shape == (2, DIM)


def test_output_is_written_in_place(store):
    with store() as made:
        table = made.add_table(DIM)
        out = np.full((2, DIM), 9, np.float32)
        assert table.forward(np.array([[1], [2]]), out) is out
        assert (out != 9).all()
        with pytest.raises(ValueError, match="out: got 16 values, want 8"):
            table.forward(np.array([[1]]), out)


@pytest.mark.parametrize("arguments, error, match", [
    ((np.arange(3),), ValueError, "want \\[bags, ids\\]"),
    ((np.zeros((2, 2), int), [0]), ValueError, "want one row"),
    ((np.zeros(2),), TypeError, "ids: got dtype float64"),
    ((np.zeros(2, bool),), TypeError, "ids: got dtype bool"),
    ((np.arange(3), [0.]), TypeError, "offsets: got dtype float64"),
    ((np.arange(3), [[0]]), ValueError, "offsets: got shape")])
def test_bags_that_cannot_be_meant_are_refused(arguments, error, match):
    with pytest.raises(error, match=match):
        fl.Bags(*arguments)


def test_weights_are_one_for_each_id():
    with pytest.raises(ValueError, match="weights: got 2 values"):
        fl.Bags([1, 2, 3], [0], weights=[1, 2])
    with pytest.raises(ValueError, match="mode: got 'max', want one of"):
        fl.Bags([1], [0], mode="max")


@pytest.mark.parametrize("offsets", [[1], [0, 2, 1], [0, 4], [0, -1]])
def test_offsets_that_run_backwards_or_beyond_are_refused(store, offsets):
    with store() as made:
        table = made.add_table(DIM)
        with pytest.raises(fl.RangeError, match="offsets"):
            table.forward(fl.Bags([5, 6, 7], offsets))
        assert (table.lookup(np.array([[5], [6], [7]])) == 0).all()


def test_gradient_that_is_not_finite_changes_nothing(store):
    with store() as made:
        table = made.add_table(DIM)
        ids = np.array([[1], [2]])
        rows = table.forward(ids)
        gradient = np.ones((2, DIM), np.float32)
        gradient[1, 3] = np.nan
        with pytest.raises(fl.NotFiniteError):
            table.backward(ids, gradient, rate=.1)
        assert (table.lookup(ids) == rows).all()


def test_gradient_has_the_shape_of_the_output(store):
    with store() as made:
        table = made.add_table(DIM)
        with pytest.raises(ValueError, match="gradient: got 8 values"):
            table.backward(np.array([[1], [2]]), np.ones((1, DIM)), rate=.1)


def test_same_seed_makes_the_same_rows(store):
    def rows(seed):
        with store(seed=seed) as made:
            return made.add_table(DIM).forward(np.arange(9)[:, None])
    assert (rows(5) == rows(5)).all()
    assert (rows(5) != rows(6)).any()


def test_tables_are_apart(store):
    with store() as made:
        first, second = made.add_table(DIM), made.add_table(16, chunks=2)
        assert (first.index, second.index) == (0, 1)
        assert first.dim == 8 and second.store is made
        rows = first.forward(np.array([[1]]))
        assert (second.lookup(np.array([[1]])) == 0).all()
        second.forward(np.array([[1]]))
        assert (first.lookup(np.array([[1]])) == rows).all()


@pytest.mark.parametrize("options, error", [
    ({"dim": 3}, fl.CallerError), ({"dim": DIM, "chunks": 3}, fl.CallerError),
    ({"dim": DIM, "share": -1.}, fl.CallerError),
    ({"dim": -1}, ValueError), ({"dim": DIM, "precision": "f64"}, ValueError)])
def test_tables_that_cannot_be_are_refused(store, options, error):
    with store() as made, pytest.raises(error):
        made.add_table(**options)


@pytest.mark.parametrize("options, match", [
    ({"optimiser": "adam"}, "want one of sgd, row_adagrad"),
    ({"byte_budget": -1}, "byte_budget"), ({"decay": 1.5}, "decay"),
    ({"hysteresis": .5}, "hysteresis")])
def test_stores_that_cannot_be_are_refused(store, options, match):
    with pytest.raises(ValueError, match=match):
        store(**options)


def test_secret_has_16_bytes(context):
    with pytest.raises(ValueError, match="secret: got 15 bytes, want 16"):
        fl.EmbeddingStore(context=context, secret=bytes(15))


def test_budget_holds_what_is_used_most(context, rng):
    budget = 200_000
    with fl.EmbeddingStore(byte_budget=budget, seed=1,
                           context=context) as store:
        table = store.add_table(16, prune_from=0)
        before = context.memory
        evicted = 0
        for step in range(1, 121):
            hot = rng.integers(0, 200, (64, 4))
            cold = rng.integers(10**6, 10**12, (64, 4))
            bags = np.concatenate([hot, cold], 1)
            table.forward(bags)
            table.backward(bags, rng.normal(size=(64, 16)), rate=.05)
            if step % 10 == 0:
                report = store.adjust()
                evicted += report.evicted
        assert before <= context.memory
        assert evicted > 0
        kept = (table.lookup(np.arange(200)[:, None]) != 0).any(1)
        assert kept.mean() > .95
        unseen = table.lookup(rng.integers(10**13, 10**14, (200, 1)))
        assert (unseen == 0).all()


def test_report_of_an_idle_adjust_is_empty(store):
    with store() as made:
        made.add_table(DIM)
        report = made.adjust()
        assert (report.evicted, report.grown, report.rows_lost) == (0, 0, 0)


def test_closed_store_says_so(store):
    made = store()
    table = made.add_table(DIM)
    made.close()
    with pytest.raises(ValueError, match="EmbeddingStore is closed"):
        table.lookup(np.array([[1]]))
    with pytest.raises(TypeError):
        copy.copy(made)


def test_representations_say_what_it_is(store):
    with store() as made:
        assert repr(made.add_table(DIM)) == (
            "<libfl.EmbeddingTable 0: rows of 8>")
        assert repr(fl.Bags([[1, 2]])) == "<libfl.Bags 1 of 2 ids, sum>"


# ---- rows, statistics, saving ----------------------------------------------

@pytest.fixture
def trained(store, rng):
    """Return (store, table) that have learned something."""
    with store(byte_budget=60_000, seed=3, tombstones=1000) as made:
        table = made.add_table(16, prune_from=0)
        train(table, rng)
        yield made, table


def train(table, rng, steps=20, ids=400):
    for step in range(1, steps + 1):
        bags = rng.zipf(1.2, (32, 5)).astype(np.uint64) % ids
        table.forward(bags)
        table.backward(bags, rng.normal(size=(32, 16)), rate=.05)
        if step % 5 == 0:
            table.store.adjust()


def test_rows_are_listed_and_read_one_by_one(trained):
    made, table = trained
    ids = table.ids()
    assert len(ids) == len(table) == table.statistics.rows > 0
    assert len(set(ids.tolist())) == len(ids)
    for i, whole in zip(ids, table.lookup(ids[:, None])):
        values, mask = table.row(i)
        assert (values == whole).all()
        for chunk in range(4):
            if not mask >> chunk & 1:
                assert (values[4 * chunk:4 * chunk + 4] == 0).all()
    with pytest.raises(fl.NotFoundError):
        table.row(10**9)
    assert made.tables[0].dim == 16 and len(made.tables) == 1


def test_empty_tables_are_tables(store):
    with store() as made:
        table = made.add_table(DIM)
        assert bool(table) and len(table) == 0 and table.ids().size == 0


def test_statistics_add_up(trained):
    made, table = trained
    all_of_it, one = made.statistics, table.statistics
    assert all_of_it.byte_budget == 60_000 >= all_of_it.bytes_used
    assert all_of_it.bytes_used == sum(
        getattr(all_of_it, f"bytes_{kind}") for kind in
        ("values", "squares", "entries", "sketch", "free", "fixed"))
    assert all_of_it.steps == 20 and all_of_it.adjusts == 4
    assert sum(one.rows_by_chunks) == one.rows == len(table)
    assert sum(n * (k + 1) for k, n in enumerate(one.rows_by_chunks)
               ) == one.chunks
    assert 0 < one.ids_hit < one.ids_asked == 20 * 32 * 5


def test_loaded_store_goes_on_as_if_nothing_had_been(trained, tmp_path,
                                                     context):
    made, table = trained
    version = made.save(tmp_path / "store")
    assert version == made.version != 0
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    with fl.EmbeddingStore.load(tmp_path / "store", context=context) as again:
        assert again.version == version
        other, = again.tables
        assert (table.dim, len(table)) == (other.dim, len(other))
        for each in (table, other):
            train(each, np.random.default_rng(8))
        ids = np.arange(400)[:, None]
        assert (table.lookup(ids) == other.lookup(ids)).all()
        assert table.statistics.chunks == other.statistics.chunks


def test_delta_brings_another_store_up_to_date(trained, rng, tmp_path):
    made, table = trained
    first = made.save(tmp_path / "store")
    loaded = fl.EmbeddingStore.load(tmp_path / "store")
    with loaded as served:
        train(table, rng)
        with open(tmp_path / "delta", "wb") as file:
            second = made.save_delta(file, first)
        assert served.apply_delta(tmp_path / "delta") == second != first
        ids = np.arange(400)[:, None]
        assert (served.tables[0].lookup(ids) == table.lookup(ids)).all()
        with pytest.raises(fl.StaleError):
            served.apply_delta(tmp_path / "delta")
    with pytest.raises(fl.StaleError):
        made.save_delta(tmp_path / "other", first)
    assert not (tmp_path / "other").exists()


def test_files_that_are_none_are_refused(trained, tmp_path):
    made, _ = trained
    made.save(tmp_path / "store")
    data = (tmp_path / "store").read_bytes()
    for wrong in (b"", data[:100], data[:-1], b"x" + data[1:]):
        (tmp_path / "wrong").write_bytes(wrong)
        with pytest.raises(fl.PeerDataError):
            fl.EmbeddingStore.load(tmp_path / "wrong")
    with pytest.raises(fl.ResourceError):
        fl.EmbeddingStore.load(tmp_path / "store", byte_budget=2000)
    with pytest.raises(FileNotFoundError):
        fl.EmbeddingStore.load(tmp_path / "nowhere")


# ---- as a layer of a model -------------------------------------------------

def recommender(width=DIM, fields=3):
    """A factorisation machine with a net beside it."""
    return fl.Model([fl.Input((fields,)), fl.SparseEmbedding(width, name="v"),
                     fl.FactorisationMachine(name="pairs"), fl.From("v"),
                     fl.Flatten(), fl.Dense(8), fl.ReLU(), fl.Dense(1),
                     fl.Add("pairs"), fl.BinaryCrossEntropy()], seed=2)


def clicks(rng, n=600):
    """Ids of three fields, and whether the first two belong together."""
    ids = rng.integers(0, 12, (n, 3)).astype(np.uint64)
    return (ids + np.array([0, 2**40, 2**63], np.uint64),
            (ids[:, :1] % 3 == ids[:, 1:2] % 3).astype(np.float32))


def test_attached_store_learns_with_the_model(store, rng):
    with store(seed=1) as made, recommender() as model:
        table = made.add_table(DIM)
        with pytest.raises(fl.NotAllowedError):
            model.predict(clicks(rng, 2)[0])
        made.attach(model, table, rate=.05)
        x, y = clicks(rng)
        for _ in range(60):
            loss = model.step(x, y, learning_rate=.05)
        assert loss < .35
        assert (table.lookup(x[:5, :1]) != 0).all()
        made.adjust()
        made.detach(model)
        with pytest.raises(fl.NotAllowedError):
            model.predict(x)


def test_fields_may_have_tables_of_their_own(store, rng):
    with store() as made, recommender() as model:
        tables = [made.add_table(DIM) for _ in range(2)]
        made.attach(model, [tables[0], tables[1], tables[0]])
        x, y = clicks(rng, 50)
        model.step(x, y, learning_rate=.05)
        known = [(table.lookup(x[:, field:field + 1]) != 0).any()
                 for table in tables for field in range(3)]
        assert known == [True, False, True, False, True, False]


def test_rate_of_rows_is_the_steps_or_their_own(store, rng):
    def moved(rate):
        with store(optimiser="sgd", seed=1) as made, recommender() as model:
            table = made.add_table(DIM)
            made.attach(model, table, rate=rate)
            x, y = clicks(rng, 50)
            before = table.forward(x[:, :1])
            model.step(x, y, learning_rate=.5)
            return np.abs(table.lookup(x[:, :1]) - before).max()
    assert moved(0.) == 0
    assert moved(None) > 0


def test_model_keeps_its_store(context, rng):
    with recommender() as model:
        store = fl.EmbeddingStore(context=context)
        store.attach(model, store.add_table(DIM))
        store.close()
        del store
        x, y = clicks(rng, 20)
        model.step(x, y, learning_rate=.05)
        assert context.memory > 0


def test_tables_of_others_and_wrong_ones_are_refused(store):
    with store() as made, store() as other, recommender() as model:
        with pytest.raises(ValueError, match="another store's"):
            made.attach(model, other.add_table(DIM))
        with pytest.raises(fl.DimError):
            made.attach(model, made.add_table(16))
        table = made.add_table(DIM)
        with pytest.raises(fl.DimError):
            made.attach(model, [table, table])
        with pytest.raises(fl.NotAllowedError):
            made.detach(model)
        made.attach(model, table)
        with pytest.raises(fl.NotAllowedError):
            other.attach(model, other.add_table(DIM))
