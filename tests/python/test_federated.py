# SPDX-License-Identifier: Apache-2.0
"""Client and Server against each other, in one process, to the end."""
import dataclasses

import numpy as np
import pytest

import libfl as fl
from libfl import ClientEventKind as Client
from libfl import ServerEventKind as Event

SECOND = 1_000_000_000


@pytest.fixture
def trainers(mlp, blobs):
    """Return a function that makes n trainers on data of their own."""
    def make(n, context=None):
        return [fl.LocalTrainer(mlp(context=context),
                                *blobs(60 + 20 * i, seed=i))
                for i in range(n)]
    return make


def clients_of(trainers, context=None, **options):
    return [fl.Client(f"client-{i}", samples=len(trainer.y),
                      train=trainer.train, evaluate=trainer.evaluate,
                      context=context, **options)
            for i, trainer in enumerate(trainers)]


def rates_of(mlp, **options):
    """The rate that each round's plan names."""
    rates = []

    def train(task):
        rates.append(task.learning_rate)
        return fl.TrainResult(
            update=np.zeros(task.weights.size, np.float32), loss=1.0)

    with mlp() as model, fl.Server() as server:
        server.add_job(model, learning_rate=0.5, **options)
        fl.Loopback(server, [fl.Client("one", samples=9, train=train)]).run()
    return rates


def test_the_clients_rate_follows_its_schedule(mlp):
    assert rates_of(mlp, rounds=2) == [0.5, 0.5]
    assert rates_of(mlp, rounds=3, schedule=fl.Cosine(2, factor=0)) == (
        pytest.approx([0.5, 0.25, 0.0]))
    assert rates_of(mlp, rounds=3, schedule=fl.Step(1, factor=0.5)) == [
        0.5, 0.25, 0.125]
    assert rates_of(mlp, rounds=2, schedule=fl.Constant(warmup=2)) == [
        0.25, 0.5]
    with pytest.raises(TypeError, match="schedule"):
        rates_of(mlp, schedule="cosine")


def lazy(weight):
    """A trainer that adds a constant."""
    return lambda task: fl.TrainResult(
        update=np.full(task.weights.size, weight, np.float32), loss=weight)


@pytest.mark.parametrize("codec", ["f32", "bf16", "thc"])
def test_training_runs_to_the_end_with_every_codec(context, mlp, blobs,
                                                   trainers, codec):
    with mlp(context=context) as model, fl.Server(context=context) as server:
        before = model.evaluate(*blobs(300, seed=99)).accuracy
        job = server.add_job(model, rounds=4, codec=codec, seed=5,
                             min_clients=3, evaluate_every=2,
                             learning_rate=0.1)
        made = trainers(3, context)
        clients = clients_of(made, context)
        loop = fl.Loopback(server, clients)
        events = list(loop.events())
        kinds = [event.kind for event in events]
        assert kinds.count(Event.CLIENT_JOINED) == 3
        assert kinds.count(Event.ROUND_FINISHED) == 4
        assert kinds.count(Event.UPDATE_ACCEPTED) == 12
        assert kinds.count(Event.EVALUATED) == 2
        assert kinds.count(Event.JOB_FINISHED) == 1
        assert Event.PEER_REJECTED not in kinds
        assert {end.kind for end in loop.ends.values()} == {Client.DONE}
        weights, version = job.copy_weights()
        for client in clients:
            held, at = client.copy_weights(model.weight_count)
            assert at == version == 4
            assert (held == weights).all()
        model.weights = weights
        after = model.evaluate(*blobs(300, seed=99)).accuracy
        assert after > 0.9 > before
        status = job.status
        assert status.is_finished and status.rounds == 4
        assert loop.bytes_up > 0 and loop.bytes_down > 0
        for client in clients:
            client.close()
        for trainer in made:
            trainer.model.close()


def test_one_f32_round_is_the_weighted_mean(mlp):
    with mlp() as model, fl.Server() as server:
        start = model.copy_weights()
        job = server.add_job(model, rounds=1, codec="f32", min_clients=3,
                             weight_cap=1000)
        clients = [fl.Client(f"c{i}", samples=i + 1, train=lazy(i))
                   for i in range(3)]
        finished = []
        fl.Loopback(server, clients).run(
            lambda event: finished.append(event)
            if event.kind == Event.ROUND_FINISHED else None)
        mean = (1 * 0 + 2 * 1 + 3 * 2) / 6
        assert np.allclose(job.copy_weights()[0], start + mean, atol=1e-5)
        assert finished[0].accepted == finished[0].selected == 3
        assert finished[0].round == 1


