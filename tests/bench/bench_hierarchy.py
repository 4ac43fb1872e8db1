#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Seconds and bytes of a round: 1 server, 8 edges and a root, 1, 2 and 4 ranks
of MPI; and whether all of them have the same sum.

    bench_hierarchy.py BUILD [options of bench_hierarchy]
"""
import os
import pathlib
import shutil
import subprocess
import sys

MPIRUN = ["mpirun", "--oversubscribe", "--allow-run-as-root", "--bind-to",
          "none"]


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    program = (pathlib.Path(sys.argv[1]) / "tests" / "bench" /
               "bench_hierarchy").resolve()
    commands = [[]]
    if shutil.which("mpirun"):
        commands += [[*MPIRUN, "-n", str(n)] for n in (1, 2, 4)]
    else:
        print("mpi 0")
    environment = dict(os.environ,
                       OMPI_MCA_btl_vader_single_copy_mechanism="none")
    sums = set()
    for command in commands:
        output = subprocess.run([*command, str(program), *sys.argv[2:]],
                                stdout=subprocess.PIPE, text=True, check=True,
                                env=environment).stdout
        print(output, end="", flush=True)
        sums |= {line.split()[1] for line in output.splitlines()
                 if "_sum " in line}
    print(f"same_sum {int(len(sums) == 1)}")
    return len(sums) != 1


if __name__ == "__main__":
    sys.exit(main())
