# SPDX-License-Identifier: Apache-2.0
"""Jobs with cohorts: server and clients in one process."""
import numpy as np
import pytest

import libfl as fl

N = 60
KEEP = 0.3


class Person:
    """Wants the weights of its group."""

    def __init__(self, number, model, measures=True):
        rng = np.random.default_rng(number % 2)
        self.wanted = rng.uniform(-1, 1, model.weight_count)
        self.tasks = []
        self.client = fl.Client(
            f"{number:02}", model=model, train=self.train,
            evaluate=self.evaluate,
            measure=self.evaluate if measures else None)

    def train(self, task):
        self.tasks.append(task)
        step = KEEP * (self.wanted - task.weights)
        return fl.TrainResult(update=np.float32(step), loss=1.0)

    def evaluate(self, weights):
        loss = float(np.mean((weights - self.wanted) ** 2)) + .02
        return fl.Score(loss, int(100 * max(0, 1 - loss)), 100)


def _run(**settings):
    model = fl.Model([fl.Tensor("a", (320,))])
    people = [Person(i, model) for i in range(N)]
    server = fl.Server()
    job = server.add_job(model, rounds=40, participants=12, min_clients=N,
                         evaluate_every=10, **settings)
    events = list(fl.Loopback(server, [p.client for p in people]).events())
    return people, server, job, events


OPTIONS = {"dim": 64, "cap": 4, "min_members": 2, "trial_start": 4,
           "trial_probes": 10}


@pytest.mark.parametrize("codec, sketches", [("thc", "lanes"),
                                             ("thc", "floats"),
                                             ("f32", "auto")])
def test_two_groups_are_found(codec, sketches):
    people, _, job, events = _run(cohorts=OPTIONS, codec=codec,
                                  cohort_sketches=sketches)
    changes = [e.change for e in events
               if e.kind == fl.ServerEventKind.COHORT_CHANGED]
    assert changes == [fl.CohortEventKind.TRIAL, fl.CohortEventKind.KEPT]
    assert len(job.cohorts) == 2
    homes = [job.member(f"{i:02}").cohort for i in range(N)]
    assert homes == [homes[i % 2] for i in range(N)]
    for number in job.cohorts:
        weights, version = job.copy_cohort(number)
        person = people[homes.index(number)]
        assert np.mean((weights - person.wanted) ** 2) < .01
        assert version > 20
    assert {task.cohort for task in people[1].tasks[-3:]} == {homes[1]}


@pytest.mark.parametrize("share", ["size", "equal", "loss"])
def test_cohorts_go_on_apart(share):
    people, _, job, events = _run(cohorts=OPTIONS, cohort_pace="apart",
                                  cohort_share=share)
    homes = [job.member(f"{i:02}").cohort for i in range(N)]
    assert homes == [homes[i % 2] for i in range(N)]
    for number in job.cohorts:
        weights, _ = job.copy_cohort(number)
        person = people[homes.index(number)]
        assert np.mean((weights - person.wanted) ** 2) < .01
    begun = [e.round for e in events
             if e.kind == fl.ServerEventKind.ROUND_STARTED]
    assert begun == sorted(set(begun))
    whole = [e for e in events if e.kind == fl.ServerEventKind.ROUND_FINISHED
             and e.cohort is None]
    assert [e.round for e in whole] == list(range(1, 41))
    scores = [e.round for e in events
              if e.kind == fl.ServerEventKind.EVALUATED and e.cohort is None]
    assert scores == [10, 20, 30, 40]
    with pytest.raises(ValueError):
        _run(cohorts=OPTIONS, cohort_pace="alone")


