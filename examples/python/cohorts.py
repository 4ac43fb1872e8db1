# SPDX-License-Identifier: Apache-2.0
"""Four groups of 50 clients share ten clouds of points and name them in four
ways: no model suits all. CohortSet finds the groups; each gets a model."""
import numpy as np
import libfl as fl

N, GROUPS, DIM, ROUNDS = 200, 4, 16, 120
rng = np.random.default_rng(1)
centres = 1.5 * rng.standard_normal((10, DIM))
names = [rng.permutation(10).astype(np.int32) for _ in range(GROUPS)]


def draw(client, n):
    kinds = rng.integers(0, 10, n)
    x = centres[kinds] + rng.standard_normal((n, DIM))
    return np.float32(x), names[client % GROUPS][kinds]


def score(model, data):
    net.weights = models[model]
    return net.evaluate(*data)


def visit(slot, t):
    """A client's round; return the model it trained, and the update."""
    route = cohorts.route(slot, t)
    loss = score(route.cohort, train[slot]).loss
    route = cohorts.route(slot, t, loss) if loss > route.limit else route
    told = {model: score(model, train[slot]).loss for model in route.probes}
    best = min(told, key=told.get) if route.chooses else route.cohort
    net.weights = models[best]
    net.fit(*train[slot], batch_size=10, epochs=2, learning_rate=0.05)
    update = net.weights - models[best]
    cohorts.report(slot, best, t, loss=told.get(best, loss), probes=told,
                   sketch=sketcher(update))
    return best, update


train, test = [[draw(i, 50) for i in range(N)] for _ in range(2)]
net = fl.Model([fl.Input((DIM,)), fl.Dense(10), fl.CrossEntropy()], seed=1)
models = {0: net.copy_weights()}
cohorts, sketcher = fl.CohortSet(seed=1), fl.Sketcher(models[0].size, seed=1)
slots = [cohorts.join(client) for client in range(N)]
for t in range(1, ROUNDS + 1):
    visits = [visit(int(i), t) for i in rng.choice(slots, 40, replace=False)]
    for model in models:
        updates = [update for best, update in visits if best == model]
        models[model] += sum(updates) / np.float32(max(len(updates), 1))
        cohorts.end_round(model, t)
    for event in cohorts.decide():
        print(f"round {t}: {event.kind.name} {event.cohort} {event.child}")
        models.setdefault(event.child, models[event.cohort].copy())
        if event.kind.name in ("UNDONE", "MERGED", "MOVED"):
            change = models.pop(event.child) - models[event.cohort]
            if event.kind.name != "MOVED":
                both = max(event.weight + event.child_weight, 1)
                models[event.cohort] += event.child_weight / both * change
right = [score(cohorts.member(i).cohort, test[i]).accuracy for i in slots]
print(f"{len(models)} models, accuracy {np.mean(right):.1%}, "
      f"worst 10 % {np.mean(sorted(right)[:N // 10]):.1%}")
