# SPDX-License-Identifier: Apache-2.0
"""mpi-rounds under a real mpirun: ranks do not change the model, and one that
is killed ends the job with a message and leaves the last snapshot."""
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from programs import BUILD, ENVIRONMENT, PATIENCE, run_script, want

PROGRAM = (BUILD / "examples" / "mpi-rounds").resolve()
MPIRUN = ["mpirun", "--oversubscribe", "--allow-run-as-root", "--bind-to",
          "none"]
OPEN_MPI = {"ASAN_OPTIONS": "detect_leaks=0",  # its own
            "OMPI_MCA_btl_vader_single_copy_mechanism": "none"}
LONG = 100000  # rounds: not over when a rank is killed


class _Folder:
    def __enter__(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="libfl-mpi-")
        self.path = pathlib.Path(self.temporary.name)
        return self

    def __exit__(self, *_):
        self.temporary.cleanup()

    def start(self, ranks, *arguments):
        with (self.path / "errors").open("ab") as errors:
            return subprocess.Popen(
                [*MPIRUN, "-n", str(ranks), str(PROGRAM),
                 *map(str, arguments)], cwd=self.path,
                env=dict(ENVIRONMENT, **OPEN_MPI), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=errors, text=True)

    def errors(self):
        return (self.path / "errors").read_text(errors="replace")

    def run(self, ranks, *arguments, status=0):
        process = self.start(ranks, *arguments)
        try:
            output = process.communicate(timeout=PATIENCE)[0]
        finally:
            process.kill()
        want(process.returncode == status, process.returncode, output,
             self.errors())
        return output

    def model(self, state, number):
        return (self.path / state / f"model-{number:06}.safetensors"
                ).read_bytes()

    def rounds(self, state):
        return sorted(int(path.name[6:12])
                      for path in (self.path / state).glob("model-*"))


def _children(parent):
    """Processes that mpirun has started, in the order of their ranks."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            status = (entry / "stat").read_text()
            program = os.readlink(entry / "exe")
        except OSError:  # it has ended
            continue
        if (int(status.rpartition(")")[2].split()[1]) == parent and
                pathlib.Path(program).name == PROGRAM.name):
            found.append(int(entry.name))
    return sorted(found)


def _read_until(process, text):
    for line in process.stdout:
        if line.startswith(text):
            return
    raise AssertionError(f"it ended before {text!r}")


def any_number_of_ranks_gives_the_bytes_of_one_process():
    with _Folder() as folder:
        for codec in ("thc", "f32"):
            models = []
            for ranks in (1, 2, 4):
                state = f"{codec}{ranks}"
                folder.run(ranks, "--rounds", 5, "--clients", 11, "--codec",
                           codec, "--folder", state)
                models.append(folder.model(state, 5))
            want(models[0] == models[1] == models[2], codec)
            want(len(models[0]) > 4000, len(models[0]))


def ranks_without_clients_are_fine():
    with _Folder() as folder:
        folder.run(4, "--rounds", 3, "--clients", 2, "--folder", "a")
        folder.run(1, "--rounds", 3, "--clients", 2, "--folder", "b")
        want(folder.model("a", 3) == folder.model("b", 3))


def the_model_learns():
    with _Folder() as folder:
        lines = folder.run(2, "--rounds", 30).splitlines()
        losses = [float(line.split("loss ")[1]) for line in lines
                  if line.startswith("round ")]
        want(len(losses) == 30 and losses[-1] < losses[0] / 2, losses)


def a_folder_goes_on_and_keeps_the_last_two():
    with _Folder() as folder:
        folder.run(2, "--rounds", 4, "--folder", "cut")
        output = folder.run(3, "--rounds", 9, "--folder", "cut")
        want("round 4:" not in output and "round 5:" in output, output)
        folder.run(1, "--rounds", 9, "--folder", "whole")
        want(folder.model("cut", 9) == folder.model("whole", 9))
        want(folder.rounds("cut") == [8, 9], folder.rounds("cut"))


def _kill(folder, rank):
    process = folder.start(4, "--rounds", LONG, "--folder", "killed")
    try:
        _read_until(process, "round 3:")
        ranks = _children(process.pid)
        want(len(ranks) == 4, ranks)
        os.kill(ranks[rank], signal.SIGKILL)
        begin = time.monotonic()
        process.communicate(timeout=PATIENCE)
        seconds = time.monotonic() - begin
    finally:
        process.kill()
        process.wait()
    want(process.returncode != 0, process.returncode)
    want("signal 9" in folder.errors(), folder.errors())
    want(seconds < 60, seconds)
    for child in ranks:
        want(not pathlib.Path(f"/proc/{child}/exe").exists(), child)


def _killed_leaves_the_last_snapshot(rank):
    with _Folder() as folder:
        _kill(folder, rank)
        last = folder.rounds("killed")[-1]
        want(last >= 3, last)
        folder.run(1, "--rounds", last + 2, "--folder", "whole")
        folder.run(2, "--rounds", last + 2, "--folder", "killed")
        want(folder.model("killed", last + 2) ==
             folder.model("whole", last + 2))


def a_killed_rank_ends_the_job_and_the_next_one_goes_on():
    _killed_leaves_the_last_snapshot(2)


def a_killed_first_rank_leaves_the_last_snapshot():
    _killed_leaves_the_last_snapshot(0)


def a_rank_that_fails_says_so_and_ends_the_job():
    with _Folder() as folder:
        folder.run(2, "--rounds", 2, "--folder", "state")
        path = folder.path / "state" / "model-000002.safetensors"
        path.write_bytes(path.read_bytes()[:100])
        process = folder.start(3, "--rounds", 4, "--folder", "state")
        process.communicate(timeout=PATIENCE)
        want(process.returncode != 0, process.returncode)
        want("mpi-rounds: on rank" in folder.errors(), folder.errors())
        want("snapshot" in folder.errors(), folder.errors())


def what_is_wrong_is_answered_with_help():
    with _Folder() as folder:
        for arguments in (["--rounds", "0"], ["--clients"],
                          ["--codec", "zip"], ["--ranks", "2"]):
            process = folder.start(1, *arguments)
            process.communicate(timeout=PATIENCE)
            want(process.returncode == 2, arguments, process.returncode)
        want("usage: mpirun" in folder.errors(), folder.errors())


run_script(sys.modules[__name__])
