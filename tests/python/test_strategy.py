# SPDX-License-Identifier: Apache-2.0
"""Strategies against the papers' formulas in numpy, and what they are for."""
import numpy as np
import pytest

import strategy_numpy as oracle

import libfl


N = 2500  # two tiles and a part of one, no whole number of lanes


def updates_of(count, seed=0, n=N):
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=n)
    return [(centre + rng.normal(size=n) * (.5 + k / count)).astype(np.float32)
            for k in range(count)]


def samples_of(count, seed=0):
    return np.random.default_rng(seed).integers(1, 500, count)


def stepped(options, updates, rounds=1, **given):
    """The weights after some rounds, and the strategy."""
    weights = np.linspace(-1, 1, len(updates[0])).astype(np.float32)
    strategy = libfl.Strategy(options, weights.size)
    for _ in range(rounds):
        strategy.step(weights, updates, **given)
    return weights, strategy


def moved_by(options, updates, **given):
    """D, without the rounding of adding it to weights."""
    weights = np.zeros(len(updates[0]), np.float32)
    libfl.Strategy(options, weights.size).step(weights, updates, **given)
    return weights


def close(got, want, scale=None):
    want = np.asarray(want, np.float64)
    scale = np.abs(want).max() if scale is None else scale
    assert np.abs(got - want).max() <= 1e-6 * scale


@pytest.mark.parametrize("count", [1, 7, 100])
def test_fedavg_is_the_mean_by_samples(count):
    updates, samples = updates_of(count), samples_of(count)
    close(moved_by(libfl.FedAvg(), updates, samples=samples),
          oracle.mean(updates, samples))
    close(moved_by(libfl.FedAvg(is_uniform=True), updates, samples=samples),
          np.mean(np.asarray(updates, np.float64), 0))
    close(moved_by(libfl.FedAvg(rate=.5), updates),
          .5 * np.mean(np.asarray(updates, np.float64), 0))


@pytest.mark.parametrize("options, kind, rate, extra", [
    (libfl.FedAvgM(), "sgd", 1., {"momentum": np.float32(.9)}),
    (libfl.FedAdam(), "adam", .1, {}),
    (libfl.FedAdam(bias_correction=True, v0=.01), "adam", .1,
     {"corrected": True, "v0": .01}),
    (libfl.FedYogi(), "yogi", .01, {}),
    (libfl.FedYogi(bias_correction=True), "yogi", .01, {"corrected": True}),
    (libfl.FedAdagrad(), "adagrad", .1, {}),
    (libfl.FedAdagrad(v0=1., tau=.1), "adagrad", .1, {"v0": 1., "tau": .1}),
])
def test_optimisers_follow_their_recurrence(options, kind, rate, extra):
    settings = {name: float(np.float32(value)) if not isinstance(value, bool)
                else value for name, value in
                {"beta1": .9, "beta2": .99, "tau": 1e-3, **extra}.items()}
    weights = np.zeros(N, np.float32)
    strategy = libfl.Strategy(options, N)
    server = oracle.Server(N, kind, float(np.float32(rate)), **settings)
    for seed in range(5):
        updates, samples = updates_of(6, seed), samples_of(6, seed)
        before = weights.copy()
        strategy.step(weights, updates, samples=samples)
        want = before + server.step(oracle.mean(updates, samples))
        close(weights, want, max(1., np.abs(want).max()))


@pytest.mark.parametrize("extra, given", [
    ({}, {}), ({"client_momentum": .9}, {"momentum": .9}),
    ({"prox_mu": .1, "client_rate": .5}, {"mu": .1, "rate": .5}),
])
def test_fednova_weighs_by_what_steps_amount_to(extra, given):
    updates, samples = updates_of(9), samples_of(9)
    steps = np.array([1, 2, 3, 5, 8, 13, 21, 34, 55])
    given = {name: float(np.float32(value)) for name, value in given.items()}
    close(moved_by(libfl.FedNova(**extra), updates, samples=samples,
                   steps=steps),
          oracle.nova(updates, samples, steps, **given))


