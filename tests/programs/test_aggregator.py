# SPDX-License-Identifier: Apache-2.0
"""fl-aggregator from outside: its pages, its log, and peers that misbehave."""
import contextlib
import http.client
import json
import random
import re
import resource
import select
import socket
import sys
import tempfile
import threading
import time

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from programs import Bench, PARTICIPANT, end_of, run_script, want, wait_for

SEED = 20240
SESSION = "/fl/v1/session/"


def _parse_metrics(text):
    """{sample name with labels: value}; checks the shape by the way."""
    want(text.endswith("# EOF\n"), text[-40:])
    types, values = {}, {}
    for line in text.splitlines():
        words = line.split(" ")
        if line.startswith("# TYPE "):
            want(words[2] not in types, f"twice: {line}")
            types[words[2]] = words[3]
        elif not line.startswith("#"):
            want(len(words) == 2 and words[0] not in values, line)
            values[words[0]] = float(words[1])
    return types, values


def _finish(bench, aggregator, participants):
    """The training ends well for everybody."""
    want(end_of(aggregator) == 0, bench.errors("aggregator"))
    for i, process in enumerate(participants):
        want(end_of(process) == 0, bench.errors(f"p{i}"))


def healthz_and_metrics_answer_before_any_client():
    with Bench() as bench:
        bench.aggregator()
        status, body, headers = bench.request("GET", "/healthz")
        want(status == 200 and body == b'{"status":"ok"}\n'
             and headers["Content-Type"] == "application/json", status, body)
        status, body, headers = bench.request("HEAD", "/healthz")
        want(status == 200 and body == b"", status, body)
        status, body, headers = bench.request("GET", "/metrics")
        want(status == 200, status)
        want(headers["Content-Type"] == "application/openmetrics-text; "
             "version=1.0.0; charset=utf-8", headers)
        types, values = _parse_metrics(body.decode())
        want(types["fl_rounds"] == "counter" and types["fl_clients"] == "gauge"
             and values["fl_rounds_total"] == 0, types)


def metrics_parse_with_the_prometheus_client():
    with Bench() as bench:
        aggregator = bench.aggregator("--rounds=1", "--min-clients=2")
        processes = [bench.participant(i, 2) for i in range(2)]
        wait_for("a round", lambda: bench.events("round_finished"), aggregator)
        _, body, _ = bench.request("GET", "/metrics")
        _, values = _parse_metrics(body.decode())
        want(values["fl_rounds_total"] == 1
             and values["fl_updates_accepted_total"] == 2
             and values["fl_round_duration_seconds_count"] == 1
             and values['fl_round_duration_seconds_bucket{le="300.0"}'] == 1
             and 0 <= values["fl_test_accuracy_ratio"] <= 1
             and values["fl_received_bytes_total"] > 100000, body.decode())
        families = {f.name: f for f in
                    text_string_to_metric_families(body.decode())}
        want(families["fl_rounds"].type == "counter", families.keys())
        for process in processes:
            want(end_of(process) == 0, "participant")


def a_run_learns_and_logs_every_round():
    with Bench() as bench:
        aggregator = bench.aggregator("--rounds=4", "--min-clients=3",
                                      "--exit-when-done")
        _finish(bench, aggregator, [bench.participant(i, 3) for i in range(3)])
        rows = bench.events("round_finished")
        want([r["round"] for r in rows] == [1, 2, 3, 4], rows)
        want(rows[-1]["accuracy"] > 0.9, rows[-1])
        want(len(bench.events("joined")) == 3
             and len(bench.events("update_accepted")) == 12, bench.events())
        for row in rows:
            want(row["accepted"] == 3 and row["seconds"] >= 0
                 and len(row["clients"]) == 3, row)
        want(len(bench.events("job_finished")) == 1, "job_finished")


