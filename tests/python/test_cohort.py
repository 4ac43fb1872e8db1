# SPDX-License-Identifier: Apache-2.0
"""CohortSet and Sketcher: two groups of generated clients."""
import math

import numpy as np
import pytest

import libfl as fl

N, DIM, KEY = 200, 64, bytes(range(32))


class People:
    """Clients in two groups; a cohort's loss on a client is low when it has
    been trained by the client's group."""

    def __init__(self, rng, **options):
        self.rng = rng
        self.set = fl.CohortSet(dim=DIM, min_members=1, **options)
        for client in range(N):
            assert self.set.join(1000 + client) == client
        self.directions = rng.standard_normal((2, DIM))
        self.share = {0: np.zeros(2)}
        self.events = []

    def sketch(self, client):
        values = (self.directions[client % 2]
                  + .3 * self.rng.standard_normal(DIM))
        levels = np.clip(np.rint(7.5 + 2.5 * values), 0, 15).astype(np.uint8)
        return (levels[::2] | levels[1::2] << 4).tobytes()

    def loss(self, cohort, client):
        return (1.8 - 1.5 * self.share[cohort][client % 2]
                + .02 * self.rng.uniform(-1, 1))

    def train(self, client, number):
        route = self.set.route(client, number)
        loss = self.loss(route.cohort, client)
        if not route.probes and loss > route.limit:
            route = self.set.route(client, number, loss)
        told = {cohort: self.loss(cohort, client) for cohort in route.probes}
        cohort = min(told, key=told.get) if route.chooses else route.cohort
        self.set.report(client, cohort, number, sketch=self.sketch(client),
                        loss=told.get(cohort, loss), probes=told)
        return cohort

    def round(self, number):
        trained = {cohort: np.zeros(2) for cohort in self.share}
        for client in self.rng.choice(N, 40, replace=False):
            trained[self.train(int(client), number)][client % 2] += 1
        for cohort, counts in trained.items():
            if counts.sum():
                self.share[cohort] += .2 * (counts / counts.sum()
                                            - self.share[cohort])
            self.set.end_round(cohort, number)
        for event in self.set.decide():
            self.events.append(event)
            if event.kind == fl.CohortEventKind.TRIAL:
                self.share[event.child] = self.share[event.cohort].copy()
            if event.kind == fl.CohortEventKind.UNDONE:
                del self.share[event.child]


@pytest.fixture
def people(rng):
    """Two cohorts, found."""
    people = People(rng, seed=5, job=7, key=KEY)
    for number in range(1, 41):
        people.round(number)
    return people


def test_two_groups_are_found(people):
    kinds = [event.kind for event in people.events]
    assert kinds == [fl.CohortEventKind.TRIAL, fl.CohortEventKind.KEPT]
    assert people.events[1].win > .9
    assert people.set.cohorts == (0, 1)
    members = [people.set.member(i) for i in range(N)]
    known = [(m.cohort, i % 2) for i, m in enumerate(members)
             if m.last and not m.is_unknown]
    assert len(known) > N / 2
    assert len(set(known)) == 2
    info = people.set.info(0)
    assert info.is_alive and info.sibling is None and info.round == 40
    assert math.isfinite(info.loss)
    assert info.members + people.set.info(1).members == N
    assert not people.set.info(5).is_alive


def test_tickets_bring_back_what_is_known(people):
    before = people.set.member(3)
    ticket = people.set.ticket(3)
    people.set.leave(3)
    with pytest.raises(fl.NotFoundError):
        people.set.find(1003)
    assert people.set.join(1003, round=41, ticket=ticket) == 3
    assert people.set.member(3) == before
    people.set.leave(3)
    assert people.set.join(1003, round=41, ticket=ticket[:-1] + b"x") == 3
    assert people.set.member(3).last == 0
    assert people.set.find(1003) == 3
    assert people.set.n_clients == N


def test_plans_add_up_and_picks_are_members(people):
    for by in ("size", "equal", fl.CohortPlan.LOSS):
        counts = people.set.plan(33, by)
        assert len(counts) == people.set.cap and sum(counts) == 33
    online = np.arange(N) % 3 == 0
    picked = people.set.pick(1, 9, 10, online)
    assert len(picked) == 10 and all(online[list(picked)])
    assert all(people.set.member(slot).cohort == 1 for slot in picked)
    assert people.set.pick(1, 9, 10, online) == picked
    with pytest.raises(ValueError, match="want one of size, equal, loss"):
        people.set.plan(33, "luck")


