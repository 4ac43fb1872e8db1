# SPDX-License-Identifier: Apache-2.0
"""Slices from Python: by hand, and behind a job."""
import numpy as np
import pytest

import libfl as fl

DIM = 8
SECRET = bytes(range(16))


def make_store(context, optimiser="row_adagrad", **options):
    store = fl.EmbeddingStore(optimiser=optimiser, seed=5, secret=SECRET,
                              context=context, **options)
    return store, store.add_table(DIM, prune_from=0)


def make_sides(context):
    """(server's store, table, slices; the same of a device)."""
    store, table = make_store(context, "sgd")
    local, rows = make_store(context)
    return (store, table, fl.SliceServer(store, seed=3, context=context),
            local, rows, fl.SliceClient(local, context=context))


def fetch(server, client):
    """Returns the bytes that came."""
    client.begin(server.plan())
    size = 0
    while not client.status.is_ready:
        answer = server.answer(client.request())
        client.take(answer)
        size += len(answer)
    return size


def train(rows, ids, value=1.):
    ids = np.asarray(ids)[:, None]
    rows.forward(ids)
    rows.backward(ids, np.full((len(ids), DIM), value, np.float32), .02)


def test_a_round_by_hand(context):
    store, table, server, _, rows, client = make_sides(context)
    client.set_ids(rows, np.array([7, 2**64 - 1, 7], np.uint64))
    assert fetch(server, client) < 64
    assert client.status.ids == 2 and client.status.rows == 0
    train(rows, np.array([7], np.uint64))
    server.add(client.update(1))
    report = server.step()
    assert (report.clients, report.ids, report.dropped) == (1, 1, 0)
    assert server.report == report and server.layout == 1
    np.testing.assert_allclose(table.row(7)[0], rows.row(7)[0], atol=.0101)
    fetch(server, client)
    np.testing.assert_array_equal(table.row(7)[0], rows.row(7)[0])
    assert client.status.rows == 1 and client.threshold(rows) == 0
    assert len(table) == 1 and store.statistics.steps == 1


def test_ids_of_few_clients_are_dropped(context):
    store, table = make_store(context, "sgd")
    server = fl.SliceServer(store, min_clients=2, precision="bf16",
                            context=context)
    for ids in [1, 2], [2, 3]:
        local, rows = make_store(context)
        with fl.SliceClient(local, has_decoys=True, decoy_range=1000,
                            secret=SECRET, context=context) as client:
            client.set_ids(rows, ids)
            fetch(server, client)
            train(rows, ids)
            server.add(client.update(ids[0]))
    assert server.step().dropped == 2
    assert list(table.ids()) == [2]


def test_a_saved_server_goes_on(context):
    _, _, server, _, rows, client = make_sides(context)
    client.set_ids(rows, [1, 2, 3])
    fetch(server, client)
    train(rows, [1, 2])
    server.add(client.update(4))
    state = server.save()
    assert server.step().ids == 2
    server.drop()
    with pytest.raises(fl.StaleError):
        server.load(state)
    other, _ = make_store(context, "sgd")
    fresh = fl.SliceServer(other, seed=3, context=context)
    fresh.load(state)
    assert fresh.step().ids == 2


def test_what_is_refused(context):
    store, _, server, local, rows, client = make_sides(context)
    with pytest.raises(fl.TruncatedError):
        server.add(b"")
    with pytest.raises(fl.FormatError):
        server.add(server.plan())
    with pytest.raises(fl.FormatError):
        server.answer(server.plan())
    with pytest.raises(fl.EmptyError):
        client.request()
    with pytest.raises(fl.StaleError):
        client.take(b"x")
    with pytest.raises(fl.StateError):
        client.update(0)
    with pytest.raises(fl.StateError):
        fl.SliceClient(local, context=context)
    with pytest.raises(fl.OptionsError):
        fl.SliceServer(store, min_clients=0, context=context)
    with pytest.raises(ValueError):
        fl.SliceClient(local, secret=b"short", context=context)
    with pytest.raises(TypeError):
        client.set_ids(rows, [1.5])


def make_client(context, model, number, ids):
    local, rows = make_store(context)
    slices = fl.SliceClient(local, context=context)
    slices.set_ids(rows, ids)

    def step(task):
        train(rows, ids, 1. + number)
        return fl.TrainResult(update=np.full(task.weights.size, .1,
                                             np.float32), samples=10)
    client = fl.Client(f"c{number}", model=model, train=step, context=context)
    client.attach_slices(slices)
    return client


def test_rows_of_a_job(context):
    """A federation in which only its handles are kept."""
    model = fl.Model.from_tensors({"a": np.zeros(20, np.float32)},
                                  context=context)
    store, table = make_store(context, "sgd")
    server = fl.Server(context=context)
    job = server.add_job(model, rounds=3, min_clients=2)
    slices = fl.SliceServer(store, context=context)
    job.attach_slices(slices)
    loop = fl.Loopback(server, [make_client(context, model, i, [i, 5, 6])
                                for i in range(2)])
    loop.run()
    assert job.status.is_finished and slices.layout == 3
    assert sorted(table.ids()) == [0, 1, 5, 6]
    assert slices.report.clients == 2
    with pytest.raises(fl.StateError):
        job.attach_slices(slices)
    job.attach_slices(None)
