# SPDX-License-Identifier: Apache-2.0
"""What docs/operations.md tells an operator to do: a backup while the
aggregator runs, going on from one that is put back, and from the state of an
older program."""
import contextlib
import hashlib
import re
import shutil
import signal
import sqlite3
import struct
import sys

from programs import (ROOT, Bench, end_of, run_program, run_script, wait_for,
                      want, AGGREGATOR, PARTICIPANT)

ROUNDS = 40


def _arguments(state):
    return [f"--state={state}", f"--rounds={ROUNDS}", "--min-clients=2",
            "--min-participants=2", "--grace-seconds=60", "--exit-when-done"]


def _back_up(state, copy):
    """As the page's `sqlite3 FILE ".backup COPY"` does it."""
    source, target = sqlite3.connect(state), sqlite3.connect(copy)
    source.backup(target)
    target.close()
    source.close()


def _rounds(bench, n, process):
    wait_for(f"{n} rounds",
             lambda: len(bench.events("round_finished")) >= n, process)


def a_backup_of_a_running_aggregator_goes_on():
    with Bench() as bench:
        state, copy = bench.folder / "state", bench.folder / "copy"
        aggregator = bench.aggregator(*_arguments(state))
        people = [bench.participant(i, 2) for i in range(2)]
        _rounds(bench, 3, aggregator)
        _back_up(state, copy)
        # The copy beside the original, as the page says to try one.
        other = bench.start("other", AGGREGATOR, "--listen=127.0.0.1:0",
                            f"--log={bench.folder / 'other.log'}",
                            *_arguments(copy))
        wait_for("restored", lambda: (bench.folder / "other.log").exists()
                 and "restored" in (bench.folder / "other.log").read_text(),
                 other)
        other.send_signal(signal.SIGTERM)
        want(end_of(other) == 0, bench.errors("other"))
        # The original did not notice.
        for i, person in enumerate(people):
            want(end_of(person) == 0, bench.errors(f"p{i}"))
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        want(not bench.events("store_failed"), bench.events("store_failed"))


def a_rollback_goes_on_from_the_copy():
    with Bench() as bench:
        state, copy = bench.folder / "state", bench.folder / "copy"
        aggregator = bench.aggregator(*_arguments(state))
        port = bench.port
        people = [bench.participant(i, 2) for i in range(2)]
        _rounds(bench, 2, aggregator)
        _back_up(state, copy)
        _rounds(bench, 5, aggregator)
        aggregator.kill()
        end_of(aggregator)
        for name in ("state-wal", "state-shm"):
            (bench.folder / name).unlink(missing_ok=True)
        copy.replace(state)
        aggregator = bench.aggregator(*_arguments(state), port=port)
        restored = bench.events("restored")[0]["version"]
        want(restored < 5, restored)
        for i, person in enumerate(people):
            want(end_of(person) == 0, bench.errors(f"p{i}"))
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        rounds = [e["round"] for e in bench.events("round_finished")]
        want(rounds[-1] == ROUNDS and rounds.count(5) == 2, rounds)


# Of the program whose states had version 7, killed in round 4 of 6.
OLD_STATE = ROOT / "tests" / "golden" / "kept" / "aggregator-7.sqlite"
OLD_RUN = ("--hidden=1", "--rounds=6", "--min-clients=2",
           "--min-participants=2", "--exit-when-done")
FIRST_PIECE = b"server/state/\0\0\0\0"


def _first_piece(state):
    with contextlib.closing(sqlite3.connect(state)) as database:
        query = "SELECT value FROM fl_store WHERE key = ?"
        return database.execute(query, (FIRST_PIECE,)).fetchone()[0]


def _version(state):
    return struct.unpack_from("<I", _first_piece(state), 8)[0]


def a_state_of_an_older_program_goes_on_and_is_of_this_one_then():
    with Bench() as bench:
        state = bench.folder / "state"
        shutil.copy(OLD_STATE, state)
        want(_version(state) == 7, _version(state))
        aggregator = bench.aggregator(f"--state={state}", *OLD_RUN)
        want(bench.events("restored")[0]["version"] == 3, bench.events())
        people = [bench.participant(i, 2) for i in range(2)]
        for i, person in enumerate(people):
            want(end_of(person) == 0, bench.errors(f"p{i}"))
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        rounds = [e["round"] for e in bench.events("round_finished")]
        want(rounds == [4, 5, 6], rounds)
        want(_version(state) > 7, _version(state))


def a_state_of_a_newer_program_is_refused_and_left_as_it_was():
    with Bench() as bench:
        state = bench.folder / "state"
        shutil.copy(OLD_STATE, state)
        piece = bytearray(_first_piece(state)[:-32])
        struct.pack_into("<I", piece, 8, 1000)
        piece += hashlib.blake2b(piece, digest_size=32).digest()
        with contextlib.closing(sqlite3.connect(state)) as database:
            database.execute("UPDATE fl_store SET value = ? WHERE key = ?",
                             (bytes(piece), FIRST_PIECE))
            database.commit()
        status, _, errors = run_program(
            AGGREGATOR, "--listen=127.0.0.1:0", f"--state={state}", *OLD_RUN)
        want(status == 1, status, errors)
        want("state version: got 1000, want 1.." in errors, errors)
        want(_first_piece(state) == bytes(piece), "the file was changed")


def settings_and_metrics_that_the_page_names_exist():
    page = (ROOT / "docs" / "operations.md").read_text()
    text = "".join(run_program(program, "--help")[1]
                   for program in (AGGREGATOR, PARTICIPANT))
    for option in set(re.findall(r"--([a-z][a-z-]+)\b", page)):
        want(f"--{option}" in text, option)
    source = (ROOT / "examples" / "fl_aggregator" / "metrics.c").read_text()
    for metric in set(re.findall(r"`(fl_\w+?)(?:_total)?`", page)):
        if metric != "fl_server":
            want(f'"{metric}"' in source, metric)


if __name__ == "__main__":
    run_script(sys.modules[__name__])