def test_same_inputs_same_bytes(mlp, trainers):
    def run():
        with mlp() as model, fl.Server() as server:
            job = server.add_job(model, rounds=2, seed=11, min_clients=2)
            clients = [fl.Client(f"c{i}", train=lazy(i + 1.0))
                       for i in range(2)]
            loop = fl.Loopback(server, clients)
            loop.run()
            return (job.copy_weights()[0].tobytes(), loop.bytes_up,
                    loop.bytes_down)

    assert run() == run()


def test_event_loop_without_callbacks(mlp):
    with mlp() as model, fl.Server() as server:
        server.add_job(model, rounds=1, evaluate_every=1, codec="f32")
        client = fl.Client("by hand", samples=10)
        seen, now = [], 0
        while Client.DONE not in seen and now < 100 * SECOND:
            now += SECOND
            data = client.send()
            if data:
                server.recv(7, data)
            server.tick(now)
            for peer in server.ready():
                assert peer == 7
                data = server.send(peer)
                while data:
                    client.recv(data)
                    data = server.send(peer)
            event = client.poll(now)
            while event.kind not in (Client.IDLE, Client.WAIT, Client.DONE):
                seen.append(event.kind)
                if event.kind == Client.JOINED:
                    assert client.description == model.description
                elif event.kind == Client.NEED_TRAIN:
                    assert (event.task.weights == model.weights).all()
                    assert event.task.round == 1 and event.task.epochs == 1
                    client.submit(event.task.weights + 1)
                elif event.kind == Client.NEED_EVALUATE:
                    client.submit_score(fl.Score(0.5, 9, 10))
                event = client.poll(now)
            seen.append(event.kind)
        assert Client.NEED_TRAIN in seen and Client.NEED_EVALUATE in seen
        scores = [e for e in server.events() if e.kind == Event.EVALUATED]
        assert [(e.correct, e.count, e.loss) for e in scores] == [(9, 10, .5)]
        weights, _ = server.jobs[0].copy_weights()
        assert np.allclose(weights, model.weights + 1, atol=1e-5)


def test_what_a_trainer_raises_comes_out_of_poll(mlp):
    class Broken(Exception):
        pass

    def train(task):
        raise Broken("no data today")

    with mlp() as model, fl.Server() as server:
        server.add_job(model, rounds=1)
        with pytest.raises(Broken, match="no data today"):
            fl.Loopback(server, [fl.Client("c", train=train)]).run()


def test_a_trainer_that_fails_does_not_stop_the_others(mlp):
    def train(task):
        raise RuntimeError("broken once")

    with mlp() as model, fl.Server() as server:
        server.add_job(model, rounds=1, min_clients=2)
        loop = fl.Loopback(server, [fl.Client("bad", train=train),
                                    fl.Client("good", train=lazy(1))])
        with pytest.raises(RuntimeError, match="broken once"):
            loop.run()
        events = list(loop.events())
        lost = [e for e in events if e.kind == Event.CLIENT_LOST]
        assert [(e.client_id, e.reason) for e in lost] == [
            ("bad", fl.RejectReason.DECLINED)]
        assert events[-1].kind == Event.JOB_FINISHED


def test_declining_is_no_exception(mlp):
    def train(task):
        raise fl.Declined

    with mlp() as model, fl.Server() as server:
        server.add_job(model, rounds=1, min_clients=2)
        lost = []
        fl.Loopback(server, [fl.Client("bad", train=train),
                             fl.Client("good", train=lazy(1))]).run(
            lambda e: e.kind == Event.CLIENT_LOST and lost.append(e))
        assert [e.client_id for e in lost] == ["bad"]
        assert lost[0].reason.text == "the client declined"


@pytest.mark.parametrize("result, error", [
    (fl.TrainResult(), "exactly one of"),
    (fl.TrainResult(np.ones(2), np.ones(2)), "exactly one of"),
    ("weights", "weights: got dtype")])
def test_wrong_results_of_a_trainer_are_told(mlp, result, error):
    with mlp() as model, fl.Server() as server:
        server.add_job(model, rounds=1)
        client = fl.Client("c", train=lambda task: result)
        with pytest.raises((ValueError, TypeError), match=error):
            fl.Loopback(server, [client]).run()


