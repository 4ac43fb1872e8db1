# SPDX-License-Identifier: Apache-2.0
"""lora-transformer from outside: few weights are trained, accuracy rises on
classes that the base has never seen, and the merged model says the same."""
import json
import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from programs import BUILD, ENVIRONMENT, make_data, run_script, want

PROGRAM = BUILD / "examples" / "lora-transformer"


def _square_of(label):
    """Side by side: rows are tokens, and where a token is hardly counts."""
    return 8, 2 * label


class _Folder:
    """A folder with data in it, and the program run there."""

    def __enter__(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="libfl-lora-")
        self.path = Path(self.temporary.name)
        make_data(self.path / "data", train=600, test=200, place=_square_of)
        return self

    def __exit__(self, *_):
        self.temporary.cleanup()

    def run(self, *arguments, status=0):
        process = subprocess.run(
            [str(PROGRAM), f"--data={self.path / 'data'}", "--batch=16", "--lr=0.003",
             *map(str, arguments)], cwd=self.path, env=ENVIRONMENT,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False)
        want(process.returncode == status, process.returncode,
             process.stdout)
        return process.stdout


def _numbers(output, line):
    """The numbers in the line that begins so."""
    found = [text for text in output.splitlines() if text.startswith(line)]
    want(len(found) == 1, line, output)
    return [float(n) for n in re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?",
                                         found[0])]


def _tensors(path):
    """Names and shapes in a safetensors file."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    return {name: tuple(tensor["shape"]) for name, tensor in header.items()}


def low_rank_updates_learn_the_other_classes_and_are_merged():
    with _Folder() as folder:
        output = folder.run("--epochs=6", "--base-epochs=3",
                            "--save-base=base", "--save=merged")
        _, before, after, _ = _numbers(output, "all 10 classes")
        want(after > before + 20, output)
        few, every, _ = _numbers(output, "trained weights")
        want(few < every / 3, output)
        plain, whole, packed, packed_whole = _numbers(output, "bytes of")
        want(plain == 4 * few and whole == 4 * every, output)
        want(packed < plain / 5 and packed_whole < whole / 5, output)
        others, of, most = _numbers(output, "merged")
        want(others == 0 and of == 200 and most < 1e-3, output)
        want(_tensors(folder.path / "merged") == _tensors(folder.path / "base"))


def a_base_from_a_file_is_not_trained():
    with _Folder() as folder:
        first = folder.run("--base-epochs=1", "--save-base=base",
                           "--save=merged")
        again = folder.run("--base=base", "--save=same")
        want("base:" in first and "base:" not in again, again)
        want((folder.path / "merged").read_bytes() ==
             (folder.path / "same").read_bytes())


def rank_decides_how_many_weights_are_trained():
    with _Folder() as folder:
        folder.run("--base-epochs=1", "--save-base=base")
        counts = [_numbers(folder.run("--base=base", f"--rank={rank}"),
                           "trained weights")[0] for rank in (2, 4, 6)]
        want(counts[0] < counts[1] < counts[2], counts)
        want(counts[1] - counts[0] == counts[2] - counts[1], counts)


def adapters_learn_the_other_classes():
    with _Folder() as folder:
        output = folder.run("--adapters", "--epochs=6", "--base-epochs=3",
                            "--save=adapted")
        _, before, after, _ = _numbers(output, "all 10 classes")
        want(after > before + 20, output)
        want("merged" not in output, output)
        names = _tensors(folder.path / "adapted")
        want(any(name.endswith(".up.weight") for name in names), names)


def what_is_wrong_is_named():
    with _Folder() as folder:
        want("--rank" in folder.run("--rank=0", status=2))
        (folder.path / "junk").write_bytes(b"no weights")
        want("junk" in folder.run("--base=junk", status=1))
        want("nowhere" in folder.run("--base=nowhere", status=1))


run_script(sys.modules[__name__])
