# SPDX-License-Identifier: Apache-2.0
"""Stores from Python: MemoryStore, SqliteStore, and a Server that is cut off
and goes on from one."""
import os
import pathlib
import resource
import signal
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

import libfl as fl


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    made = (fl.MemoryStore() if request.param == "memory"
            else fl.SqliteStore(tmp_path / "store"))
    with made:
        yield made


def test_values_come_back(store):
    for value in (b"", b"1", bytes(range(256)) * 1000):
        store.put(b"k\0", value)
        assert store.get(b"k\0") == value
    assert store.get(b"k") is None
    store.put(b"k", np.arange(3, dtype=np.uint8))
    assert store.get(b"k") == b"\0\1\2"
    store.remove(b"k")
    store.remove(b"k")
    assert store.get(b"k") is None


def test_keys_are_in_order_and_by_prefix(store):
    for key in (b"b", b"a/2", b"a/1", b"a/", b"a0", b"\xff"):
        store.put(key, b"")
    assert list(store.keys()) == [b"a/", b"a/1", b"a/2", b"a0", b"b", b"\xff"]
    assert list(store.keys(b"a/")) == [b"a/1", b"a/2"]
    for key in store.keys(b"a/"):
        store.remove(key)
    assert list(store.keys(b"a")) == [b"a/", b"a0"]
    store.clear(b"a")
    assert list(store.keys()) == [b"b", b"\xff"]


def test_a_rollback_leaves_the_last_commit(store):
    store.put(b"a", b"1")
    store.commit()
    store.put(b"a", b"2")
    store.put(b"b", b"2")
    store.rollback()
    assert [store.get(b"a"), store.get(b"b")] == [b"1", None]
    store.commit()


def test_arguments_are_checked(store):
    with pytest.raises(fl.ArgumentError, match="want 1..255"):
        store.put(b"", b"")
    with pytest.raises(fl.ArgumentError, match="want 1..255"):
        store.get(b"x" * 256)
    with pytest.raises(TypeError):
        store.put(b"a", "text")


def test_random_changes_are_those_of_a_dict(store):
    rng = np.random.default_rng(7)
    now, committed = {}, {}
    for step in range(600):
        key = b"k%d" % rng.integers(20)
        what = rng.integers(12)
        if what < 6:
            store.put(key, b"%d" % step)
            now[key] = b"%d" % step
        elif what < 10:
            store.remove(key)
            now.pop(key, None)
        elif what == 10:
            store.commit()
            committed = dict(now)
        else:
            store.rollback()
            now = dict(committed)
    assert {key: store.get(key) for key in store.keys()} == now


def test_a_closed_store_is_refused(store):
    store.close()
    store.close()
    with pytest.raises(ValueError, match="is closed"):
        store.get(b"a")


# ---- files -------------------------------------------------------------------

def test_a_file_keeps_what_was_committed(tmp_path):
    with fl.SqliteStore(tmp_path / "s") as store:
        store.put(b"a", b"1")
        store.commit()
        store.put(b"a", b"2")
    with fl.SqliteStore(tmp_path / "s") as store:
        assert store.get(b"a") == b"1"


def test_a_second_store_of_a_file_is_refused(tmp_path):
    with fl.SqliteStore(tmp_path / "s"):
        with pytest.raises(fl.NotAllowedError, match="another store"):
            fl.SqliteStore(tmp_path / "s")
    fl.SqliteStore(tmp_path / "s").close()


def test_foreign_newer_and_damaged_files_are_refused(tmp_path):
    path = tmp_path / "s"
    fl.SqliteStore(path).close()
    good = path.read_bytes()
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version=9")
    database.close()
    with pytest.raises(fl.VersionError, match="got 9, want 1..1"):
        fl.SqliteStore(path)
    for bad in (good[:-1], b"x" * 4096, good[:100] + b"\0" * (len(good) - 100)):
        path.write_bytes(bad)
        with pytest.raises(fl.FormatError):
            fl.SqliteStore(path)
    path.unlink()
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE things(a)")
    database.close()
    with pytest.raises(fl.FormatError, match="no store of libfl"):
        fl.SqliteStore(path)


