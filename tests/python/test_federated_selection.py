# SPDX-License-Identifier: Apache-2.0
"""Jobs that choose whom they ask, under skew and among clients that lie."""
import numpy as np
import pytest

import libfl as fl
from libfl import ServerEventKind as Event

CLIENTS, ASKED = 20, 4


class Puller:
    """Moves the weights half way to its own; its loss is the distance it
    found."""

    def __init__(self, target, lie=None):
        self.target, self.lie = target, lie

    def distance(self, weights):
        return float(np.linalg.norm(weights - self.target))

    def train(self, task):
        loss = self.distance(task.weights) if self.lie is None else self.lie
        return fl.TrainResult(update=.5 * (self.target - task.weights),
                              loss=loss)


def run(mlp, targets, selection, *, rounds=30, lies=(), **options):
    """The model at last, and who was counted how often."""
    pullers = [Puller(target, lies[i] if i < len(lies) else None)
               for i, target in enumerate(targets)]
    clients = [fl.Client(f"client-{i:02}", train=p.train)
               for i, p in enumerate(pullers)]
    counts = {client: 0 for client in range(len(targets))}
    with mlp() as model, fl.Server() as server:
        job = server.add_job(model, rounds=rounds, codec="f32", seed=5,
                             min_clients=len(targets), participants=ASKED,
                             selection=selection, **options)
        for event in fl.Loopback(server, clients).events():
            if event.kind is Event.UPDATE_ACCEPTED:
                counts[int(event.client_id[-2:])] += 1
        return job.copy_weights()[0], counts


def skewed(mlp, rare=2):
    """Most clients want one model, a few another."""
    with mlp() as model:
        common = model.weights.copy()
    other = common + np.linspace(-1, 1, common.size, dtype=np.float32)
    return [other if i < rare else common for i in range(CLIENTS)]


def worst(weights, targets):
    return max(float(np.linalg.norm(weights - t)) for t in targets)


def test_choice_and_oort_serve_the_rare_ones_better_than_a_draw(mlp):
    targets = skewed(mlp)
    drawn = worst(run(mlp, targets, None)[0], targets)
    for rule in (fl.PowerOfChoice(candidates=20),
                 fl.Oort(explore=.3, explore_least=.1)):
        assert worst(run(mlp, targets, rule)[0], targets) < .85 * drawn, rule


@pytest.mark.parametrize("codec", ["f32", "thc"])
@pytest.mark.parametrize("selection", [
    fl.Selection(), fl.PowerOfChoice(), fl.Oort()])
def test_jobs_learn_under_skew_with_every_selection(mlp, blobs, selection,
                                                    codec):
    trainers = []
    for i in range(12):
        x, y = blobs(200, seed=i)
        kept = np.flatnonzero(y != i % (int(y.max()) + 1))[:60]
        trainers.append(fl.LocalTrainer(mlp(), x[kept], y[kept]))
    clients = [fl.Client(f"client-{i}", samples=60, train=t.train)
               for i, t in enumerate(trainers)]
    with mlp() as model, fl.Server() as server:
        job = server.add_job(model, rounds=15, codec=codec, seed=5, epochs=2,
                             learning_rate=.1, min_clients=12, participants=4,
                             selection=selection)
        fl.Loopback(server, clients).run()
        model.set_weights(job.copy_weights()[0])
        assert model.evaluate(*blobs(300, seed=99)).accuracy > .9


def test_a_lie_without_bound_counts_as_a_large_loss(mlp):
    targets = skewed(mlp, rare=10)
    rule = fl.Oort(explore_least=.3)
    bounded = run(mlp, targets, rule, rounds=40, lies=(1e3,))[1]
    absurd = run(mlp, targets, rule, rounds=40, lies=(1e30,))[1]
    assert absurd == bounded
    assert min(absurd.values()) >= 1


def test_a_function_in_python_chooses(mlp):
    seen = []

    def choose(round_):
        seen.append(round_)
        order = sorted(range(len(round_.ids)),
                       key=lambda i: (round_.rounds[i], round_.ids[i]))
        return order[:round_.wanted]

    _, counts = run(mlp, skewed(mlp), fl.HostSelection(choose), rounds=10)
    assert set(counts.values()) == {2}
    assert seen[0].round == 1 and seen[0].wanted == ASKED
    assert seen[0].ids[0] == "client-00" and len(seen[0].ids) == CLIENTS
    assert np.isnan(seen[0].losses).all() and seen[0].rounds[3] == 0
    assert seen[5].rounds[0] == 1 and seen[5].losses[0] >= 0
    assert seen[5].seconds[0] >= 0 and seen[5].samples[0] == 1


