# SPDX-License-Identifier: Apache-2.0
"""SCAFFOLD in jobs: controls travel both ways, and take the drift out."""
import numpy as np
import pytest

import libfl as fl
from libfl import ServerEventKind as Event

CLIENTS, STEPS, RATE = 4, 10, .1


class Quadratic:
    """Moves by gradients a (w - t), corrected as the task says."""

    def __init__(self, pull, target):
        self.pull, self.target = pull, target
        self.terms = fl.LocalTerms(target.size)
        self.tasks = []

    def gradient(self, w):
        return (self.pull * (w - self.target)).astype(np.float32)

    def train(self, task):
        self.tasks.append(task)
        w = task.weights.copy()
        self.terms.begin(task.weights, task.control)
        for _ in range(STEPS):
            g = self.gradient(w)
            self.terms.correct(g, w)
            w -= np.float32(RATE) * g
        change = self.terms.end(w, STEPS, RATE)
        return fl.TrainResult(weights=w, control_change=change
                              if task.control is not None else None)


def people(mlp, clients=CLIENTS):
    """Clients that want different models, some more than others."""
    with mlp() as model:
        start = model.weights.copy()
    rng = np.random.default_rng(3)
    return start, [Quadratic(np.float32([.2, 1., 2., 4.][i % 4]),
                             start + rng.standard_normal(start.size)
                             .astype(np.float32)) for i in range(clients)]


def optimum(pullers):
    total = sum(p.pull for p in pullers)
    return sum(p.pull * p.target for p in pullers) / total


def run(mlp, pullers, strategy, *, rounds=30, codec="f32", events=None,
        **options):
    clients = [fl.Client(f"client-{i}", train=p.train)
               for i, p in enumerate(pullers)]
    with mlp() as model, fl.Server() as server:
        job = server.add_job(model, rounds=rounds, codec=codec, seed=5,
                             min_clients=len(pullers), strategy=strategy,
                             **options)
        loopback = fl.Loopback(server, clients)
        loopback.run(None if events is None else events.append)
        return job.copy_weights()[0], loopback


def oracle(start, pullers, rounds):
    """The paper's recursion (option II), in float64."""
    w = start.astype(float)
    c = np.zeros_like(w)
    own = [np.zeros_like(w) for _ in pullers]
    for _ in range(rounds):
        moved, changed = [], []
        for i, p in enumerate(pullers):
            y = w.copy()
            for _ in range(STEPS):
                y -= RATE * (float(p.pull) * (y - p.target) - own[i] + c)
            change = (w - y) / (STEPS * RATE) - c
            own[i] = own[i] + change
            moved.append(y - w)
            changed.append(change)
        w = w + np.mean(moved, axis=0)
        c = c + np.mean(changed, axis=0)
    return w


def test_a_job_does_what_the_recursion_says(mlp):
    start, pullers = people(mlp)
    got, _ = run(mlp, pullers, fl.Scaffold(), rounds=6)
    want = oracle(start, pullers, 6)
    assert np.abs(got - want).max() < 1e-4
    first = pullers[0].tasks[0]
    assert first.control is not None and not first.control.any()
    assert np.abs(pullers[0].tasks[1].control).max() > .01


def test_the_drift_is_taken_out_where_fedavg_stays_off(mlp):
    off = []
    for strategy in (None, fl.Scaffold()):
        _, pullers = people(mlp)
        got, _ = run(mlp, pullers, strategy)
        off.append(np.linalg.norm(got - optimum(pullers)))
        assert (pullers[0].tasks[0].control is None) == (strategy is None)
    assert off[1] < .05 * off[0]


@pytest.mark.parametrize("codec,bound", [("bf16", .05), ("thc", .3)])
def test_codecs_leave_controls_alone(mlp, codec, bound):
    _, pullers = people(mlp)
    got, _ = run(mlp, pullers, fl.Scaffold(), codec=codec)
    far = np.linalg.norm(pullers[0].target - optimum(pullers))
    assert np.linalg.norm(got - optimum(pullers)) < bound * far


