# SPDX-License-Identifier: Apache-2.0
"""Freezing in federated training: plans, parts, reports."""
import numpy as np
import pytest

import libfl as fl
from libfl import ServerEventKind as Event

# The small network's first module: 4 x 16 weights and 16 biases.
FRONT = 80


def tasks_of(made, answer=None):
    """A trainer that keeps its tasks, and adds 1 to every weight."""
    def train(task):
        made.append(task)
        weights = task.weights + 1
        return answer(task, weights) if answer else weights
    return train


def played(server, clients):
    return list(fl.Loopback(server, clients).events())


@pytest.mark.parametrize("codec", ["f32", "bf16", "thc"])
def test_a_schedule_freezes_for_good(mlp, codec):
    with mlp() as model, fl.Server() as server:
        job = server.add_job(
            model, rounds=4, codec=codec, min_clients=2,
            freeze={"criterion": "fixed", "fixed": [(3, 1)], "max_frozen": 1})
        tasks = []
        clients = [fl.Client(f"c{i}", train=tasks_of(tasks))
                   for i in range(2)]
        events = played(server, clients)
        assert [task.first_active for task in tasks] == [0] * 4 + [1] * 4
        assert {task.freeze_reports for task in tasks} == {0}
        third = next(task for task in tasks if task.round == 3)
        weights, version = job.copy_weights()
        assert version == 4
        assert (weights[:FRONT].tobytes()
                == third.weights[:FRONT].tobytes())
        assert (weights[FRONT:] > third.weights[FRONT:]).all()
        changed = [e for e in events if e.kind == Event.FREEZE_CHANGED]
        assert [(e.round, e.first_active, e.plan_version) for e in changed] \
            == [(3, 1, 1)]
        assert changed[0].freeze_reason == fl.FreezeReason.FIXED
        finished = [e.first_active for e in events
                    if e.kind == Event.ROUND_FINISHED]
        assert finished == [0, 0, 1, 1]
        status = job.status
        assert status.first_active == 1
        saved = {"f32": 4 * FRONT, "bf16": 2 * FRONT, "thc": 256 // 2}
        assert status.bytes_saved == 4 * saved[codec]


def test_one_controller_follows_every_task(mlp):
    """Of two jobs, and of one that does not freeze."""
    follower = fl.Freeze(2, "server", steps_per_epoch=1, max_frozen=1)
    seen = []

    def train(task):
        follower.follow(task, samples=20)
        request = follower.begin(task.learning_rate)
        seen.append((request.first_active, follower.plan.version))
        follower.end(1.0)
        return task.weights

    for name, freezes in (("a", True), ("b", False), ("c", True)):
        with mlp() as model, fl.Server() as server:
            server.add_job(model, name=name, rounds=3, codec="f32",
                           freeze={"criterion": "fixed", "fixed": [(3, 1)],
                                   "max_frozen": 1} if freezes else None)
            played(server, [fl.Client("one", train=train)])
    assert seen == [(0, 0), (0, 0), (1, 1)] + [(0, 0)] * 3 \
        + [(0, 0), (0, 0), (1, 1)]
    with pytest.raises(fl.FlError, match="samples"):
        follower.follow(fl.TrainTask(1, 0, 1, 8, 0.1, 1, np.zeros(3)), 0)
    with pytest.raises(fl.FlError, match="criterion"):
        fl.Freeze(2, steps_per_epoch=4).follow(
            fl.TrainTask(1, 0, 1, 8, 0.1, 1, np.zeros(3)), 8)


def test_plan_bytes_are_for_a_controller(mlp):
    with mlp() as model, fl.Server() as server:
        server.add_job(model, rounds=2, codec="f32",
                       freeze={"criterion": "fixed", "fixed": [(2, 1)],
                               "max_frozen": 1})
        tasks = []
        client = fl.Client("one", train=tasks_of(tasks))
        played(server, [client])
        with fl.Freeze(2, "server", steps_per_epoch=1, max_frozen=1,
                       job=tasks[0].freeze_job) as follower:
            follower.apply_plan(tasks[0].freeze_plan)
            assert follower.plan.first_active == 0
            follower.apply_plan(tasks[1].freeze_plan)
            assert follower.plan.first_active == 1


def test_reports_decide(mlp):
    """Four rounds set the mark, three below it freeze."""
    def answer(task, weights):
        value = 1.0 if task.round <= 4 else 0.25
        report = (0, value) if task.round % 2 else fl.FreezeReport(0, value)
        return fl.TrainResult(weights=weights, report=report)

    with mlp() as model, fl.Server() as server:
        server.add_job(model, rounds=9, codec="f32",
                       freeze={"criterion": "gradnorm", "max_frozen": 1})
        tasks = []
        events = played(server, [fl.Client("one",
                                           train=tasks_of(tasks, answer))])
        assert [task.first_active for task in tasks] == [0] * 7 + [1] * 2
        assert {task.freeze_reports for task in tasks} \
            == {fl.FreezeCriterion.GRADNORM}
        seen = [e for e in events if e.kind == Event.FREEZE_EVALUATED]
        assert [(e.round, e.module, e.value, e.raw, e.below) for e in seen] \
            == [(n, 0, 1.0, 1.0, 0) for n in range(1, 5)] \
            + [(n, 0, 0.25, 0.25, n - 4) for n in range(5, 8)]
        assert [e.threshold for e in seen[4:]] == [pytest.approx(0.9)] * 3
        assert all(np.isnan(e.threshold) for e in seen[:4])
        assert [e.kind for e in events].count(Event.FREEZE_BOOTED) == 1


def test_a_report_that_says_nothing_is_none(mlp):
    with mlp() as model, fl.Server() as server:
        server.add_job(model, rounds=9, codec="f32", freeze="gradnorm")
        events = played(server, [fl.Client("one", train=tasks_of(
            [], lambda task, weights: fl.TrainResult(
                weights=weights, report=(0, float("nan")))))])
        kinds = [event.kind for event in events]
        assert Event.FREEZE_CHANGED not in kinds
        assert kinds.count(Event.UPDATE_ACCEPTED) == 9


def test_clients_of_little_depth_train_the_end(mlp):
    with mlp() as model, fl.Server() as server:
        start = model.copy_weights()
        job = server.add_job(model, rounds=1, codec="f32", min_clients=3)
        tasks = []
        clients = [fl.Client(f"c{i}", max_depth=depth, train=tasks_of(
                       tasks, lambda task, weights: weights
                       + 3 * task.first_active))
                   for i, depth in enumerate((0, 1, 1))]
        events = played(server, clients)
        assert sorted(task.first_active for task in tasks) == [0, 1, 1]
        assert Event.SEGMENT_UNCOVERED not in [e.kind for e in events]
        weights, _ = job.copy_weights()
        assert np.allclose(weights[:FRONT], start[:FRONT] + 1, atol=1e-5)
        assert np.allclose(weights[FRONT:], start[FRONT:] + 3, atol=1e-5)


def test_too_little_cover_is_told(mlp):
    with mlp() as model, fl.Server() as server:
        server.add_job(model, rounds=1, codec="f32", min_cover=2,
                       min_clients=2)
        clients = [fl.Client(f"c{i}", max_depth=i, train=tasks_of([]))
                   for i in range(2)]
        told = [e for e in played(server, clients)
                if e.kind == Event.SEGMENT_UNCOVERED]
        assert [(e.selected, e.accepted) for e in told] == [(2, 1)]


def test_the_usual_trainer_follows(mlp, blobs):
    with mlp() as model, fl.Server() as server:
        job = server.add_job(
            model, rounds=2, codec="f32",
            freeze={"criterion": "fixed", "fixed": [(1, 1)], "max_frozen": 1})
        trainer = fl.LocalTrainer(mlp(seed=7), *blobs(60))
        start = model.copy_weights()
        played(server, [fl.Client("one", train=trainer.train)])
        assert trainer.model.first_active == 1
        weights, _ = job.copy_weights()
        assert (weights[:FRONT] == start[:FRONT]).all()
        assert (weights[FRONT:] != start[FRONT:]).any()
        # It is the trainer that left the front alone.
        assert (trainer.model.weights[:FRONT] == start[:FRONT]).all()


def test_the_usual_trainer_keeps_what_frozen_modules_compute(mlp, blobs):
    """From round to round, and no bit is another. The first frozen round
    fills the cache, whose rows the others read; a shorter depth is another
    prefix."""
    outcomes = []
    for cache in (None, fl.ActivationCache()):
        with mlp() as model, fl.Server() as server:
            job = server.add_job(
                model, rounds=5, codec="f32", batch_size=8,
                freeze={"criterion": "fixed", "fixed": [(3, 1)],
                        "max_frozen": 1})
            trainer = fl.LocalTrainer(mlp(seed=7), *blobs(64), cache=cache)
            hits = []

            def train(task, trainer=trainer, cache=cache, hits=hits):
                result = trainer.train(task)
                hits.append(cache.status.hits if cache else 0)
                return result

            events = played(server, [fl.Client("one", train=train)])
            losses = [e.loss for e in events
                      if e.kind == Event.ROUND_FINISHED]
            outcomes.append((losses, job.copy_weights()[0].tobytes()))
            assert hits == ([0, 0, 0, 64, 128] if cache else [0] * 5)
    assert outcomes[0] == outcomes[1]


class Listener:
    """The usual trainer, and what it reports."""

    def __init__(self, model, x, y):
        self.trainer = fl.LocalTrainer(model, x, y)
        self.reports = []

    def train(self, task):
        result = self.trainer.train(task)
        self.reports.append(result.report)
        return result


@pytest.mark.parametrize("criterion", ["gradnorm", "plasticity"])
def test_the_usual_trainer_reports(mlp, blobs, criterion):
    """Any value is below the mark that is no mark: what freezes is that
    reports arrive."""
    with mlp() as model, fl.Server() as server:
        server.add_job(model, rounds=12, codec="f32", min_clients=2,
                       batch_size=8,
                       freeze={"criterion": criterion, "max_frozen": 1,
                               "is_pretrained": True, "tolerance": 1e6,
                               "pretrained_share": 1 / 12})
        listeners = [Listener(mlp(), *blobs(64, seed)) for seed in range(2)]
        events = played(server, [fl.Client(f"c{i}", train=one.train)
                                 for i, one in enumerate(listeners)])
        changed = [e for e in events if e.kind == Event.FREEZE_CHANGED]
        assert [e.first_active for e in changed] == [1]
        before = changed[0].round - 1
        assert before >= 7
        for one in listeners:
            assert one.trainer.model.first_active == 1
            assert len(one.reports) == 12
            assert all(report.module == 0 and report.value > 0
                       for report in one.reports[:before])
            # Nothing is left that could freeze.
            assert one.reports[before:] == [None] * (12 - before)


def test_the_usual_trainer_of_little_depth_reports_nothing(mlp, blobs):
    with mlp() as model, fl.Server() as server:
        start = model.copy_weights()
        server.add_job(model, rounds=2, codec="f32", batch_size=8,
                       freeze={"criterion": "gradnorm", "max_frozen": 1})
        one = Listener(mlp(), *blobs(64))
        played(server, [fl.Client("one", train=one.train, max_depth=1)])
        assert one.reports == [None, None]
        assert (one.trainer.model.weights[:FRONT] == start[:FRONT]).all()
        assert (one.trainer.model.weights[FRONT:] != start[FRONT:]).any()


@pytest.mark.parametrize("names", [("a", "a"), ("a", "b")])
def test_the_usual_trainer_goes_on_with_the_next_job(mlp, blobs, names):
    """Its plans begin at version 0 again."""
    one = Listener(mlp(), *blobs(64))
    for name in names:
        with mlp() as model, fl.Server() as server:
            server.add_job(
                model, name=name, rounds=3, codec="f32", batch_size=8,
                freeze={"criterion": "fixed", "fixed": [(3, 1)],
                        "max_frozen": 1})
            client = fl.Client("one", train=one.train)
            events = played(server, [client])
            assert one.trainer.model.first_active == 1
            assert [e.kind for e in events].count(
                Event.UPDATE_ACCEPTED) == 3
    with mlp() as model, fl.Server() as server:
        server.add_job(model, rounds=1, codec="f32")
        played(server, [fl.Client("one", train=one.train)])
        assert one.trainer.model.first_active == 0


def test_options_that_do_not_exist_are_refused(mlp):
    with mlp() as model, fl.Server() as server:
        with pytest.raises(TypeError, match="patients"):
            server.add_job(model, freeze={"patients": 3})
        with pytest.raises(ValueError, match="criterion"):
            server.add_job(model, freeze="never")
        with pytest.raises(fl.FlError, match="criterion"):
            server.add_job(model, freeze="server")
        assert server.jobs == []
