# SPDX-License-Identifier: Apache-2.0
"""The freezing controller from Python: its measures against numpy, and jobs
of every criterion."""
import math

import numpy as np
import pytest

import libfl as fl


def gram(x):
    x = x.reshape(len(x), -1).astype(np.float64)
    g = x @ x.T
    return g / np.linalg.norm(g, axis=1, keepdims=True)


def numpy_cka(a, b):
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (a, b))
    a, b = a - a.mean(0), b - b.mean(0)
    return (np.linalg.norm(a.T @ b) ** 2
            / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)))


def draw(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def test_plasticity_is_numpys(rng):
    for shape in ((16, 300), (2, 1), (5, 3, 4, 4), (32, 513)):
        a, b = draw(rng, *shape), draw(rng, *shape)
        want = ((gram(a) - gram(b)) ** 2).sum() / len(a) ** 2
        assert math.isclose(fl.plasticity(a, b), want, rel_tol=1e-11)
        assert fl.plasticity(a, a) == 0


def test_plasticity_sees_neither_scale_nor_rotation(rng):
    a = draw(rng, 12, 40)
    turn = np.linalg.qr(rng.standard_normal((40, 40)))[0]
    assert fl.plasticity(a, 64 * a) < 1e-30
    assert fl.plasticity(a, 3 * (a @ turn)) < 1e-12


def test_cka_is_numpys(rng):
    for n, m in ((3, 5), (70, 40), (300, 2)):
        a, b = draw(rng, 24, n), draw(rng, 24, m)
        assert math.isclose(fl.cka(a, b), numpy_cka(a, b), rel_tol=1e-11)
    assert fl.cka(np.ones((4, 3)), draw(rng, 4, 3)) == 1


def test_measures_check_their_arguments(rng):
    a = draw(rng, 4, 3)
    with pytest.raises(ValueError, match="samples"):
        fl.plasticity(a, a[:3])
    with pytest.raises(ValueError, match="values a sample"):
        fl.plasticity(a, a[:, :2])
    with pytest.raises(ValueError, match="shape"):
        fl.cka(a[0], a[0])
    with pytest.raises(fl.DimError):
        fl.cka(a[:1], a[:1])
    bad = a.copy()
    bad[1, 1] = np.nan
    with pytest.raises(fl.NotFiniteError):
        fl.plasticity(a, bad)


def quick(criterion="gradnorm", **options):
    return fl.Freeze(6, criterion, steps_per_epoch=32, interval=4, gap=8,
                     is_pretrained=True, total_steps=100,
                     pretrained_share=.01, **options)


def run(freeze, steps, rng):
    """A job whose gradients change less and less."""
    for _ in range(steps):
        with freeze.step(.1) as step:
            request = step.request
            if request.wants & fl.FreezeWants.GRADIENT:
                noise = draw(rng, 50) * np.float32(.97 ** request.step)
                freeze.push_gradient(request.module, noise)
            step.loss = 1.0


def test_modules_freeze_from_the_front(rng, context):
    with quick(context=context) as freeze:
        run(freeze, 400, rng)
        plan = freeze.plan
        assert plan.first_active == 4 == plan.version
        assert plan.reason is fl.FreezeReason.CRITERION
        assert plan.frozen == (True,) * 4 + (False,) * 2
        events = list(freeze.events())
        changed = [event for event in events
                   if event.kind is fl.FreezeEventKind.CHANGED]
        assert [event.first_active for event in changed] == [1, 2, 3, 4]
        assert changed[-1].step == plan.step
        assert all(event.text for event in events)
        assert list(freeze.events()) == []


def test_gradients_and_their_change_are_the_same(rng):
    with quick() as one, quick() as two:
        before = None
        for _ in range(120):
            first, second = one.begin(.1), two.begin(.1)
            assert first == second
            gradient = draw(rng, 77)
            if first.wants:
                one.push_gradient(first.module, gradient)
                if (first.step + 1) % 4 == 0:
                    change = gradient.astype(float) - before
                    two.push_gradient_change(first.module,
                                             float((change ** 2).sum()))
            before = gradient
            one.end(1)
            two.end(1)
        values = [[event.raw for event in freeze.events()
                   if event.kind is fl.FreezeEventKind.EVALUATED]
                  for freeze in (one, two)]
        assert len(values[0]) > 20 and np.allclose(*values, rtol=1e-12)


def test_step_that_raises_is_begun_anew():
    with quick() as freeze:
        with pytest.raises(KeyError):
            with freeze.step(.1):
                raise KeyError("training failed")
        with pytest.raises(ValueError, match="loss"):
            with freeze.step(.1):
                pass
        with freeze.step(.1) as step:
            step.loss = 2.0
        assert step.request.step == 0
        assert freeze.begin(.1).step == 1


def test_pairs_and_features(rng):
    with quick("plasticity", preset="fast", rows=8) as freeze:
        seen = set()
        for _ in range(24):
            request = freeze.begin(.1)
            if request.wants & fl.FreezeWants.PAIR:
                seen.add(request.wants)
                model = draw(rng, request.rows, 3, 5)
                freeze.push_pair(request.module, model,
                                 model + draw(rng, request.rows, 3, 5) / 9)
            freeze.end(1)
        assert seen == {fl.FreezeWants.PAIR,
                        fl.FreezeWants.PAIR | fl.FreezeWants.SNAPSHOT}
        raw = [event.raw for event in freeze.events()
               if event.kind is fl.FreezeEventKind.EVALUATED]
        assert len(raw) == 6 and min(raw) > 0
    with fl.Freeze(4, "cka", steps_per_epoch=32, interval=4,
                   total_steps=80) as freeze:
        for _ in range(80):
            request = freeze.begin(.1)
            if request.wants & fl.FreezeWants.FEATURES:
                before = draw(rng, 20, 6)
                for module in range(4):
                    freeze.push_features(
                        module, before,
                        before + module * draw(rng, 20, 6))
            freeze.end(1)
        assert freeze.plan.frozen == (True, False, False, False)


def test_pairs_may_come_late(rng):
    pairs = [(draw(rng, 8, 5), draw(rng, 8, 5)) for _ in range(24)]
    seen = []
    for delay in range(3):
        with quick("plasticity", rows=8, lag=2) as freeze:
            waits = None
            for number in range(24):
                request = freeze.begin(.1)
                if request.wants & fl.FreezeWants.PAIR:
                    waits = number
                if waits is not None and number == waits + delay:
                    freeze.push_pair(request.module, *pairs[waits])
                freeze.end(1)
            seen.append([(event.step, event.raw) for event in freeze.events()
                         if event.kind is fl.FreezeEventKind.EVALUATED])
    assert len(seen[0]) > 3 and seen[1] == seen[0] and seen[2] == seen[0]
    assert seen[0][0][0] == 5
    with pytest.raises(fl.OptionsError):
        quick("plasticity", lag=4)
    with pytest.raises(fl.ConflictError):
        quick("gradnorm", lag=1)


def test_plans_are_followed_elsewhere(rng):
    job = bytes(range(32))
    with quick(job=job) as freeze, fl.Freeze(
            6, "server", steps_per_epoch=32, job=job,
            allowed=[0, 2]) as follower, fl.Freeze(
            6, "server", steps_per_epoch=32) as other:
        run(freeze, 400, rng)
        follower.apply_plan(freeze.plan_bytes)
        plan = follower.plan
        assert plan.first_active == 2 and plan.version == 4
        assert plan.reason is fl.FreezeReason.SERVER
        assert follower.begin(.1).has_changed
        with pytest.raises(fl.ConflictError):
            other.apply_plan(freeze.plan_bytes)
        with pytest.raises(fl.NotAllowedError):
            freeze.apply_plan(freeze.plan_bytes)
        for n in range(len(freeze.plan_bytes)):
            with pytest.raises(fl.TruncatedError):
                other.apply_plan(freeze.plan_bytes[:n])
        assert other.plan.version == 0


def test_clients_report_and_the_aggregator_decides(rng):
    with fl.Freeze(6) as server, fl.Freeze(
            6, "server", reports="gradnorm", steps_per_epoch=8,
            interval=4) as client:
        assert client.take_report() is None
        for number in range(30):
            for _ in range(8):
                request = client.begin(.1)
                if request.wants and (request.step + 1) % 4 == 0:
                    client.push_gradient_change(request.module,
                                                .9 ** number)
                client.end(1)
            report = client.take_report()
            if report is None:
                break
            assert report.module == server.plan.first_active
            assert math.isclose(report.value, math.sqrt(.9 ** number))
            server.end_round(math.nan, [
                report, fl.FreezeReport(report.module, math.nan, 1e6),
                fl.FreezeReport(report.module, 1e9, .2)])
            client.apply_plan(server.plan_bytes)
        # Nothing is measured when nothing is left to freeze.
        assert client.plan.first_active == server.plan.first_active == 4
        server.end_round(1, [])


def test_a_saved_state_goes_on(rng):
    with quick() as freeze, quick() as again, quick(patience=3) as other:
        run(freeze, 150, rng)
        state = freeze.save()
        again.load(state)
        assert again.save() == state
        for one in (freeze, again):
            run(one, 250, np.random.default_rng(5))
        assert again.plan == freeze.plan
        with pytest.raises(fl.ConflictError):
            other.load(state)
        for bad in (b"", state[:-1], bytes(len(state))):
            with pytest.raises(fl.PeerDataError):
                again.load(bad)
        assert again.plan == freeze.plan


def test_schedule_is_followed():
    with fl.Freeze(6, fl.FreezeCriterion.FIXED, steps_per_epoch=10,
                   fixed=[(0, 1), (3, 4)]) as freeze:
        seen = []
        for _ in range(5):
            seen.append(freeze.begin(.1).first_active)
            freeze.end(1)
        assert seen == [1, 1, 1, 4, 4]


def test_options_are_checked():
    for bad in (dict(criterion="none"), dict(preset="slow"),
                dict(job=b"short"), dict(modules=-1),
                dict(allowed=[0, -2]), dict(hold=-1)):
        with pytest.raises(ValueError):
            fl.Freeze(**{"modules": 6, "steps_per_epoch": 8, **bad})
    for bad in (dict(modules=1), dict(tolerance=-1.0), dict(max_frozen=6),
                dict(criterion="fixed"), dict(allowed=[1, 2])):
        with pytest.raises(fl.OptionsError):
            fl.Freeze(**{"modules": 6, "steps_per_epoch": 8, **bad})
    with pytest.raises(fl.ConflictError):
        fl.Freeze(6, steps_per_epoch=8, reports="gradnorm")


@pytest.mark.parametrize("name, value, error", [
    ("window", 2**32 + 4, ValueError), ("patience", -1, ValueError),
    ("rows", 2**32 + 16, ValueError), ("max_frozen", 2**32 + 1, ValueError),
    ("refresh", 2**32 + 8, ValueError), ("interval", 2**64 + 4, ValueError),
    ("lag", -1, ValueError), ("lag", 2**64, ValueError),
    ("hold", -1, ValueError), ("gap", 2**64 + 1, ValueError),
    ("total_steps", 2**64 + 100, ValueError), ("window", 4.0, TypeError),
    ("steps_per_epoch", 2**64 + 8, ValueError),
    ("allowed", [0, 2**32 + 1], ValueError),
    ("fixed", [(2**64, 1)], ValueError),
    ("fixed", [(0, 2**32 + 1)], ValueError)])
def test_whole_numbers_do_not_wrap(name, value, error):
    options = {"steps_per_epoch": 8, name: value}
    if name == "fixed":
        options["criterion"] = "fixed"
    with pytest.raises(error, match=name):
        fl.Freeze(6, **options)


def test_whole_numbers_of_any_kind_are_taken():
    with fl.Freeze(6, steps_per_epoch=np.int64(8), window=np.uint8(4),
                   is_pretrained=True, total_steps=100,
                   unfreezes=True) as freeze:
        assert freeze.begin(.1).rows == 16


def test_modules_of_reports_do_not_wrap():
    with fl.Freeze(6) as aggregator:
        with pytest.raises(ValueError, match="module"):
            aggregator.end_round(1.0, [fl.FreezeReport(2**32, 1.0, 1.0)])
