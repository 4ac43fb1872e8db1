# SPDX-License-Identifier: Apache-2.0
"""nmse_thc: its figures are those of the theory, its options are checked."""
import pathlib
import struct
import subprocess
import sys
import tempfile

from programs import BUILD, run_script, want

PROGRAM = BUILD / "tests" / "bench" / "nmse_thc"
FOLDER = tempfile.TemporaryDirectory(prefix="libfl-nmse-")


def _run(*arguments):
    done = subprocess.run([str(PROGRAM), *map(str, arguments)],
                          stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=300, check=False)
    return done.returncode, done.stdout, done.stderr


def _figures(*arguments):
    status, text, errors = _run(*arguments)
    want(status == 0, f"exit status: got {status}, want 0", errors)
    want(errors == "", "no progress without a terminal, got:", errors)
    return {key: float(value) for key, value in
            (line.split() for line in text.splitlines())}


def _refused(says, *arguments):
    status, text, errors = _run(*arguments)
    want(status == 2, f"exit status: got {status}, want 2", errors)
    want(text == "" and says in errors, f"want '{says}' in:", errors)


def _near(figures, key, value, tolerance):
    want(abs(figures[key] / value - 1) < tolerance,
         f"{key}: got {figures[key]}, want {value} within {tolerance}")


def _matrix(rows, columns, value=1.0):
    header = (f"{{'descr': '<f4', 'fortran_order': False, "
              f"'shape': ({rows}, {columns}), }}\n").encode()
    path = pathlib.Path(FOLDER.name) / "vectors.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header))
                     + header + struct.pack("<f", value) * rows * columns)
    return path


def one_workers_error_is_what_the_theory_says():
    # By rounding and clamping as published, norms rounded up by 2^-9 or so.
    figures = _figures("--size", 131072, "--data", "gauss", "--workers", 1,
                       "--seeds", 4)
    _near(figures, "nmse_gauss_uniform_b4_p32_n1", .0205, .02)
    _near(figures, "nmse_gauss_dither_b4_p91_n1", .0117, .02)
    _near(figures, "nmse_gauss_dither_b4_p1024_n1", .0163, .02)
    _near(figures, "nmse_gauss_table_b4_paper_p32_n1", .0204, .02)
    _near(figures, "nmse_gauss_table_b4_g30_p1024_n1", .0245, .02)


def the_best_clip_is_better_than_the_papers_for_any_number_of_workers():
    figures = _figures("--size", 65536, "--seeds", 2,
                       "--data", "gauss,gauss_indep")
    for data in ("gauss", "gauss_indep"):
        for workers in (1, 4, 10, 64):
            paper = figures[f"nmse_{data}_table_b4_paper_p32_n{workers}"]
            for scheme in ("dither_b4_best", "dither_b4_auto",
                           "table_b4_best", "table_b4_auto"):
                key = f"nmse_{data}_{scheme}_n{workers}"
                want(figures[key] < paper,
                     f"{key}: got {figures[key]}, the paper's: {paper}")
    _near(figures, "nmse_gauss_dither_b4_best_n10", .00023, .05)


def no_clip_of_a_sweep_is_much_better_than_the_best():
    figures = _figures("--sweep", "--size", 20480, "--workers", "1,10",
                       "--bits", "2,4", "--data", "gauss,gauss_indep")
    ratios = {key: value for key, value in figures.items()
              if key.endswith("_best_ratio")}
    want(len(ratios) == 24, sorted(ratios))
    for key, ratio in ratios.items():
        want(ratio < 1.02, f"{key}: got {ratio}, want at most 1.02")


def rows_that_bits_rule_out_are_left_out():
    figures = _figures("--size", 5000, "--workers", 1, "--seeds", 1,
                       "--data", "gauss", "--bits", "3,5")
    want("nmse_gauss_table_b3_g30_p32_n1" in figures
         and "nmse_gauss_table_b5_best_n1" in figures, sorted(figures))
    want(not any("b5_g30" in key or "paper" in key for key in figures),
         sorted(figures))


def theory_and_measurement_agree_for_every_mode_number_of_bits_and_clip():
    # Eight full blocks and a tail without padding.
    figures = _figures("--theory", "--size", 34816, "--seeds", 20000)
    ratios = {key: value for key, value in figures.items()
              if key.endswith("_ratio")}
    want(len(ratios) == 8 * 3 * 7, f"ratios: got {len(ratios)}, want 168")
    for key, ratio in ratios.items():
        start = key.removesuffix("ratio")
        error = figures[start + "se"] / figures[start + "measured"]
        want(error < .003001, f"{start}se: got {error}, want .003")
        want(abs(ratio - 1) < .01, f"{key}: got {ratio}, want 1 +- .01")


