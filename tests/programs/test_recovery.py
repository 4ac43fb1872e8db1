# SPDX-License-Identifier: Apache-2.0
"""What happens when a process of a training ends in the middle: the
aggregator by SIGTERM or SIGKILL, a participant by SIGTERM or SIGKILL."""
import signal
import sys

import programs
from programs import AGGREGATOR, Bench, end_of, run_script, want, wait_for

ROUNDS = 60  # long enough to be stopped in the middle


def _some_rounds(bench, process, n):
    wait_for(f"{n} rounds",
             lambda: len(bench.events("round_finished")) >= n, process)


def _check_all_rounds(bench):
    """Every round was finished; one may be logged again by a process that
    restarts from a state before it."""
    seen = [e["round"] for e in bench.events("round_finished")]
    want(sorted(set(seen)) == list(range(1, ROUNDS + 1)), seen)


def _arguments(bench):
    return [f"--snapshot={bench.folder / 'snapshot'}", f"--rounds={ROUNDS}",
            "--min-clients=2", "--exit-when-done"]


def a_terminated_aggregator_goes_on_where_it_was():
    with Bench() as bench:
        arguments = _arguments(bench)
        aggregator = bench.aggregator(*arguments)
        port = bench.port
        processes = [bench.participant(i, 2) for i in range(2)]
        _some_rounds(bench, aggregator, 2)
        aggregator.send_signal(signal.SIGTERM)
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        done = len(bench.events("round_finished"))
        want(done < ROUNDS, "was over before it was stopped")
        want(bench.events("exit")[0]["reason"] == "signal", bench.events())
        aggregator = bench.aggregator(*arguments, port=port)
        want(bench.events("restored")[0]["version"] >= done, done)
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        for i, process in enumerate(processes):
            want(end_of(process) == 0, bench.errors(f"p{i}"))
        _check_all_rounds(bench)


def a_terminated_aggregator_with_threads_of_a_blas_saves():
    """A signal may come to a thread that the program did not make."""
    number = programs.ENVIRONMENT["OPENBLAS_NUM_THREADS"]
    programs.ENVIRONMENT["OPENBLAS_NUM_THREADS"] = "4"
    try:
        for name in (signal.SIGTERM, signal.SIGINT):
            with Bench() as bench:
                aggregator = bench.aggregator(*_arguments(bench))
                aggregator.send_signal(name)
                want(end_of(aggregator) == 0, bench.errors("aggregator"))
                want(bench.events("exit")[0]["reason"] == "signal",
                     bench.events())
    finally:
        programs.ENVIRONMENT["OPENBLAS_NUM_THREADS"] = number


def a_killed_aggregator_goes_on_from_its_last_round():
    with Bench() as bench:
        arguments = _arguments(bench)
        aggregator = bench.aggregator(*arguments)
        port = bench.port
        processes = [bench.participant(i, 2) for i in range(2)]
        _some_rounds(bench, aggregator, 3)
        aggregator.kill()
        end_of(aggregator)
        aggregator = bench.aggregator(*arguments, port=port)
        want(bench.events("restored")[0]["version"] >= 2, bench.events())
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        for i, process in enumerate(processes):
            want(end_of(process) == 0, bench.errors(f"p{i}"))
        _check_all_rounds(bench)


def fresh_ignores_the_snapshot():
    with Bench() as bench:
        arguments = _arguments(bench)
        aggregator = bench.aggregator(*arguments)
        aggregator.send_signal(signal.SIGTERM)
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        bench.aggregator("--fresh", *arguments)
        want(not bench.events("restored"), bench.events())


def a_snapshot_that_cannot_be_saved_is_told_and_the_run_goes_on():
    with Bench() as bench:
        folder = bench.folder / "state"
        aggregator = bench.aggregator(f"--snapshot={folder / 'job'}",
                                      "--rounds=3", "--exit-when-done")
        folder.rmdir()
        want(end_of(bench.participant(0, 1)) == 0, bench.errors("p0"))
        want(end_of(aggregator) == 1, "exit status")
        errors = bench.errors("aggregator").splitlines()
        want(errors and all("job: not saved: No such file" in line
                            for line in errors), errors)
        want(len(bench.events("round_finished")) == 3, bench.events())


