# SPDX-License-Identifier: Apache-2.0
"""Jobs with a strategy: they learn, with and without clients that lie."""
import numpy as np
import pytest

import libfl as fl
from libfl import ServerEventKind as Event

CLIENTS = 5


def liar(trainer):
    """Send minus five times what was learned."""
    def train(task):
        start = task.weights.copy()
        result = trainer.train(task)
        return fl.TrainResult(update=-5 * (np.asarray(result.weights) - start),
                              samples=result.samples, loss=result.loss)
    return train


def run(mlp, blobs, strategy, *, codec="f32", rounds=5, liars=0, tasks=None,
        **options):
    """Accuracy of the server's model at last, and its events."""
    trainers = [fl.LocalTrainer(mlp(), *blobs(60, seed=i))
                for i in range(CLIENTS)]

    def honest(trainer):
        def train(task):
            if tasks is not None:
                tasks.append(task)
            return trainer.train(task)
        return train

    clients = [fl.Client(f"client-{i}", samples=60, evaluate=t.evaluate,
                         train=liar(t) if i < liars else honest(t))
               for i, t in enumerate(trainers)]
    events = []
    with mlp() as model, fl.Server() as server:
        job = server.add_job(model, rounds=rounds, codec=codec, seed=5,
                             epochs=2, learning_rate=.1, min_clients=CLIENTS,
                             min_participants=CLIENTS, strategy=strategy,
                             **options)
        fl.Loopback(server, clients).run(events.append)
        weights, _ = job.copy_weights()
        model.set_weights(weights)
        return model.evaluate(*blobs(300, seed=99)).accuracy, events


@pytest.mark.parametrize("codec", ["f32", "thc"])
@pytest.mark.parametrize("strategy", [
    fl.FedAvgM(rate=.5, momentum=.5), fl.FedAdam(rate=.05),
    fl.FedYogi(rate=.05), fl.FedAdagrad(rate=.1), fl.FedProx(prox_mu=.1),
    fl.FedNova(), fl.QFedAvg(client_rate=.1, fairness=.1),
    fl.FedAvg(clip=1., clip_adapts=True), fl.TrimmedMean(),
    fl.GeometricMedian(), fl.Scaffold()])
def test_jobs_learn_with_every_strategy(mlp, blobs, strategy, codec):
    accuracy, _ = run(mlp, blobs, strategy, codec=codec)
    assert accuracy > .9


@pytest.mark.parametrize("strategy", [
    fl.Median(), fl.TrimmedMean(), fl.Krum(), fl.MultiKrum(),
    fl.GeometricMedian(passes=8)])
def test_robust_rules_learn_among_a_fifth_of_liars(mlp, blobs, strategy):
    accuracy, _ = run(mlp, blobs, strategy, liars=1)
    assert accuracy > .9
    assert run(mlp, blobs, None, liars=1)[0] < .7


def test_clients_hear_of_prox_and_stay_closer(mlp, blobs):
    tasks = []
    run(mlp, blobs, fl.FedProx(prox_mu=.25), rounds=1, tasks=tasks)
    assert [task.prox_mu for task in tasks] == [.25] * CLIENTS
    trainer = fl.LocalTrainer(mlp(), *blobs(60, seed=0))
    moved = []
    for mu in (0., .25, 20., 0.):
        task = fl.TrainTask(1, 0, 4, 32, .05, 3, mlp().weights.copy(),
                            prox_mu=mu)
        moved.append(np.linalg.norm(trainer.train(task).weights
                                    - task.weights))
    assert moved[0] > moved[1] > 2 * moved[2]
    assert moved[3] == moved[0]


def test_a_rule_in_python_combines_the_rounds_updates(mlp, blobs):
    seen = []

    def combine(updates):
        seen.append(len(updates))
        return np.median(updates, axis=0)

    ours, _ = run(mlp, blobs, fl.HostStrategy(combine), liars=1)
    theirs, _ = run(mlp, blobs, fl.Median(), liars=1)
    assert seen == [CLIENTS] * 5
    assert ours == theirs


def test_a_gate_in_python_refuses_a_step(mlp, blobs):
    losses = iter([1., 9., .9, .8, .7, .6])
    accuracy, events = run(mlp, blobs,
                           fl.FedAvg(score=lambda weights: next(losses)))
    aborted = [event for event in events if event.kind is Event.ROUND_ABORTED]
    assert len(aborted) == 1 and "gate" in aborted[0].text
    assert sum(e.kind is Event.ROUND_FINISHED for e in events) == 5
    assert accuracy > .9


def test_what_excludes_each_other_is_refused(mlp, blobs):
    with mlp() as model, fl.Server() as server:
        for options, error in (
                ({"strategy": fl.FedAdam(), "server_momentum": .5},
                 fl.ConflictError),
                ({"strategy": fl.Median(), "freeze": "gradnorm"},
                 fl.ConflictError),
                ({"strategy": fl.Median(), "error_feedback": True},
                 fl.ConflictError),
                ({"strategy": fl.Krum(byzantine=2)}, fl.ConflictError),
                ({"strategy": fl.Scaffold(), "error_feedback": True,
                  "codec": "thc"}, fl.ConflictError),
                ({"strategy": fl.Scaffold(), "freeze": "gradnorm"},
                 fl.ConflictError),
                ({"strategy": fl.FedAdam(tau=0)}, fl.OptionsError)):
            with pytest.raises(error):
                server.add_job(model, **options)
        assert server.jobs == []
