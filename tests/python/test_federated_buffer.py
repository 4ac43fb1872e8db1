# SPDX-License-Identifier: Apache-2.0
"""Buffered rounds (FedBuff): clients of unlike speed learn under skew."""
import numpy as np
import pytest

import libfl as fl
from libfl import ClientEventKind, ServerEventKind as Event

CLIENTS = 12
CODEC = fl.CodecOptions(fl.Codec.THC, thc_mode=fl.ThcMode.UNIFORM, bits=8,
                        granularity=255)


def buffered(server, model, **options):
    settings = {"rounds": 30, "codec": CODEC, "seed": 5, "epochs": 2,
                "learning_rate": .1, "min_clients": CLIENTS,
                "scale_mode": fl.ScaleMode.PUBLIC, "buffer": 4}
    return server.add_job(model, **{**settings, **options})


class World:
    """Clients whose training takes some turns each, over one clock."""

    def __init__(self, server, clients, trainers, turns):
        self.server, self.clients, self.trainers = server, clients, trainers
        self.turns, self.working, self.now = turns, {}, 0

    def work(self, i, task=None):
        if task is not None:
            self.working[i] = (self.now + self.turns[i], task)
        elif i in self.working and self.working[i][0] <= self.now:
            task = self.working.pop(i)[1]
            try:
                self.clients[i].submit(self.trainers[i].train(task))
            except fl.StateError:
                pass  # the server went on without it

    def turn(self):
        for i, client in enumerate(self.clients):
            event = client.poll(self.now * 10**9)
            while event.kind is not ClientEventKind.IDLE:
                if event.kind is ClientEventKind.NEED_TRAIN:
                    self.work(i, event.task)
                if event.kind in (ClientEventKind.DONE,
                                  ClientEventKind.ABORTED):
                    break
                event = client.poll(self.now * 10**9)
            self.work(i)
            data = client.send()
            while data:
                self.server.recv(i, data)
                data = client.send()
        self.server.tick(self.now * 10**9)
        for peer in list(self.server.ready()):
            data = self.server.send(peer)
            while data:
                self.clients[peer].recv(data)
                data = self.server.send(peer)
        self.now += 1

    def run(self, job, most=3000):
        events = []
        while not job.status.is_finished and self.now < most:
            self.turn()
            events += self.server.events()
        return events


def skewed(mlp, blobs):
    """Each lacks one of the classes; the last are slow."""
    trainers = []
    for i in range(CLIENTS):
        x, y = blobs(200, seed=i)
        kept = np.flatnonzero(y != i % 3)[:60]
        trainers.append(fl.LocalTrainer(mlp(), x[kept], y[kept]))
    return trainers


@pytest.mark.parametrize("strategy", [None, fl.FedAvgM(rate=.7, momentum=.5),
                                      fl.FedAdam(rate=.05)])
def test_clients_of_unlike_speed_learn_under_skew(mlp, blobs, strategy):
    trainers = skewed(mlp, blobs)
    clients = [fl.Client(f"client-{i:02}", samples=60)
               for i in range(CLIENTS)]
    turns = [1 + i % 3 for i in range(8)] + [9, 9, 14, 20]
    with mlp() as model, fl.Server() as server:
        job = buffered(server, model, strategy=strategy)
        events = World(server, clients, trainers, turns).run(job)
        assert job.status.is_finished
        model.set_weights(job.copy_weights()[0])
        assert model.evaluate(*blobs(300, seed=99)).accuracy > .9
    counted = [e.client_id for e in events if e.kind is Event.UPDATE_ACCEPTED]
    assert len(counted) == 30 * 4
    # The slow ones are heard, too, and nobody waits for them.
    assert {"client-08", "client-10", "client-11"} <= set(counted)
    assert counted.count("client-00") > 3 * counted.count("client-11")


def test_rounds_do_not_wait_for_the_slowest(mlp, blobs):
    trainers = skewed(mlp, blobs)
    taken = []
    for options in ({}, {"buffer": 0}):
        clients = [fl.Client(f"client-{i:02}", samples=60)
                   for i in range(CLIENTS)]
        with mlp() as model, fl.Server() as server:
            job = buffered(server, model, rounds=12, **options)
            world = World(server, clients, trainers,
                          [1] * (CLIENTS - 1) + [40])
            world.run(job)
            assert job.status.is_finished
            taken.append(world.now)
    assert taken[0] * 3 < taken[1]


def test_an_update_that_is_too_old_is_stale(mlp, blobs):
    trainers = skewed(mlp, blobs)
    clients = [fl.Client(f"client-{i:02}", samples=60)
               for i in range(CLIENTS)]
    with mlp() as model, fl.Server() as server:
        job = buffered(server, model, buffer_staleness=2)
        events = World(server, clients, trainers,
                       [1] * (CLIENTS - 1) + [60]).run(job)
        assert job.status.is_finished
    assert not any(e.kind is Event.UPDATE_ACCEPTED
                   and e.client_id == "client-11" for e in events)


def test_what_excludes_each_other_is_refused(mlp):
    with mlp() as model, fl.Server() as server:
        for options, error in (
                ({"codec": "f32", "scale_mode": fl.ScaleMode.EXCHANGED},
                 fl.ConflictError),
                ({"codec": "thc"}, fl.ConflictError),
                ({"strategy": fl.Krum(), "min_participants": 4},
                 fl.ConflictError),
                ({"evaluate_every": 1}, fl.ConflictError),
                ({"buffer": 5000}, fl.OptionsError)):
            with pytest.raises(error):
                buffered(server, model, **options)
