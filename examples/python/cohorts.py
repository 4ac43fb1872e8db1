# SPDX-License-Identifier: Apache-2.0
"""Four groups of 50 clients share ten clouds of points and name them in four
ways: no model suits all. The server finds the groups; each gets a model."""
import numpy as np
import libfl as fl

N, GROUPS, DIM, ROUNDS = 200, 4, 16, 120
rng = np.random.default_rng(1)
centres = 1.5 * rng.standard_normal((10, DIM))
names = [rng.permutation(10).astype(np.int32) for _ in range(GROUPS)]


def draw(client, n):
    kinds = rng.integers(0, 10, n)
    x = centres[kinds] + rng.standard_normal((n, DIM))
    return np.float32(x), names[client % GROUPS][kinds]


class Person:
    """A client, its data, and what the server asks of it."""

    def __init__(self, number):
        self.training, self.test = draw(number, 50), draw(number, 50)
        self.client = fl.Client(f"{number:03}", samples=50, model=net,
                                train=self.train, evaluate=self.evaluate,
                                measure=self.measure)

    def train(self, task):
        net.weights = task.weights
        net.fit(*self.training, batch_size=task.batch_size,
                epochs=task.epochs, learning_rate=task.learning_rate)
        return net.copy_weights()

    def measure(self, weights, data=None):
        net.weights = weights
        got = net.evaluate(*(data or self.training))
        return fl.Score(got.loss, got.correct, got.count)

    def evaluate(self, weights):
        return self.measure(weights, self.test)


net = fl.Model([fl.Input((DIM,)), fl.Dense(10), fl.CrossEntropy()], seed=1)
people = [Person(i) for i in range(N)]
server = fl.Server()
job = server.add_job(net, rounds=ROUNDS, participants=40, min_clients=N,
                     epochs=2, batch_size=10, evaluate_every=20, seed=1,
                     cohorts={"rule": "sketch", "dim": 128})
for event in fl.Loopback(server, [p.client for p in people]).events():
    if event.kind == fl.ServerEventKind.COHORT_CHANGED:
        print(f"round {event.round}: {event.text}")
    if event.kind == fl.ServerEventKind.EVALUATED and event.cohort is None:
        print(f"round {event.round}: {len(job.cohorts)} models, accuracy "
              f"{job.accuracy.mean:.1%}, worst 10 % {job.accuracy.worst:.1%}")
