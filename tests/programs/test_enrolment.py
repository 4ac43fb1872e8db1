# SPDX-License-Identifier: Apache-2.0
"""Keys, lists of keys, and leaving, from outside."""
import stat
import sys

from programs import (AGGREGATOR, PARTICIPANT, Bench, end_of, run_program,
                      run_script, wait_for, want)

RUN = ("--min-clients=2", "--min-participants=2", "--rounds=3",
       "--exit-when-done")


def _key(bench, name):
    """Public key and file of a new one."""
    path = bench.folder / f"{name}.key"
    status, text, errors = run_program(PARTICIPANT, "--new-key",
                                       f"--key={path}")
    want(status == 0, errors)
    return text.strip(), path


def _list(bench, *lines):
    path = bench.folder / "allowed"
    path.write_text("# who may come\n\n" + "".join(f"{x}\n" for x in lines))
    return f"--allow-list={path}"


def a_new_key_is_its_owners_alone_and_never_overwritten():
    with Bench() as bench:
        public, path = _key(bench, "a")
        want(len(public) == 64 and int(public, 16) >= 0, public)
        want(stat.S_IMODE(path.stat().st_mode) == 0o600, path.stat())
        before = path.read_text()
        want(before.strip().endswith(public), "the public half is its end")
        status, _, errors = run_program(PARTICIPANT, "--new-key",
                                        f"--key={path}")
        want(status == 1 and "exists" in errors, errors)
        want(path.read_text() == before, "it is another one")


def only_those_on_the_list_train():
    with Bench() as bench:
        keys = [_key(bench, str(i)) for i in range(3)]
        aggregator = bench.aggregator(
            "--enrol=list", _list(bench, keys[0][0], keys[1][0] + " p1"), *RUN)
        good = [bench.participant(i, 3, f"--key={keys[i][1]}")
                for i in range(2)]
        stranger = bench.participant(2, 3, f"--key={keys[2][1]}")
        want(end_of(stranger) == 3, bench.errors("p2"))
        want("not enrolled" in bench.errors("p2"), bench.errors("p2"))
        for i, person in enumerate(good):
            want(end_of(person) == 0, bench.errors(f"p{i}"))
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        reasons = {event["reason"] for event in bench.events("refused")}
        want(reasons == {"FL_REJECT_NOT_ENROLLED"}, reasons)


def a_client_without_its_key_or_with_anothers_name_is_refused():
    with Bench() as bench:
        public, path = _key(bench, "a")
        bench.aggregator("--enrol=list", _list(bench, public + " p0"), *RUN)
        nobody = bench.participant(0, 2)
        want(end_of(nobody) == 3, bench.errors("p0"))
        other = bench.participant(1, 2, f"--key={path}")
        want(end_of(other) == 3, bench.errors("p1"))
        want("another key" in bench.errors("p1"), bench.errors("p1"))


def the_list_holds_after_a_restart_and_a_line_takes_off():
    with Bench() as bench:
        keys = [_key(bench, str(i)) for i in range(2)]
        snapshot = f"--snapshot={bench.folder / 'state'}"
        aggregator = bench.aggregator(
            snapshot, "--enrol=list", _list(bench, *(k[0] for k in keys)),
            *RUN)
        one = bench.participant(0, 2, f"--key={keys[0][1]}",
                                "--retry-seconds=60")
        wait_for("joined", lambda: bench.events("joined"), aggregator)
        aggregator.terminate()
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        bench.aggregator(snapshot, "--enrol=list",
                         _list(bench, "-" + keys[0][0], keys[1][0]), *RUN,
                         port=bench.port)
        want(end_of(one) == 3, bench.errors("p0"))


def a_participant_that_leaves_is_forgotten():
    with Bench() as bench:
        _, path = _key(bench, "a")
        aggregator = bench.aggregator("--min-clients=3")
        key = f"--key={path}"
        person = bench.participant(0, 2, key)
        wait_for("joined", lambda: bench.events("joined"), aggregator)
        person.terminate()
        want(end_of(person) == 0, bench.errors("p0"))
        want(end_of(bench.participant(0, 2, "--leave")) == 3,
             "without its key")
        want(end_of(bench.participant(0, 2, "--leave", key)) == 0,
             bench.errors("p0"))
        wait_for("left", lambda: bench.events("left"), aggregator)
        want(bench.events("left")[0]["client"] == "p0", bench.events("left"))


def a_participant_that_claims_too_much_is_refused():
    with Bench() as bench:
        bench.aggregator("--max-samples=10")
        person = bench.participant(0, 1)
        want(end_of(person) == 3, bench.errors("p0"))
        want("samples" in bench.errors("p0"), bench.errors("p0"))


def a_peer_that_sends_too_much_is_closed():
    with Bench() as bench:
        bench.aggregator("--max-messages=2", "--min-clients=3")
        hello = bytes.fromhex("1500000001010000850101020303a870686f6e652d3137"
                              "050306cd1770")
        for n, reasons in ((2, []), (3, ["FL_REJECT_RATE"])):
            bench.request("PUT", "/fl/v1/session/" + f"{n:032x}",
                          hello.replace(b"17", b"%02d" % n) * n)
            got = [event["reason"] for event in bench.events("refused")]
            want(got == reasons, got)


def settings_that_say_nothing_together_are_refused():
    with Bench() as bench:
        public, path = _key(bench, "a")
        for program, arguments, text in (
                (AGGREGATOR, ["--enrol=list"], "--allow-list"),
                (AGGREGATOR, [_list(bench, public)], "--enrol list"),
                (AGGREGATOR, ["--server-key=12"], "64 digits"),
                (PARTICIPANT, ["--new-key"], "--key FILE"),
                (PARTICIPANT, [f"--server-key={public}"], "--key FILE"),
                (PARTICIPANT, [f"--key={path}", "--server-key=x"],
                 "64 digits")):
            status, _, errors = run_program(program, *arguments)
            want(status == 2 and text in errors, arguments, errors)


def lists_and_keys_that_are_none_are_refused():
    with Bench() as bench:
        public, path = _key(bench, "a")
        for line in (public[:-1], public + "0", public + " " + "x" * 65,
                     "-" + public + " p0", public.upper()):
            status, _, errors = run_program(
                AGGREGATOR, "--listen=127.0.0.1:0", "--enrol=list",
                _list(bench, line))
            want(status == 1 and "allowed:3" in errors, line, errors)
        path.chmod(0o644)
        bench.aggregator()
        person = bench.participant(0, 1, f"--key={path}")
        want(end_of(person) == 1, bench.errors("p0"))
        want("mode 600" in bench.errors("p0"), bench.errors("p0"))


if __name__ == "__main__":
    run_script(sys.modules[__name__])
