# SPDX-License-Identifier: Apache-2.0
"""What a session's request is answered: in chunks where there is much to say,
each of them made when the socket takes it, and whole for whoever reads it."""
import http.client
import pathlib
import socket
import sys

from programs import (ENVIRONMENT, PATIENCE, ROOT, Bench, run_script, wait_for,
                      want)

sys.path.insert(0, str(ROOT / "examples"))
import raw_client  # noqa: E402

MODEL_BYTES = 4 * (785 * 4000 + 10 * 4001)
# What a sanitizer keeps of freed memory is no memory of the program's.
ENVIRONMENT["ASAN_OPTIONS"] = ":".join(
    [*filter(None, [ENVIRONMENT.get("ASAN_OPTIONS")]), "quarantine_size_mb=4"])
BIG = ("--codec=f32", "--hidden=4000", "--min-clients=1000")


def _hello(name, token=None):
    """That of a client that wants the model at once."""
    body = {1: 1, 2: 1, 3: name, 5: 1, 6: 10}
    if token:
        body[9] = token
    return (raw_client.frame(raw_client.HELLO, body)
            + raw_client.frame(raw_client.GET_MODEL, {1: 1}))


def _head(method, session, version, body):
    return (f"{method} /fl/v1/session/{session:032x} HTTP/{version}\r\n"
            f"Host: x\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body


def _ask(bench, session, body, method="PUT"):
    """(headers, frames) of an answer that is read."""
    connection = http.client.HTTPConnection("127.0.0.1", bench.port,
                                            timeout=PATIENCE)
    connection.request(method, f"/fl/v1/session/{session:032x}", body)
    answer = connection.getresponse()
    want(answer.status == 200, answer.status)
    frames = list(raw_client.frames(answer.read()))
    connection.close()
    return dict(answer.getheaders()), frames


def _deaf(bench, session, body, method="PUT"):
    """A connection whose answer is not read."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    raw.connect(("127.0.0.1", bench.port))
    raw.settimeout(PATIENCE)
    raw.sendall(_head(method, session, "1.1", body))
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


def _resident_kib(process):
    text = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0])


def one_message_has_a_length_and_more_come_in_chunks():
    with Bench() as bench:
        bench.aggregator(*BIG)
        headers, frames = _ask(bench, 1, _hello("a"))
        want(headers.get("Transfer-Encoding") == "chunked", headers)
        want(frames[0][0] == raw_client.WELCOME, frames[0])
        want(_model(frames) == MODEL_BYTES, _model(frames))
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
        want(_model(raw_client.frames(body)) == MODEL_BYTES, len(body))


def who_reads_slowly_holds_a_chunk_and_no_model():
    """60 of them: with the model, or 8 MiB of it, in each one's answer they
    would need 480 MB."""
    with Bench() as bench:
        aggregator = bench.aggregator(*BIG)
        _ask(bench, 4, _hello("first"))
        before = _resident_kib(aggregator)
        deaf = [_deaf(bench, 100 + i, _hello(f"deaf-{i}")) for i in range(60)]
        wait_for("joined", lambda: len(bench.events("joined")) == 61,
                 aggregator)
        _, frames = _ask(bench, 5, _hello("last"))
        want(_model(frames) == MODEL_BYTES, _model(frames))
        grown = _resident_kib(aggregator) - before
        want(grown < 60 * 1024, f"{grown} KiB more")
        for raw in deaf:
            raw.close()


def who_asks_again_gets_the_rest_and_the_first_answer_ends():
    with Bench() as bench:
        aggregator = bench.aggregator(*BIG, "--poll-seconds=1")
        raw = _deaf(bench, 6, _hello("twice"))
        wait_for("joined", lambda: bench.events("joined"), aggregator)
        _, rest = _ask(bench, 6, b"", "POST")
        first = b"".join(_parts(_read(raw, b"\r\n0\r\n\r\n")))
        raw.close()
        frames = list(raw_client.frames(first))
        want(0 < len(rest) and 0 < len(frames), len(rest), len(frames))
        want(_model(frames + rest) == MODEL_BYTES, _model(frames + rest))


def a_download_that_breaks_off_is_begun_anew():
    with Bench() as bench:
        aggregator = bench.aggregator(*BIG)
        raw = _deaf(bench, 7, _hello("broken"))
        wait_for("joined", lambda: bench.events("joined"), aggregator)
        answer = raw.recv(1000)
        while not list(_parts(answer)):
            answer += raw.recv(1000)
        raw.close()
        welcome = next(_parts(answer))
        _, body = next(raw_client.frames(welcome))
        _, frames = _ask(bench, 8, _hello("broken", body[3]))
        want(_model(frames) == MODEL_BYTES, _model(frames))
        want(aggregator.poll() is None, bench.errors("aggregator"))


if __name__ == "__main__":
    run_script(sys.modules[__name__])