@pytest.mark.parametrize("q", [0., .5, 1., 5.])
def test_q_fedavg_weighs_by_loss(q):
    updates = updates_of(8)
    losses = np.random.default_rng(1).uniform(.1, 3, 8)
    close(moved_by(libfl.QFedAvg(fairness=q, client_rate=.05), updates,
                   losses=losses),
          oracle.fair(updates, losses, q, float(np.float32(.05))))


def test_q_fedavg_without_q_is_uniform_fedavg():
    updates = updates_of(8)
    close(moved_by(libfl.QFedAvg(fairness=0), updates, losses=[2.] * 8),
          np.mean(np.asarray(updates, np.float64), 0))


# Below and above what the sorting networks take.
@pytest.mark.parametrize("count", [1, 2, 3, 4, 10, 33, 100, 1024, 1025])
def test_median_and_trimmed_mean_are_those_of_sorted_values(count):
    updates = updates_of(count, n=1100 if count < 1000 else 70)
    close(moved_by(libfl.Median(), updates),
          np.median(np.asarray(updates, np.float64), 0))
    for trim in (0., .1, .2, .35, .49):
        close(moved_by(libfl.TrimmedMean(trim=trim), updates),
              oracle.trimmed(updates, trim))


@pytest.mark.parametrize("count", [5, 1100])
def test_equal_values_and_zeros_of_both_signs_are_sorted(count):
    rng = np.random.default_rng(3)
    updates = [rng.choice([-1., -0., 0., 2.], 64).astype(np.float32)
               for _ in range(count)]
    close(moved_by(libfl.Median(), updates), np.median(updates, 0), 1)
    close(moved_by(libfl.TrimmedMean(), updates),
          oracle.trimmed(updates, .2), 1)


@pytest.mark.parametrize("count, f", [(5, 1), (12, 2), (100, 20)])
def test_krum_chooses_what_the_oracle_does(count, f):
    updates = updates_of(count, seed=5)
    for k in range(f):
        updates[k] = -3 * updates[k]
    _, strategy = stepped(libfl.Krum(byzantine=f), updates)
    assert strategy.report.chosen == int(
        np.argmin(oracle.krum_scores(updates, f)))
    assert np.count_nonzero(strategy.factors) == 1
    close(moved_by(libfl.Krum(byzantine=f), updates), oracle.krum(updates, f))
    close(moved_by(libfl.MultiKrum(byzantine=f), updates),
          oracle.multi_krum(updates, f))


def test_krum_takes_the_first_of_equal_ones():
    updates = [np.ones(40, np.float32)] * 7
    _, strategy = stepped(libfl.Krum(), updates)
    assert strategy.report.chosen == 0


def test_geometric_median_is_the_oracles():
    updates, samples = updates_of(20), samples_of(20)
    updates[3] = 1000 * updates[3]
    close(moved_by(libfl.GeometricMedian(is_uniform=False), updates,
                   samples=samples),
          oracle.geometric_median(updates, samples))
    close(moved_by(libfl.GeometricMedian(passes=1), updates),
          oracle.geometric_median(updates, [1] * 20, 1))


def test_clipping_shortens_what_is_longer():
    updates, samples = updates_of(10), samples_of(10)
    bound = float(np.float32(np.median(np.linalg.norm(updates, axis=1))))
    want = oracle.clipped(updates, bound)
    close(moved_by(libfl.FedAvg(clip=bound), updates, samples=samples),
          oracle.mean(want, samples))
    close(moved_by(libfl.Median(clip=bound), updates), np.median(want, 0))
    close(moved_by(libfl.MultiKrum(clip=bound), updates),
          oracle.multi_krum(want, 1))
    close(moved_by(libfl.GeometricMedian(clip=bound), updates),
          oracle.geometric_median(want, [1] * 10))


