# SPDX-License-Identifier: Apache-2.0
"""examples/raw_client.py, which knows nothing but docs/design/protocol.md,
against the real aggregator."""
import ast
import json
import struct
import sys

from programs import (PARTICIPANT, ROOT, Bench, end_of, run_program,
                      run_script, wait_for, want)

sys.path.insert(0, str(ROOT / "examples"))
import raw_client  # noqa: E402
import raw_ed25519  # noqa: E402

RAW = ROOT / "examples" / "raw_client.py"
SIGNATURES = ROOT / "examples" / "raw_ed25519.py"
PEOPLE = 20  # shards: pure Python is slow


def _description(bench):
    """A small net, written by the page's rules: 784-6-10."""
    path = bench.folder / "description"
    path.write_bytes(raw_client.pack({1: 1, 2: [
        {1: "input", 2: "x", 16: [28, 28], 17: 1 / 255., 18: 0.},
        {1: "flatten", 2: "flatten"},
        {1: "dense", 2: "a", 3: 0, 16: 6}, {1: "relu", 2: "relu"},
        {1: "dense", 2: "b", 3: 1, 16: 10},
        {1: "softmax_cross_entropy", 2: "loss"}]}))
    return path


def _aggregator(bench, *arguments, **options):
    return bench.aggregator(
        f"--model-description={_description(bench)}", "--codec=f32",
        "--exit-when-done", "--poll-seconds=2", "--grace-seconds=60",
        "--lr=0.2", *arguments, **options)


def _raw(bench, index, *arguments):
    return bench.start(
        f"raw{index}", sys.executable, RAW, f"http://127.0.0.1:{bench.port}",
        f"raw{index}", bench.data, f"--index={index}",
        f"--participants={PEOPLE}", *arguments)


def _model_of(path):
    """The values of a safetensors file, in its order of bytes."""
    data = path.read_bytes()
    n, = struct.unpack_from("<Q", data)
    json.loads(data[8:8 + n])
    return data[8 + n:]


def it_imports_the_standard_library_alone():
    names = set()
    for path in (RAW, SIGNATURES):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.split(".")[0])
    foreign = names - set(sys.stdlib_module_names) - {SIGNATURES.stem}
    want(names and not foreign, foreign)


def a_client_from_the_page_alone_finishes_the_rounds():
    with Bench() as bench:
        aggregator = _aggregator(bench, "--rounds=4", "--min-clients=1")
        process = _raw(bench, 0)
        want(end_of(process) == 0, bench.errors("raw0"))
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        want("done: version 4, 4 updates counted" in bench.errors("raw0"),
             bench.errors("raw0"))
        rows = bench.events("round_finished")
        want([row["accepted"] for row in rows] == [1] * 4, rows)
        want(rows[-1]["train_loss"] < rows[0]["train_loss"], rows)
        want(not bench.events("refused"), bench.events("refused"))


def its_signatures_are_those_of_rfc_8032():
    """The first test vector of section 7.1, of an empty message."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc4"
                         "4449c5697b326919703bac031cae7f60")
    public = ("d75a980182b10ab7d54bfed3c964073a"
              "0ee172f3daa62325af021a68f707511a")
    signature = ("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
                 "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b")
    want(raw_ed25519.public_key(seed).hex() == public, "public key")
    want(raw_ed25519.sign(seed, b"").hex() == signature, "signature")


def with_a_key_it_takes_part_where_keys_are_wanted():
    with Bench() as bench:
        path, allowed = bench.folder / "key", bench.folder / "allowed"
        status, text, errors = run_program(PARTICIPANT, "--new-key",
                                           f"--key={path}")
        want(status == 0, errors)
        allowed.write_text(text.strip() + " raw0\n")
        aggregator = _aggregator(bench, "--rounds=2", "--enrol=list",
                                 f"--allow-list={allowed}")
        process = _raw(bench, 0, f"--key={path}")
        want(end_of(process) == 0, bench.errors("raw0"))
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        want("2 updates counted" in bench.errors("raw0"), bench.errors("raw0"))
        want(not bench.events("refused"), bench.events("refused"))


def its_model_is_the_aggregators():
    with Bench() as bench:
        theirs, own = bench.folder / "theirs", bench.folder / "own"
        aggregator = _aggregator(bench, "--rounds=2", "--min-clients=2",
                                 "--min-participants=2",
                                 f"--model-out={theirs}")
        processes = [_raw(bench, 0, f"--model-out={own}"), _raw(bench, 1)]
        for i, process in enumerate(processes):
            want(end_of(process) == 0, bench.errors(f"raw{i}"))
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        want(_model_of(theirs) == own.read_bytes(), "the models differ")


def it_takes_part_beside_the_librarys_own_client():
    with Bench() as bench:
        aggregator = _aggregator(bench, "--rounds=3", "--min-clients=2",
                                 "--min-participants=2")
        raw, other = _raw(bench, 0), bench.participant(1, PEOPLE)
        want(end_of(raw) == 0, bench.errors("raw0"))
        want(end_of(other) == 0, bench.errors("p1"))
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        rows = bench.events("round_finished")
        want([row["accepted"] for row in rows] == [2] * 3, rows)
        want(not bench.events("refused"), bench.events("refused"))


def it_survives_a_killed_aggregator():
    with Bench() as bench:
        arguments = [f"--state={bench.folder / 'state'}", "--rounds=6",
                     "--min-clients=1"]
        aggregator = _aggregator(bench, *arguments)
        port = bench.port
        process = _raw(bench, 0)
        wait_for("two rounds",
                 lambda: len(bench.events("round_finished")) >= 2, aggregator)
        aggregator.kill()
        end_of(aggregator)
        aggregator = _aggregator(bench, *arguments, port=port)
        want(end_of(process) == 0, bench.errors("raw0"))
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        want("done: version 6" in bench.errors("raw0"), bench.errors("raw0"))
        want(not bench.events("round_aborted"), bench.events("round_aborted"))


def another_codec_is_refused():
    with Bench() as bench:
        _aggregator(bench, "--codec=thc")
        process = _raw(bench, 0)
        want(end_of(process) == 1, bench.errors("raw0"))
        want("codec is not f32" in bench.errors("raw0"), bench.errors("raw0"))


if __name__ == "__main__":
    run_script(sys.modules[__name__])