def test_a_bad_choice_ends_the_round_and_is_told(mlp):
    calls = []

    def choose(round_):
        calls.append(round_)
        return [0, 0, 0, 0] if len(calls) == 1 else [0, 1, 2, 3]

    events = []
    clients = [fl.Client(f"client-{i:02}", train=Puller(t).train)
               for i, t in enumerate(skewed(mlp))]
    with mlp() as model, fl.Server() as server:
        server.add_job(model, rounds=2, codec="f32", min_clients=CLIENTS,
                       participants=ASKED,
                       selection=fl.HostSelection(choose))
        fl.Loopback(server, clients).run(events.append)
    aborted = [e for e in events if e.kind is Event.ROUND_ABORTED]
    assert len(aborted) == 1 and "different numbers" in aborted[0].text

    with mlp() as model, fl.Server() as server:
        server.add_job(model, rounds=2, codec="f32", min_clients=CLIENTS,
                       participants=ASKED,
                       selection=fl.HostSelection(lambda round_: [1]))
        clients = [fl.Client(f"client-{i:02}", train=Puller(t).train)
                   for i, t in enumerate(skewed(mlp))]
        with pytest.raises(ValueError, match="got 1 places, want 4"):
            fl.Loopback(server, clients).run()


def test_what_excludes_each_other_is_refused(mlp):
    with mlp() as model, fl.Server() as server:
        for options, error in (
                ({"selection": fl.Oort()}, fl.ConflictError),
                ({"selection": fl.PowerOfChoice(), "participants": 2,
                  "cohorts": "sketch"}, fl.ConflictError),
                ({"selection": fl.Oort(pace=2.), "participants": 2},
                 fl.OptionsError)):
            with pytest.raises(error):
                server.add_job(model, codec="f32", **options)
    with pytest.raises(TypeError, match="no setting 'speed'"):
        fl.Oort(speed=3)


def test_only_devices_that_have_what_is_demanded_train(mlp):
    targets = skewed(mlp)[:4]
    pullers = [Puller(target) for target in targets]
    clients = [fl.Client(f"client-{i:02}", train=p.train)
               for i, p in enumerate(pullers)]
    clients[1].set_conditions(fl.Condition.UNMETERED)
    clients[2].set_conditions(fl.Condition.CHARGING | fl.Condition.IDLE)
    counted = []
    with mlp() as model, fl.Server() as server:
        server.add_job(model, rounds=3, codec="f32", min_clients=3,
                       demands=fl.Condition.CHARGING, checkin=5.)
        for event in fl.Loopback(server, clients).events():
            if event.kind is Event.UPDATE_ACCEPTED:
                counted.append(event.client_id)
    assert sorted(set(counted)) == ["client-00", "client-02", "client-03"]
    with pytest.raises(fl.ArgumentError):
        clients[0].set_conditions(8)


def test_a_days_bytes_bound_a_client_and_outlive_it(mlp):
    targets = skewed(mlp)[:2]
    clients = [fl.Client(f"client-{i:02}", train=Puller(t).train)
               for i, t in enumerate(targets)]
    clients[1].set_budget(15_000, day=20_000)
    counted = []
    with mlp() as model, fl.Server() as server:
        job = server.add_job(model, rounds=12, codec="f32", retry_pause=.1)
        loopback = fl.Loopback(server, clients)
        for event in loopback.events():
            if event.kind is Event.UPDATE_ACCEPTED:
                counted.append(event.client_id)
            if job.status.is_finished:
                break
    assert counted.count("client-00") == 12
    assert 0 < counted.count("client-01") < 12
    spent = clients[1].spent
    # Over it: HELLO and WELCOME once more, and the final model, unasked.
    assert 0 < spent < 17_000
    with fl.Client("client-01", state=clients[1].save()) as restored:
        restored.set_budget(15_000, day=20_000)
        assert restored.spent == spent
        restored.set_budget(15_000, day=20_001)
        assert restored.spent == 0