def test_the_bound_moves_to_the_quantile():
    updates = updates_of(20)
    norms = np.linalg.norm(np.asarray(updates, np.float64), axis=1)
    weights = np.zeros(N, np.float32)
    strategy = libfl.Strategy(libfl.FedAvg(clip=.1, clip_adapts=True), N)
    bound = float(np.float32(.1))
    for _ in range(60):
        strategy.step(weights, updates)
        bound *= np.exp(-float(np.float32(.2)) * (np.mean(norms <= bound)
                                                  - .5))
        assert strategy.report.clip == pytest.approx(bound, rel=1e-9)
    assert .5 * np.median(norms) < bound < 2 * np.median(norms)


def test_all_clients_clipped_is_a_round_like_others():
    updates = updates_of(4)
    _, strategy = stepped(libfl.FedAvg(clip=1e-3), updates)
    assert strategy.report.clipped == 4
    assert strategy.report.length <= 1e-3


def test_scaffold_moves_model_and_control():
    updates, changes = updates_of(4), updates_of(4, seed=9)
    weights = np.zeros(N, np.float32)
    strategy = libfl.Strategy(libfl.Scaffold(population=10), N)
    for round_ in (1, 2):
        strategy.step(weights, updates, controls=changes)
        close(weights, round_ * np.mean(np.asarray(updates, np.float64), 0))
        close(strategy.control,
              round_ * np.sum(np.asarray(changes, np.float64), 0) / 10)


def test_client_terms_are_fedproxs_and_scaffolds():
    rng = np.random.default_rng(0)
    w, local, c = (rng.normal(size=50).astype(np.float32) for _ in range(3))
    gradient = rng.normal(size=50).astype(np.float32)
    terms = libfl.LocalTerms(50, mu=.3)
    terms.begin(w)
    got = gradient.copy()
    terms.correct(got, local)
    close(got, gradient + np.float32(.3) * (local.astype(np.float64) - w))
    assert not terms.end(local, 7, .1).any()
    terms = libfl.LocalTerms(50)
    own = np.zeros(50)
    for _ in range(2):
        terms.begin(w, c)
        got = gradient.copy()
        terms.correct(got, local)
        close(got, gradient - own + c)
        change = (w.astype(np.float64) - local) / (7 * np.float32(.1)) - c
        close(terms.end(local, 7, .1), change)
        own = own + change
    state = terms.save()
    again = libfl.LocalTerms(50, state=state)
    again.begin(w, c)
    got = gradient.copy()
    again.correct(got, local)
    close(got, gradient - own + c)


def test_a_strategy_of_ones_own_combines_and_optimises():
    updates = updates_of(5)
    host = libfl.HostStrategy(lambda rows: np.max(rows, 0),
                              lambda d, w: -.5 * d - w)
    weights, _ = stepped(host, updates)
    close(weights, -.5 * np.max(updates, 0))
    weights, _ = stepped(libfl.HostStrategy(lambda rows: rows[0], rate=2.),
                         updates)
    close(weights, np.linspace(-1, 1, N) + 2. * updates[0])


def test_a_failing_strategy_leaves_the_model():
    def fail(_rows):
        raise KeyError("mine")

    updates = updates_of(3)
    for host, error in ((libfl.HostStrategy(fail), KeyError),
                        (libfl.HostStrategy(lambda r: r[0] * np.nan),
                         libfl.NotFiniteError),
                        (libfl.HostStrategy(lambda r: r[0][:-1]), ValueError),
                        (libfl.HostStrategy(optimise=lambda d, w: d * np.inf),
                         libfl.NotFiniteError)):
        weights = np.ones(N, np.float32)
        with pytest.raises(error):
            libfl.Strategy(host, N).step(weights, updates)
        assert (weights == 1).all()


def test_gate_refuses_what_is_worse_and_keeps_the_state():
    losses = iter([1., 5., np.nan, 1.05])
    weights = np.zeros(N, np.float32)
    strategy = libfl.Strategy(libfl.FedAvgM(score=lambda w: next(losses)), N)
    updates = updates_of(3)
    strategy.step(weights, updates)
    before, state = weights.copy(), strategy.save()
    for _ in range(2):
        with pytest.raises(libfl.LimitError):
            strategy.step(weights, updates)
        assert (weights == before).all()
        assert strategy.save() == state
    strategy.step(weights, updates)
    assert strategy.report.gate_loss == 1.05
    assert strategy.report.steps == 2


