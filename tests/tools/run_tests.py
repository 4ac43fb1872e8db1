# SPDX-License-Identifier: Apache-2.0
"""Build and run the tests in stages and count single test cases.

A stage builds one configuration (or one set of scripts) and runs what belongs
to it. Cases are counted where the runner says how many it ran: Criterion's
synthesis line, the `N passed, N failed` line of plain programs and scripts,
pytest's summary; a program that says nothing counts as one.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build-tests"
PYTHON = "/usr/bin/python3"
# Links hundreds of programs in half the time; it is of binutils, too. What is
# installed is linked by the usual one, in the stage native.
GOLD = "-Dc_link_args=-fuse-ld=gold"

SYNTHESIS = re.compile(r"Synthesis: Tested:\D*(\d+)\D+Passing:\D*(\d+)"
                       r"\D+Failing:\D*(\d+)\D+Crashing:\D*(\d+)")
PLAIN = re.compile(r"^(?:\w+: )?(\d+) passed, (\d+) failed"
                   r"(?:, (\d+) skipped)?$", re.M)
SKIP = re.compile(r"^SKIP:? ?(.*)$", re.M)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Count:
    """Passed, failed and skipped cases, and what to print about them."""

    def __init__(self):
        self.passed = self.failed = 0
        self.skips = []
        self.failures = []

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skips += other.skips
        self.failures += other.failures

    def fail(self, name, output):
        self.failed += 1
        self.failures.append((name, output))


def count_output(name, output, is_ok):
    """Read the cases of one program out of what it printed."""
    count = Count()
    output = COLOUR.sub("", output)
    synthesis = SYNTHESIS.search(output)
    plain = PLAIN.findall(output)
    if synthesis:
        tested, passing, failing, crashing = map(int, synthesis.groups())
        count.passed = passing
        count.failed = failing + crashing
        if tested == 0:
            count.fail(name, "ran no test\n" + output)
    elif plain:
        # The last line is the closing one; earlier ones belong to programs
        # that a script ran.
        passed, failed, skipped = plain[-1]
        count.passed, count.failed = int(passed), int(failed)
        reasons = SKIP.findall(output)
        count.skips = [(name, reason) for reason in reasons]
        if not int(passed) + int(failed) + int(skipped or 0):
            count.fail(name, "ran no test\n" + output)
        if int(skipped or 0) != len(reasons):
            count.fail(name, f"{skipped} skipped, but {len(reasons)} lines "
                             f"`SKIP: reason`\n" + output)
    elif is_ok:
        count.passed = 1
    if count.failed and not count.failures:
        count.failures.append((name, output))
    if not is_ok and not count.failed:
        count.fail(name, output)
    return count


def run(command, log, **kwargs):
    """Run a command, append its output to the log file, return (ok, text)."""
    process = subprocess.run(list(map(str, command)), cwd=ROOT,
                             stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, **kwargs)
    # In one piece: other commands may run beside this one.
    line = "$ " + " ".join(map(str, command)) + "\n"
    with open(log, "ab") as sink:
        sink.write(line.encode() + process.stdout)
    return process.returncode == 0, process.stdout.decode("utf-8", "replace")


def targets_of(folder, suites):
    """What to build of a configured build for the tests of some suites: all
    objects, all libraries, and the programs that these tests are."""
    def read(name):
        return json.loads((folder / name).read_text())

    wanted = {entry["output"] for entry in read("compile_commands.json")}
    files = {}
    for target in read("meson-info/intro-targets.json"):
        files[target["id"]] = [os.path.relpath(name, folder)
                               for name in target["filename"]]
        if "library" in target["type"]:
            wanted.update(files[target["id"]])
    for test in read("meson-info/intro-tests.json"):
        if any(suite.split(":")[-1] in suites for suite in test["suite"]):
            for target in test["depends"]:
                wanted.update(files[target])
    return sorted(wanted)


class Runner:
    def __init__(self, options):
        self.jobs = options.jobs
        self.is_long = options.long
        self.log = None

    def build(self, name, arguments, environment=None, suites=None):
        """Configure (once) and compile build-tests/<name>: everything, or with
        `suites` every source file, but of the programs only those that these
        suites run. Returns a Count with a failure when that does not work."""
        count = Count()
        folder = BUILD / name
        environment = {**os.environ, **(environment or {})}
        setup = ["meson", "setup", folder, "-Dwerror=true", *arguments]
        if (folder / "build.ninja").exists():
            setup.append("--reconfigure")
        elif folder.exists():
            shutil.rmtree(folder)
        is_ok, output = run(setup, self.log, env=environment)
        if not is_ok:
            count.fail(f"{name}: meson", output)
            return count
        ninja = ["ninja", "-C", folder, f"-j{self.jobs}"]
        if suites:
            ninja += targets_of(folder, suites)
        is_ok, output = run(ninja, self.log, env=environment)
        if not is_ok:
            count.fail(f"{name}: ninja", output)
        return count

    def meson_test(self, name, suites=(), environment=None):
        """Run `meson test` in build-tests/<name> and count the cases."""
        folder = BUILD / name
        command = ["meson", "test", "-C", folder, "--no-rebuild",
                   "--num-processes", str(self.jobs), "--print-errorlogs"]
        for suite in suites:
            command += ["--suite", suite]
        results = folder / "meson-logs" / "testlog.json"
        results.unlink(missing_ok=True)
        is_ok, output = run(command, self.log,
                            env={**os.environ, **(environment or {})})
        count = Count()
        if not results.exists():
            count.fail(f"{name}: meson test", output)
            return count
        for line in results.read_text().splitlines():
            test = json.loads(line)
            text = test.get("stdout", "") + test.get("stderr", "")
            label = f"{name}/{test['name'].split(' / ')[-1]}"
            if test["result"] == "SKIP":
                reason = SKIP.search(text)
                count.skips.append(
                    (label, reason.group(1) if reason else "no reason given"))
                continue
            count.add(count_output(label, text, test["result"] == "OK"))
        if not is_ok and not count.failed:
            count.fail(f"{name}: meson test", output)
        return count

    def script(self, name, command, **kwargs):
        is_ok, output = run(command, self.log, **kwargs)
        return count_output(name, output, is_ok)

    # ---- stages --------------------------------------------------------

    def native(self):
        """gcc, all tests and programs"""
        count = self.build("native", [])
        if not count.failed:
            count.add(self.meson_test("native"))
        return count

    def asan(self):
        """gcc with ASan and UBSan, the same tests again"""
        # Lines in stack traces want -g1; -g takes a third longer to compile.
        count = self.build("asan", ["-Db_sanitize=address,undefined",
                                    "-Ddebug=false", "-Dc_args=-g1",
                                    GOLD])
        if not count.failed:
            count.add(self.meson_test("asan", environment={
                "ASAN_OPTIONS": "detect_leaks=1:halt_on_error=1"
                                ":abort_on_error=1",
                "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
                "LSAN_OPTIONS": "exitcode=23",
            }))
        return count

    def noblas(self):
        """without BLAS, release build: the golden bytes are the same"""
        suites = ["unit", "kernels", "golden"]
        count = self.build("noblas", ["-Dblas=none", "-Dexamples=false",
                                      "--buildtype=release",
                                      "-Db_ndebug=true", GOLD], suites=suites)
        if not count.failed:
            count.add(self.meson_test("noblas", suites))
        return count

    def clang(self):
        """clang: warnings are errors, the golden bytes are the same"""
        suites = ["kernels", "golden"]
        count = self.build("clang", [], {"CC": "clang"}, suites)
        if not count.failed:
            count.add(self.meson_test("clang", suites))
        return count

    def cross(self):
        """64-bit and 32-bit ARM, emulated: plain programs, the same bytes"""
        count = Count()
        for architecture, tools in (("arm64", "aarch64-linux-gnu"),
                                    ("armhf", "arm-linux-gnueabihf")):
            folder = BUILD / "cross" / architecture
            is_ok, output = run([ROOT / "tests" / "cross" / "make_root.sh",
                                 architecture, folder], self.log)
            if not is_ok:
                count.fail(f"cross/{architecture}: make_root.sh", output)
                continue
            name = f"cross/{architecture}/build"
            suites = ["kernels", "golden", "oom", "net", "fuzz"]
            # Once is enough of what takes minutes: see docs/testing.md.
            if architecture == "armhf" or self.is_long:
                suites.append("oom-server")
            if self.is_long:
                suites.append("oom-cohorts")
            built = self.build(name, ["--cross-file", folder / "cross.ini",
                                      "-Dblas=none", "-Dexamples=false",
                                      "-Dhost=false"], suites=suites)
            count.add(built)
            if built.failed:
                continue
            count.add(self.meson_test(name, suites))
            run([f"{tools}-size",
                 *sorted((BUILD / name / "lib").glob("libfl-kernels*.a"))],
                self.log)
        count.add(self.script("size/size",
                              [PYTHON, ROOT / "tests" / "size" / "size.py",
                               BUILD / "cross" / "arm64"]))
        return count

    def checks(self):
        """headers, layering, symbols, ABI, coverage, README, packaging, style"""
        def check(path):
            interpreter = PYTHON if path.suffix == ".py" else "bash"
            return self.script(str(path.relative_to(ROOT)),
                               [interpreter, path, BUILD / "native"])

        count = Count()
        paths = [path for path in sorted((ROOT / "tests").glob("*/check_*"))
                 if path.suffix in (".py", ".sh")]
        with ThreadPoolExecutor(self.jobs) as pool:
            for done in pool.map(check, paths):
                count.add(done)
        return count

    def python(self):
        """the Python package, installed into a venv with Debian's packages"""
        count = Count()
        venv = BUILD / "venv"
        for command in (
                [PYTHON, "-m", "venv", "--clear", "--system-site-packages",
                 venv],
                [venv / "bin" / "pip", "install", "--quiet", "--no-index",
                 "--no-deps", "--no-build-isolation", "."]):
            is_ok, output = run(command, self.log)
            if not is_ok:
                count.fail(f"python: {command[0]}", output)
                return count
        report = BUILD / "pytest.json"
        report.unlink(missing_ok=True)
        is_ok, output = run(
            [venv / "bin" / "python", "-m", "pytest", "-q", "-rs",
             "-p", "no:cacheprovider", "--durations=20", "-n", self.jobs,
             "tests/python"], self.log)
        count.add(count_pytest(output, is_ok))
        return count

    def soak(self):
        """long: network seeds, fuzzing, kernels, the quick start's goals"""
        count = Count()
        for path in sorted((ROOT / "tests" / "soak").glob("soak_*.sh")):
            count.add(self.script(path.name, ["bash", path, BUILD]))
        return count