def test_saved_state_goes_on(people):
    state = people.set.save()
    with fl.CohortSet(dim=DIM, min_members=1, seed=5, job=7) as copy:
        copy.load(state)
        assert copy.save() == state
        with pytest.raises(fl.FormatError):
            copy.load(state[:-1] + bytes([state[-1] ^ 1]))
        assert copy.save() == state
    with fl.CohortSet(dim=DIM, seed=6) as other:
        with pytest.raises(fl.ConflictError):
            other.load(state)


def test_bad_reports_say_what_is_wrong(people):
    cohort = people.set.member(0).cohort
    good = people.sketch(0)
    for error, arguments in [
            (fl.NotFiniteError, dict(loss=math.nan, sketch=good)),
            (fl.DimError, dict(loss=1.0, sketch=good[1:])),
            (fl.RangeError, dict(loss=-1.0, sketch=good)),
            (fl.NotFiniteError, dict(loss=1.0, sketch=good,
                                     probes={0: 1.0, 1: -math.inf}))]:
        with pytest.raises(error):
            people.set.report(0, cohort, 41, **arguments)
    with pytest.raises(fl.ConflictError):
        people.set.report(0, 1 - cohort, 41, loss=1.0, sketch=good)
    with pytest.raises(fl.NotFoundError):
        people.set.route(N, 41)


def test_options_are_checked():
    with pytest.raises(TypeError, match="no option 'colour'"):
        fl.CohortSet(colour=3)
    with pytest.raises(ValueError, match="sketch, auxo, loss"):
        fl.CohortSet("magic")
    with pytest.raises(ValueError, match="key"):
        fl.CohortSet(key=b"short")
    with pytest.raises(fl.OptionsError, match="gap"):
        fl.CohortSet(gap=2.0)


def test_auxo_takes_features_and_planned_splits(rng):
    with fl.CohortSet("auxo", dim=10, cap=2, splits=[2]) as auxo:
        for client in range(20):
            auxo.join(client)
        for number in (1, 2):
            for slot in range(20):
                auxo.report(slot, 0, number, loss=1.0,
                            feature=rng.standard_normal(10) + slot % 2)
            auxo.end_round(0, number)
            events = auxo.decide()
        assert [event.kind for event in events] == [fl.CohortEventKind.SPLIT]
        assert auxo.cohorts == (0, 1)


def test_features_have_dim_values(rng):
    with fl.CohortSet("auxo", dim=10) as auxo:
        auxo.join(1)
        for n in (0, 9, 11):
            with pytest.raises(ValueError, match="want 10"):
                auxo.report(0, 0, 1, loss=1.0, feature=np.ones(n))
        auxo.report(0, 0, 1, loss=1.0, feature=np.ones(10))


def test_numbers_that_do_not_fit_are_refused(people):
    cohort = people.set.member(0).cohort
    with pytest.raises((ValueError, OverflowError)):
        people.set.report(0, cohort, 41, probes={cohort + 2**32: 1.0})
    with pytest.raises((ValueError, OverflowError)):
        fl.CohortSet(cap=2**32 + 4)
    with pytest.raises((ValueError, OverflowError)):
        fl.CohortSet(cap=-1)


def test_more_are_wanted_than_there_are(people):
    assert len(people.set.pick(0, 9, 2**32 - 1)) == people.set.info(0).members


def test_evaluation_reports_have_no_loss_of_training(people):
    cohort = people.set.member(0).cohort
    last = people.set.member(0).last
    people.set.report(0, cohort, 41, probes={cohort: 90.0})
    assert people.set.member(0).is_unknown
    assert people.set.member(0).last == last


def test_sketch_is_the_count_sketch_rounded(rng):
    def splitmix(state):
        mask = 2**64 - 1
        while True:
            state = (state + 0x9E3779B97F4A7C15) & mask
            z = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & mask
            z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
            yield (z ^ z >> 31) >> 32
    update = rng.standard_normal(1000).astype(np.float32)
    sums = np.zeros(32)
    for value, z in zip(update, splitmix(9)):
        sums[(z >> 1) % 32] += value if z & 1 else -value
    most = np.abs(sums).max()
    want = (sums + most) / (2 * most) * 15
    with fl.Sketcher(1000, seed=9, dim=32) as sketcher:
        got = np.frombuffer(sketcher(update), np.uint8)
        levels = np.stack([got & 15, got >> 4], 1).ravel()
        assert np.abs(levels - want).max() <= .5 + 1e-4
        with pytest.raises(fl.RangeError):
            sketcher(np.zeros(1000))
        with pytest.raises(fl.NotFiniteError):
            sketcher(np.full(1000, np.nan, np.float32))