@pytest.mark.parametrize("options", [
    libfl.FedAvgM(), libfl.FedAdam(bias_correction=True), libfl.FedYogi(),
    libfl.FedAdagrad(), libfl.Median(momentum=.5),
    libfl.FedAvg(clip=1., clip_adapts=True), libfl.Scaffold()])
def test_a_saved_strategy_goes_on_as_if_nothing_had_been(options):
    updates = updates_of(5)
    given = {"controls": updates} if isinstance(options,
                                                libfl.Scaffold) else {}
    want, _ = stepped(options, updates, 4, **given)
    weights, strategy = stepped(options, updates, 2, **given)
    again = libfl.Strategy(options, N, state=strategy.save())
    for _ in range(2):
        again.step(weights, updates, **given)
    assert weights.tobytes() == want.tobytes()


def test_state_of_another_strategy_is_refused():
    _, strategy = stepped(libfl.FedAdam(), updates_of(3))
    state = strategy.save()
    with pytest.raises(libfl.SchemaError):
        libfl.Strategy(libfl.FedYogi(), N, state=state)
    with pytest.raises(libfl.DimError):
        libfl.Strategy(libfl.FedAdam(), N - 1, state=state)
    for at in range(0, len(state), 997):
        with pytest.raises(libfl.FlError):
            libfl.Strategy(libfl.FedAdam(), N, state=state[:at])


def test_what_cannot_be_is_refused():
    updates = updates_of(4)
    for options, given, error in (
            (libfl.FedAvg(rate=-1.), {}, libfl.OptionsError),
            (libfl.TrimmedMean(trim=.5), {}, libfl.OptionsError),
            (libfl.FedAdam(momentum=.5), {}, libfl.ConflictError),
            (libfl.FedAvg(clip_adapts=True), {}, libfl.ConflictError),
            (libfl.Krum(), {}, libfl.RangeError),
            (libfl.FedNova(), {}, libfl.ArgumentError),
            (libfl.FedNova(), {"steps": [1, 0, 1, 1]}, libfl.ArgumentError),
            (libfl.QFedAvg(), {"losses": [1., 1., np.nan, 1.]},
             libfl.RangeError),
            (libfl.Scaffold(), {}, libfl.ArgumentError),
            (libfl.FedAvg(), {"samples": [1, 0, 1, 1]}, libfl.ArgumentError)):
        with pytest.raises(error):
            stepped(options, updates, **given)
    with pytest.raises(TypeError):
        libfl.FedAvg(rates=1.)
    with pytest.raises(libfl.EmptyError):
        libfl.Strategy(libfl.FedAvg(), N).step(np.zeros(N, np.float32), [])
    updates[2][N - 1] = np.inf
    for options in (libfl.FedAvg(), libfl.Median(), libfl.Krum(byzantine=0),
                    libfl.GeometricMedian(), libfl.FedAvg(clip=1.)):
        with pytest.raises(libfl.NotFiniteError):
            stepped(options, updates)


# ---- what they are for ----


