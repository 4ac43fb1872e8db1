# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C: a real SIGINT to a real process in the middle of long work."""
import gc
import os
import signal
import subprocess
import sys
import threading
import weakref

import pytest

from libfl import _interrupt

PRELUDE = """
import sys
import numpy as np
import libfl as fl
x = np.random.default_rng(0).standard_normal((256, 64)).astype(np.float32)
y = (x[:, 0] > 0).astype(np.int32)
def model(context=None):
    return fl.Model([fl.Input((64,)), fl.Dense(64), fl.ReLU(), fl.Dense(2),
                     fl.SoftmaxCrossEntropy()], seed=1, context=context)
"""

FIT = PRELUDE + """
context = fl.Context()
m = model(context)
start = m.copy_weights()
def told(progress):
    if progress.step == 50:
        print("training", flush=True)
try:
    m.fit(x, y, epochs=10**8, progress=told, progress_every=50)
except KeyboardInterrupt:
    assert np.isfinite(m.weights).all() and (m.weights != start).any()
    m.fit(x, y)  # usable as before
    m.close()
    assert context.memory == 0
    print("interrupted")
    sys.exit(7)
"""

# Nobody listens to progress: the call never comes back to Python by itself.
SILENT = PRELUDE + """
import threading
m = model()
threading.Timer(0.3, print, ["training"], {"flush": True}).start()
try:
    m.fit(x, y, epochs=10**8, progress=False)
except KeyboardInterrupt:
    print("interrupted")
    sys.exit(7)
"""

# Batches and gradients come to Python in the middle of the fit.
PULLED = PRELUDE + """
import itertools
context = fl.Context()
m = model(context)
def batches():
    for i in itertools.count():
        if i == 50:
            print("training", flush=True)
        yield x[:32], y[:32]
def halve(gradient, weights):
    gradient *= 0.5
m.gradient_hook = halve
try:
    m.fit_batches(batches())
except KeyboardInterrupt:
    assert np.isfinite(m.weights).all()
    m.fit(x, y)
    m.gradient_hook = None
    m.close()
# Only now: the traceback may hold the hook's own view of the weights.
assert context.memory == 0
print("interrupted")
sys.exit(7)
"""

# In a trainer: through the callback, C code, and out of Loopback.run.
TRAINER = PRELUDE + """
def train(task):
    print("training", flush=True)
    m = model()
    m.fit(x, y, epochs=10**8, progress=False)
server = fl.Server()
server.add_job(model(), rounds=1)
client = fl.Client("slow", train=train)
try:
    fl.Loopback(server, [client]).run()
except KeyboardInterrupt:
    print("interrupted")
    sys.exit(7)
"""


def interrupt(program):
    """Run a program, send SIGINT once it trains, return what it said."""
    # A shell's background jobs ignore SIGINT, and hand that down.
    process = subprocess.Popen(
        [sys.executable, "-c", program], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=dict(os.environ),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    try:
        first = process.stdout.readline()
        assert first == "training\n", process.stderr.read()
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, error


def test_ctrl_c_stops_fit_and_leaves_the_model_usable():
    assert interrupt(FIT) == (7, "interrupted\n", "")


def test_ctrl_c_stops_fit_without_progress():
    assert interrupt(SILENT) == (7, "interrupted\n", "")


def test_ctrl_c_stops_a_fit_that_calls_python_back():
    assert interrupt(PULLED) == (7, "interrupted\n", "")


def test_ctrl_c_comes_through_a_trainer_callback():
    assert interrupt(TRAINER) == (7, "interrupted\n", "")


def test_what_came_in_while_the_call_was_stopped_is_dropped():
    reported = []
    stopped = threading.Event()

    def call(report):
        for _ in range(3):
            value = type("Value", (), {})()
            reported.append(weakref.ref(value))
            report(value)
            del value
        assert stopped.wait(60)

    def look(value):
        del value
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        _interrupt.run(call, stopped.set, look)
    gc.collect()
    assert caught.value.__traceback__ is not None
    assert len(reported) == 3 and not any(ref() for ref in reported)
