# SPDX-License-Identifier: Apache-2.0
"""Options and configuration files of fl-aggregator and fl-participant."""
import json
import pathlib
import socket
import subprocess
import sys
import tempfile

from programs import AGGREGATOR, ENVIRONMENT, PARTICIPANT, run_script, want

FOLDER = tempfile.TemporaryDirectory(prefix="libfl-options-")


def _run(program, *arguments):
    done = subprocess.run([str(program), *map(str, arguments)],
                          stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, env=ENVIRONMENT, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def _file(text):
    path = pathlib.Path(FOLDER.name) / "config.json"
    path.write_text(text)
    return path


def _refused(program, arguments, *says):
    status, _, errors = _run(program, *arguments)
    want(status == 2, f"exit status: got {status}, want 2", errors)
    want(len(errors.strip().splitlines()) <= 2, errors)
    for text in says:
        want(text in errors, f"want '{text}' in:", errors)


def help_names_every_option_and_the_exit_status():
    for program in (AGGREGATOR, PARTICIPANT):
        status, text, _ = _run(program, "--help")
        want(status == 0, status)
        for word in ("--config=FILE", "--check-config", "--seed=N",
                     "Exit status"):
            want(word in text, f"no {word} in:", text)


def version_is_the_librarys():
    status, text, _ = _run(AGGREGATOR, "--version")
    want(status == 0 and "fl-aggregator (libfl 0.1.0)" in text, text)


def unknown_options_and_arguments_are_refused():
    _refused(AGGREGATOR, ["--bogus"], "--bogus")
    _refused(AGGREGATOR, ["stray"], "stray")
    _refused(PARTICIPANT, ["--rounds=3"], "--rounds")


def bad_values_name_option_and_range():
    _refused(AGGREGATOR, ["--rounds=0"], "--rounds: got 0, want 1..")
    _refused(AGGREGATOR, ["--rounds=3x"], '--rounds: got "3x"')
    _refused(AGGREGATOR, ["--rounds=-1"], '--rounds: got "-1"')
    _refused(AGGREGATOR, ["--rounds=99999999999999999999"], "--rounds")
    _refused(AGGREGATOR, ["--lr=nan"], "--lr")
    _refused(AGGREGATOR, ["--lr=-1"], "--lr: got -1")
    _refused(AGGREGATOR, ["--codec=zip"], '--codec: got "zip"', "f32|bf16|thc")
    _refused(AGGREGATOR, ["--thc-mode=best"], "dither|uniform|table")
    _refused(AGGREGATOR, ["--bits=9"], "--bits: got")
    _refused(AGGREGATOR, ["--strategy=fed"], '--strategy: got "fed"',
             "trimmed-mean")
    _refused(AGGREGATOR, ["--clip=-1"], "--clip: got -1")
    _refused(AGGREGATOR, ["--selector=best"], "random|choice|oort")
    _refused(AGGREGATOR, ["--over-select=0.5"], "--over-select: got 0.5")
    _refused(AGGREGATOR, ["--fedbuff=5000"], "--fedbuff: got")
    _refused(AGGREGATOR, ["--demands=8"], "--demands: got")
    _refused(AGGREGATOR, ["--error-feedback", "--codec=f32"], "loses nothing")
    _refused(AGGREGATOR, ["--seed=9007199254740993"], "--seed: got")
    for freeze in ("plasticity", "fixed:", "fixed:3", "fixed:3:1,", "fixed:x:1",
                   "gradnorm:", "gradnorm:0", "gradnorm:-1", "gradnorm:1x",
                   "gradnorm:nan", "gradnorm:2000", "gradnormal",
                   "fixed:3:1;4:1", "fixed:" + ",".join(["3:1"] * 17)):
        _refused(AGGREGATOR, [f"--freeze={freeze}"], "fixed:ROUND:N")
    for hidden in ("", "0", "128,", ",128", "12x", "128;64", "99999", "-1",
                   ",".join(["8"] * 9)):
        _refused(AGGREGATOR, [f"--hidden={hidden}"], "hidden: got", "8 at most")
    for address in ("nowhere", ":80", "host:", "host:99999", "host:http",
                    "[::1]", "::1:80", "host:8o"):
        _refused(AGGREGATOR, ["--listen", address], "want HOST:PORT")
    _refused(AGGREGATOR, [f"--log={'x' * 2000}"], "2000 bytes")


def settings_that_disagree_are_refused():
    _refused(AGGREGATOR, ["--fedbuff=2"], "uniform or table")
    _refused(AGGREGATOR, ["--fedbuff=2", "--codec=f32"], "codec thc")
    _refused(AGGREGATOR, ["--participants=2", "--min-participants=3"],
             "min_participants")
    _refused(PARTICIPANT, ["--id=a", "--data=.", "--index=4",
                           "--participants=4"], "index: got 4")
    _refused(PARTICIPANT, ["--data=."], "--id NAME")
    _refused(PARTICIPANT, ["--id=a"], "--data DIR")
    for name in ("tab\there", "n\u00e4me", "x" * 65):
        _refused(PARTICIPANT, ["--id", name, "--data=."], "id: want 1 to 64")
    for url in ("ftp://x", "http://", "http://a b", "http://x?a", "https://x#a",
                "http://x:99999"):
        _refused(PARTICIPANT, ["--id=a", "--data=.", "--server", url],
                 "want http://")


def check_config_prints_a_config_that_is_accepted():
    status, text, errors = _run(AGGREGATOR, "--check-config", "--rounds=7",
                                "--codec=bf16", "--lr=0.125", "--fresh")
    want(status == 0, errors)
    settings = json.loads(text)
    want(settings["rounds"] == 7 and settings["codec"] == "bf16"
         and settings["lr"] == 0.125 and settings["fresh"] is True, text)
    status, again, errors = _run(AGGREGATOR, "--check-config", "--config",
                                 _file(text))
    want(status == 0 and again == text, errors, again)


def options_win_over_the_file_wherever_they_stand():
    path = _file('{"rounds": 3, "server_lr": 0.5}')
    for arguments in (["--rounds=9", "--config", path],
                      ["--config", path, "--rounds=9"]):
        status, text, errors = _run(AGGREGATOR, "--check-config", *arguments)
        want(status == 0, errors)
        settings = json.loads(text)
        want(settings["rounds"] == 9 and settings["server_lr"] == 0.5, text)


def bad_config_files_say_what_is_wrong():
    def check(text, *says):
        _refused(AGGREGATOR, ["--check-config", "--config", _file(text)],
                 *says)

    check('{"round": 3}', 'unknown key "round"')
    check('{"rounds": "3"}', 'rounds: got "3", want an integer')
    check('{"rounds": 3.5}', "rounds: got 3.5, want an integer")
    check('{"rounds": -3}', "rounds: got -3, want an integer")
    check('{"rounds": 0}', "rounds: got 0, want 1..")
    check('{"fresh": 1}', "fresh: got 1, want true or false")
    check('{"lr": "fast"}', 'lr: got "fast", want a number')
    check('{"log": []}', "log: got [], want a string")
    check('{"rounds": 1, "rounds": 2}', "line 1")
    check('{"rounds": 1', "line 1")
    check("[]", "want a JSON object")
    _refused(AGGREGATOR, ["--config=/nonexistent.json"], "/nonexistent.json")


def missing_data_and_models_are_named():
    status, _, errors = _run(AGGREGATOR, "--listen=127.0.0.1:0",
                             "--test-data=/nonexistent")
    want(status == 1 and "/nonexistent/t10k-images-idx3-ubyte" in errors,
         status, errors)
    status, _, errors = _run(PARTICIPANT, "--id=a", "--data=/nonexistent")
    want(status == 1 and "/nonexistent/train-images-idx3-ubyte" in errors,
         status, errors)
    status, _, errors = _run(AGGREGATOR, "--listen=127.0.0.1:0",
                             "--model-description=/nonexistent")
    want(status == 1 and "/nonexistent" in errors, status, errors)
    status, _, errors = _run(AGGREGATOR, "--listen=127.0.0.1:0",
                             "--model-description=/")
    want(status == 1 and "/: Is a directory" in errors, status, errors)
    path = _file("no description")
    status, _, errors = _run(AGGREGATOR, "--listen=127.0.0.1:0",
                             "--model-description", path)
    want(status == 1 and str(path) in errors, status, errors)


def states_that_cannot_be_kept_are_refused_at_the_start():
    """Not at the end, when there is something to lose."""
    folder = pathlib.Path(FOLDER.name)
    (folder / "sub").mkdir()
    target = folder / "elsewhere"
    target.write_bytes(b"precious")
    (folder / "link").symlink_to(target)
    for path, says in [(folder / "UPPER", "want 1..128"),
                       (folder / ".dot", "want 1..128"),
                       (f"{folder}/", "want 1..128"),
                       (folder / ("x" * 129), "want 1..128"),
                       ("/nonexistent/deep/state", "No such file"),
                       (folder / "sub", "is no file"),
                       (folder / "link", "symbolic links")]:
        status, _, errors = _run(AGGREGATOR, "--listen=127.0.0.1:0",
                                 "--snapshot", path)
        want(status == 1 and says in errors and str(path) in errors, path,
             status, errors)
    want(target.read_bytes() == b"precious" and (folder / "link").is_symlink(),
         "the link was replaced")


def an_address_that_cannot_be_had_is_an_error():
    status, _, errors = _run(AGGREGATOR, "--listen=192.0.2.1:1")
    want(status == 1 and "192.0.2.1:1" in errors, status, errors)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        status, _, errors = _run(AGGREGATOR, f"--listen={address}")
        want(status == 1 and address in errors, status, errors)


if __name__ == "__main__":
    run_script(sys.modules[__name__])