def clients_of(count, skew, seed=0, n=20):
    """Least squares on data whose optimum and inputs differ from client to
    client by `skew`; returns clients and the optimum of all of them."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n)
    clients = []
    for _ in range(count):
        x = rng.normal(size=(40, n)) * np.exp(skew * rng.normal(size=n) / 2)
        clients.append((x, x @ (truth + skew * rng.normal(size=n))))
    a = sum(x.T @ x / len(x) for x, _ in clients)
    b = sum(x.T @ y / len(x) for x, y in clients)
    return clients, np.linalg.solve(a, b)


def loss_of(clients, w):
    return np.mean([np.mean((x @ w - y) ** 2) / 2 for x, y in clients])


def train(client, w, steps, rate, terms=None):
    x, y = client
    local = w.astype(np.float32).copy()
    for _ in range(steps):
        gradient = (x.T @ (x @ local - y) / len(x)).astype(np.float32)
        if terms is not None:
            terms.correct(gradient, local)
        local -= np.float32(rate) * gradient
    return local


def run(options, clients, rounds, steps=10, rate=.02, mu=0., is_scaffold=False,
        flipped=0):
    n = clients[0][0].shape[1]
    w = np.zeros(n, np.float32)
    strategy = libfl.Strategy(options, n)
    terms = [libfl.LocalTerms(n, mu=mu) for _ in clients]
    for _ in range(rounds):
        updates, changes = [], []
        for k, client in enumerate(clients):
            terms[k].begin(w, strategy.control if is_scaffold else None)
            counts = steps if isinstance(steps, int) else steps[k]
            local = train(client, w, counts, rate, terms[k])
            changes.append(terms[k].end(local, counts, rate))
            updates.append((local - w) * (-4 if k < flipped else 1))
        strategy.step(
            w, updates, steps=[steps] * len(clients)
            if isinstance(steps, int) else steps,
            losses=[loss_of([client], w) for client in clients],
            controls=changes)
    return w


@pytest.mark.parametrize("options", [
    libfl.FedAvg(), libfl.FedAvgM(rate=.2), libfl.FedAdam(rate=.05),
    libfl.FedYogi(rate=.05), libfl.FedAdagrad(rate=.2), libfl.FedNova(),
    libfl.QFedAvg(fairness=.2, client_rate=.02), libfl.Median(),
    libfl.TrimmedMean(), libfl.MultiKrum(), libfl.GeometricMedian()])
def test_training_converges_under_skew(options):
    clients, best = clients_of(10, .3)
    least, begin = loss_of(clients, best), loss_of(clients, best * 0)
    w = run(options, clients, 120)
    assert loss_of(clients, w) - least < .1 * (begin - least)


def test_large_prox_keeps_clients_at_home():
    clients, _ = clients_of(5, .5)
    far = [np.linalg.norm(run(libfl.FedProx(), clients, 1, mu=mu, rate=.01))
           for mu in (0., 1., 10., 90.)]
    assert far == sorted(far, reverse=True)
    assert far[-1] < .2 * far[0]


def test_scaffold_takes_the_drift_out_where_fedavg_stays_off():
    clients, best = clients_of(8, .8)
    least = loss_of(clients, best)
    drift = [loss_of(clients, run(options, clients, 120, steps=20, rate=.005,
                                  is_scaffold=isinstance(options,
                                                         libfl.Scaffold)))
             - least for options in (libfl.FedAvg(), libfl.Scaffold())]
    assert drift[1] < .1 * drift[0]


def test_fednova_finds_the_optimum_that_unequal_steps_hide():
    clients, best = clients_of(8, .8)
    steps = [1, 1, 1, 1, 40, 40, 40, 40]
    least = loss_of(clients, best)
    drift = [loss_of(clients, run(options, clients, 150, steps=steps,
                                  rate=.004)) - least
             for options in (libfl.FedAvg(), libfl.FedNova())]
    assert drift[1] < .3 * drift[0]


def test_q_fedavg_raises_the_floor():
    clients, _ = clients_of(10, .8, seed=4)
    clients[0] = (clients[0][0], clients[0][1] * 3)
    worst = []
    for q in (0, 2):
        w = run(libfl.QFedAvg(fairness=q, client_rate=.01), clients, 100,
                rate=.01)
        worst.append(max(loss_of([client], w) for client in clients))
    assert worst[1] < .8 * worst[0]


@pytest.mark.parametrize("options", [
    libfl.Median(), libfl.TrimmedMean(trim=.3), libfl.Krum(byzantine=2),
    libfl.MultiKrum(byzantine=2), libfl.GeometricMedian(passes=8)])
def test_robust_rules_stand_a_fifth_of_sign_flips(options):
    clients, best = clients_of(10, .1)
    honest = clients[2:]
    begin = loss_of(honest, best * 0)
    w = run(options, clients, 60, flipped=2)
    assert loss_of(honest, w) < .1 * begin
    broken = run(libfl.FedAvg(), clients, 60, flipped=2)
    assert not loss_of(honest, broken) < .5 * begin