def strategies_learn_and_name_what_they_need():
    """One by sums, one at the clients, one of separate updates."""
    for strategy in (["--strategy=fedadam", "--server-lr=0.01"],
                     ["--strategy=fedprox"],
                     ["--strategy=scaffold"],
                     ["--strategy=trimmed-mean", "--clip=20"]):
        with Bench() as bench:
            aggregator = bench.aggregator(
                "--rounds=4", "--min-clients=3", "--min-participants=3",
                "--exit-when-done", *strategy)
            _finish(bench, aggregator,
                    [bench.participant(i, 3) for i in range(3)])
            rows = bench.events("round_finished")
            want([row["round"] for row in rows] == [1, 2, 3, 4], rows)
            want(rows[-1]["accuracy"] > 0.85, strategy, rows[-1])


def whom_it_asks_and_whom_it_waits_for_can_be_chosen():
    for options in (["--selector=choice", "--participants=2"],
                    ["--selector=oort", "--participants=2",
                     "--over-select=1.5", "--checkin-seconds=1"],
                    ["--fedbuff=2", "--thc-mode=uniform", "--bits=8"]):
        with Bench() as bench:
            aggregator = bench.aggregator(
                "--rounds=6", "--min-clients=3", "--min-participants=2",
                "--exit-when-done", *options)
            _finish(bench, aggregator,
                    [bench.participant(i, 3) for i in range(3)])
            rows = bench.events("round_finished")
            want([row["round"] for row in rows] == [1, 2, 3, 4, 5, 6], rows)
            want(all(row["accepted"] == 2 for row in rows), rows)
            want(rows[-1]["accuracy"] > 0.8, options, rows[-1])


def a_module_freezes_by_what_participants_report():
    """Without reports nothing would. From then on it is not sent."""
    with Bench() as bench:
        aggregator = bench.aggregator(
            "--rounds=40", "--min-clients=3", "--exit-when-done",
            "--freeze=gradnorm")
        _finish(bench, aggregator, [bench.participant(i, 3) for i in range(3)])
        changed = bench.events("freeze_changed")
        want(len(changed) == 1 and changed[0]["frozen"] == 1
             and 7 < changed[0]["round"] <= 40
             and changed[0]["reason"] == "criterion", changed)
        seen = bench.events("freeze_evaluated")
        want([row["round"] for row in seen]
             == list(range(seen[0]["round"], changed[0]["round"])), seen)
        want(len(bench.events("freeze_booted")) == 1, "freeze_booted")
        for row in seen[:4]:
            want(row["threshold"] is None and row["below"] == 0, row)
        for row in seen[-3:]:
            want(0 < row["median"] == row["value"], row)
            want(row["module"] == 0 and row["below"] > 0, row)
        want(seen[-1]["below"] == 3, seen[-1])
        rows = bench.events("round_finished")
        want([row["accepted"] for row in rows] == [3] * 40, rows)
        want(rows[-1]["clients"]["p0"]["up"]
             < rows[3]["clients"]["p0"]["up"] / 15, rows[3], rows[-1])


def a_cache_changes_no_bit_from_round_to_round():
    """A participant that was started anew finds the file of another's rows,
    which are of other samples, and does not take them."""
    runs, kept = [], r"trained: (\d+) samples from the cache so far"
    with tempfile.TemporaryDirectory(prefix="libfl-cache-") as folder:
        for where in ("none", "memory", f"{folder}/rows", f"{folder}/rows"):
            with Bench() as bench:
                aggregator = bench.aggregator(
                    "--rounds=5", "--min-clients=2", "--exit-when-done",
                    "--codec=f32", "--freeze=fixed:2:1", f"--seed={SEED}")
                places = (where, "memory" if where != "none" else where)
                if len(runs) == 3:
                    places = places[::-1]
                _finish(bench, aggregator,
                        [bench.participant(i, 2, f"--cache={place}",
                                           "--verbose")
                         for i, place in enumerate(places)])
                runs.append([(row["train_loss"], row["loss"], row["accuracy"])
                             for row in bench.events("round_finished")])
                for i in range(2):
                    hits = [int(n) for n in
                            re.findall(kept, bench.errors(f"p{i}"))]
                    if where == "none":
                        want(not hits, hits)
                        continue
                    n = hits[-1] // 3
                    want(n > 32 and hits == [0, 0, n, 2 * n, 3 * n], hits)
    want(len(runs[0]) == 5 and all(run == runs[0] for run in runs), *runs)


