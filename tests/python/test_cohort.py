# SPDX-License-Identifier: Apache-2.0
"""CohortSet and Sketcher: two groups of generated clients."""
import copy
import inspect
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


def test_every_option_of_c_has_its_keyword():
    fields = {name for name, *_ in fl._lib.CohortOptions._fields_}
    keywords = set(inspect.signature(fl.CohortSet).parameters) - {"context"}
    assert fields - keywords == {"struct_size", "n_splits", "reserved"}
    assert keywords <= fields
    given = dict(
        clients=7, cap=3, dim=32, floor=.1, min_members=2,
        min_participants=3, spike=1, asks_first=False, evidence=11,
        agreement=.5, gap=.5, reseed=3, settle=2, wait=2, trial_start=3,
        trial_length=4, trial_probes=11, trial_most=12, trial_margin=.1,
        trial_share=.1, trial_sure=.9, trial_win=.8, trial_lump=.7,
        trial_again=.6, merge=.2, forget=9)
    with fl.CohortSet(**given) as cohorts, fl.CohortSet() as plain:
        assert cohorts.cap == 3
        state = cohorts.save()
        with pytest.raises(fl.ConflictError):
            plain.load(state)
        with fl.CohortSet(**given) as same:
            same.load(bytearray(state))
            assert same.save() == state


def test_options_are_checked():
    with pytest.raises(TypeError, match="colour"):
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


def test_going_on_from_a_state_decides_the_same(rng):
    people = People(rng, seed=6)
    for number in range(1, 16):
        people.round(number)  # in the middle of the trial
    assert [event.kind.name for event in people.events] == ["TRIAL"]
    other = copy.copy(people)
    other.rng, other.share, other.events = copy.deepcopy(
        (people.rng, people.share, people.events))
    with fl.CohortSet(dim=DIM, min_members=1, seed=6) as other.set:
        other.set.load(people.set.save())
        for number in range(16, 41):
            people.round(number)
            other.round(number)
        assert people.events == other.events
        assert people.events[-1].kind == fl.CohortEventKind.KEPT
        assert people.set.save() == other.set.save()
        slots = people.set.pick(1, 50, 20)
        assert other.set.pick(1, 50, 20) == slots != ()


