# SPDX-License-Identifier: Apache-2.0
"""What the built libraries export and import."""
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from cases import Cases, command, mapped_symbols

# D0 modules may use these of libm, which IEEE 754 defines exactly.
EXACT_MATH = {"sqrt", "sqrtf", "fabs", "fabsf", "floor", "floorf", "rint",
              "rintf", "lrintf", "lrint", "ldexp", "ldexpf", "frexp",
              "frexpf", "ceil", "ceilf", "trunc", "truncf", "fmaxf", "fminf"}
MATH = set("""exp expf exp2 exp2f expm1 expm1f log logf log2 log2f log10 log1p
log1pf pow powf sin sinf cos cosf tan tanf tanh tanhf erf erff erfc erfcf cbrt
hypot hypotf fma fmaf tgamma lgamma""".split())
# The core never prints, ends the process or looks around by itself.
FORBIDDEN = set("""printf fprintf vprintf vfprintf puts putchar fputs
fputc putc fwrite perror fopen open abort exit _exit
getenv setlocale signal sigaction pthread_create thrd_create clock_gettime
gettimeofday time socket rand srand random usleep nanosleep sleep""".split())
D0_MODULES = ["base", "kernels", "crypto", "wire", "compress", "cache",
              "freeze", "cohort", "client", "server", "store",
              "channel", "strategy"]


def symbols(path, options):
    status, output = command(["nm", *options, path])
    if status:
        return None
    return [line.split() for line in output.splitlines() if line.strip()]


def exported(cases, build):
    rows = symbols(build / "lib" / "libfl.so", ["-D", "--defined-only"])
    names = {re.sub(r"@.*", "", row[-1]) for row in rows or []
             if len(row) >= 2 and row[-2] in "TDBRW"}
    names = {name for name in names if not name.startswith("LIBFL_")}
    want = set(mapped_symbols())
    cases.check("shared_library_exports_the_map_exactly",
                [f"missing: {name}" for name in sorted(want - names)] +
                [f"extra: {name}" for name in sorted(names - want)])


def soname(cases, build):
    _, output = command(["readelf", "-d", build / "lib" / "libfl.so"])
    match = re.search(r"SONAME.*\[(.*?)\]", output)
    cases.check("soname_carries_the_minor_version",
                [] if match and match.group(1) == "libfl.so.0.1"
                else [f"got {match and match.group(1)}, want libfl.so.0.1"])


def prefixes(cases, build):
    rows = symbols(build / "lib" / "libfl.a", ["-g", "--defined-only"]) or []
    names = [row[-1] for row in rows if len(row) == 3]
    bad = [name for name in names
           if not re.match(r"(fl_|fli_|flk_)", name)
           # sanitizers' own
           and not name.startswith(("__asan", "__odr", "_sub_"))]
    cases.check("static_library_symbols_have_our_prefix",
                bad if names else ["no symbols read"])


def imports(cases, build):
    calls, math = [], []
    folders = [path for path in (build / "lib").glob("libfl-*.a.p")
               if path.name not in ("libfl-host.a.p", "libfl-sqlite.a.p",
                                    "libfl-mpi.a.p")]
    for folder in folders:
        module = folder.name[len("libfl-"):-len(".a.p")]
        for item in sorted(folder.glob("*.o")):
            rows = symbols(item, ["-u"]) or []
            # A fortified build calls __printf_chk for printf.
            names = {re.sub(r"^__(\w+)_chk$", r"\1", row[-1])
                     for row in rows}
            calls += [f"{module}/{item.name} calls {name}"
                      for name in sorted(names & FORBIDDEN)]
            if module in D0_MODULES:
                math += [f"{module}/{item.name} calls {name}"
                         for name in sorted((names & MATH) - EXACT_MATH)]
    cases.check("there_are_objects_to_check",
                [] if len(folders) >= 10 else [f"only {len(folders)} modules"])
    cases.check("core_never_prints_exits_or_looks_around", calls)
    cases.check("bit_exact_modules_do_not_use_libm", math)


def main():
    build = Path(sys.argv[1])
    cases = Cases()
    exported(cases, build)
    soname(cases, build)
    prefixes(cases, build)
    imports(cases, build)
    cases.close()


main()
