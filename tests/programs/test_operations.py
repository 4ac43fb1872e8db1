# SPDX-License-Identifier: Apache-2.0
"""What docs/operations.md tells an operator to do: a backup while the
aggregator runs, and going on from one that is put back."""
import re
import signal
import sqlite3
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
