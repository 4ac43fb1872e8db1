# SPDX-License-Identifier: Apache-2.0
"""What an operator does from outside: tokens, pause, resume, abort, stop, ban,
unban."""
import json
import signal
import sys
import time

from programs import (Bench, AGGREGATOR, end_of, run_program, run_script,
                      wait_for, want)

TOKEN = "correct-horse-battery-staple"
READER = "only-for-the-metrics-page"


def _token(bench, name, text):
    path = bench.folder / name
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def _serve(bench, *arguments):
    return bench.aggregator(
        f"--admin-token-file={_token(bench, 'token', TOKEN)}", *arguments)


def _ask(bench, action, token=TOKEN, method="POST", body=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    status, text, answer = bench.request(method, f"/admin/{action}", body,
                                         headers)
    want(answer["Content-Type"] == "application/json", answer)
    return status, json.loads(text), answer


def _tell(bench, action, **body):
    status, answer, _ = _ask(bench, action, body=json.dumps(body).encode())
    return status, answer


def _finished(bench):
    return len(bench.events("round_finished"))


def a_paused_training_waits_and_a_resumed_one_goes_on():
    with Bench() as bench:
        aggregator = _serve(bench, "--rounds=300", "--exit-when-done")
        person = bench.participant(0, 1)
        wait_for("a round", lambda: _finished(bench), aggregator)
        status, answer, _ = _ask(bench, "pause")
        want(status == 200 and answer["status"] == "paused"
             and answer["is_paused"], status, answer)
        time.sleep(0.7)  # the running round ends
        before = _finished(bench)
        time.sleep(1)
        want(_finished(bench) == before, before, _finished(bench))
        want(before < 300, before)
        status, answer, _ = _ask(bench, "resume")
        want(status == 200 and not answer["is_paused"], status, answer)
        wait_for("another round", lambda: _finished(bench) > before,
                 aggregator)
        status, answer, _ = _ask(bench, "stop")
        want(status == 200 and answer["status"] == "stopping", status, answer)
        want(end_of(person) == 0, bench.errors("p0"))
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        want(_finished(bench) < 300, _finished(bench))
        actions = [e["action"] for e in bench.events("admin")]
        want(actions == ["pause", "resume", "stop"], actions)
        want({e["from"] for e in bench.events("admin")} == {"127.0.0.1"},
             bench.events("admin"))


def a_pause_outlives_a_restart():
    for keep in ("snapshot", "state"):
        with Bench() as bench:
            state = bench.folder / "kept"
            arguments = (f"--{keep}={state}", "--rounds=20",
                         "--exit-when-done")
            aggregator = _serve(bench, *arguments)
            want(_ask(bench, "pause")[0] == 200)
            aggregator.kill()
            end_of(aggregator)
            port = bench.port
            aggregator = bench.aggregator(
                f"--admin-token-file={bench.folder / 'token'}", *arguments,
                port=port)
            person = bench.participant(0, 1)
            wait_for("joined", lambda: bench.events("joined"), aggregator)
            time.sleep(0.5)
            want(not bench.events("round_started"), keep)
            want(_ask(bench, "resume")[0] == 200)
            want(end_of(person) == 0, bench.errors("p0"))
            want(end_of(aggregator) == 0, bench.errors("aggregator"))
            want(_finished(bench) == 20, keep, _finished(bench))


def an_aborted_round_counts_for_nothing():
    with Bench() as bench:
        aggregator = _serve(bench, "--rounds=2", "--min-clients=2",
                            "--min-participants=2", "--exit-when-done",
                            "--poll-seconds=1")
        status, answer, _ = _ask(bench, "abort")
        want(status == 409 and "no round is running" in answer["error"],
             status, answer)
        sleeper = bench.participant(0, 2)
        wait_for("joined", lambda: bench.events("joined"), aggregator)
        sleeper.send_signal(signal.SIGSTOP)
        person = bench.participant(1, 2)
        wait_for("round 1", lambda: bench.events("round_started"), aggregator)
        status, answer, _ = _ask(bench, "abort")
        want(status == 200 and answer["status"] == "aborted", status, answer)
        aborted = bench.events("round_aborted")
        want(len(aborted) == 1 and aborted[0]["reason"] == "FL_REJECT_STOPPED",
             aborted)
        # The next attempt is some seconds away: end here, with the model of 0.
        want(_ask(bench, "stop")[0] == 200)
        sleeper.send_signal(signal.SIGCONT)
        want(end_of(sleeper) == 0, bench.errors("p0"))
        want(end_of(person) == 0, bench.errors("p1"))
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        want(_finished(bench) == 0, _finished(bench))
        want(bench.events("job_finished")[0]["version"] == 0,
             bench.events("job_finished"))


def _accepted(bench, client):
    return sum(e["client"] == client for e in bench.events("update_accepted"))


def a_banned_participant_is_turned_away_until_it_is_unbanned():
    with Bench() as bench:
        aggregator = _serve(bench, "--rounds=1000000", "--min-clients=2",
                            "--exit-when-done")
        stays = bench.participant(0, 2)
        goes = bench.participant(1, 2)
        wait_for("p1's update", lambda: _accepted(bench, "p1"), aggregator)
        status, answer = _tell(bench, "ban", client="p1")
        want(status == 200 and answer["status"] == "banned"
             and answer["client"] == "p1" and not answer["is_finished"],
             status, answer)
        want(end_of(goes) != 0 and "banned" in bench.errors("p1"),
             bench.errors("p1"))
        banned = bench.events("banned")
        want([e["client"] for e in banned] == ["p1"], banned)
        before, counted = _finished(bench), _accepted(bench, "p1")
        wait_for("rounds without it", lambda: _finished(bench) > before + 2,
                 aggregator)
        again = bench.participant(1, 2)
        want(end_of(again) != 0 and "banned" in bench.errors("p1"),
             bench.errors("p1"))
        want(_accepted(bench, "p1") == counted, "a banned client counted")
        status, answer = _tell(bench, "unban", client="p1")
        want(status == 200 and answer["status"] == "unbanned", status, answer)
        goes = bench.participant(1, 2)
        wait_for("p1's update", lambda: _accepted(bench, "p1") > counted,
                 aggregator)
        want(_tell(bench, "unban", client="p1")[0] == 404)
        want(_ask(bench, "stop")[0] == 200)
        for process in (stays, goes, aggregator):
            want(end_of(process) == 0, bench.errors("aggregator"))
        audit = [(e["action"], e.get("client"), e["result"] == "done")
                 for e in bench.events("admin")]
        want(audit == [("ban", "p1", True), ("unban", "p1", True),
                       ("unban", "p1", False), ("stop", None, True)], audit)


def a_ban_ends_by_itself_and_outlives_a_restart():
    for keep in ("snapshot", "state"):
        with Bench() as bench:
            arguments = (f"--{keep}={bench.folder / 'kept'}", "--rounds=2",
                         "--exit-when-done")
            aggregator = _serve(bench, *arguments)
            want(_tell(bench, "ban", client="p1", seconds=0)[0] == 200)
            want(_tell(bench, "ban", client="p0", seconds=1)[0] == 200)
            want([e.get("seconds") for e in bench.events("admin")]
                 == [None, 1], bench.events("admin"))
            aggregator.kill()
            end_of(aggregator)
            aggregator = bench.aggregator(
                f"--admin-token-file={bench.folder / 'token'}", *arguments)
            banned = bench.participant(1, 2)
            want(end_of(banned) != 0 and "banned" in bench.errors("p1"), keep,
                 bench.errors("p1"))
            time.sleep(1.5)
            person = bench.participant(0, 2)
            want(end_of(person) == 0, keep, bench.errors("p0"))
            want(end_of(aggregator) == 0, bench.errors("aggregator"))


def bodies_of_bans_are_looked_at():
    with Bench() as bench:
        _serve(bench)
        for body in (b"", b"{", b"[]", b"7", b"null", b"\xff", b"{}",
                     b'{"client": 7}', b'{"client": null}', b'{"seconds": 1}',
                     b'{"client": "a", "second": 1}',
                     b'{"client": "a", "client": "b"}',
                     b'{"client": "a", "seconds": "1"}',
                     b'{"client": "a", "seconds": 1.5}',
                     b'{"client": "a", "seconds": -1}',
                     b'{"client": "a", "seconds": 9223372037}',
                     b'{"client": "a", "seconds": 9223372036854775808}',
                     b'{"client": "a\\u0000b"}', b'{"client": "a"} x',
                     b"[" * 4096):
            status, answer, _ = _ask(bench, "ban", body=body)
            want(status == 400 and "body: want" in answer["error"], body,
                 status, answer)
        want(not bench.events("admin"), bench.events("admin"))
        want(_tell(bench, "unban", client="a", seconds=1)[0] == 400)
        for name in ("", "a" * 65, "caf\u00e9", "a\nb"):
            for action in ("ban", "unban"):
                status, answer = _tell(bench, action, client=name)
                want(status == 400 and "client id" in answer["error"], name,
                     status, answer)
        want(_tell(bench, "unban", client="a")[0] == 404)
        body = json.dumps({"client": "a", "seconds": 9223372036}).encode()
        want(_ask(bench, "ban", body=body.ljust(4096))[0] == 200)
        want(_ask(bench, "ban", body=body.ljust(4097))[0] == 413)
        want(_ask(bench, "pause", body=b" " * 4097)[0] == 413)
        # In pieces, without a length.
        pieces = [body[i:i + 5] for i in range(0, len(body), 5)]
        want(_ask(bench, "unban", body=iter([b'{"client"', b':"a"}']))[0]
             == 200)
        want(_ask(bench, "ban", body=iter(pieces))[0] == 200)
        want(_ask(bench, "ban", body=iter(pieces + [b" " * 4096]))[0] == 413)
        want(_ask(bench, "unban", body=b'{"client":"a"}')[0] == 200)


def tokens_are_wanted_and_looked_at():
    with Bench() as bench:
        _serve(bench)
        status, answer, headers = _ask(bench, "pause", None)
        want(status == 401 and "Bearer" in answer["error"]
             and headers["WWW-Authenticate"] == "Bearer", status, answer)
        for token in ("", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(),
                      "y" * 256, "y" * 1000):
            headers = {"Authorization": f"Bearer {token}"}
            status, text, _ = bench.request("POST", "/admin/pause", None,
                                            headers)
            want(status == 403 and json.loads(text)["error"], token, status)
        for header in (f"Basic {TOKEN}", TOKEN, "Bearer", ""):
            status, _, _ = bench.request("POST", "/admin/pause", None,
                                         {"Authorization": header})
            want(status == 403, header, status)
        # Without a token nobody learns which actions there are.
        want(_ask(bench, "nonsense", "x" * 20)[0] == 403)
        want(_ask(bench, "nonsense")[0] == 404)
        want(_ask(bench, "")[0] == 404)
        want(_ask(bench, "ban", None, body=b'{"client": "a"}')[0] == 401)
        for method in ("GET", "PUT", "DELETE"):
            status, answer, headers = _ask(bench, "pause", method=method)
            want(status == 405 and headers["Allow"] == "POST", status, answer)
        want(_ask(bench, "pause", body=b"{}")[0] == 400)
        want(not bench.events("admin"), bench.events("admin"))
        refused = bench.events("admin_refused")
        want(1 <= len(refused) <= 3, refused)  # a line a second
        _, text, _ = bench.request("GET", "/metrics")
        want(b"fl_admin_refused_total 14\n" in text, text.decode())
        want(_ask(bench, "pause")[0] == 200)
        want(TOKEN not in bench.log.read_text()
             and TOKEN not in bench.errors("aggregator"), "the token leaked")


def without_a_token_file_there_is_no_admin():
    with Bench() as bench:
        bench.aggregator()
        status, answer, _ = _ask(bench, "pause")
        want(status == 404 and "admin_token_file" in answer["error"], answer)


def metrics_are_for_who_may_see_them():
    with Bench() as bench:
        _serve(bench, "--metrics-token-file="
               f"{_token(bench, 'reader', READER)}")

        def ask(token):
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            return bench.request("GET", "/metrics", None, headers)[0]
        want([ask(None), ask("x" * 20), ask(READER), ask(TOKEN)]
             == [401, 403, 200, 200], "metrics")
        want(bench.request("GET", "/healthz")[0] == 200)
        want(_ask(bench, "pause", READER)[0] == 403)


def a_finished_job_cannot_be_paused():
    with Bench() as bench:
        aggregator = _serve(bench, "--rounds=1")
        person = bench.participant(0, 1)
        want(end_of(person) == 0, bench.errors("p0"))
        for action in ("pause", "resume", "abort"):
            status, answer, _ = _ask(bench, action)
            want(status == 409, action, status, answer)
        want(aggregator.poll() is None, bench.errors("aggregator"))


def token_files_are_checked():
    with Bench() as bench:
        listen = "--listen=127.0.0.1:0"
        for text in ("", "short", "x" * 257, "with a blank in the middle",
                     "tab\tin-the-middle-of-it"):
            path = _token(bench, "token", text)
            status, _, errors = run_program(AGGREGATOR, listen,
                                            f"--admin-token-file={path}")
            want(status == 1 and "16 to 256" in errors, text, status, errors)
        status, _, errors = run_program(
            AGGREGATOR, listen, f"--metrics-token-file={bench.folder}/none")
        want(status == 1 and "No such file" in errors, errors)
        path = _token(bench, "token", TOKEN)
        path.chmod(0o644)
        bench.aggregator(f"--admin-token-file={path}")
        want("others may read it" in bench.errors("aggregator"),
             bench.errors("aggregator"))


if __name__ == "__main__":
    run_script(sys.modules[__name__])