def test_a_disk_that_takes_no_more_keeps_what_was_committed(tmp_path):
    with fl.SqliteStore(tmp_path / "s") as store:
        store.put(b"a", b"1")
        store.commit()
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100000, before[1]))
        try:
            store.put(b"big", bytes(300000))
            with pytest.raises(fl.IoError, match="fl_store_commit: .+"):
                store.commit()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert list(store.keys()) == [b"a"]
        store.put(b"b", b"1")
        store.commit()
        assert list(store.keys()) == [b"a", b"b"]


# ---- servers -----------------------------------------------------------------

def _train(task):
    return fl.TrainResult(weights=task.weights * np.float32(.5) + task.round,
                          samples=10)


def _clients():
    return [fl.Client(f"c{i}", samples=10, train=_train) for i in range(2)]


def _server(store):
    server = fl.Server(store=store)
    if not server.jobs:
        server.add_job(_model(), rounds=3, min_clients=2, seed=3)
    return server


def _model():
    model = fl.Model([fl.Input((4,)), fl.Dense(3), fl.SoftmaxCrossEntropy()])
    model.init_weights(1)
    return model


def test_a_server_goes_on_from_its_store(store):
    with _server(None) as server:
        fl.Loopback(server, _clients()).run()
        want, _ = server.jobs[0].copy_weights()
    with _server(store) as server:
        fl.Loopback(server, _clients()).run()
        assert server.jobs[0].status.is_finished
    assert list(store.keys(b"server/"))
    with _server(store) as server:
        assert server.jobs[0].status.model_version == 3
        got, _ = server.jobs[0].copy_weights()
    np.testing.assert_array_equal(got, want)


def test_commit_is_by_hand_too(tmp_path):
    with fl.SqliteStore(tmp_path / "s") as store:
        with _server(store) as server:
            server.commit()
        with fl.Server(store=store) as server:
            assert len(server.jobs) == 1
        with pytest.raises(fl.OptionsError, match="commit_window_ns"):
            fl.Server(store=fl.MemoryStore(), commit_window=11.)


def test_a_store_outlives_its_handle_while_a_server_has_it():
    store = fl.MemoryStore()
    server = _server(store)
    store.close()
    server.commit()
    server.close()


PROGRAM = """
import sys, libfl as fl
store = fl.SqliteStore(sys.argv[1])
server = fl.Server(store=store)
model = fl.Model([fl.Input((4,)), fl.Dense(3), fl.SoftmaxCrossEntropy()])
server.add_job(model, rounds=3)
server.commit()
print("committed", flush=True)
sys.stdin.read()
"""


def test_a_killed_process_leaves_what_it_committed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", PROGRAM, tmp_path / "s"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          env=dict(os.environ)) as process:
        assert process.stdout.readline() == b"committed\n"
        process.send_signal(signal.SIGKILL)
    with fl.SqliteStore(tmp_path / "s") as store:
        with fl.Server(store=store) as server:
            assert server.jobs[0].status.rounds == 3


def test_a_file_of_the_c_library_is_the_same(tmp_path):
    """As lib/adapters/sqlite makes it: schema, ids and page size."""
    path = tmp_path / "s"
    with fl.SqliteStore(path) as store:
        store.put(b"a", b"1")
        store.commit()
        database = sqlite3.connect(path)
        rows = [database.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("application_id", "user_version", "page_size",
                             "journal_mode")]
        schema = database.execute(
            "SELECT sql FROM sqlite_master WHERE name = 'fl_store'").fetchone()
        database.close()
    assert rows == [0x464C5354, 1, 4096, "wal"]
    source = (pathlib.Path(__file__).parents[2] / "lib" / "adapters"
              / "sqlite" / "open.c").read_text()
    assert schema[0] in source
    assert "APPLICATION_ID = 0x464c5354" in source
    assert "SCHEMA_VERSION = 1" in source
