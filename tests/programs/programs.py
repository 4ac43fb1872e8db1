# SPDX-License-Identifier: Apache-2.0
"""Start the example programs of a build, for the scripts of this folder.

A small data set is made here (bright class-dependent squares, 28 x 28), so
that a run takes a second and needs no package.
"""
import contextlib
import gzip
import http.client
import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "tools"))
from cases import Cases  # noqa: E402

BUILD = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build"
AGGREGATOR = BUILD / "examples" / "fl-aggregator"
PARTICIPANT = BUILD / "examples" / "fl-participant"
PATIENCE = 120  # seconds; sanitizers and a busy machine are slow
ENVIRONMENT = dict(os.environ, OPENBLAS_NUM_THREADS="1",
                   no_proxy="127.0.0.1")


def square_of(label):
    """Top and left of a label's bright square."""
    return 1 + 13 * (label // 5), 5 * (label % 5)


def write_idx(folder, prefix, n, rng, place=square_of):
    """`place` gives top and left of a label's square, and may give its height
    and width."""
    labels = bytes(rng.randrange(10) for _ in range(n))
    pixels = bytearray()
    for label in labels:
        image = bytearray(rng.randrange(64) for _ in range(784))
        top, left, *size = place(label)
        height, width = size or (12, 5)
        for y in range(top, top + height):
            image[28 * y + left:28 * y + left + width] = b"\xe0" * width
        pixels += image
    with gzip.open(folder / f"{prefix}-images-idx3-ubyte.gz", "wb", 1) as file:
        file.write(struct.pack(">IIII", 0x803, n, 28, 28) + pixels)
    with gzip.open(folder / f"{prefix}-labels-idx1-ubyte.gz", "wb", 1) as file:
        file.write(struct.pack(">II", 0x801, n) + labels)


def make_data(folder, train=1600, test=400, place=square_of):
    rng = random.Random(7)
    folder.mkdir()
    write_idx(folder, "train", train, rng, place)
    write_idx(folder, "t10k", test, rng, place)
    return folder


def wait_for(what, condition, process=None):
    """Wait until condition() is true and return its value."""
    end = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if process and process.poll() is not None:
            raise AssertionError(f"{what}: the process ended with "
                                 f"{process.returncode}")
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not after {PATIENCE} s")
        time.sleep(0.02)


class Bench:
    """A folder, the processes started in it, and their end."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="libfl-programs-"))
        self.data = make_data(self.folder / "data")
        self.processes = []
        self.port = None
        self.log = self.folder / "log"

    def __enter__(self):
        return self

    def __exit__(self, failure, *_):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        texts = [path.read_text(errors="replace")
                 for path in self.folder.glob("*.err")]
        shutil.rmtree(self.folder)
        reports = [text for text in texts
                   if "runtime error:" in text or "Sanitizer:" in text]
        if reports and not failure:
            raise AssertionError("\n".join(reports))

    def start(self, name, program, *arguments, preexec=None):
        with (self.folder / f"{name}.err").open("ab") as errors:
            process = subprocess.Popen(
                [str(program), *map(str, arguments)], env=ENVIRONMENT,
                stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
                preexec_fn=preexec)
        self.processes.append(process)
        return process

    def aggregator(self, *arguments, port=0, preexec=None):
        port_file = self.folder / "port"
        with contextlib.suppress(FileNotFoundError):
            port_file.unlink()
        process = self.start(
            "aggregator", AGGREGATOR, f"--listen=127.0.0.1:{port}",
            f"--port-file={port_file}", f"--log={self.log}",
            f"--test-data={self.data}", "--grace-seconds=1", *arguments,
            preexec=preexec)
        wait_for("port file", port_file.exists, process)
        self.port = int(port_file.read_text())
        return process

    def participant(self, index, participants, *arguments):
        return self.start(
            f"p{index}", PARTICIPANT, f"--server=http://127.0.0.1:{self.port}",
            f"--id=p{index}", f"--index={index}", f"--data={self.data}",
            f"--participants={participants}", *arguments)

    def errors(self, name):
        return (self.folder / f"{name}.err").read_text(errors="replace")

    def events(self, kind=None):
        if not self.log.exists():
            return []
        text = self.log.read_text()
        lines = text[:text.rfind("\n") + 1].splitlines()
        events = [json.loads(line) for line in lines]
        return [e for e in events if kind in (None, e["event"])]

    def request(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port,
                                                timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read(), dict(answer.getheaders())
        finally:
            connection.close()


def end_of(process):
    """Exit status of a process that should end by itself."""
    return process.wait(PATIENCE)


def run_case(cases, name, function):
    """One case: a function that raises AssertionError when it fails."""
    try:
        function()
    except AssertionError as error:
        cases.check(name, str(error).splitlines() or ["assertion failed"])
    except (OSError, subprocess.TimeoutExpired, KeyError, ValueError,
            http.client.HTTPException) as error:
        cases.check(name, [f"{type(error).__name__}: {error}"])
    else:
        cases.check(name, [])


def want(is_true, *facts):
    """Assert with the facts in the message."""
    if not is_true:
        raise AssertionError("\n".join(str(fact) for fact in facts))


def run_program(program, *arguments):
    """Return exit status, standard output and standard error."""
    done = subprocess.run([str(program), *map(str, arguments)],
                          stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=500, check=False)
    return done.returncode, done.stdout, done.stderr


def run_script(module):
    """Run every public function of a script, print the closing line, exit."""
    cases = Cases()
    for name, value in vars(module).items():
        is_own = getattr(value, "__module__", "") == module.__name__
        if callable(value) and is_own and not name.startswith("_"):
            run_case(cases, name, value)
    cases.close()
