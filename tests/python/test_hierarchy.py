# SPDX-License-Identifier: Apache-2.0
"""examples/hierarchy with real processes on the loopback interface: eight
edges and a root give the model of one server, and what an edge may not do is
refused with the reason."""
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

import libfl as fl

CLIENTS = 16
PER_EDGE = 2
PATIENCE = 120


class Tree:
    """Processes of a test, in a folder; they end with it."""

    def __init__(self, root, folder):
        self.programs = root / "examples" / "hierarchy"
        self.folder = folder
        self.processes = []

    def start(self, program, *arguments):
        with (self.folder / f"log{len(self.processes)}").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, self.programs / program,
                 *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(os.environ, OPENBLAS_NUM_THREADS="1", no_proxy="*"))
        self.processes.append(process)
        return process

    def nodes(self, all_arguments):
        """Start nodes; return their URLs."""
        files = []
        for arguments in all_arguments:
            files.append(self.folder / f"port{len(self.processes)}")
            self.start("node.py", "--port-file", files[-1], *arguments)
        end = time.monotonic() + PATIENCE
        while any(not file.exists() or not file.read_text().endswith("\n")
                  for file in files):
            assert time.monotonic() < end, self.logs()
            time.sleep(0.02)
        return [f"http://127.0.0.1:{int(file.read_text())}" for file in files]

    def logs(self):
        return "\n".join(f"{path.name}: {path.read_text()}"
                         for path in sorted(self.folder.glob("log*")))

    def finish(self):
        """Wait for all of them."""
        for process in self.processes:
            assert process.wait(PATIENCE) == 0, self.logs()


@pytest.fixture
def tree(root, tmp_path):
    made = Tree(root, tmp_path)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


def names(first, count, letter="c", size=1):
    return ",".join(f"{letter}{first + i}={size * (first + i)}:{size}"
                    for i in range(count))


def model_of(tree, name):
    return np.fromfile(tree.folder / name, np.float32)


def request(url, body=None):
    """Status and body of an answer."""
    try:
        with urllib.request.urlopen(url, body, timeout=PATIENCE) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def ask(url):
    while True:
        status, body = request(url)
        if status != 204:
            assert status == 200, body
            return body


def test_eight_edges_and_a_root_give_the_model_of_one_server(tree):
    (one,) = tree.nodes([["--children", names(0, CLIENTS), "--rounds", 3,
                          "--save", tree.folder / "one"]])
    tree.start("clients.py", f"{one}=0:{CLIENTS}")
    tree.finish()
    edges = CLIENTS // PER_EDGE
    (top,) = tree.nodes([["--children", names(0, edges, "e", PER_EDGE),
                          "--rounds", 3, "--save", tree.folder / "tree"]])
    urls = tree.nodes([["--children", names(PER_EDGE * i, PER_EDGE),
                        "--parent", top, "--name", f"e{i}", "--deadline", 50]
                       for i in range(edges)])
    tree.start("clients.py", *(f"{url}={PER_EDGE * i}:{PER_EDGE}"
                               for i, url in enumerate(urls)))
    tree.finish()
    assert f"{CLIENTS} of {CLIENTS} updates" in tree.logs()
    want = model_of(tree, "one")
    assert model_of(tree, "tree").tobytes() == want.tobytes()
    assert np.abs(want).mean() > 0.1  # it has moved


class Edge:
    """An edge e1 that a test plays: slots 2 and 3 below `top`."""

    def __init__(self, top):
        self.top = top
        self.compressor = fl.Compressor(20_000, "thc")

    def plan(self, after=0):
        return json.loads(ask(f"{self.top}/plan?after={after}&name=e1"))

    def scale(self, plan, norms=None):
        return fl.Scale(slots=plan["slots"], round=plan["round"],
                        weight_cap=64, norms=norms,
                        noise_seed=bytes.fromhex(plan["noise_seed"]))

    def agree(self, plan):
        """Send norms, and return the scale of the round."""
        update = np.full(20_000, 0.25, np.float32)
        norms = self.compressor.measure(update, self.scale(plan), samples=9)
        request(f"{self.top}/norms?round={plan['round']}&name=e1",
                norms.tobytes())
        return self.scale(plan, np.frombuffer(
            ask(f"{self.top}/scale?round={plan['round']}"), np.float32))

    def sum_of(self, scale, slots):
        update = np.full(20_000, 0.25, np.float32)
        total = self.compressor.partial(scale)
        for slot in slots:
            total.add(self.compressor.encode(update, scale, slot=slot,
                                             samples=9))
        return total.to_bytes()

    def send(self, number, body, name="e1"):
        status, text = request(
            f"{self.top}/sum?round={number}&name={name}", body)
        return status, text.decode()


