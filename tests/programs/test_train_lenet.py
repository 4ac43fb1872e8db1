# SPDX-License-Identifier: Apache-2.0
"""train-lenet from outside: however it is interrupted, it ends with the
weights of a run that was not."""
import os
import pty
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from programs import BUILD, ENVIRONMENT, make_data, run_script, wait_for, want

PROGRAM = BUILD / "examples" / "train-lenet"
SAMPLES = 640  # 20 steps an epoch
EPOCHS = 30    # long enough to be killed in the middle


class _Folder:
    """A folder with data in it, and the program run there."""

    def __enter__(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="libfl-lenet-")
        self.path = Path(self.temporary.name)
        make_data(self.path / "data", train=SAMPLES, test=100)
        return self

    def __exit__(self, *_):
        self.temporary.cleanup()

    def start(self, *arguments, **kwargs):
        return subprocess.Popen(
            [str(PROGRAM), f"--data={self.path / 'data'}",
             *map(str, arguments)], cwd=self.path, env=ENVIRONMENT,
            stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT,
            **{"stdout": subprocess.PIPE, **kwargs})

    def run(self, *arguments, status=0):
        process = self.start(*arguments)
        output = process.communicate()[0].decode()
        want(process.returncode == status, process.returncode, output)
        return output

    def weights(self, name):
        return (self.path / name).read_bytes()


def _interrupted(folder, number):
    """A run that gets a signal in the middle; its output."""
    process = folder.start(f"--epochs={EPOCHS}", "--checkpoint=state/job",
                           "--checkpoint-every=7", "--save=cut.safetensors")
    wait_for("checkpoint", (folder.path / "state" / "job").exists, process)
    process.send_signal(number)
    output = process.communicate()[0].decode()
    want(f"epoch {EPOCHS} of" not in output, "was over before", output)
    return process.returncode, output


def _goes_on(folder, number):
    status, output = _interrupted(folder, number)
    again = folder.run(f"--epochs={EPOCHS}", "--checkpoint=state/job",
                       "--checkpoint-every=7", "--resume",
                       "--save=resumed.safetensors")
    want("goes on after step" in again, again)
    folder.run(f"--epochs={EPOCHS}", "--save=whole.safetensors")
    want(folder.weights("resumed.safetensors") ==
         folder.weights("whole.safetensors"), output, again)
    return status, output


def killed_and_resumed_it_ends_with_the_same_weights():
    with _Folder() as folder:
        status, _ = _goes_on(folder, signal.SIGKILL)
        want(status == -signal.SIGKILL, status)
        want(not (folder.path / "cut.safetensors").exists())


def ctrl_c_saves_and_the_next_run_goes_on():
    with _Folder() as folder:
        status, output = _goes_on(folder, signal.SIGINT)
        want(status == 0, status, output)
        want("stopped after step" in output, output)
        want(len(folder.weights("cut.safetensors")) ==
             len(folder.weights("whole.safetensors")))


def a_training_that_is_over_resumes_to_the_same_weights():
    with _Folder() as folder:
        arguments = ["--epochs=1", "--checkpoint=job"]
        folder.run(*arguments, "--save=a")
        folder.run(*arguments, "--resume", "--save=b")
        want(folder.weights("a") == folder.weights("b"))


def resuming_without_a_checkpoint_begins():
    with _Folder() as folder:
        output = folder.run("--epochs=1", "--checkpoint=job", "--resume")
        want("goes on" not in output and "epoch 1 of 1" in output, output)


def threads_do_not_change_the_weights():
    with _Folder() as folder:
        for threads in (1, 2, 3):
            folder.run("--epochs=1", f"--threads={threads}",
                       f"--save=w{threads}")
        want(folder.weights("w1") == folder.weights("w2") ==
             folder.weights("w3"))


def accuracy_is_printed_every_epoch_and_rises():
    with _Folder() as folder:
        output = folder.run("--epochs=5")
        lines = [line for line in output.splitlines()
                 if line.startswith("epoch ")]
        want(len(lines) == 5, output)
        last = float(lines[4].split("accuracy ")[1].split(" %")[0])
        want(last > 90, output)
        want("\r" not in output, output)


def a_terminal_gets_a_bar():
    with _Folder() as folder:
        main, other = pty.openpty()
        process = folder.start("--epochs=10", stdout=other)
        os.close(other)
        text = b""
        while True:
            try:
                piece = os.read(main, 65536)
            except OSError:  # Linux's end of file
                break
            if not piece:
                break
            text += piece
        os.close(main)
        want(process.wait() == 0, text)
        want(b"\r[" in text and b" left" in text and b"loss" in text, text)


def what_is_wrong_is_named():
    with _Folder() as folder:
        want("--checkpoint" in folder.run("--resume", status=2))
        want("--epochs" in folder.run("--epochs=0", status=2))
        want("nowhere" in folder.run("--data=nowhere", status=1))
        (folder.path / "junk").write_bytes(b"no checkpoint")
        output = folder.run("--checkpoint=junk", "--resume", status=1)
        want("junk" in output, output)
        folder.run("--epochs=1", "--checkpoint=job")
        output = folder.run("--epochs=2", "--checkpoint=job", "--resume",
                            "--lr=0.5", status=1)
        want("--lr" in output, output)


run_script(sys.modules[__name__])
