# SPDX-License-Identifier: Apache-2.0
"""One aggregator of a tree: the root, or an edge between clients and a parent.

    node.py --children a=0:3,b=3:3 --rounds 5 --save model.bin     the root
    node.py --children c0=0:1,c1=1:1,c2=2:1 --parent URL --name a  an edge

A child is a name and the slots that it speaks for, FIRST:COUNT: one slot for a
client, those of its own children for an edge. Everybody talks HTTP in the same
way, so that an edge is a client to its parent and a root to its children:

    GET  /plan?after=R&name=N   the next round, as JSON; 204: ask again
    POST /norms?round=R&name=N  largest norms of those below
    GET  /scale?round=R         the norms that all encode with
    POST /sum?round=R&name=N    an encoded update, or a sum of them
    GET  /step?round=R          the sum of all, which everybody decodes

Sums are integers: the tree does not change a bit of the model. Whoever does
not answer before a deadline is left out of the round. What does not belong in
it is refused with 409 and the reason, and changes nothing. Who was left out
takes the step all the same: nodes keep those of the last rounds.
"""
import argparse
import hashlib
import http.server
import json
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import libfl as fl
import numpy as np

DIM = 20_000
CODEC = "thc"
WEIGHT_CAP = 64
POLL_S = 5.0  # how long an answer is waited for before 204
KEPT = 8      # rounds whose scale and step can still be had


def make_plan(number, slots, rounds):
    """What is known of a round before its norms are."""
    seed = hashlib.sha256(b"round %d" % number).hexdigest()
    return {"round": number, "slots": slots, "noise_seed": seed,
            "is_over": number > rounds}


def scale_of(plan, norms=None):
    return fl.Scale(slots=plan["slots"], round=plan["round"],
                    weight_cap=WEIGHT_CAP, norms=norms,
                    noise_seed=bytes.fromhex(plan["noise_seed"]))


def exchange(url, body=None):
    """Ask until there is an answer."""
    while True:
        with urllib.request.urlopen(url, body, timeout=60) as answer:
            if answer.status != 204:
                return answer.read()


def tell(url, body):
    """Say something; return whether it was taken."""
    try:
        exchange(url, body)
    except urllib.error.HTTPError as error:
        print(f"{url}: {error.read().decode()}", flush=True)
        return False
    return True


class Refused(Exception):
    """A message that does not belong in the round."""


class Node:
    """A round's state; handlers of requests wait for it to change."""

    def __init__(self, children):
        self.children = children  # name -> range of slots
        self.changed = threading.Condition()
        self.compressor = fl.Compressor(DIM, CODEC)
        self.plan = {"round": 0}
        self.norms = {}
        self.partial = None  # while sums are taken
        self.counted = set()
        self.scales, self.steps = {}, {}  # by round
        self.told = set()  # who knows that there is no further round

    def begin(self, plan):
        with self.changed:
            self.plan, self.norms, self.counted = plan, {}, set()
            self.partial = None
            for kept in (self.scales, self.steps):
                kept.pop(plan["round"] - KEPT, None)
            self.changed.notify_all()

    def set_scale(self, norms):
        """What all encode with; from now on sums are taken."""
        norms = np.array(norms, np.float32)
        with self.changed:
            self.scales[self.plan["round"]] = norms
            self.partial = self.compressor.partial(scale_of(self.plan, norms))
            self.changed.notify_all()

    def close(self):
        """The sum of the round, and how many are in it: what comes now is
        late."""
        with self.changed:
            partial, self.partial = self.partial, None
            return partial.to_bytes(), len(partial)

    def set_step(self, step):
        with self.changed:
            self.steps[self.plan["round"]] = step
            self.changed.notify_all()

    def wait_for_all(self, answered, seconds):
        """Until every child is in `answered`, or the deadline. Return those
        that are missing."""
        end = time.monotonic() + seconds
        with self.changed:
            while len(answered()) < len(self.children):
                if not self.changed.wait(max(0, end - time.monotonic())):
                    break
            return sorted(set(self.children) - set(answered()))

    def _check(self, name, number):
        if name not in self.children:
            raise Refused(f"{name} is no child of this node")
        if number != self.plan["round"]:
            raise Refused(f"round: got {number}, want {self.plan['round']}")

    def take_norms(self, name, number, body):
        with self.changed:
            self._check(name, number)
            if number in self.scales:
                raise Refused("the scale is agreed: encode with it")
            own = np.frombuffer(body, np.float32)
            self.norms[name] = fl.merge_norms([np.zeros(
                self.compressor.norm_count, np.float32), own])
            self.changed.notify_all()
        return b""

    def take_sum(self, name, number, body):
        """An update, or a sum of those slots that the child speaks for."""
        with self.changed:
            self._check(name, number)
            if self.partial is None:
                raise Refused("sums are not taken now")
            if name in self.counted:  # its answer was lost, or it is mistaken
                return b"counted before"
            slots = self.children[name]
            if len(slots) > 1 or not self._is_update(body, slots):
                self.partial.merge(body, slots)  # of an edge
            else:
                self.partial.add(body)
            self.counted.add(name)
            self.changed.notify_all()
        return b"counted"

    def _is_update(self, body, slots):
        """1 slot may be a client's, or an edge's with one client."""
        try:
            slot, _ = self.partial.peek(body)
        except fl.FormatError:
            return False
        if slot not in slots:
            raise Refused(f"slot: got {slot}, want {slots.start}")
        return True

    def wait(self, number, ready):
        """What `ready` returns; None after a while, for who asks again."""
        with self.changed:
            self.changed.wait_for(lambda: ready() is not None, POLL_S)
            if ready() is None and number < self.plan["round"]:
                raise Refused(f"round {number} is over")
            return ready()

    def answer(self, path, query, body):
        """Body of the answer to a request; None = ask again."""
        number = int(query.get("round", query.get("after", 0)))
        name = query.get("name", "")
        if path == "/norms":
            return self.take_norms(name, number, body)
        if path == "/sum":
            return self.take_sum(name, number, body)
        if path == "/plan":
            plan = self.wait(self.plan["round"], lambda: self.plan
                             if self.plan["round"] > number else None)
            return plan and json.dumps(plan).encode()
        if path == "/scale":
            scale = self.wait(number, lambda: self.scales.get(number))
            return None if scale is None else scale.tobytes()
        if path == "/step":
            return self.wait(number, lambda: self.steps.get(number))
        raise Refused(f"nothing is at {path}")

    def has_heard(self, path, query, answer):
        """The answer was written: whoever was told the end may be left."""
        if path == "/plan" and json.loads(answer)["is_over"]:
            with self.changed:
                self.told.add(query.get("name", ""))
                self.changed.notify_all()