@pytest.mark.parametrize("strategy", [fl.FedAdam(rate=.05), fl.Median()])
def test_each_cohort_takes_steps_of_its_own(strategy):
    people, _, job, events = _run(cohorts=OPTIONS, strategy=strategy)
    assert len(job.cohorts) == 2
    homes = [job.member(f"{i:02}").cohort for i in range(N)]
    for number in job.cohorts:
        weights, _ = job.copy_cohort(number)
        person = people[homes.index(number)]
        assert np.mean((weights - person.wanted) ** 2) < .03
    finished = [e for e in events
                if e.kind == fl.ServerEventKind.ROUND_FINISHED]
    assert {e.cohort for e in finished} == {None, 0, 1}
    assert all(e.model_version > 0 for e in finished)
    assert {e.cohort for e in events
            if e.kind == fl.ServerEventKind.CLIENT_JOINED} == {0}


def test_accuracy_is_said_client_by_client():
    _, _, job, events = _run(cohorts=OPTIONS)
    _, _, plain, _ = _run()
    good, bad = job.accuracy, plain.accuracy
    assert good.clients == bad.clients == N and good.round == 40
    assert good.worst > bad.worst + .1
    assert list(good.quantiles) == sorted(good.quantiles)
    assert good.quantiles[0] <= good.worst + 1e-9
    assert good.worst <= good.mean + 1e-9 <= good.quantiles[10] + 2e-9
    assert good.jain <= 1 + 1e-9
    assert [e.round for e in events if e.cohort is None
            and e.kind == fl.ServerEventKind.EVALUATED] == [10, 20, 30, 40]


def test_rules_have_names_and_exclude_settings():
    model = fl.Model([fl.Tensor("a", (320,))])
    server = fl.Server()
    job = server.add_job(model, cohorts="loss")
    assert job.cohorts == (0, 1, 2, 3)
    with pytest.raises(fl.ConflictError):
        server.add_job(model, name="b", codec="f32", cohorts="sketch",
                       cohort_sketches="lanes")
    with pytest.raises(fl.ConflictError):
        server.add_job(model, name="c", cohorts="sketch", freeze="gradnorm")
    plain = server.add_job(model, name="d")
    with pytest.raises(fl.StateError):
        plain.cohorts
    with pytest.raises(fl.NotFoundError):
        job.member("nobody")


def test_it_goes_on_where_it_was_saved():
    _, server, job, _ = _run(cohorts=OPTIONS)
    again = fl.Server(state=server.save())
    assert again.jobs[0].cohorts == job.cohorts
    assert again.jobs[0].accuracy == job.accuracy
    for number in job.cohorts:
        np.testing.assert_array_equal(again.jobs[0].copy_cohort(number)[0],
                                      job.copy_cohort(number)[0])


def test_who_leaves_after_its_probes_is_not_waited_for():
    """One has answered and is gone for good while another still answers."""
    context = fl.Context()
    model = fl.Model([fl.Tensor("a", (320,))], context=context)
    server = fl.Server(context=context)
    job = server.add_job(model, rounds=1, min_clients=3, return_grace=0.0,
                         cohorts={"rule": "loss", "cap": 2})
    clients = [fl.Client(
        f"c{i}", model=model, context=context,
        train=lambda task: fl.TrainResult(update=np.full(320, .1, np.float32),
                                          samples=10, loss=1.0),
        evaluate=lambda weights: fl.Score(loss=1.0, correct=1, count=2))
               for i in range(3)]
    now, gone = 0, set()
    while not job.status.is_finished:
        assert now < 30_000_000_000
        for peer, client in enumerate(clients):
            # The last one joins at once and answers late.
            if peer in gone or (peer == 2 and 0 < now < 5_000_000_000):
                continue
            while client.poll(now).kind.name not in ("IDLE", "WAIT", "DONE",
                                                     "ABORTED"):
                pass
            for data in iter(client.send, b""):
                server.recv(peer, data)
        server.tick(now)
        list(server.events())
        for peer in list(server.ready()):
            for data in iter(lambda: server.send(peer), b""):
                if peer not in gone:
                    clients[peer].recv(data)
        if not gone and now >= 2_000_000_000:
            gone.add(0)
            server.disconnected(0)
        now += 100_000_000
