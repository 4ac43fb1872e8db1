# SPDX-License-Identifier: Apache-2.0
"""kill -9 of an aggregator with --state, at seeded moments of a run of 20
participants: restarted each time, it ends with the model's bytes of a run that
nobody disturbed. All are selected in every round, so that the run is unique.

usage: test_durability.py [BUILD [KILLS [SEED]]]
"""
import random
import sys
import time

import programs
from programs import AGGREGATOR, Bench, end_of, run_script, want, wait_for

PEOPLE = 20
ROUNDS = 8
KILLS = int(sys.argv[2]) if len(sys.argv) > 2 else 12
KILLS_PER_RUN = 6
SEED = int(sys.argv[3]) if len(sys.argv) > 3 else 20261
# Each learns for longer than this machine's clock ticks, and hears nothing
# for a while when the aggregator is gone.
programs.PATIENCE = 300


def _arguments(bench, name):
    return [f"--state={bench.folder / 'state.sqlite'}", f"--rounds={ROUNDS}",
            f"--min-clients={PEOPLE}", f"--min-participants={PEOPLE}",
            f"--participants={PEOPLE}", "--grace-seconds=300",
            f"--model-out={bench.folder / name}", "--exit-when-done",
            "--poll-seconds=2", "--server-momentum=0.5"]


def _train(kills, seconds):
    """The final model's bytes, and how long it took; `kills` moments are drawn
    from 0 to `seconds` by kills' generator."""
    n, rng = kills
    moments = sorted(rng.uniform(0, seconds) for _ in range(n))
    with Bench() as bench:
        arguments = _arguments(bench, "model.safetensors")
        aggregator = bench.aggregator(*arguments)
        port = bench.port
        people = [bench.participant(i, PEOPLE) for i in range(PEOPLE)]
        begun = time.monotonic()
        n_kills = 0
        for moment in moments:
            time.sleep(max(0., begun + moment - time.monotonic()))
            if aggregator.poll() is not None:
                break
            aggregator.kill()
            end_of(aggregator)
            n_kills += 1
            aggregator = bench.aggregator(*arguments, port=port)
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        took = time.monotonic() - begun
        for i, person in enumerate(people):
            want(end_of(person) == 0, bench.errors(f"p{i}"))
        want(not bench.events("round_aborted"), bench.events("round_aborted"))
        want(not bench.events("client_lost"), bench.events("client_lost"))
        seen = {e["round"] for e in bench.events("round_finished")}
        # One that was finished just before a kill may be missing in the log.
        want(seen <= set(range(1, ROUNDS + 1)) and ROUNDS in seen, seen)
        return (bench.folder / "model.safetensors").read_bytes(), took, n_kills


def killed_anywhere_it_ends_with_the_same_model():
    rng = random.Random(SEED)
    want_bytes, seconds, _ = _train((0, rng), 0)
    left, runs = KILLS, 0
    while left > 0:
        got, _, n = _train((min(left, KILLS_PER_RUN), rng), seconds)
        runs += 1
        want(got == want_bytes, f"seed {SEED}, run {runs}: another model")
        want(n > 0, f"seed {SEED}, run {runs}: nothing was killed")
        left -= n
    print(f"seed {SEED}: {KILLS} kills in {runs} runs, undisturbed "
          f"{seconds:.1f} s, model of {len(want_bytes)} bytes", flush=True)


def the_same_seed_gives_the_same_model_without_a_store():
    """What the other case compares with is no accident of the store."""
    with Bench() as bench:
        models = []
        for extra in ([], [f"--state={bench.folder / 'state'}"]):
            out = bench.folder / f"model{len(models)}"
            aggregator = bench.aggregator(
                "--rounds=2", "--min-clients=2", "--min-participants=2",
                "--exit-when-done", f"--model-out={out}", *extra)
            people = [bench.participant(i, 2) for i in range(2)]
            want(end_of(aggregator) == 0, bench.errors("aggregator"))
            for person in people:
                want(end_of(person) == 0)
            models.append(out.read_bytes())
        want(models[0] == models[1], "another model with a store")


def a_finished_job_is_there_after_a_restart():
    with Bench() as bench:
        state = f"--state={bench.folder / 'state'}"
        arguments = [state, "--rounds=2", "--exit-when-done"]
        for _ in range(2):
            aggregator = bench.aggregator(*arguments)
            person = bench.participant(0, 1)
            want(end_of(person) == 0, bench.errors("p0"))
            want(end_of(aggregator) == 0, bench.errors("aggregator"))
        want(len(bench.events("round_finished")) == 2, bench.events())
        want(bench.events("restored")[0]["version"] == 2, bench.events())
        aggregator = bench.aggregator("--fresh", *arguments)
        want(len(bench.events("restored")) == 1, "--fresh goes on")


def a_second_aggregator_of_a_state_is_refused():
    with Bench() as bench:
        state = f"--state={bench.folder / 'state'}"
        bench.aggregator(state)
        other = bench.start("other", AGGREGATOR, "--listen=127.0.0.1:0", state)
        want(end_of(other) == 1, "exit status")
        want("another store has the file" in bench.errors("other"),
             bench.errors("other"))


def a_damaged_state_is_refused():
    with Bench() as bench:
        path = bench.folder / "state"
        arguments = [f"--state={path}", "--rounds=1", "--exit-when-done"]
        aggregator = bench.aggregator(*arguments)
        want(end_of(bench.participant(0, 1)) == 0, bench.errors("p0"))
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        good = path.read_bytes()
        for bad in (good[:len(good) // 2], b"x" * len(good),
                    good.replace(b"FLSV", b"FLSW")):
            path.write_bytes(bad)
            process = bench.start("again", AGGREGATOR, "--listen=127.0.0.1:0",
                                  *arguments)
            want(end_of(process) == 1, len(bad))
        want("damaged" in bench.errors("again"), bench.errors("again"))


def a_snapshot_and_a_state_exclude_each_other():
    with Bench() as bench:
        process = bench.start("both", AGGREGATOR, "--state=a", "--snapshot=b")
        want(end_of(process) == 2, bench.errors("both"))
        want("want one of them" in bench.errors("both"), bench.errors("both"))


def a_full_disk_holds_answers_back_until_there_is_room():
    """The file may not grow: acknowledgements wait, metrics and log say why."""
    import resource
    import signal

    def small():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE,
                           (600000, resource.RLIM_INFINITY))

    with Bench() as bench:
        arguments = [f"--state={bench.folder / 'state'}", "--rounds=2",
                     "--exit-when-done"]
        aggregator = bench.aggregator(*arguments, preexec=small)
        port = bench.port
        person = bench.participant(0, 1)
        wait_for("store_failed", lambda: bench.events("store_failed"),
                 aggregator)
        status, text, _ = bench.request("GET", "/metrics")
        want(status == 200 and b"fl_store_failures_total" in text, text)
        want(person.poll() is None, bench.errors("p0"))
        resource.prlimit(aggregator.pid, resource.RLIMIT_FSIZE,
                         (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        want(end_of(person) == 0, bench.errors("p0"))
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        want(len(bench.events("round_finished")) == 2, bench.events())
        want(port == bench.port)


if __name__ == "__main__":
    run_script(sys.modules[__name__])