def test_a_model_of_another_schema_is_rejected(mlp):
    with mlp() as model, fl.Model([fl.Tensor("w", [3])]) as other, \
            fl.Server() as server:
        server.add_job(model, rounds=1)
        client = fl.Client("c", model=other, train=lazy(1))
        loop = fl.Loopback(server, [client])
        events = list(loop.events())
        assert [(e.kind, e.reason) for e in events] == [
            (Event.PEER_REJECTED, fl.RejectReason.SCHEMA)]
        assert loop.ends[0].kind == Client.ABORTED
        assert loop.ends[0].reason == fl.RejectReason.SCHEMA
        assert loop.ends[0].text
        assert server.wants_close(0) or not list(server.ready())
        assert not server.has_unsent(0)


def test_garbage_is_an_event_not_an_exception(mlp):
    with mlp() as model, fl.Server() as server:
        server.add_job(model)
        server.recv(3, b"GET / HTTP/1.1\r\n\r\n")
        event = server.poll()
        assert event.kind == Event.PEER_REJECTED and event.peer == 3
        assert event.text
        assert server.poll() is None


def test_client_refuses_bytes_of_no_server():
    with fl.Client("c") as client:
        with pytest.raises(fl.PeerDataError):
            client.recv(b"HTTP/1.1 404 Not Found\r\n\r\n" * 4)
        client.disconnected()


def test_saved_server_and_client_go_on(context, mlp):
    trained = []

    def train(task):
        trained.append(task.round)
        return task.weights + 1

    with mlp() as model:
        server = fl.Server(context=context)
        server.add_job(model, rounds=3, codec="f32", name="job")
        client = fl.Client("c", job="job", train=train, context=context)
        loop = fl.Loopback(server, [client])
        for event in loop.events():
            if event.kind == Event.ROUND_FINISHED:
                break
        states = server.save(), client.save()
        server.close()
        client.close()
        with fl.Server(state=states[0], context=context) as server, \
                fl.Client("c", job="job", train=train, state=states[1],
                          context=context) as client:
            fl.Loopback(server, [client]).run()
            weights, version = server.jobs[0].copy_weights()
            assert version == 3 and server.jobs[0].status.is_finished
            assert np.allclose(weights, model.weights + 3, atol=1e-4)
        assert sorted(set(trained)) == [1, 2, 3]
        for kind, state in ((fl.Server, states[0]),
                            (lambda state: fl.Client("c", job="job",
                                                     state=state),
                             states[1])):
            for bad in (b"", state[:-1], state[:20], bytes(len(state))):
                with pytest.raises(fl.PeerDataError):
                    kind(state=bad)
        with pytest.raises(fl.ConflictError):
            fl.Client("somebody else", job="job", state=states[1])


def test_jobs_of_one_server(mlp):
    with mlp() as model, fl.Model([fl.Tensor("w", [9])]) as small, \
            fl.Server() as server:
        first = server.add_job(model, rounds=1)
        second = server.add_job(small, name="second", rounds=2,
                                codec=fl.CodecOptions("thc", bits=8))
        assert [job.number for job in server.jobs] == [0, 1]
        with pytest.raises(fl.ArgumentError):
            server.add_job(small, name="second")
        fl.Loopback(server, [fl.Client("c", job="second", train=lazy(1)),
                             fl.Client("c", train=lazy(1))]).run()
        assert first.status.is_finished and second.status.is_finished
        assert second.copy_weights()[1] == 2
        assert "is_finished=True" in repr(second)


def test_stopped_jobs_finish_early(mlp):
    with mlp() as model, fl.Server() as server:
        job = server.add_job(model, rounds=1000)
        client = fl.Client("c", train=lazy(0))
        for event in fl.Loopback(server, [client]).events():
            if event.kind == Event.ROUND_FINISHED and event.round == 2:
                job.stop()
        assert job.status.is_finished and job.copy_weights()[1] <= 3


