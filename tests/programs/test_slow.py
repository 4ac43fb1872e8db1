# SPDX-License-Identifier: Apache-2.0
"""Connections that send nothing, or a byte now and then, are closed in time and
do not hold up a run; uploads beyond the staging cap are told to wait."""
import contextlib
import select
import socket
import sys
import threading
import time

from programs import ROOT, Bench, end_of, run_script, wait_for, want

sys.path.insert(0, str(ROOT / "examples"))
import raw_client  # noqa: E402

SESSION = b"/fl/v1/session/"


class _Trickle(threading.Thread):
    """Sends a beginning at once and then a byte every tenth of a second, and
    notes when the other end closes."""

    def __init__(self, port, beginning, rest):
        super().__init__(daemon=True)
        self.raw = socket.create_connection(("127.0.0.1", port))
        self.beginning, self.rest = beginning, rest
        self.closed_after = None
        self.start()

    def run(self):
        began = time.monotonic()
        try:
            self.raw.sendall(self.beginning)
            while time.monotonic() - began < 30:
                if select.select([self.raw], [], [], 0.1)[0]:
                    break
                if self.rest:
                    self.raw.sendall(self.rest)
        except OSError:
            pass
        self.closed_after = time.monotonic() - began
        self.raw.close()


def _wait(connections):
    for connection in connections:
        connection.join(40)
        want(connection.closed_after is not None, "still open")
    return [round(c.closed_after, 1) for c in connections]


def slow_connections_are_closed_in_time():
    with Bench() as bench:
        aggregator = bench.aggregator("--request-seconds=2")
        name = b"a" * 32
        put = b"PUT " + SESSION + name + b" HTTP/1.1\r\nHost: x\r\n"
        kinds = [
            (b"", b""),                             # nothing at all
            (b"G", b""),                            # one byte
            (b"PUT ", b"x"),                        # a URL without an end
            (put, b"X"),                            # headers without an end
            (put + b"Content-Length: 900\r\n\r\n", b"y"),  # a body, slowly
            (put + b"Content-Length: 900\r\n\r\n", b""),   # a body, never
            (put + b"Transfer-Encoding: chunked\r\n\r\n", b""),
            (put + b"Content-Length: 90000\r\n\r\n" + b"z" * 50000, b""),
        ]
        connections = [_Trickle(bench.port, *kind) for kind in kinds]
        times = _wait(connections)
        want(all(1.5 < t < 15 for t in times), times)
        _, text, _ = bench.request("GET", "/metrics")
        want(b"fl_connections_too_slow_total 8\n" in text, text.decode())
        want(aggregator.poll() is None, bench.errors("aggregator"))


def a_steady_body_may_take_longer():
    with Bench() as bench:
        bench.aggregator("--request-seconds=1")
        raw = socket.create_connection(("127.0.0.1", bench.port))
        raw.sendall(b"PUT " + SESSION + b"b" * 32 + b" HTTP/1.1\r\nHost: x\r\n"
                    b"Content-Length: 20000\r\n\r\n")
        for _ in range(20):
            raw.sendall(b"z" * 1000)
            time.sleep(0.15)
        raw.settimeout(20)
        answer = raw.recv(4096)
        want(answer.startswith(b"HTTP/1.1 200"), answer[:60])
        raw.close()


def a_held_request_and_a_pause_between_two_are_not_slow():
    with Bench() as bench:
        bench.aggregator("--request-seconds=1", "--poll-seconds=4",
                         "--min-clients=2")
        person = bench.participant(0, 2)
        wait_for("joined", lambda: bench.events("joined"))
        time.sleep(3)
        want(len(bench.events("joined")) == 1
             and not bench.events("returned"), bench.events())
        person.terminate()