def count_pytest(output, is_ok):
    """Count pytest's closing line and its -rs lines."""
    count = Count()
    output = COLOUR.sub("", output)
    found = {word: int(number) for number, word in re.findall(
        r"(\d+) (passed|failed|errors?|skipped)", output.splitlines()[-1]
        if output.strip() else "")}
    count.passed = found.get("passed", 0)
    count.failed = sum(found.get(word, 0)
                       for word in ("failed", "error", "errors"))
    for number, reason in re.findall(r"^SKIPPED \[(\d+)\] [^:]+:\d+: (.*)$",
                                     output, re.M):
        count.skips += [("python", reason)] * int(number)
    if count.failed:
        count.failures.append(("python: pytest", output))
    elif not is_ok or not count.passed:
        count.fail("python: pytest", output)
    skipped = found.get("skipped", 0)
    if skipped != len(count.skips):
        count.fail("python: pytest", f"{skipped} skipped, but "
                   f"{len(count.skips)} reasons\n" + output)
    return count


STAGES = ["native", "asan", "noblas", "clang", "cross", "checks", "python"]
LONG_STAGES = ["soak"]


def read_list(name):
    lines = (ROOT / "tests" / name).read_text().splitlines()
    return [line.strip() for line in lines
            if line.strip() and not line.startswith("#")]