def figures_that_are_not_the_theorys_end_with_status_1():
    # Padding of this tail keeps less than its share of the clamping error.
    status, text, errors = _run("--theory", "--size", 2100, "--bits", 4)
    want(status == 1, f"exit status: got {status}, want 1", text, errors)


def equal_vectors_keep_the_clamping_error_and_others_do_not():
    figures = _figures("--size", 65536, "--workers", "1,10", "--seeds", 2,
                       "--data", "gauss,gauss_indep")
    _near(figures, "nmse_gauss_uniform_b4_p32_n10", .0085, .03)
    _near(figures, "nmse_gauss_indep_uniform_b4_p32_n10", .00205, .03)
    _near(figures, "nmse_gauss_indep_dither_b4_p91_n10", .00117, .03)


def every_kind_of_data_has_a_figure_and_a_standard_error():
    figures = _figures("--size", 10007, "--workers", 2, "--seeds", 2)
    for data in ("gauss", "gauss_indep", "lognormal", "student3", "sparse"):
        key = f"nmse_{data}_dither_b4_p91_n2"
        want(0 < figures[key] < .1 and 0 <= figures[key + "_se"] < .1,
             f"{key}: got {figures[key]}")


def the_same_call_prints_the_same():
    arguments = ["--size", 5000, "--data", "student3", "--workers", 3]
    want(_run(*arguments) == _run(*arguments), "two runs differ")


def the_float_codecs_have_rows_of_their_own():
    figures = _figures("--size", 5000, "--workers", "1,10", "--seeds", 1,
                       "--data", "gauss_indep", "--bits", "2,4")
    want(figures["bits_f32"] == 32 and figures["bits_bf16"] == 16, figures)
    want(figures["nmse_gauss_indep_f32_n10"] < 1e-15, figures)
    # Rounding to 8 bits: a twelfth of a unit in the last place, squared.
    _near(figures, "nmse_gauss_indep_bf16_n1", 2.76e-6, .05)
    _near(figures, "nmse_gauss_indep_bf16_n10", 2.76e-7, .05)


def further_sizes_have_a_suffix():
    figures = _figures("--size", "4096,5003", "--workers", 2, "--seeds", 2,
                       "--data", "gauss")
    key = "nmse_gauss_dither_b4_p91_n2"
    want(all(key + end in figures
             for end in ("", "_se", "_d5003", "_d5003_se")), sorted(figures))
    want(figures[key] != figures[key + "_d5003"], "both sizes are the same")


def vectors_have_the_name_that_they_are_given():
    figures = _figures("--vectors", _matrix(2, 1000), "--workers", 2,
                       "--seeds", 1, "--name", "cnn")
    want("nmse_cnn_dither_b4_p91_n2" in figures
         and not any("vectors" in key for key in figures), sorted(figures))
    _refused("--name: got a b", "--name", "a b")


def vectors_come_from_a_file():
    figures = _figures("--vectors", _matrix(3, 1000), "--workers", "1,3,4",
                       "--seeds", 1)
    want("nmse_vectors_dither_b4_p91_n3" in figures, sorted(figures))
    want("nmse_vectors_dither_b4_p91_n4" not in figures,
         "the file holds 3 workers, got a figure for 4")


def files_that_are_no_matrix_of_float32_are_refused():
    path = _matrix(3, 1000)
    path.write_bytes(path.read_bytes()[:-1])
    _refused("values: got", "--vectors", path)
    path.write_bytes(b"")
    _refused("not a .npy file", "--vectors", path)
    _refused("a file that can be read", "--vectors", path / "missing")


def options_out_of_range_are_refused():
    _refused("--bits: got 9, want 1..8", "--bits", 9)
    _refused("--bits: got 4;5", "--bits", "4;5")
    _refused("--workers: got 0, want 1..65535", "--workers", "1,0")
    _refused("--size: got -1", "--size", -1)
    _refused("--data: got bogus", "--data", "gauss,bogus")
    _refused("option: got --bogus", "--bogus", 1)
    _refused("--seeds: got nothing", "--seeds")


def help_names_the_options():
    status, text, _ = _run("--help")
    want(status == 0 and "--vectors FILE" in text, text)


if __name__ == "__main__":
    run_script(sys.modules[__name__])