def test_tickets_that_do_not_count_make_newcomers(people):
    slot = next(slot for slot in range(N) if people.set.member(slot).last)
    last = people.set.member(slot).last
    ticket = people.set.ticket(slot)
    assert len(ticket) == 48

    def joins(ticket, round=41, client=1000 + slot, job=7, key=KEY,
              **options):
        with fl.CohortSet(dim=DIM, seed=5, job=job, key=key,
                          **options) as other:
            return other.member(other.join(client, round=round,
                                           ticket=ticket)).last

    assert joins(ticket) == joins(ticket, round=last) == last
    for bit in range(8 * len(ticket)):  # forged
        forged = bytearray(ticket)
        forged[bit // 8] ^= 1 << bit % 8
        assert joins(forged) == 0
    assert joins(b"") == joins(ticket[:-1]) == joins(ticket + b"x") == 0
    assert joins(ticket, client=999) == 0      # another client's
    assert joins(ticket, job=8) == 0
    assert joins(ticket, key=KEY[::-1]) == joins(ticket, key=None) == 0
    assert joins(ticket, round=last - 1) == 0  # of the future
    assert joins(ticket, round=last + 5, forget=5) == last
    assert joins(ticket, round=last + 6, forget=5) == 0  # outdated
    # Who is there keeps what is known: the ticket is not of a later round.
    before = people.set.member(slot)
    assert people.set.join(1000 + slot, round=41, ticket=ticket) == slot
    assert people.set.member(slot) == before


def test_tickets_need_a_key_and_a_rule_that_has_them():
    with fl.CohortSet() as no_key:
        with pytest.raises(fl.NotAllowedError, match="key"):
            no_key.ticket(no_key.join(1))
    with fl.CohortSet("auxo", dim=4, key=KEY) as auxo:
        with pytest.raises(fl.UnsupportedError):
            auxo.ticket(auxo.join(1))
    with fl.CohortSet(key=KEY) as empty:
        with pytest.raises(fl.NotFoundError):
            empty.ticket(0)


def test_a_report_is_of_the_open_round_and_the_only_one(people):
    cohort = people.set.member(0).cohort
    good = dict(loss=.3, sketch=people.sketch(0))
    for error, which, number in [
            (fl.StaleError, cohort, 40), (fl.StaleError, 5, 41),
            (fl.StaleError, 99, 41), (fl.ArgumentError, cohort, 0),
            (fl.ArgumentError, cohort, 2**31)]:
        with pytest.raises(error):
            people.set.report(0, which, number, **good)
    before = people.set.member(0)
    told = {other: .3 for other in people.set.route(0, 41).probes}
    cohort = min(told, default=cohort)
    people.set.report(0, cohort, 41, probes=told, **good)
    assert people.set.member(0) != before
    with pytest.raises(fl.DuplicateError):
        people.set.report(0, cohort, 41, probes=told, **good)
    with pytest.raises(fl.StaleError):
        people.set.report(2, cohort, 42, **good)
    with pytest.raises(fl.NotAllowedError):
        people.set.leave(0)
    with pytest.raises(fl.NotAllowedError):
        people.set.save()
    with pytest.raises(fl.NotFoundError):
        people.set.end_round(5, 41)
    with pytest.raises(fl.StaleError):
        people.set.end_round(cohort, 42)
    people.set.end_round(cohort, 41)
    with pytest.raises(fl.NotAllowedError, match="decide first"):
        people.set.report(2, cohort, 41, **good)
    with pytest.raises(fl.NotAllowedError, match="decide first"):
        people.set.end_round(cohort, 41)
    people.set.decide()
    assert people.set.info(cohort).round == 41
    people.set.leave(0)


def test_a_report_of_probes_names_cohorts_that_are_there(people):
    cohort = people.set.member(0).cohort
    good = dict(loss=1.0, sketch=people.sketch(0))
    for error, probes in [(fl.StaleError, {cohort: 1.0, 5: 1.0}),
                          (fl.RangeError, {cohort: 1.0, 99: 1.0}),
                          (fl.RangeError, {1 - cohort: 1.0}),
                          (fl.RangeError, {cohort: -1.0}),
                          (fl.NotFiniteError, {cohort: math.nan}),
                          (ValueError, {-1: 1.0}), (TypeError, {"0": 1.0}),
                          (TypeError, {cohort: "much"})]:
        with pytest.raises(error):
            people.set.report(0, cohort, 41, probes=probes, **good)
    with pytest.raises(fl.DimError, match="sketch"):
        people.set.report(0, cohort, 41, loss=1.0)


def test_auxo_checks_its_feature():
    with fl.CohortSet("auxo", dim=4) as auxo:
        slot = auxo.join(1)
        for error, feature in [(fl.RangeError, np.zeros(4)),
                               (fl.NotFiniteError, [1, 2, 3, math.inf]),
                               (fl.DimError, None)]:
            with pytest.raises(error, match="feature"):
                auxo.report(slot, 0, 1, loss=1.0, feature=feature)


def test_states_that_are_cut_or_changed_change_nothing(people):
    state = people.set.save()
    for n in (0, 1, 7, len(state) // 2, len(state) - 1):
        with pytest.raises((fl.TruncatedError, fl.FormatError)):
            people.set.load(state[:n])
    for at in range(0, len(state), len(state) // 50):
        bad = bytearray(state)
        bad[at] ^= 0x10
        with pytest.raises(fl.FlError):
            people.set.load(bytes(bad))
    assert people.set.save() == state


def test_numbers_never_wrap(people):
    for wrong in [lambda: people.set.join(-1),
                  lambda: people.set.join(2**64),
                  lambda: people.set.route(-1, 41),
                  lambda: people.set.end_round(2**32, 41),
                  lambda: people.set.plan(-1),
                  lambda: people.set.pick(0, 1, -1),
                  lambda: fl.CohortSet(cap=2**32 + 8),
                  lambda: fl.CohortSet(seed=-1),
                  lambda: fl.CohortSet("auxo", dim=4, splits=[-1]),
                  lambda: fl.Sketcher(-1)]:
        with pytest.raises(ValueError):
            wrong()
    with pytest.raises(TypeError):
        fl.CohortSet("auxo", dim=4, splits=[1.5])
    # As many as there are, whatever is wanted.
    members = people.set.pick(1, 1, 2**32 - 1)
    assert len(members) == people.set.info(1).members
    assert people.set.pick(1, 1, 0) == ()
    assert people.set.pick(1, 1, 9, np.zeros(3, bool)) == ()


def test_handles_close_and_hold_their_context(context):
    assert fl.has_feature(fl.Feature.COHORT)
    with fl.CohortSet(context=context, clients=100) as cohorts:
        assert context.memory > 0
        cohorts.join(1)
    with pytest.raises(ValueError):
        cohorts.join(2)
    with fl.Sketcher(100, dim=16, context=context) as sketcher:
        assert len(sketcher(np.ones(100))) == 8
        with pytest.raises(ValueError, match="want 100"):
            sketcher(np.ones(99))
    for bad in (dict(n=0), dict(n=9, dim=8), dict(n=9, dim=17)):
        with pytest.raises(fl.FlError):
            fl.Sketcher(context=context, **bad)


def test_loss_rule_trains_the_model_with_the_least_loss(rng):
    with fl.CohortSet(fl.CohortRule.LOSS, cap=3, seed=2) as cohorts:
        slot = cohorts.join(8)
        assert cohorts.cohorts == (0, 1, 2)
        route = cohorts.route(slot, 1)
        assert route.chooses and sorted(route.probes) == [0, 1, 2]
        assert math.isinf(route.limit)
        with pytest.raises(fl.ConflictError, match="least loss"):
            cohorts.report(slot, 0, 1, loss=2.0,
                           probes={0: 2.0, 1: 1.0, 2: 3.0})
        with pytest.raises(fl.ConflictError, match="all models"):
            cohorts.report(slot, 0, 1, loss=2.0)
        cohorts.report(slot, 1, 1, loss=1.0, probes={0: 2.0, 1: 1.0, 2: 3.0})
        assert cohorts.member(slot).cohort == 1
