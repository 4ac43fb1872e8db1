# SPDX-License-Identifier: Apache-2.0
"""fl-aggregator from outside: its pages, its log, and peers that misbehave."""
import http.client
import random
import socket
import sys

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
        status, body, headers = bench.request("GET", "/metrics")
        want(status == 200, status)
        want(headers["Content-Type"] == "application/openmetrics-text; "
             "version=1.0.0; charset=utf-8", headers)
        types, values = _parse_metrics(body.decode())
        want(types["fl_rounds"] == "counter" and types["fl_clients"] == "gauge"
             and values["fl_rounds_total"] == 0, types)


def metrics_parse_with_the_prometheus_client_if_there():
    try:
        from prometheus_client.openmetrics.parser import (
            text_string_to_metric_families)
    except ImportError:
        text_string_to_metric_families = None
    with Bench() as bench:
        aggregator = bench.aggregator("--rounds=1", "--min-clients=2")
        processes = [bench.participant(i, 2) for i in range(2)]
        wait_for("a round", lambda: bench.events("round_finished"), aggregator)
        _, body, _ = bench.request("GET", "/metrics")
        _, values = _parse_metrics(body.decode())
        want(values["fl_rounds_total"] == 1
             and values["fl_updates_accepted_total"] == 2
             and values["fl_round_duration_seconds_count"] == 1
             and 0 <= values["fl_test_accuracy_ratio"] <= 1
             and values["fl_received_bytes_total"] > 100000, body.decode())
        if text_string_to_metric_families:
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
                ("POST", "/healthz", b"x", 404),
                ("POST", session, b"x", 404),
                ("PUT", SESSION + "short", b"x", 400),
                ("PUT", SESSION + "ABCDEF0123456789", b"x", 400),
                ("PUT", SESSION + "0" * 65, b"x", 400)]:
            status, text, _ = bench.request(method, path, body)
            want(status == want_status and text.endswith(b"\n"),
                 f"{method} {path}: got {status}, want {want_status}", text)
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