def test_an_edges_slots_are_a_range_of_bytes_that_came(rng):
    with fl.Compressor(64, "f32") as compressor:
        x = rng.standard_normal(64).astype(np.float32)
        scale = fl.Scale(slots=4, norms=compressor.measure(x))
        below = compressor.partial(scale)
        below.add(compressor.encode(x, scale, slot=2))
        top = compressor.partial(scale)
        with pytest.raises(ValueError, match="slots"):
            top.merge(below, range(2, 3))
        with pytest.raises(ValueError, match="slots"):
            top.merge(below.to_bytes(), range(0, 4, 2))
        with pytest.raises(fl.ConflictError, match="slot 2, want 2 slots"):
            top.merge(below.to_bytes(), range(0, 2))
        top.merge(below.to_bytes(), range(2, 4))
        with pytest.raises(fl.DuplicateError):
            top.merge(below.to_bytes(), range(2, 4))
        assert len(top) == 1 and top.to_bytes() == below.to_bytes()


def start_pair(tree, *arguments):
    """A root with one real edge, its clients, and one that the test plays."""
    (top,) = tree.nodes([["--children", "e0=0:2,e1=2:2", "--save",
                          tree.folder / "model", *arguments]])
    (edge,) = tree.nodes([["--children", names(0, 2), "--parent", top,
                           "--name", "e0"]])
    tree.start("clients.py", f"{edge}=0:2")
    return Edge(top)


def test_what_an_edge_may_not_send_is_refused_with_the_reason(tree):
    edge = start_pair(tree, "--rounds", 2)
    plan = edge.plan()
    old = edge.agree(plan)
    status, text = edge.send(1, edge.sum_of(old, [1, 2]))
    assert status == 409 and "ConflictError" in text and "slot 1" in text
    status, text = edge.send(1, edge.sum_of(old, [2]) + b"x")
    assert status == 409 and "Error" in text
    assert edge.send(1, b"")[0] == 409
    status, text = edge.send(1, edge.sum_of(old, [2, 3]), "e9")
    assert status == 409 and "e9 is no child" in text
    status, text = edge.send(7, edge.sum_of(old, [2, 3]))
    assert status == 409 and "round: got 7, want 1" in text
    assert edge.send(1, edge.sum_of(old, [2, 3])) == (200, "counted")
    late = edge.sum_of(old, [2, 3])
    plan = edge.plan(after=1)
    scale = edge.agree(plan)
    status, text = edge.send(1, late)
    assert status == 409 and "round: got 1, want 2" in text
    status, text = edge.send(2, late)  # says it is of this round
    assert status == 409 and "StaleError" in text
    assert edge.send(2, edge.sum_of(scale, [3])) == (200, "counted")
    assert edge.plan(after=2)["is_over"]
    tree.finish()
    assert "round 1: 4 of 4 updates" in tree.logs()
    assert "round 2: 3 of 4 updates" in tree.logs()


def test_an_edge_that_sends_twice_is_counted_once(tree):
    edge = start_pair(tree, "--rounds", 1)
    plan = edge.plan()
    total = edge.sum_of(edge.agree(plan), [2, 3])
    answers = []
    threads = [threading.Thread(
        target=lambda: answers.append(edge.send(1, total)))
        for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tree.finish()
    assert answers.count((200, "counted")) == 1, answers
    for status, text in answers:  # the round may have ended meanwhile
        assert status in (200, 409) and ("counted" in text or "now" in text
                                         or "round" in text)
    assert "round 1: 4 of 4 updates" in tree.logs()


def test_a_round_goes_on_without_an_edge_that_never_answers(tree):
    edge = start_pair(tree, "--rounds", 3, "--deadline", 3)
    assert edge.plan()["round"] >= 1  # and nothing more
    tree.finish()
    # The others may have missed the first round on a slow machine.
    assert re.search(r"round 3: 2 of 4 updates, \S+ s, without e1\n",
                     tree.logs()), tree.logs()
    assert np.isfinite(model_of(tree, "model")).all()


def test_requests_that_are_none_are_refused(tree):
    edge = start_pair(tree, "--rounds", 1, "--deadline", 5)
    assert request(f"{edge.top}/nothing")[0] == 409
    assert request(f"{edge.top}/scale?round=x")[0] == 409
    assert request(f"{edge.top}/norms?round=1&name=e1", b"abc")[0] == 409
    assert request(f"{edge.top}/norms?round=1&name=e1",
                   np.full(5, -1, np.float32).tobytes())[0] == 409
    connection = http.client.HTTPConnection(edge.top[len("http://"):])
    connection.putrequest("POST", "/sum?round=1&name=e1")
    connection.putheader("Content-Length", str(2 ** 40))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    tree.finish()
