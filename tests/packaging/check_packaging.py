# SPDX-License-Identifier: Apache-2.0
"""A stranger's program finds an installed libfl by pkg-config (shared and
static), by CMake and as a Meson subproject, and runs; so does
examples/standalone, copied out of the tree, as its own files say."""
import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from cases import ROOT, Cases, command

PROGRAM = """\
#include <stdio.h>
#include <fl/fl.h>

int main(void)
{
  fl_compressor *compressor = NULL;
  const uint64_t size = 1000;
  if (fl_compressor_new(&compressor, NULL, NULL, &size, 1) != FL_OK) return 1;
  printf("%s %d\\n", fl_version_string(),
         (int)fl_compressor_dim(compressor));
  fl_compressor_free(compressor);
  return fl_version_number() == FL_VERSION_NUMBER ? 0 : 1;
}
"""

CMAKE = """\
cmake_minimum_required(VERSION 3.18)
project(consumer C)
find_package(libfl 0.1 REQUIRED)
add_executable(consumer main.c)
target_link_libraries(consumer libfl::fl)
"""

MESON = """\
project('consumer', 'c', default_options: ['c_std=c11'])
libfl = dependency('libfl', fallback: ['libfl', 'fl_dep'],
  default_options: ['tests=false', 'examples=false', 'host=false'])
executable('consumer', 'main.c', dependencies: libfl)
"""

# Three builds: it is how they are found that matters, not how fast they are.
QUICK = "-Doptimization=0"


def steps(commands, want, environment=None):
    """Run commands; the last one's output must contain `want`."""
    output = ""
    for arguments in commands:
        status, output = command(arguments,
                                 env={**os.environ, **(environment or {})})
        if status:
            return [" ".join(map(str, arguments)), *output.splitlines()[-20:]]
    return [] if want in output else [f"got {output!r}, want {want!r}"]


def install(build, prefix, *options):
    return [["meson", "setup", build, f"--prefix={prefix}", "--libdir=lib",
             QUICK, "-Dtests=false", "-Dexamples=false", *options],
            ["ninja", "-C", build, "install"]]


def standalone(folder, prefix, *commands):
    """Copy the example, run commands in it; the last one is its program."""
    place = folder / "standalone"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(ROOT / "examples" / "standalone", place)
    return steps([["sh", "-c", f"cd {place} && {text}"] for text in commands],
                 "and the model says",
                 {"LD_LIBRARY_PATH": f"{prefix}/lib",
                  "PKG_CONFIG_PATH": f"{prefix}/lib/pkgconfig",
                  "CMAKE_PREFIX_PATH": str(prefix)})


def main():
    build = Path(sys.argv[1])
    cases = Cases()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prefix = folder / "prefix"
        source = folder / "main.c"
        source.write_text(PROGRAM)
        cases.check("installs_into_a_prefix", steps([
            *install(folder / "build", prefix)], "libfl.pc"))
        environment = {
            "PKG_CONFIG_PATH": f"{prefix}/lib/pkgconfig",
            "LD_LIBRARY_PATH": f"{prefix}/lib",
            "CMAKE_PREFIX_PATH": str(prefix),
            "CMAKE_GENERATOR": "Ninja",
        }
        consumer = folder / "consumer"
        compile_consumer = (f"cc -std=c11 {source} -o {consumer} "
                            "$(pkg-config --cflags libfl) ")
        cases.check("pkg_config_consumer_shared", steps([
            ["sh", "-c", compile_consumer + "$(pkg-config --libs libfl)"],
            [consumer]], "0.1.0 1000", environment))
        # As an app does it: libfl.a alone, without BLAS.
        phone = folder / "phone"
        cases.check("pkg_config_consumer_static", steps([
            *install(folder / "build-phone", phone, "-Dblas=none",
                     "-Ddefault_library=static", "-Dhost=false"),
            ["sh", "-c", compile_consumer +
             "$(pkg-config --libs --static libfl)"],
            [consumer]], "0.1.0 1000",
            {"PKG_CONFIG_PATH": f"{phone}/lib/pkgconfig"}))
        cmake = folder / "cmake"
        cmake.mkdir()
        shutil.copy(source, cmake)
        (cmake / "CMakeLists.txt").write_text(CMAKE)
        cases.check("cmake_consumer", steps([
            ["cmake", "-S", cmake, "-B", cmake / "b"],
            ["cmake", "--build", cmake / "b"],
            [cmake / "b" / "consumer"]], "0.1.0 1000", environment))
        cases.check("standalone_example_by_make", standalone(
            folder, prefix, "make", "./points"))
        cases.check("standalone_example_by_make_with_the_static_library",
                    standalone(folder, phone, "make STATIC=1",
                               "! ldd points | grep libfl", "./points"))
        cases.check("standalone_example_by_cmake", standalone(
            folder, prefix, "cmake -S . -B b", "cmake --build b", "b/points"))
        meson = folder / "meson"
        (meson / "subprojects").mkdir(parents=True)
        shutil.copy(source, meson)
        (meson / "meson.build").write_text(MESON)
        shutil.copytree(ROOT, meson / "subprojects" / "libfl",
                        ignore=shutil.ignore_patterns("build-*", ".git"))
        cases.check("meson_subproject_consumer", steps([
            ["meson", "setup", QUICK, meson / "b", meson],
            ["ninja", "-C", meson / "b"],
            [meson / "b" / "consumer"]], "0.1.0 1000"))
    cases.check("build_under_test_is_there",
                [] if (build / "lib" / "libfl.so").exists() else [str(build)])
    cases.close()


main()