def parse_arguments():
    parser = argparse.ArgumentParser(prog="tests/run")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


def main():
    options = parse_arguments()
    stages = STAGES + (LONG_STAGES if options.long else [])
    if options.list:
        for name in STAGES + LONG_STAGES:
            print(f"{name:8} {getattr(Runner, name).__doc__}")
        return 0
    if options.only:
        stages = options.only.split(",")
        unknown = [name for name in stages
                   if name not in STAGES + LONG_STAGES]
        if unknown:
            print(f"tests/run: no stage {unknown[0]}; --list names them",
                  file=sys.stderr)
            return 1
    BUILD.mkdir(exist_ok=True)
    runner = Runner(options)
    total = Count()
    begin = time.monotonic()
    for number, name in enumerate(stages, 1):
        started = time.monotonic()
        print(f"[{number}/{len(stages)}] {name}: "
              f"{getattr(Runner, name).__doc__} ...", flush=True)
        runner.log = BUILD / f"{name}.log"
        runner.log.write_bytes(b"")
        count = getattr(runner, name)()
        for label, output in count.failures:
            print(f"---- FAILED {label}")
            print("\n".join(output.splitlines()[-60:]))
        print(f"      {count.passed} ok, {count.failed} bad, "
              f"{len(count.skips)} left out, "
              f"{time.monotonic() - started:.0f} s "
              f"(build-tests/{name}.log)", flush=True)
        total.add(count)
    return close(total, options, time.monotonic() - begin,
                 read_list("known_skips"))


def close(total, options, seconds, known):
    """Print the verdict; the closing line is the last one. `known`: reasons
    for which a case may be skipped."""
    status = 1 if total.failed else 0
    for label, reason in total.skips:
        is_known = reason in known
        print(f"skipped {label}: {reason}"
              f"{'' if is_known else '  <- not in tests/known_skips'}")
        status = status if is_known else 1
    expected = int(read_list("expected_count")[0])
    if not options.only and total.passed + total.failed < expected:
        print(f"tests/expected_count: ran {total.passed + total.failed} "
              f"tests, want at least {expected}")
        status = 1
    if total.failures:
        print("failed: " + ", ".join(label for label, _ in total.failures))
    print(f"{seconds:.0f} s in all")
    print(f"{total.passed} passed, {total.failed} failed, "
          f"{len(total.skips)} skipped")
    return status


if __name__ == "__main__":
    sys.exit(main())