def bytes_are_those_of_the_sockets():
    """Updates of 101,770 weights at 4 bits are 51 kB; float32 is 407 kB. What
    is counted lies above the payload by headers and control messages, which
    are a few kB; the rows and what follows them add up to the totals."""
    sizes = {}
    for codec in ("thc", "f32"):
        with Bench() as bench:
            aggregator = bench.aggregator(
                "--rounds=3", "--min-clients=2", "--exit-when-done",
                f"--codec={codec}")
            _finish(bench, aggregator,
                    [bench.participant(i, 2) for i in range(2)])
            rows = bench.events("round_finished")
            after = bench.events("exit")[0]
            for name in ("p0", "p1"):
                for way in ("up", "down"):
                    parts = [r["clients"][name][way] for r in rows]
                    parts.append(after["since_round"][name][way])
                    want(sum(parts) == after["clients"][name][way], parts,
                         after)
            sizes[codec] = rows[1]["clients"]["p0"]
    want(407080 < sizes["f32"]["up"] < 412000, sizes)
    want(50885 < sizes["thc"]["up"] < 58154, sizes)
    want(sizes["f32"]["down"] / sizes["thc"]["down"] > 3.5, sizes)


def two_bit_tables_with_error_feedback_run_to_the_end_in_half_the_bytes():
    """Half of what 4 bits send, and headers. That memory helps is shown where
    one number tells: accuracy is much the same without it."""
    with Bench() as bench:
        aggregator = bench.aggregator(
            "--rounds=6", "--min-clients=3", "--exit-when-done",
            "--thc-mode=table", "--bits=2", "--error-feedback")
        _finish(bench, aggregator, [bench.participant(i, 3) for i in range(3)])
        rows = bench.events("round_finished")
        want(rows[-1]["accuracy"] > 0.85, rows[-1])
        want(rows[1]["clients"]["p0"]["up"] < 29500, rows[1])


def strangers_bytes_are_counted_exactly():
    """Also those of a connection that ends, whose FIN is none of them."""
    up = down = 0
    with Bench() as bench:
        aggregator = bench.aggregator()
        for text in (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
                     b"\xff garbage \r\n\r\n", b"GET /no HTTP/1.1\r\n\r\n",
                     b"PUT " + SESSION.encode() + b"3" * 32 + b" HTTP/1.1\r\n"
                     b"Host: x\r\nContent-Length: 9\r\n\r\nnineteeth"):
            with socket.create_connection(("127.0.0.1", bench.port)) as raw:
                raw.settimeout(60)
                raw.sendall(text)
                raw.shutdown(socket.SHUT_WR)
                up += len(text)
                while data := raw.recv(4096):
                    down += len(data)
        aggregator.terminate()
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        end = bench.events("exit")[0]
        want((end["up"], end["down"]) == (up, down), (up, down), end)


