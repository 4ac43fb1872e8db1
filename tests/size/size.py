# SPDX-License-Identifier: Apache-2.0
"""How much code libfl adds to an app on 64-bit ARM, and why.

usage: size.py FOLDER

Builds libfl.a as an app does (gcc -O2, sections dropped that nobody calls, no
unwind tables, no BLAS; NEON) and links examples/minimal_client against it:
with the library's trainer, which takes any model, and with one of its own.
libsodium, msgpack and the C library stay shared. FOLDER keeps the other
processor's headers and libraries (tests/cross/make_root.sh), and the build.

Prints `key value` lines, all in bytes:
  text_with_models, text_without_models    `text` of `size`, of the programs
  ..._no_pie                               the same without relocations
  nn_FAMILY                                kernels of training, by family
"""
import collections
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from cases import ROOT, Cases, command

LIMITS = {"text_with_models": 350 * 1024, "text_without_models": 150 * 1024}
TRAINERS = {"text_with_models": "fl", "text_without_models": "own"}
TOOLS = "aarch64-linux-gnu-"
FLAGS = ["-std=c11", "-O2", "-ffunction-sections", "-fdata-sections",
         "-fno-asynchronous-unwind-tables", "-fno-unwind-tables",
         # The linker's stubs come and go with the layout, and 4 KiB with them.
         "-mno-fix-cortex-a53-843419"]
# What a client with a trainer of its own has no use for.
UNUSED = re.compile(r"^(fli_run_\w+|fli_node_run_of|flk_nn\w*|fli_gemm\w*"
                    r"|fli_conv\w*|fli_forward|fli_backward|fli_server\w*)$")
# In tables of which the strongest always runs.
WEAKER = re.compile(r"^(flk_nn_fill_c|flk_fill_portable|flk_fill_plain)$")

# Functions whose names macros make.
MADE = (("few_", "few"), ("depthwise", "conv"), ("pool", "pool"),
        ("store_edge", "tile"), ("gelu|silu|tanh|sigmoid|relu", "activation"),
        ("fill", "table"), ("cst", "constants"))


def must(arguments):
    status, output = command(arguments)
    if status:
        raise SystemExit(f"{' '.join(map(str, arguments))}\n{output}")
    return output


def build_library(folder):
    must([ROOT / "tests" / "cross" / "make_root.sh", "arm64", folder])
    build = folder / "build-size"
    flags = [f"--sysroot={folder / 'root'}", *FLAGS[1:]]
    options = ["--cross-file", folder / "cross.ini", "--buildtype=plain",
               "-Db_ndebug=true", "-Dc_args=" + " ".join(flags),
               "-Ddefault_library=static", "-Dblas=none", "-Dhost=false",
               "-Dexamples=false", "-Dtests=false"]
    if (build / "build.ninja").exists():
        options.append("--reconfigure")
    must(["meson", "setup", build, *options])
    must(["ninja", "-C", build, "lib/libfl.a"])
    return build


def link(folder, build, trainer, *options):
    """The program and its map."""
    root = folder / "root"
    program = build / f"minimal-client-{trainer}"
    source = ROOT / "examples" / "minimal_client"
    must([f"{TOOLS}gcc", f"--sysroot={root}", *FLAGS, *options,
          "-D_GNU_SOURCE", f"-I{ROOT / 'include'}", f"-I{ROOT / 'examples'}",
          source / "main.c", source / f"train_{trainer}.c",
          build / "lib" / "libfl.a", "-Wl,--gc-sections",
          f"-Wl,-Map={program}.map", "-lsodium", "-lmsgpackc",
          # libm.so is an absolute link, which leads out of the root.
          root / "lib" / "aarch64-linux-gnu" / "libm.so.6", "-o", program])
    return program


def text_of(program):
    line = must([f"{TOOLS}size", program]).splitlines()[1]
    return int(line.split()[0])


def symbols_of(program):
    lines = must([f"{TOOLS}nm", program]).splitlines()
    return [line.split()[-1] for line in lines]


def families():
    """Function of a kernel family -> the family, after its file's name."""
    found = {}
    for path in sorted((ROOT / "lib" / "kernels" / "nn").glob("*.h")):
        family = re.sub(r"_(body|rows|strip|points|weights)$", "", path.stem)
        text = re.sub(r"NAMED\((\w+)\)", r"\1", path.read_text())
        for name in re.findall(r"^(?:static .*)?\b(\w+)\([^;{]*\)\n\{", text,
                               re.M):
            found.setdefault(name, family)
    return found


def bytes_by_family(program):
    """Sections of the training kernels that are in the program's map."""
    known = families()
    sizes = collections.Counter()
    text = Path(f"{program}.map").read_text()
    text = text[text.index("Linker script and memory map"):]
    for name, size in re.findall(
            r"^ \.(?:text|rodata)\.([\w.]+)\s+0x[0-9a-f]+\s+0x([0-9a-f]+)"
            r" \S*nn_nn_\w+\.c\.o\)$", text, re.M):
        base = re.sub(r"(\.(constprop|isra|part|cold)\.?\d*)+$", "", name)
        base = re.sub(r"_(full|half|map)$", "", base)
        made = [family for word, family in MADE if re.search(word, base)]
        sizes[known.get(base) or (made + ["other"])[0]] += int(size, 16)
    return sizes


def check_symbols(cases, programs):
    own = symbols_of(programs["text_without_models"])
    cases.check("a_client_with_its_own_trainer_has_no_layers_and_no_kernels",
                [name for name in own if UNUSED.match(name)])
    both = own + symbols_of(programs["text_with_models"])
    cases.check("kernels_that_never_run_are_left_out",
                [name for name in both if WEAKER.match(name)])


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    folder = Path(sys.argv[1]).resolve()
    cases = Cases()
    build = build_library(folder)
    programs = {}
    for key, trainer in TRAINERS.items():
        print(f"{key}_no_pie", text_of(link(folder, build, trainer, "-no-pie")))
        programs[key] = link(folder, build, trainer)
        size = text_of(programs[key])
        print(key, size)
        cases.check(f"{key}_is_within_its_limit", [] if size <= LIMITS[key]
                    else [f"got {size}, want <= {LIMITS[key]}"])
    for family, size in bytes_by_family(
            programs["text_with_models"]).most_common():
        print(f"nn_{family}", size)
    check_symbols(cases, programs)
    cases.close()


main()