class Server(http.server.ThreadingHTTPServer):
    """All children may come at once."""

    daemon_threads = True
    request_queue_size = 1024


def handler_of(node, most_bytes):
    class Handler(http.server.BaseHTTPRequestHandler):
        """Requests as calls of the node."""

        protocol_version = "HTTP/1.1"
        timeout = 60  # of silence

        def log_message(self, *_):
            pass

        def _reply(self, status, body=b""):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _handle(self, body):
            url = urllib.parse.urlsplit(self.path)
            query = dict(urllib.parse.parse_qsl(url.query))
            try:
                answer = node.answer(url.path, query, body)
            except (Refused, ValueError, fl.FlError) as error:
                self._reply(409, f"{type(error).__name__}: {error}".encode())
                return
            self._reply(204 if answer is None else 200, answer or b"")
            if answer is not None:
                node.has_heard(url.path, query, answer)

        def do_GET(self):
            self._handle(b"")

        def do_POST(self):
            size = self.headers.get("Content-Length", "")
            if not size.isdigit() or int(size) > most_bytes:
                self.close_connection = True
                self._reply(413)
                return
            self._handle(self.rfile.read(int(size)))

    return Handler


def run_edge(node, parent, name, deadline):
    """Pass rounds on until the parent says that it was the last."""
    number = 0
    while True:
        plan = json.loads(exchange(f"{parent}/plan?after={number}&name={name}"))
        number = plan["round"]
        here = f"round={number}&name={name}"
        node.begin(plan)
        if plan["is_over"]:
            return
        node.wait_for_all(lambda: node.norms, deadline)
        if node.norms:
            tell(f"{parent}/norms?{here}",
                 fl.merge_norms(list(node.norms.values())).tobytes())
        node.set_scale(np.frombuffer(
            exchange(f"{parent}/scale?{here}"), np.float32))
        node.wait_for_all(lambda: node.counted, deadline)
        total, count = node.close()
        if count > 0:
            tell(f"{parent}/sum?{here}", total)
        node.set_step(exchange(f"{parent}/step?{here}"))


def run_root(node, rounds, deadline):
    """Run all rounds; return the model."""
    weights = np.zeros(DIM, np.float32)
    slots = max(own.stop for own in node.children.values())
    for number in range(1, rounds + 1):
        begin = time.monotonic()
        node.begin(make_plan(number, slots, rounds))
        node.wait_for_all(lambda: node.norms, deadline)
        with node.changed:
            norms = list(node.norms.values())
        node.set_scale(fl.merge_norms(norms or [np.zeros(
            node.compressor.norm_count, np.float32)]))
        missing = node.wait_for_all(lambda: node.counted, deadline)
        step, count = node.close()
        if count > 0:
            weights += node.compressor.decode(
                step, scale_of(node.plan, node.scales[number]))
        node.set_step(step)
        print(f"round {number}: {count} of {slots} updates, "
              f"{time.monotonic() - begin:.3f} s"
              + "".join(f", without {name}" for name in missing), flush=True)
    node.begin(make_plan(rounds + 1, slots, rounds))
    return weights


def children_of(text):
    children = {}
    for part in text.split(","):
        name, _, own = part.partition("=")
        first, _, count = own.partition(":")
        children[name] = range(int(first), int(first) + int(count))
    return children


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--children", type=children_of, required=True)
    parser.add_argument("--parent", help="URL; without it this is the root")
    parser.add_argument("--name", default="edge", help="among its children")
    parser.add_argument("--rounds", type=int, default=5, help="root")
    parser.add_argument("--deadline", type=float, default=60,
                        help="seconds; an edge's is shorter than its parent's")
    parser.add_argument("--save", help="root: where the model's float32 go")
    parser.add_argument("--port-file", help="where the port is written")
    arguments = parser.parse_args()
    node = Node(arguments.children)
    most = 64 + 8 * node.compressor.max_update_size
    server = Server(("127.0.0.1", 0), handler_of(node, most))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    if arguments.port_file:
        with open(arguments.port_file, "w", encoding="ascii") as file:
            file.write(f"{server.server_port}\n")
    if arguments.parent:
        run_edge(node, arguments.parent, arguments.name, arguments.deadline)
    else:
        weights = run_root(node, arguments.rounds, arguments.deadline)
        if arguments.save:
            weights.tofile(arguments.save)
    node.wait_for_all(lambda: node.told, min(arguments.deadline, 10))
    server.shutdown()
    server.server_close()


if __name__ == "__main__":
    sys.exit(main())