class _Proxy(threading.Thread):
    """Passes TCP on and counts, for one client, without libfl."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.target = port
        self.up = self.down = 0
        self.start()

    def run(self):
        while True:
            try:
                near, _ = self.server.accept()
            except OSError:
                return
            with near, socket.create_connection(
                    ("127.0.0.1", self.target)) as far:
                self._pass_on(near, far)

    def _pass_on(self, near, far):
        while True:
            for source in select.select([near, far], [], [])[0]:
                data = source.recv(65536)
                if not data:
                    return
                (far if source is near else near).sendall(data)
                if source is near:
                    self.up += len(data)
                else:
                    self.down += len(data)


def a_clients_bytes_are_those_that_a_proxy_saw():
    with Bench() as bench:
        aggregator = bench.aggregator("--rounds=3", "--exit-when-done")
        proxy = _Proxy(bench.port)
        bench.port = proxy.port
        _finish(bench, aggregator, [bench.participant(0, 1)])
        proxy.server.close()
        end = bench.events("exit")[0]
        want(end["clients"]["p0"] == {"up": proxy.up, "down": proxy.down},
             end, proxy.up, proxy.down)
        want(end["up"] == proxy.up and end["down"] == proxy.down, end)


def ids_with_quotes_and_backslashes_leave_valid_lines():
    with Bench() as bench:
        aggregator = bench.aggregator("--rounds=1", "--exit-when-done")
        name = '"}\\n\'{<%s%n\\u0000'
        process = bench.start("odd", PARTICIPANT, "--id", name,
                              f"--server=http://127.0.0.1:{bench.port}",
                              f"--data={bench.data}")
        want(end_of(process) == 0, bench.errors("odd"))
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        want(bench.events("joined")[0]["client"] == name, bench.events())
        want(name in bench.events("round_finished")[0]["clients"], "row")


def a_log_that_cannot_be_written_is_told_and_the_run_goes_on():
    with Bench() as bench:
        bench.log = "/dev/full"
        aggregator = bench.aggregator("--rounds=2", "--exit-when-done")
        want(end_of(bench.participant(0, 1)) == 0, bench.errors("p0"))
        want(end_of(aggregator) == 1, "exit status")
        errors = bench.errors("aggregator").splitlines()
        want(len(errors) == 1 and "/dev/full" in errors[0]
             and "No space left" in errors[0], errors)


def a_log_that_ends_in_half_a_line_goes_on_with_a_new_one():
    with Bench() as bench:
        bench.log.write_text('{"event":"old"}\n{"event":"cu')
        bench.aggregator()
        wait_for("a line", lambda: bench.log.read_text().endswith("}\n"))
        lines = bench.log.read_text().splitlines()
        want(lines[:2] == ['{"event":"old"}', '{"event":"cu']
             and json.loads(lines[2])["event"] == "listening", lines)


def slow_and_idle_connections_do_not_hold_up_a_run():
    with Bench() as bench:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Fewer descriptors than connections, the hard limit included.
        aggregator = bench.aggregator(
            "--rounds=5", "--exit-when-done", "--max-sessions=64",
            f"--snapshot={bench.folder / 'state'}",
            preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE,
                                               (60, min(60, limit[1]))))
        want("ulimit -n" in bench.errors("aggregator"),
             bench.errors("aggregator"))
        process = bench.participant(0, 1)
        wait_for("joined", lambda: bench.events("joined"), aggregator)
        idle = []
        for i in range(100):
            raw = socket.create_connection(("127.0.0.1", bench.port))
            raw.sendall(b"PUT " + SESSION.encode()[:i % 16])
            idle.append(raw)
        want(end_of(process) == 0, bench.errors("p0"))
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        want("not saved" not in bench.errors("aggregator"),
             bench.errors("aggregator"))
        for raw in idle:
            raw.close()


def many_peers_with_garbage_do_not_disturb_a_run():
    def one(i):
        rng = random.Random(SEED + i)
        head = (f"PUT {SESSION}{i:032x} HTTP/1.1\r\nHost: x\r\n"
                "Content-Length: 5000\r\n\r\n").encode()
        text = [rng.randbytes(3000), b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20000,
                head + rng.randbytes(5000), head + rng.randbytes(500)][i % 4]
        with contextlib.suppress(OSError), socket.create_connection(
                ("127.0.0.1", bench.port)) as raw:
            raw.settimeout(0.5)
            raw.sendall(text)
            raw.recv(100)

    with Bench() as bench:
        aggregator = bench.aggregator("--rounds=20", "--min-clients=2",
                                      "--exit-when-done")
        first = bench.participant(0, 2)
        wait_for("joined", lambda: bench.events("joined"), aggregator)
        threads = [threading.Thread(target=one, args=(i,)) for i in range(200)]
        for thread in threads:
            thread.start()
        second = bench.participant(1, 2)
        for thread in threads:
            thread.join()
        _finish(bench, aggregator, [first, second])
        want(len(bench.events("refused")) >= 50, "refusals")
        rows = bench.events("round_finished")
        want([row["accepted"] for row in rows] == [2] * 20, rows)


def a_participant_at_a_wrong_url_says_so_at_once():
    with Bench() as bench:
        bench.aggregator()
        began = time.monotonic()
        process = bench.start(
            "lost", PARTICIPANT, "--id=a", f"--data={bench.data}",
            f"--server=http://127.0.0.1:{bench.port}/elsewhere")
        want(end_of(process) == 3, bench.errors("lost"))
        want("HTTP status 404: no such page" in bench.errors("lost"),
             bench.errors("lost"))
        want(time.monotonic() - began < 55, "it tried again and again")


def answers_of_strangers_cannot_drive_a_terminal():
    with Bench() as bench, socket.create_server(("127.0.0.1", 0)) as server:
        bench.port = server.getsockname()[1]
        process = bench.participant(0, 1)
        raw, _ = server.accept()
        with raw:
            raw.recv(65536)
            raw.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\n"
                        b"\x1b[2Jgo\xff\r\n")
            want(end_of(process) == 3, bench.errors("p0"))
        want("HTTP status 403: ?[2Jgo??" in bench.errors("p0"),
             repr(bench.errors("p0")))


def garbage_does_not_disturb_a_run():
    rng = random.Random(SEED)
    with Bench() as bench:
        aggregator = bench.aggregator("--rounds=3", "--min-clients=2",
                                      "--poll-seconds=1", "--exit-when-done")
        first = bench.participant(0, 2)
        # Less than a frame's header is held for more: one of each is enough.
        for i, n in enumerate([1, 7] + [8, 100, 5000] * 10):
            body = rng.randbytes(n)
            path = f"{SESSION}{i:032x}"
            status, answer, _ = bench.request("PUT", path, body)
            want(status in (200, 204), f"seed {SEED}, request {i}: {status}")
        _finish(bench, aggregator, [first, bench.participant(1, 2)])
        want(len(bench.events("refused")) > 0, "no event of a refusal")
        want(len(bench.events("round_finished")) == 3, "rounds")


def wrong_requests_get_a_4xx_with_a_text():
    with Bench() as bench:
        aggregator = bench.aggregator()
        session = SESSION + "0123456789abcdef"
        for method, path, body, want_status in [
                ("GET", "/", None, 404), ("POST", "/fl/v1/other", b"x", 404),
                ("GET", session, None, 405), ("DELETE", session, None, 405),
                ("POST", "/healthz", b"x", 405),
                ("DELETE", "/metrics", None, 405),
                ("POST", session, b"x", 404),
                ("PUT", SESSION + "short", b"x", 400),
                ("PUT", SESSION + "ABCDEF0123456789", b"x", 400),
                ("PUT", SESSION + "0" * 65, b"x", 400)]:
            status, text, headers = bench.request(method, path, body)
            want(status == want_status and text.endswith(b"\n"),
                 f"{method} {path}: got {status}, want {want_status}", text)
            want((status == 405) == ("Allow" in headers), headers)
        status, _, _ = bench.request("GET", "/healthz")
        want(status == 200 and aggregator.poll() is None, status)


def oversized_bodies_are_refused():
    with Bench() as bench:
        bench.aggregator()
        for head in (b"Content-Length: 999999999\r\n\r\n",
                     b"Content-Length: 4294967296000\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", bench.port)) as raw:
                raw.settimeout(60)
                raw.sendall(b"PUT " + SESSION.encode() + b"0" * 16
                            + b" HTTP/1.1\r\nHost: x\r\n" + head)
                want(b" 413 " in raw.recv(100), head)
        # Without a declared length the connection is cut in the middle.
        connection = http.client.HTTPConnection("127.0.0.1", bench.port,
                                                timeout=60)
        try:
            connection.request("PUT", SESSION + "1" * 16,
                               (bytes(1 << 20) for _ in range(64)),
                               encode_chunked=True)
            status = connection.getresponse().status
            want(status >= 400, status)
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        want(bench.request("GET", "/healthz")[0] == 200, "healthz")


def an_id_in_use_is_refused():
    with Bench() as bench:
        aggregator = bench.aggregator("--rounds=2", "--min-clients=2",
                                      "--exit-when-done")
        first = bench.participant(0, 2)
        wait_for("joined", lambda: bench.events("joined"), aggregator)
        twin = bench.start("twin", PARTICIPANT,
                           f"--server=http://127.0.0.1:{bench.port}",
                           "--id=p0", f"--data={bench.data}")
        want(end_of(twin) == 3, bench.errors("twin"))
        want("in use" in bench.errors("twin"), bench.errors("twin"))
        _finish(bench, aggregator, [first, bench.participant(1, 2)])


if __name__ == "__main__":
    run_script(sys.modules[__name__])