def test_some_of_many_take_part(mlp):
    _, pullers = people(mlp, 8)
    got, _ = run(mlp, pullers, fl.Scaffold(population=8), rounds=150,
                 participants=4)
    far = np.linalg.norm(pullers[0].target - optimum(pullers))
    assert np.linalg.norm(got - optimum(pullers)) < .1 * far


def test_controls_cost_as_much_again(mlp):
    _, pullers = people(mlp)
    n = pullers[0].target.size
    traffic = []
    for strategy in (None, fl.Scaffold()):
        _, pullers = people(mlp)
        _, loopback = run(mlp, pullers, strategy, rounds=10)
        traffic.append((loopback.bytes_up, loopback.bytes_down))
    extra = [scaffold - plain for plain, scaffold in zip(*traffic)]
    want = 10 * CLIENTS * 4 * n
    assert want <= extra[0] < 1.5 * want and want <= extra[1] < 1.8 * want


def test_a_result_without_its_control_is_refused(mlp):
    _, pullers = people(mlp, 1)
    n = pullers[0].target.size
    for change, error in ((None, fl.ArgumentError),
                          (np.full(n, np.nan, np.float32),
                           fl.NotFiniteError)):
        def train(task, change=change):
            return fl.TrainResult(weights=task.weights, control_change=change)

        with mlp() as model, fl.Server() as server:
            server.add_job(model, rounds=1, codec="f32",
                           strategy=fl.Scaffold())
            client = fl.Client("client-0", train=train)
            with pytest.raises(error):
                fl.Loopback(server, [client]).run()


def exchange(server, clients, now, turns):
    """So many turns of everybody."""
    for _ in range(turns):
        for i, client in enumerate(clients):
            client.poll(now)
            server.recv(i, client.send())
        server.tick(now)
        for peer in list(server.ready()):
            clients[peer].recv(server.send(peer))


@pytest.mark.parametrize("turns", range(0, 24, 3))
def test_killed_on_both_sides_it_goes_on_as_if_nothing_had_been(mlp, turns):
    """Clients keep what they sent; the server its control and updates."""
    start, pullers = people(mlp)
    want = oracle(start, pullers, 4)
    clients = [fl.Client(f"client-{i}", train=p.train)
               for i, p in enumerate(pullers)]
    with mlp() as model:
        server = fl.Server()
        server.add_job(model, rounds=4, codec="f32", seed=5,
                       min_clients=CLIENTS, strategy=fl.Scaffold())
        exchange(server, clients, 0, turns)
    restored = fl.Server(state=server.save())
    clients = [fl.Client(f"client-{i}", train=p.train, state=client.save())
               for i, (p, client) in enumerate(zip(pullers, clients))]
    fl.Loopback(restored, clients).run()
    got, _ = restored.jobs[0].copy_weights()
    assert np.abs(got - want).max() < 1e-4


def test_the_usual_trainer_learns_under_skew(mlp, blobs):
    trainers = []
    for i in range(6):
        x, y = blobs(200, seed=i)
        kept = np.flatnonzero(y != i % 3)[:60]
        trainers.append(fl.LocalTrainer(mlp(), x[kept], y[kept]))
    clients = [fl.Client(f"client-{i}", samples=60, train=t.train)
               for i, t in enumerate(trainers)]
    events = []
    with mlp() as model, fl.Server() as server:
        job = server.add_job(model, rounds=10, codec="thc", seed=5, epochs=4,
                             learning_rate=.1, min_clients=6,
                             strategy=fl.Scaffold(population=6))
        fl.Loopback(server, clients).run(events.append)
        model.set_weights(job.copy_weights()[0])
        assert model.evaluate(*blobs(300, seed=99)).accuracy > .9
    assert not any(e.kind is Event.ROUND_ABORTED for e in events)