def a_damaged_snapshot_is_refused():
    with Bench() as bench:
        arguments = _arguments(bench)
        aggregator = bench.aggregator(*arguments)
        aggregator.send_signal(signal.SIGTERM)
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        path = bench.folder / "snapshot"
        good = path.read_bytes()
        for bad in (good[:len(good) // 2],
                    good[:-1] + bytes([good[-1] ^ 1]), b""):
            path.write_bytes(bad)
            process = bench.start("again", AGGREGATOR,
                                  "--listen=127.0.0.1:0", *arguments)
            want(end_of(process) == 1, len(bad))
            want("--fresh begins anew" in bench.errors("again"),
                 bench.errors("again"))


def a_terminated_participant_goes_on_where_it_was():
    with Bench() as bench:
        aggregator = bench.aggregator(
            f"--rounds={ROUNDS}", "--min-clients=2", "--min-participants=2",
            "--grace-seconds=60", "--exit-when-done")
        other = bench.participant(0, 2)
        state = f"--state={bench.folder / 'state'}"
        process = bench.participant(1, 2, state)
        _some_rounds(bench, aggregator, 1)
        process.send_signal(signal.SIGTERM)
        want(end_of(process) == 0, bench.errors("p1"))
        want((bench.folder / "state").exists(), "no state was saved")
        process = bench.participant(1, 2, state)
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        want(end_of(process) == 0 and end_of(other) == 0, bench.errors("p1"))
        rows = bench.events("round_finished")
        want([row["accepted"] for row in rows] == [2] * ROUNDS, rows)


def a_killed_participant_comes_back_with_its_state():
    with Bench() as bench:
        aggregator = bench.aggregator(
            "--rounds=4", "--min-clients=2", "--min-participants=2",
            "--grace-seconds=60", "--exit-when-done")
        other = bench.participant(0, 2)
        state = f"--state={bench.folder / 'state'}"
        process = bench.participant(1, 2, state, "--die-in-round=3")
        want(end_of(process) == -signal.SIGKILL, bench.errors("p1"))
        process = bench.participant(1, 2, state)
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        want(end_of(process) == 0 and end_of(other) == 0, bench.errors("p1"))
        want(len(bench.events("returned")) == 1, bench.events())
        rows = bench.events("round_finished")
        want([row["accepted"] for row in rows] == [2] * 4, rows)


def a_finished_job_is_told_after_a_restart():
    with Bench() as bench:
        arguments = [f"--snapshot={bench.folder / 'snapshot'}", "--rounds=2",
                     "--min-clients=1", "--exit-when-done"]
        aggregator = bench.aggregator(*arguments)
        process = bench.participant(0, 1)
        want(end_of(process) == 0, bench.errors("p0"))
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        aggregator = bench.aggregator(*arguments)
        process = bench.participant(0, 1)
        want(end_of(process) == 0, bench.errors("p0"))
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        want(len(bench.events("round_finished")) == 2, bench.events())


def a_killed_participant_is_lost_and_the_run_goes_on():
    with Bench() as bench:
        aggregator = bench.aggregator("--rounds=4", "--min-clients=3",
                                      "--exit-when-done")
        processes = [bench.participant(0, 3),
                     bench.participant(1, 3, "--die-in-round=2"),
                     bench.participant(2, 3)]
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        want(end_of(processes[1]) == -signal.SIGKILL, "it lives")
        want(end_of(processes[0]) == 0 and end_of(processes[2]) == 0, "others")
        lost = bench.events("client_lost")
        want([(e["client"], e["round"]) for e in lost] == [("p1", 2)], lost)
        rows = bench.events("round_finished")
        want([row["accepted"] for row in rows] == [3, 2, 2, 2], rows)


def a_participant_killed_in_a_long_poll_is_noticed_at_once():
    with Bench() as bench:
        aggregator = bench.aggregator("--min-clients=2", "--poll-seconds=600",
                                      "--grace-seconds=1")
        process = bench.participant(0, 2)
        wait_for("joined", lambda: bench.events("joined"), aggregator)
        process.kill()
        wait_for("no session left", lambda: b"fl_sessions 0\n" in
                 bench.request("GET", "/metrics")[1], aggregator)


def an_unreachable_aggregator_is_given_up():
    with Bench() as bench:
        aggregator = bench.aggregator()
        aggregator.kill()
        end_of(aggregator)
        process = bench.participant(0, 1, "--retry-seconds=1")
        want(end_of(process) == 4, bench.errors("p0"))
        want("cannot be reached for 1 s" in bench.errors("p0"),
             bench.errors("p0"))


if __name__ == "__main__":
    run_script(sys.modules[__name__])
