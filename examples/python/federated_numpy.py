# SPDX-License-Identifier: Apache-2.0
"""A federated training in one process, with the trainer written in numpy.

Eight clients with unequal data train a logistic regression whose gradient is
computed here; libfl knows the names and shapes of the tensors, selects,
compresses, sums and keeps every client's copy of the model the same.
"""
import argparse

import numpy as np
import libfl as fl

CLASSES, FEATURES = 4, 12


class SoftmaxRegression:
    """A trainer of one client: plain SGD on a weight matrix and a bias."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def train(self, task):
        flat = task.weights
        w = flat[:CLASSES * FEATURES].reshape(CLASSES, FEATURES)
        b = flat[CLASSES * FEATURES:]
        rng = np.random.default_rng(task.seed)
        losses = []
        for _ in range(task.epochs):
            order = rng.permutation(len(self.y))
            for first in range(0, len(order), task.batch_size):
                rows = order[first:first + task.batch_size]
                loss, gradient = self.loss(w, b, self.x[rows], self.y[rows])
                w -= task.learning_rate * gradient.T @ self.x[rows]
                b -= task.learning_rate * gradient.sum(0)
                losses.append(loss)
        return fl.TrainResult(weights=flat, loss=float(np.mean(losses)))

    @staticmethod
    def loss(w, b, x, y):
        """Return the mean loss and its derivative by the logits."""
        logits = x @ w.T + b
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        loss = -np.log(p[np.arange(len(y)), y] + 1e-12).mean()
        p[np.arange(len(y)), y] -= 1
        return loss, (p / len(y)).astype(np.float32)


def draw(rng, centres, n, shares):
    y = rng.choice(CLASSES, n, p=shares)
    return (centres[y] + rng.standard_normal((n, FEATURES))).astype(
        np.float32), y


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codec", default="thc",
                        choices=["f32", "bf16", "thc"])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()

    rng = np.random.default_rng(3)
    centres = rng.standard_normal((CLASSES, FEATURES))
    x, y = draw(rng, centres, 2000, np.full(CLASSES, 1 / CLASSES))
    shards = [draw(rng, centres, 100 + 50 * i,
                   rng.dirichlet(np.full(CLASSES, 0.5)))
              for i in range(options.clients)]

    model = fl.Model([fl.Tensor("weight", [CLASSES, FEATURES]),
                      fl.Tensor("bias", [CLASSES])])
    server = fl.Server()
    job = server.add_job(model, rounds=options.rounds, codec=options.codec,
                         min_clients=len(shards), seed=1)
    clients = [fl.Client(f"client-{i}", samples=len(shard[1]),
                         train=SoftmaxRegression(*shard).train)
               for i, shard in enumerate(shards)]
    loop = fl.Loopback(server, clients)
    accuracy = 0.0
    for event in loop.events():
        if event.kind == fl.ServerEventKind.ROUND_FINISHED:
            model.weights, _ = job.copy_weights()
            logits = x @ model["weight"].T + model["bias"]
            accuracy = (logits.argmax(1) == y).mean()
            print(f"round {event.round:2}  loss {event.loss:.3f}  "
                  f"accuracy {accuracy:.1%}  updates {event.accepted}")
    each = len(clients) * options.rounds
    print(f"{loop.bytes_up / each:.0f} bytes up and "
          f"{loop.bytes_down / each:.0f} down per client and round")
    return 0 if accuracy > 0.8 else 1


if __name__ == "__main__":
    raise SystemExit(main())