def who_does_not_read_the_answer_is_closed():
    with Bench() as bench:
        # A model of 12 MB, more than a socket takes.
        aggregator = bench.aggregator("--request-seconds=2", "--codec=f32",
                                      "--hidden=4000")
        hello = raw_client.frame(1, {1: 1, 2: 1, 3: "deaf", 5: 1, 6: 10})
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        raw.connect(("127.0.0.1", bench.port))
        raw.sendall(b"PUT " + SESSION + b"d" * 32 + b" HTTP/1.1\r\nHost: x\r\n"
                    b"Content-Length: %d\r\n\r\n" % len(hello) + hello)
        wait_for("joined", lambda: bench.events("joined"), aggregator)
        wait_for("closed", lambda: b"fl_connections_too_slow_total 1\n"
                 in bench.request("GET", "/metrics")[1], aggregator)
        raw.close()


def slow_uploads_do_not_stop_a_run():
    with Bench() as bench:
        aggregator = bench.aggregator(
            "--request-seconds=2", "--rounds=10", "--min-clients=2",
            "--min-participants=2", "--exit-when-done")
        put = (b"PUT " + SESSION + b"%032x HTTP/1.1\r\nHost: x\r\n"
               b"Content-Length: 9000\r\n\r\n")
        slow = [_Trickle(bench.port, put % i, b"x") for i in range(100)]
        began = time.monotonic()
        people = [bench.participant(i, 2) for i in range(2)]
        for i, person in enumerate(people):
            want(end_of(person) == 0, bench.errors(f"p{i}"))
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        want(time.monotonic() - began < 60, "slow")
        rows = bench.events("round_finished")
        want([row["accepted"] for row in rows] == [2] * 10, rows)
        _wait(slow)


class _Uploader(raw_client.Client):
    """Counts the WAITs that it hears."""

    waits = 0

    def on_wait(self, wait):
        self.waits += 1
        super().on_wait(wait)


def uploads_beyond_the_staging_cap_wait_and_count():
    """A cap of 1 MiB, updates of 0.6 MB: a stalled one leaves no room for
    another until it is closed for its slowness."""
    with Bench() as bench:
        aggregator = bench.aggregator(
            "--request-seconds=4", "--rounds=1", "--min-clients=2",
            "--min-participants=1", "--codec=f32", "--hidden=190",
            "--staging-mb=1", "--exit-when-done", "--grace-seconds=1",
            "--poll-seconds=1")
        url = f"http://127.0.0.1:{bench.port}"
        data = raw_client.read_data(bench.data, 0, 200)
        honest = _Uploader(url, "honest", data)
        stalled = raw_client.Client(url, "stalled", data)
        holder = []

        def exchange(request):
            """As Session.exchange, but half of an upload is all that goes."""
            if len(request) < 500000:
                return plain(request)
            stalled.session.connection.close()
            raw = socket.create_connection(("127.0.0.1", bench.port))
            raw.sendall(b"POST " + SESSION + stalled.session.id.encode()
                        + b" HTTP/1.1\r\nHost: x\r\nContent-Length: "
                        + str(len(request)).encode() + b"\r\n\r\n"
                        + request[:300000])
            holder.append(raw)
            raise _Enough
        plain = stalled.session.exchange
        stalled.session.exchange = exchange

        def stall():
            try:
                stalled.run()
            except _Enough:
                pass
        slow = threading.Thread(target=stall, daemon=True)
        slow.start()
        gate = honest.session.exchange

        def late(request):
            """Its update comes when the other one is under way."""
            if len(request) >= 500000:
                wait_for("the stalled upload", lambda: holder)
                time.sleep(0.5)
            return gate(request)
        honest.session.exchange = late
        with contextlib.redirect_stdout(None):
            honest.run()
        want(honest.waits > 0, "never told to wait")
        want(honest.counted == 1, honest.counted)
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        rows = bench.events("round_finished")
        want([row["accepted"] for row in rows] == [1], rows)


class _Enough(Exception):
    """The upload has stalled."""


if __name__ == "__main__":
    run_script(sys.modules[__name__])
