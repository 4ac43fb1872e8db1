# SPDX-License-Identifier: Apache-2.0
"""Keys of clients, enrolment, bans and leaving from Python."""
import math

import numpy as np
import pytest

import libfl as fl

SECOND = 10 ** 9


def small_model():
    return fl.Model([fl.Input([2]), fl.Dense(1), fl.MeanSquaredError()])


def train(task):
    return task.weights + np.float32(0.5)


class Pair:
    """One client of one server, joined by function calls."""

    def __init__(self, *, key=None, client_key=None, rounds=2, **server):
        self.model = small_model()
        self.server = fl.Server(**server)
        self.job = self.server.add_job(self.model, rounds=rounds,
                                       codec=fl.Codec.F32)
        self.client = fl.Client("phone", train=train, key=key,
                                server_key=client_key)
        self.now = 0

    def run(self, peer=1):
        """Until nothing moves; the last event that matters."""
        last = None
        for _ in range(200):
            self.now += 1
            data = self.client.send()
            self.server.recv(peer, data)
            self.server.tick(self.now)
            answer = self.server.send(peer)
            self.client.recv(answer)
            event = self.client.poll(self.now)
            if event.kind in (fl.ClientEventKind.DONE,
                              fl.ClientEventKind.ABORTED):
                return event
            if event.kind != fl.ClientEventKind.IDLE:
                last = event
            elif not data and not answer:
                return last
        raise AssertionError("it never ends")


def test_a_listed_key_trains_and_another_is_refused():
    key, other = fl.KeyPair.generate(), fl.KeyPair.generate()
    for mine, kind, reason in (
            (key, fl.ClientEventKind.DONE, fl.RejectReason.NONE),
            (other, fl.ClientEventKind.ABORTED, fl.RejectReason.NOT_ENROLLED),
            (None, fl.ClientEventKind.ABORTED, fl.RejectReason.NOT_ENROLLED)):
        pair = Pair(key=mine, enrolment=fl.Enrolment.LISTED)
        pair.server.allow(key.public, "phone")
        assert pair.server.allowed == 1
        event = pair.run()
        assert event.kind == kind and event.reason == reason


def test_the_list_can_be_changed():
    key = fl.KeyPair.generate()
    pair = Pair(key=key, enrolment="listed")
    with pytest.raises(fl.NotFoundError):
        pair.server.disallow(key.public)
    pair.server.allow(key.public)
    pair.server.disallow(key.public)
    assert pair.server.allowed == 0
    assert pair.run().reason == fl.RejectReason.NOT_ENROLLED
    with pytest.raises(ValueError, match="want 32"):
        pair.server.allow(key.secret)
    with pytest.raises(fl.ArgumentError):
        pair.server.allow(key.public, "")


def test_a_function_decides_on_keys():
    key = fl.KeyPair.generate()
    asked = []

    def enrol(request):
        asked.append(request)
        return request.client_id == "phone"

    assert Pair(key=key, enrol=enrol).run().kind == fl.ClientEventKind.DONE
    assert asked == [fl.EnrolRequest(key.public, "phone", 0)]
    event = Pair(key=key, enrol=lambda request: False).run()
    assert event.reason == fl.RejectReason.NOT_ENROLLED


def test_what_the_function_raises_comes_out_of_recv():
    pair = None

    def enrol(request):
        pair.server.commit()

    pair = Pair(key=fl.KeyPair.generate(), enrol=enrol)
    with pytest.raises(RuntimeError, match="at work"):
        pair.run()
    pair.server.commit()


def test_a_pinned_server_is_the_one_or_refuses():
    key, server, other = (fl.KeyPair.generate() for _ in range(3))
    event = Pair(key=key, client_key=server.public,
                 server_key=server.public).run()
    assert event.kind == fl.ClientEventKind.DONE
    event = Pair(key=key, client_key=other.public,
                 server_key=server.public).run()
    assert event.reason == fl.RejectReason.KEY
    with pytest.raises(ValueError, match="want a key"):
        fl.Client("phone", server_key=server.public)


def test_bans_end_and_are_undone():
    pair = Pair()
    pair.server.tick(SECOND)
    pair.server.ban("phone", 60.0)
    assert pair.server.ban_left("phone") == 60.0
    pair.now = SECOND
    assert pair.run().reason == fl.RejectReason.BANNED
    kinds = [event.kind for event in pair.server.events()]
    assert fl.ServerEventKind.CLIENT_BANNED in kinds
    pair.server.unban("phone")
    assert pair.server.ban_left("phone") == 0.0
    with pytest.raises(fl.NotFoundError):
        pair.server.unban("phone")
    pair.server.ban("phone")
    assert pair.server.ban_left("phone") == math.inf
    again = fl.Server(state=pair.server.save())
    assert again.ban_left("phone") == math.inf


def test_an_allowance_of_messages():
    pair = Pair(allowance=fl.Allowance(messages=2, interval=10.0))
    pair.server.tick(SECOND)
    pair.now = SECOND
    pair.run()
    reasons = [event.reason for event in pair.server.events()]
    assert fl.RejectReason.RATE in reasons
    with pytest.raises(fl.OptionsError):
        Pair(allowance=fl.Allowance(interval=0.0))


def test_claims_above_the_cap_are_refused():
    server = fl.Server()
    server.add_job(small_model(), max_samples=10)
    client = fl.Client("phone", samples=11)
    server.recv(1, client.send())
    client.recv(server.send(1))
    assert client.poll(1).reason == fl.RejectReason.RANGE


def test_a_client_that_leaves_is_forgotten():
    pair = Pair(key=fl.KeyPair.generate())
    assert pair.run().kind == fl.ClientEventKind.DONE
    assert b"phone" in pair.server.save()
    pair.client.leave()
    event = pair.run()
    assert event.kind == fl.ClientEventKind.ABORTED
    assert event.reason == fl.RejectReason.FORGOTTEN
    assert b"phone" not in pair.server.save()
    kinds = [event.kind for event in pair.server.events()]
    assert fl.ServerEventKind.CLIENT_LEFT in kinds
    with pytest.raises(fl.NotFoundError):
        pair.job.forget("phone")
