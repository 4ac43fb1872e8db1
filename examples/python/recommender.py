# SPDX-License-Identifier: Apache-2.0
"""What does a recommender lose when its table is small? FM + net on rows of
examples/recommender/prepare.py, or made-up ones, in the order of time: with a
row for every id, and within --budget MB."""
import argparse
import struct

import numpy as np
import libfl as fl

BATCH = 2048


def read(path):
    """Return values [n, fields], labels [n], and how many are to train on."""
    data = np.fromfile(path, np.uint8)
    magic, version, fields, n, n_train, _, size = struct.unpack(
        "<8sIIQQQQ", data[:48].tobytes().ljust(48))
    first = 48 + 24 * fields
    if magic != b"FLCLICKS" or version != 1 or not (
            size == data.size == first + n * (4 * fields + 1)):
        raise ValueError(f"{path}: is no file of prepare.py, or is cut")
    return data[first:-n].view("<u4").reshape(n, fields), data[-n:], n_train


def make(n, seed):
    """The same, made up: vectors of values say what is liked."""
    rng = np.random.default_rng(seed)
    columns, vectors = [], []
    for size in (2000, 100000, 25000, 6250):
        share = np.cumsum(1 / np.arange(1, size + 1) ** 1.05)
        columns.append(np.searchsorted(share / share[-1], rng.random(n)))
        vectors.append(rng.normal(0, .6, (size, 4))[columns[-1]])
    odds = sum(vectors) ** 2 - sum(vector ** 2 for vector in vectors)
    labels = rng.random(n) < 1 / (1 + np.exp(1 - odds.sum(1) / 2))
    return np.stack(columns, 1).astype(np.uint64), labels, n - n // 10


def auc_of(scores, labels):
    """The share of pairs of both labels whose scores are in order."""
    _, place, count = np.unique(scores, False, True, True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]  # equal ones: the mean
    ones = labels.sum(dtype=int)
    return (rank[labels == 1].mean() - (ones + 1) / 2) / (len(labels) - ones)


def train(ids, labels, n_train, options, budget):
    """Say how it goes within so many MB, 0 = all rows; return AUC and MB."""
    rng, auc = np.random.default_rng(options.seed), [.5]
    steps = -(-n_train // BATCH) * options.epochs
    # Shuffled within 64 batches: purchases of a customer stand together.
    parts = np.array_split(np.arange(n_train), -(-n_train // (BATCH * 64)))
    order = np.concatenate([rng.permutation(part) for part in parts])
    store = fl.EmbeddingStore(byte_budget=int(budget * 1e6), seed=options.seed)
    model = fl.Model(
        [fl.Input(ids.shape[1:]), fl.SparseEmbedding(options.dim, name="v"),
         fl.Flatten(), fl.Dense(64), fl.ReLU(), fl.Dense(1, name="net"),
         fl.From("v"), fl.FactorisationMachine(), fl.Add("net"),
         fl.BinaryCrossEntropy()], seed=options.seed)
    store.attach(model, store.add_table(options.dim, chunks=options.chunks),
                 rate=.05)

    def progress(at):
        if budget and (at.step in (3, 6, 9, 30, 60, 90) or at.step % 50 == 0):
            store.adjust()
        if at.step % -(-steps // 5) == 0 or at.step == steps:
            scores, now = model.predict(ids[n_train:]), store.statistics
            auc.append(auc_of(scores.ravel(), labels[n_train:]))
            print(f"step {at.step}: loss {at.loss:.4f}, AUC {auc[-1]:.4f}, "
                  f"{now.bytes_used / 1e6:.3f} MB, {now.rows} rows")

    model.fit(ids, labels.astype(np.float32)[:, None], indices=order,
              shuffle=False, batch_size=BATCH, epochs=options.epochs,
              optimiser=fl.Adam(), progress=progress, progress_every=1)
    return auc[-1], store.statistics.bytes_used / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", help="rows, as prepare.py has them")
    for name, default in {"budget": 2.0, "rows": 300000, "dim": 16,
                          "chunks": 4, "epochs": 1, "seed": 1}.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    options = parser.parse_args()
    try:
        values, labels, n = (read(options.data) if options.data
                             else make(options.rows, options.seed))
        if not n or len(np.unique(labels[n:])) < 2:
            raise ValueError("nothing to train on, or to test on")
        # One table for all fields: the upper half tells them apart.
        ids = values + (np.arange(values.shape[1], dtype=np.uint64) << 32)
        full, _ = train(ids, labels, n, options, 0)
        auc, size = train(ids, labels, n, options, options.budget)
    except (OSError, fl.FlError, ValueError) as error:
        parser.exit(1, f"recommender.py: {error}\n")
    print(f"AUC {full:.4f} with all rows, {auc:.4f} in {size:.3f} MB")


if __name__ == "__main__":
    main()
