# SPDX-License-Identifier: Apache-2.0
"""What a session's request is answered: in chunks where there is much to say,
each of them made when the socket takes it, and whole for whoever reads it."""
import os
import pathlib
import select
import socket
import sys
import time

from programs import (ENVIRONMENT, PATIENCE, ROOT, Bench, end_of, run_script,
                      wait_for, want)

sys.path.insert(0, str(ROOT / "examples"))
import raw_client  # noqa: E402

MODEL_BYTES = 4 * (785 * 4000 + 10 * 4001)
# What a sanitizer keeps of freed memory is no memory of the program's.
ENVIRONMENT["ASAN_OPTIONS"] = ":".join(
    [*filter(None, [ENVIRONMENT.get("ASAN_OPTIONS")]), "quarantine_size_mb=4"])
BIG = ("--codec=f32", "--hidden=4000", "--min-clients=1000")


def _plain_hello(name, token=None):
    body = {1: 1, 2: 1, 3: name, 5: 1, 6: 10}
    if token:
        body[9] = token
    return raw_client.frame(raw_client.HELLO, body)


def _hello(name, token=None):
    """That of a client that wants the model at once."""
    return (_plain_hello(name, token)
            + raw_client.frame(raw_client.GET_MODEL, {1: 1}))


def _head(method, session, version, body):
    return (f"{method} /fl/v1/session/{session:032x} HTTP/{version}\r\n"
            f"Host: x\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body


def _ask(bench, session, body, method="PUT"):
    """(headers, frames) of an answer that is read."""
    status, data, headers = bench.request(
        method, f"/fl/v1/session/{session:032x}", body)
    want(status == 200, status)
    return headers, list(raw_client.frames(data))


def _rest(bench, session, frames):
    """All frames until the model is whole, asked for again and again."""
    while _model(frames) < MODEL_BYTES:
        frames = frames + _ask(bench, session, b"", "POST")[1]
    want(_model(frames) == MODEL_BYTES, _model(frames))
    return frames


def _deaf(bench, session, body, method="PUT", version="1.1"):
    """A connection whose answer is not read."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    raw.connect(("127.0.0.1", bench.port))
    raw.settimeout(PATIENCE)
    raw.sendall(_head(method, session, version, body))
    return raw


def _read(raw, end=None):
    """Until the other side closes, or to an end."""
    data = b""
    while not end or not data.endswith(end):
        more = raw.recv(1 << 16)
        if not more:
            break
        data += more
    return data


def _parts(answer):
    """The bodies of the chunks of an answer, as far as they are whole."""
    rest = answer.partition(b"\r\n\r\n")[2]
    while b"\r\n" in rest:
        size, rest = rest.split(b"\r\n", 1)
        part, rest = rest[:int(size, 16)], rest[int(size, 16) + 2:]
        if len(part) < int(size, 16):
            break
        yield part


def _model(frames):
    """Bytes of the model that the chunks carry; they follow one another."""
    size = 0
    for kind, body in frames:
        if kind == raw_client.CHUNK:
            want(int.from_bytes(body[8:16], "little") == size, "a gap")
            size += len(body) - 16
    return size


def _status(process, key):
    text = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(text.split(f"{key}:")[1].split()[0])


def _cpu_s(process):
    text = pathlib.Path(f"/proc/{process.pid}/stat").read_text()
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def one_message_has_a_length_and_more_come_in_chunks():
    with Bench() as bench:
        bench.aggregator(*BIG)
        headers, frames = _ask(bench, 1, _hello("a"))
        want(headers.get("Transfer-Encoding") == "chunked", headers)
        want(frames[0][0] == raw_client.WELCOME, frames[0])
        want(abs(_model(frames) - (8 << 20)) < 65536, _model(frames))
        _rest(bench, 1, frames)
        headers, frames = _ask(bench, 2, b"not a frame at all")
        want([kind for kind, _ in frames] == [raw_client.REJECT], frames)
        want(int(headers["Content-Length"]) > 0, headers)


def a_client_of_http_1_0_gets_the_same_until_the_end():
    with Bench() as bench:
        bench.aggregator(*BIG)
        raw = socket.create_connection(("127.0.0.1", bench.port), PATIENCE)
        raw.sendall(_head("PUT", 3, "1.0", _hello("old")))
        headers, body = _read(raw).split(b"\r\n\r\n", 1)
        raw.close()
        want(b"chunked" not in headers, headers)
        frames = list(raw_client.frames(body))
        want(_model(frames) >= (8 << 20) - 65536, len(body))
        _rest(bench, 3, frames)


def who_reads_slowly_holds_a_chunk_and_no_model():
    """60 of them: with what an answer has of the model in memory they would
    need 480 MB."""
    with Bench() as bench:
        aggregator = bench.aggregator(*BIG)
        _rest(bench, 4, _ask(bench, 4, _hello("first"))[1])
        before = _status(aggregator, "VmRSS")
        deaf = [_deaf(bench, 100 + i, _hello(f"deaf-{i}")) for i in range(60)]
        for raw in deaf:
            raw.recv(1000)
        _rest(bench, 5, _ask(bench, 5, _hello("last"))[1])
        grown = _status(aggregator, "VmRSS") - before
        want(grown < 60 * 1024, f"{grown} KiB more")
        for raw in deaf:
            raw.close()


def who_waits_beside_one_that_does_not_read_costs_no_time():
    with Bench() as bench:
        aggregator = bench.aggregator(*BIG)
        deaf = _deaf(bench, 6, _hello("deaf"))
        deaf.recv(1000)
        _ask(bench, 7, _plain_hello("held"))
        held = _deaf(bench, 7, b"", "POST")
        time.sleep(1)
        before = _status(aggregator, "voluntary_ctxt_switches")
        busy = _cpu_s(aggregator)
        time.sleep(2)
        turns = _status(aggregator, "voluntary_ctxt_switches") - before
        want(turns < 100, f"{turns} times awake in 2 s")
        want(_cpu_s(aggregator) - busy < 0.5, "it spins")
        want(not select.select([held], [], [], 0)[0], "held is answered")
        for raw in (deaf, held):
            raw.close()


def who_asks_again_gets_the_rest_and_the_first_answer_ends():
    for version, end in (("1.1", b"\r\n0\r\n\r\n"), ("1.0", None)):
        with Bench() as bench:
            bench.aggregator(*BIG, "--poll-seconds=1")
            raw = _deaf(bench, 8, _hello("twice"), version=version)
            answer = raw.recv(1000)
            _, rest = _ask(bench, 8, b"", "POST")
            answer += _read(raw, end)
            raw.close()
            first = (b"".join(_parts(answer)) if end
                     else answer.partition(b"\r\n\r\n")[2])
            frames = list(raw_client.frames(first))
            want(0 < len(rest) and 0 < len(frames), len(rest), len(frames))
            _rest(bench, 8, frames + rest)


def an_answer_that_begins_late_ends_the_other():
    """The second request comes while the first is held, has what makes the
    server speak, and ends when the first is being answered."""
    with Bench() as bench:
        bench.aggregator(*BIG)
        get_model = raw_client.frame(raw_client.GET_MODEL, {1: 1})
        _ask(bench, 9, _plain_hello("late"))
        first = _deaf(bench, 9, b"", "POST")
        second = socket.create_connection(("127.0.0.1", bench.port), PATIENCE)
        time.sleep(0.2)
        second.sendall(f"POST /fl/v1/session/{9:032x} HTTP/1.1\r\nHost: x\r\n"
                       "Transfer-Encoding: chunked\r\n\r\n"
                       f"{len(get_model):x}\r\n".encode() + get_model + b"\r\n")
        answer = first.recv(1000)
        status, _, _ = answer.partition(b"\r\n")
        want(b" 200 " in status, status)
        second.sendall(b"0\r\n\r\n")
        rest = _read(second, b"\r\n0\r\n\r\n")
        answer += _read(first, b"\r\n0\r\n\r\n")
        for raw in (first, second):
            raw.close()
        frames = list(raw_client.frames(b"".join(_parts(answer))))
        frames += raw_client.frames(b"".join(_parts(rest)))
        _rest(bench, 9, frames)


def a_download_that_breaks_off_is_begun_anew():
    with Bench() as bench:
        aggregator = bench.aggregator(*BIG)
        raw = _deaf(bench, 10, _hello("broken"))
        answer = raw.recv(1000)
        while not list(_parts(answer)):
            answer += raw.recv(1000)
        raw.close()
        welcome = next(_parts(answer))
        _, body = next(raw_client.frames(welcome))
        _rest(bench, 11, _ask(bench, 11, _hello("broken", body[3]))[1])
        want(aggregator.poll() is None, bench.errors("aggregator"))


def a_model_of_many_answers_and_an_update_of_many_bodies_arrive():
    """Of 80 MB, more than fl-participant takes in one; the aggregator holds
    requests for longer than the whole may take."""
    with Bench() as bench:
        aggregator = bench.aggregator(
            "--codec=f32", "--hidden=4000,4200", "--rounds=1",
            "--min-clients=1", "--min-participants=1", "--exit-when-done",
            "--poll-seconds=600", "--update-deadline-seconds=600")
        person = bench.participant(0, 50)
        want(end_of(person) == 0, bench.errors("p0"))
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        rows = bench.events("round_finished")
        want([row["accepted"] for row in rows] == [1], rows)


def what_is_refused_is_told_whatever_waits_for_a_commit():
    """A window of commits of two seconds: the last words come at its end."""
    with Bench() as bench:
        bench.aggregator(*BIG, f"--state={bench.folder}/state",
                         "--commit-ms=2000", "--poll-seconds=10")
        _ask(bench, 12, _plain_hello("leaver"))
        bye = raw_client.frame(raw_client.BYE, {1: 0, 2: 0, 3: 1})
        _, frames = _ask(bench, 12, bye, "POST")
        want([kind for kind, _ in frames] == [raw_client.REJECT], frames)
        status, _, _ = bench.request("POST", f"/fl/v1/session/{12:032x}", b"")
        want(status == 404, status)


def a_download_does_not_wait_for_the_commits_of_others():
    with Bench() as bench:
        bench.aggregator(*BIG, f"--state={bench.folder}/state",
                         "--commit-ms=5000", "--poll-seconds=60")
        _, frames = _ask(bench, 13, _hello("reader"))
        _ask(bench, 14, _plain_hello("leaver"))
        held = _deaf(bench, 14, raw_client.frame(
            raw_client.BYE, {1: 0, 2: 0, 3: 1}), "POST")
        wait_for("left", lambda: bench.events("left"))
        began = time.monotonic()
        _rest(bench, 13, frames)
        want(not select.select([held], [], [], 0)[0]
             or time.monotonic() - began > 4, "the window is over already")
        want(time.monotonic() - began < 4, "it waited for the window")
        held.close()


if __name__ == "__main__":
    run_script(sys.modules[__name__])
