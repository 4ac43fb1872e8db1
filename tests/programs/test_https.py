# SPDX-License-Identifier: Apache-2.0
"""HTTPS between fl-aggregator and fl-participant, by certificates made here."""
import pathlib
import socket
import subprocess
import sys
import tempfile

from programs import (Bench, AGGREGATOR, PARTICIPANT, end_of, run_program,
                      run_script, want)


def _openssl(folder, *arguments):
    subprocess.run(["openssl", *map(str, arguments)], cwd=folder, check=True,
                   stdin=subprocess.DEVNULL, capture_output=True, timeout=60)


def _authority(folder, name, names="DNS:localhost,IP:127.0.0.1"):
    """A CA, and a certificate of it for these names."""
    _openssl(folder, "req", "-x509", "-newkey", "ec", "-pkeyopt",
             "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
             f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    _openssl(folder, "req", "-newkey", "ec", "-pkeyopt",
             "ec_paramgen_curve:prime256v1", "-nodes", "-subj",
             "/CN=localhost", "-addext",
             f"subjectAltName={names}", "-keyout",
             f"{name}-server.key", "-out", f"{name}-server.csr")
    _openssl(folder, "x509", "-req", "-in", f"{name}-server.csr", "-CA",
             f"{name}.pem", "-CAkey", f"{name}.key", "-CAcreateserial",
             "-days", "2", "-copy_extensions", "copy", "-out",
             f"{name}-server.pem")
    return (folder / f"{name}.pem", folder / f"{name}-server.pem",
            folder / f"{name}-server.key")


def _serve(bench, *arguments, **names):
    ca, certificate, key = _authority(bench.folder, "ours", **names)
    process = bench.aggregator(f"--certificate={certificate}",
                               f"--key-file={key}", *arguments)
    return process, ca


def _join(bench, url, *arguments):
    return bench.start("p0", PARTICIPANT, f"--server={url}", "--id=p0",
                       f"--data={bench.data}", "--retry-seconds=1",
                       *arguments)


def a_training_runs_over_https():
    with Bench() as bench:
        aggregator, ca = _serve(bench, "--rounds=3", "--min-clients=2",
                                "--min-participants=2", "--exit-when-done")
        url = f"https://localhost:{bench.port}"
        people = [bench.start(f"p{i}", PARTICIPANT, f"--server={url}",
                              f"--id=p{i}", f"--index={i}",
                              "--participants=2", f"--data={bench.data}",
                              f"--ca={ca}") for i in range(2)]
        for i, person in enumerate(people):
            want(end_of(person) == 0, bench.errors(f"p{i}"))
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        rows = bench.events("round_finished")
        want([row["accepted"] for row in rows] == [2, 2, 2], rows)


def nothing_is_readable_on_the_wire():
    with Bench() as bench, socket.create_server(("127.0.0.1", 0)) as server:
        aggregator, ca = _serve(bench)
        process = _join(bench,
                        f"https://localhost:{server.getsockname()[1]}",
                        f"--ca={ca}")
        raw, _ = server.accept()
        with raw:
            first = raw.recv(65536)
        process.terminate()
        aggregator.terminate()
        want(first[:1] == b"\x16" and b"/fl/v1" not in first, first[:40])


def another_authority_is_refused():
    with Bench() as bench:
        aggregator, _ = _serve(bench)
        other, _, _ = _authority(bench.folder, "other")
        process = _join(bench, f"https://localhost:{bench.port}",
                        f"--ca={other}")
        want(end_of(process) == 3, bench.errors("p0"))
        want("certificate" in bench.errors("p0"), bench.errors("p0"))
        # Without --ca, the system's authorities do not know it either.
        process = _join(bench, f"https://localhost:{bench.port}")
        want(end_of(process) == 3, bench.errors("p0"))
        want(not bench.events("joined"), bench.events("joined"))
        want(aggregator.poll() is None, bench.errors("aggregator"))


def another_name_is_refused():
    with Bench() as bench:
        aggregator, ca = _serve(bench, names="DNS:elsewhere.example")
        process = _join(bench, f"https://127.0.0.1:{bench.port}", f"--ca={ca}")
        want(end_of(process) == 3, bench.errors("p0"))
        want("127.0.0.1" in bench.errors("p0"), bench.errors("p0"))
        want(not bench.events("joined"), bench.events("joined"))
        want(aggregator.poll() is None, bench.errors("aggregator"))


def http_where_https_is_spoken_is_told():
    with Bench() as bench:
        aggregator, _ = _serve(bench)
        process = _join(bench, f"http://127.0.0.1:{bench.port}")
        want(end_of(process) not in (0, None), bench.errors("p0"))
        want("does it want https://?" in bench.errors("p0"),
             bench.errors("p0"))
        want(aggregator.poll() is None, bench.errors("aggregator"))


def https_where_http_is_spoken_is_told():
    with Bench() as bench:
        bench.aggregator()
        process = _join(bench, f"https://127.0.0.1:{bench.port}")
        want(end_of(process) not in (0, None), bench.errors("p0"))
        want("does it want http://?" in bench.errors("p0"), bench.errors("p0"))


def files_that_are_no_certificate_are_named():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        _, certificate, key = _authority(folder, "ours")
        _, _, other = _authority(folder, "other")
        text = folder / "text"
        text.write_text("hello\n")
        listen = "--listen=127.0.0.1:0"
        for arguments, says in (
                ([f"--certificate={certificate}"], "key_file"),
                ([f"--key-file={key}"], "key_file"),
                ([f"--certificate={certificate}", f"--key-file={folder}/no"],
                 "/no: No such file"),
                ([f"--certificate={text}", f"--key-file={key}"],
                 "text: want PEM"),
                ([f"--certificate={certificate}", f"--key-file={text}"],
                 "text: want PEM"),
                ([f"--certificate={certificate}", f"--key-file={other}"],
                 "belong together")):
            status, _, errors = run_program(AGGREGATOR, listen, *arguments)
            want(status in (1, 2) and says in errors, arguments, errors)
        for arguments, says in (
                (["--server=http://x", f"--ca={certificate}"], "https://"),
                (["--server=https://x", f"--ca={folder}/no"], "No such file")):
            status, _, errors = run_program(PARTICIPANT, "--id=a",
                                            f"--data={folder}", *arguments)
            want(status in (1, 2) and says in errors, arguments, errors)


if __name__ == "__main__":
    run_script(sys.modules[__name__])
