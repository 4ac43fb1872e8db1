# SPDX-License-Identifier: Apache-2.0
"""Feedback against numpy's sums, and jobs whose clients have it."""
import numpy as np
import pytest

import libfl as fl

SIZES = [300, 5000]


@pytest.fixture
def compressor(context):
    with fl.Compressor(SIZES, fl.CodecOptions("thc", bits=2),
                       context=context) as made:
        yield made


def one_round(feedback, x, rng, number):
    """Measure and encode as the only worker; what decoding gives."""
    scale = fl.Scale(round=number, noise_seed=rng.bytes(32))
    scale.norms = feedback.measure(x, scale)
    assert (scale.norms == feedback.norms).all()
    return feedback.encode(scale), scale


def draw(rng):
    return rng.standard_normal(sum(SIZES)).astype(np.float32)


def test_what_is_sent_adds_up_to_what_was_given(compressor, rng):
    given = np.zeros(compressor.dim)
    sent = np.zeros(compressor.dim)
    with fl.Feedback(compressor) as feedback:
        for number in range(20):
            x = draw(rng)
            data, scale = one_round(feedback, x, rng, number)
            feedback.settle(True)
            given += x
            sent += compressor.decode(data, scale)
        assert np.allclose(given, sent + feedback.memory, atol=1e-2)
        # Two bits alone would be off by far more.
        assert (np.linalg.norm(given - sent)
                < 0.25 * np.linalg.norm(given))


def test_decay_of_what_was_not_counted(compressor, rng):
    x = draw(rng)
    with fl.Feedback(compressor, decay=0.25) as feedback:
        feedback.measure(x)
        feedback.settle(False)
        assert (feedback.memory == x * np.float32(0.25)).all()
        one_round(feedback, x, rng, 1)
        feedback.settle([False, False])
        assert np.allclose(feedback.memory, x * 0.3125)


def test_segments_are_settled_one_by_one(compressor, rng):
    x = draw(rng)
    with fl.Feedback(compressor) as feedback:
        data, scale = one_round(feedback, x, rng, 1)
        feedback.settle(np.array([False, True]))
        lost = x - compressor.decode(data, scale)
        assert (feedback.memory[:300] == x[:300] / 2).all()
        assert np.allclose(feedback.memory[300:], lost[300:], atol=1e-3)


def test_only_truth_values_settle(compressor, rng):
    x = draw(rng)
    with fl.Feedback(compressor) as feedback:
        feedback.measure(x)
        for bad in (None, "no", 1, 0.0, [1, 0], ["True", "False"],
                    [[True, False]], [], {}):
            with pytest.raises(TypeError):
                feedback.settle(bad)
        assert feedback.phase == fl.FeedbackPhase.MEASURED
        for good in (np.bool_(False), (False, False), np.zeros(2, bool)):
            feedback.settle(good)
            feedback.measure(x)


def test_phases(compressor, rng):
    x = draw(rng)
    with fl.Feedback(compressor) as feedback:
        assert feedback.phase == fl.FeedbackPhase.IDLE
        with pytest.raises(fl.NotAllowedError):
            feedback.settle(True)
        with pytest.raises(fl.NotAllowedError):
            feedback.norms
        norms = feedback.measure(x)
        assert feedback.phase == fl.FeedbackPhase.MEASURED
        with pytest.raises(fl.NotAllowedError):
            feedback.measure(x)
        scale = fl.Scale(norms=norms)
        encoded, report = feedback.encode_with_report(scale)
        assert encoded == compressor.encode(x, scale)
        assert report.clamped == report.block_clamped.sum()
        assert feedback.phase == fl.FeedbackPhase.ENCODED
        feedback.withdraw(x)
        assert feedback.phase == fl.FeedbackPhase.IDLE
        assert abs(feedback.memory).max() < 1e-6
        feedback.measure(x)
        feedback.reset()
        assert not feedback.memory.any()


def test_samples_are_those_of_the_measurement(compressor, rng):
    x = draw(rng)
    scale = fl.Scale(weight_cap=8)
    with fl.Feedback(compressor) as feedback:
        scale.norms = feedback.measure(x, scale, samples=2)
        assert np.allclose(feedback.memory, x / 4)
        data = feedback.encode(scale, segments=[True, False])
        with compressor.partial(scale) as total:
            assert total.peek(data) == (0, 2)
        scale.weight_cap = 9
        with pytest.raises(fl.ConflictError):
            feedback.encode(scale)


def test_a_saved_state_goes_on(context, compressor, rng):
    x, y = draw(rng), draw(rng)
    with fl.Feedback(compressor) as feedback:
        one_round(feedback, x, rng, 1)
        state = feedback.save()
        with fl.Feedback(compressor, state=state) as again:
            assert again.phase == fl.FeedbackPhase.ENCODED
            for one in (feedback, again):
                one.settle(True)
                one.measure(y)
            assert (again.memory == feedback.memory).all()
    for bad in (b"", state[:-1], state[:20], bytes(len(state))):
        with pytest.raises(fl.PeerDataError):
            fl.Feedback(compressor, state=bad)
    with fl.Compressor(SIZES, "bf16", context=context) as other:
        with pytest.raises(fl.SchemaError):
            fl.Feedback(other, state=state)


def test_arguments_are_checked(compressor, rng):
    x = draw(rng)
    for decay in (-0.1, 1.1, float("nan")):
        with pytest.raises(fl.OptionsError):
            fl.Feedback(compressor, decay=decay)
    with fl.Feedback(compressor) as feedback:
        with pytest.raises(ValueError):
            feedback.measure(x[1:])
        x[7] = np.nan
        with pytest.raises(fl.NotFiniteError):
            feedback.measure(x)
        assert feedback.phase == fl.FeedbackPhase.IDLE
    with pytest.raises(ValueError):
        feedback.reset()


def test_jobs_with_error_feedback_are_nearer_to_the_mean(mlp):
    def distance(error_feedback):
        """Of the model from what training gave, after many rounds."""
        steps = np.random.default_rng(5)
        total = 0

        def train(task):
            nonlocal total
            update = steps.standard_normal(
                task.weights.size).astype(np.float32)
            total = total + update
            return fl.TrainResult(update=update)

        with mlp() as model, fl.Server() as server, \
                fl.Client("c", train=train) as client:
            job = server.add_job(
                model, rounds=24, error_feedback=error_feedback,
                codec=fl.CodecOptions("thc", bits=2))
            fl.Loopback(server, [client]).run()
            gone = job.copy_weights()[0] - model.weights
            return np.linalg.norm(gone - total)

    assert distance(True) < 0.5 * distance(False)


def test_error_feedback_needs_something_lost(mlp):
    with mlp() as model, fl.Server() as server:
        with pytest.raises(fl.ConflictError):
            server.add_job(model, codec="f32", error_feedback=True)
        with pytest.raises(fl.OptionsError):
            server.add_job(model, error_feedback=True, feedback_decay=2.0)