def test_a_paused_job_goes_on_and_an_aborted_round_is_tried_again(mlp):
    with mlp() as model, fl.Server() as server:
        job = server.add_job(model, rounds=3, retry_pause=0)
        client = fl.Client("c", train=lazy(0))
        loop = fl.Loopback(server, [client])
        kinds = []
        job.pause()
        with pytest.raises(fl.StateError):
            job.abort_round()
        assert job.status.is_paused
        job.resume()
        for event in loop.events():
            kinds.append(event.kind)
            if event.kind == Event.ROUND_STARTED and \
                    kinds.count(Event.ROUND_ABORTED) == 0:
                job.abort_round()
        assert kinds.count(Event.ROUND_ABORTED) == 1
        assert job.status.is_finished and job.copy_weights()[1] == 3
        assert not job.status.is_paused
        with pytest.raises(fl.StateError):
            job.pause()


def test_settings_are_checked(mlp):
    with mlp() as model, fl.Server() as server:
        with pytest.raises(ValueError, match="update_deadline: got -1"):
            server.add_job(model, update_deadline=-1)
        with pytest.raises(fl.CallerError):
            server.add_job(model, server_momentum=1.5)
        with pytest.raises(fl.CallerError):
            server.add_job(model, codec="f32",
                           scale_mode=fl.ScaleMode.PUBLIC)
        with pytest.raises(fl.CallerError):
            server.add_job(model, rounds=0)
    for wrong in ("", "x" * 65, "umlaut \u00e4"):
        with pytest.raises(fl.CallerError):
            fl.Client(wrong)
    with pytest.raises(fl.CallerError):
        fl.Client("c", samples=0)
    with pytest.raises(fl.CallerError):
        fl.Server(chunk_size=1)


def test_momentum_public_scales_and_selection(mlp):
    with mlp() as model, fl.Server() as server:
        job = server.add_job(
            model, rounds=5, participants=2, min_participants=2,
            min_clients=4, over_selection=1.5, seed=3, server_momentum=0.5,
            weighting=fl.Weighting.UNIFORM, scale_mode=fl.ScaleMode.PUBLIC,
            codec=fl.CodecOptions("thc", bits=8))
        clients = [fl.Client(f"c{i}", train=lazy(0.1 * (i + 1)))
                   for i in range(4)]
        events = list(fl.Loopback(server, clients).events())
        rounds = [e for e in events if e.kind == Event.ROUND_FINISHED]
        assert [e.accepted for e in rounds] == [2] * 5
        assert {e.selected for e in events
                if e.kind == Event.ROUND_STARTED} == {3}
        held = [c.copy_weights(model.weight_count)[0] for c in clients]
        assert all((h == job.copy_weights()[0]).all() for h in held)
        assert (job.copy_weights()[0] > model.weights).all()


def test_timers():
    with fl.Client("c", retry=2.0, max_retries=3) as client:
        assert client.send()
        assert client.poll(0).kind == Client.IDLE
        now = client.next_timeout()
        assert now == 2 * SECOND
        event = client.poll(now)
        while event.kind != Client.ABORTED:
            client.send()
            now = client.next_timeout()
            assert now < 1000 * SECOND
            event = client.poll(now)
        assert event.reason == fl.RejectReason.NO_ANSWER
    with fl.Server() as server:
        assert server.next_timeout() is None


def test_empty_before_anything_came():
    with fl.Client("c") as client:
        with pytest.raises(fl.EmptyError):
            client.description
        with pytest.raises(fl.EmptyError):
            client.copy_weights(3)
        with pytest.raises(fl.NotAllowedError):
            client.submit(np.ones(3))
        with pytest.raises(fl.NotAllowedError):
            client.decline()


def test_events_are_plain_values(mlp):
    with mlp() as model, fl.Server() as server:
        server.add_job(model, rounds=1)
        loop = fl.Loopback(server, [fl.Client("c", train=lazy(1))])
        event = next(loop.events())
        assert dataclasses.is_dataclass(event)
        assert event.client_id == "c" and event.peer == 0
        assert event == dataclasses.replace(event, loss=event.loss)


def test_loopback_needs_trainers(mlp):
    with mlp() as model, fl.Server() as server:
        server.add_job(model, rounds=1)
        with pytest.raises(RuntimeError, match="needs train"):
            fl.Loopback(server, [fl.Client("c")]).run()


def test_loopback_says_when_nothing_can_happen(mlp):
    with mlp() as model, fl.Server() as server:
        server.add_job(model, min_clients=5)
        with pytest.raises(RuntimeError, match="nobody has anything to say"):
            fl.Loopback(server, [fl.Client("c", train=lazy(1))]).run()
