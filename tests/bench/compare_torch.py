# SPDX-License-Identifier: Apache-2.0
"""Speed against PyTorch: the four models of torch_models.py, both engines
with the same weights and the same batches (float32, normalised, sliced
beforehand), one thread each, processor time. Engines take turns within a run;
figures are medians of --runs rounds.
A step is forward, loss, backward and the recipe's optimiser. Prints
`key value` lines; MODEL is mlp, lenet, transformer or vgg8:
  ratio_MODEL           PyTorch's time / libfl's, of a step
  ratio_forward_MODEL   of a forward pass alone
  libfl_step_us_MODEL, torch_step_us_MODEL, libfl_forward_us_MODEL,
  torch_forward_us_MODEL
OpenBLAS chooses its kernels at start: --core-types tries others, for PyTorch
to be seen at its best. Every type is a run of its own:
  ratio_MODEL_TYPE, torch_step_us_MODEL_TYPE
  ratio_best_MODEL      the smallest of the ratios, best_core_MODEL its type
"default" is what OpenBLAS takes by itself, named in blas_core. With
--bench-models PROGRAM (tests/bench/bench_models of the build) and --isa NAME
libfl's times are those of that program, which can be held to one instruction
set and takes turns with PyTorch in the same way. --python-torch names a second
interpreter, of a virtual environment with another PyTorch and numpy; its keys
begin with other_.
libfl has to be importable: PYTHONPATH=bindings/python/src and
LIBFL_LIBRARY=build/lib/libfl.so.0.1, or an installed package.
"""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

MODELS = ("mlp", "lenet", "transformer", "vgg8")
BATCHES = 20
SLICE_S = .1  # processor time of a figure in a round, about
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


# ---- the run of one interpreter with one core type -------------------------

def slices(function):
    """A function that times `function` over some passes, us per batch."""
    function(0)
    start = time.process_time()
    function(1)
    one = max(time.process_time() - start, 1e-6)
    count = max(1, round(SLICE_S / one))

    def measure():
        begin = time.process_time()
        for i in range(count):
            function(i % BATCHES)
        return 1e6 * (time.process_time() - begin) / count
    return measure


def libfl_slices(name, model, data):
    """{"step": ..., "forward": ...} of libfl in this process."""
    del name
    batches = [(x.numpy(), y.numpy().astype("int32")) for x, y in data]
    return {"step": slices(lambda i: model.step(*batches[i])),
            "forward": slices(lambda i: model.predict(batches[i][0]))}


def program_slices(options, name):
    """The same of bench_models, held to an instruction set."""
    def measure(what):
        output = subprocess.run(
            [options.bench_models, "--model", name, "--isa", options.isa,
             "--runs", "1"], check=True, stdout=subprocess.PIPE,
            text=True).stdout
        keys = [line.split() for line in output.splitlines()]
        prefix = f"{name}_{what}_us"
        found = [float(value) for key, value in keys
                 if key in (prefix, f"{prefix}_{options.isa}")]
        if not found:
            sys.exit(f"{options.bench_models}: gives no {prefix}")
        return found[0]
    return {what: lambda what=what: measure(what)
            for what in ("step", "forward")}


def torch_slices(module, recipe, data):
    import torch
    from torch_models import torch_step
    optimiser = recipe.torch_optimiser(module.parameters())

    def forward(i):
        with torch.no_grad():
            module(data[i][0])
    return {"step": slices(lambda i: torch_step(module, optimiser, *data[i])),
            "forward": slices(forward)}


def measure_model(name, options):
    """{"step": [(libfl us, torch us), ...], "forward": ...}."""
    import torch
    from torch_models import RECIPES, pair
    # Steps that change nothing much: weights stay as usual for all rounds.
    recipe = RECIPES[name].slowed(1e-4)
    module, model = pair(name, 1)
    model.optimiser = recipe.optimiser
    torch.manual_seed(2)
    data = [(torch.randn(recipe.batch, 1, 28, 28),
             torch.randint(0, 10, (recipe.batch,))) for _ in range(BATCHES)]
    theirs = torch_slices(module, recipe, data)
    ours = (program_slices(options, name) if options.isa
            else libfl_slices(name, model, data))
    rounds = {"step": [], "forward": []}
    for _ in range(options.runs):
        for what, times in rounds.items():
            times.append((ours[what](), theirs[what]()))
    return rounds


def blas_core():
    """(library, kernels) of the BLAS that PyTorch uses: what it has loaded.
    Wheels of numpy bring one of their own."""
    import ctypes
    import torch
    paths = {line.split()[-1] for line in open("/proc/self/maps")
             if "openblas" in line and "numpy" not in line}
    for path in sorted(paths):
        try:
            library = ctypes.CDLL(path)
            name = library.openblas_get_corename
            config = library.openblas_get_config
        except (OSError, AttributeError):
            continue
        name.restype = config.restype = ctypes.c_char_p
        return config().decode().strip(), name().decode()
    facts = [line.strip(" -") for line in
             torch.__config__.show().splitlines()]
    library = [line for line in facts if "Math Kernel Library" in line]
    capability = [line for line in facts if "CPU capability" in line]
    return (library or ["unknown"])[0], (capability or ["unknown"])[0]


def run_child(options):
    """Measure, and print the figures for the parent as JSON."""
    import torch
    library, core = blas_core()  # before libfl brings its own
    import libfl as fl
    torch.set_num_threads(1)
    rounds = {name: measure_model(name, options) for name in options.models}
    print(json.dumps({
        "rounds": rounds, "torch": torch.__version__, "blas": library,
        "core": core, "libfl": fl.build_info()}))


# ---- all runs --------------------------------------------------------------

def run(interpreter, core, argv):
    """What a child with its own environment prints."""
    environment = {**os.environ, **{name: "1" for name in THREADS}}
    environment.pop("OPENBLAS_CORETYPE", None)
    if core != "default":
        environment["OPENBLAS_CORETYPE"] = core
    here = str(pathlib.Path(__file__).resolve().parent)
    environment["PYTHONPATH"] = os.pathsep.join(
        [here, environment.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    output = subprocess.run([interpreter, __file__, "--child", *argv],
                            env=environment, check=True,
                            stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def ratio(times):
    """Median over the rounds of PyTorch's time / libfl's."""
    return statistics.median(theirs / ours for ours, theirs in times)


def print_times(found, prefix):
    for name, rounds in found["rounds"].items():
        for what, times in rounds.items():
            key = f"{what}_us_{name}"
            ours, theirs = (statistics.median(side) for side in zip(*times))
            print(f"{prefix}libfl_{key} {ours:.1f}")
            print(f"{prefix}torch_{key} {theirs:.1f}")
        print(f"{prefix}ratio_{name} {ratio(rounds['step']):.2f}")
        print(f"{prefix}ratio_forward_{name} {ratio(rounds['forward']):.2f}",
              flush=True)


def print_core(found, core, prefix):
    for name, rounds in found["rounds"].items():
        theirs = statistics.median(side for _, side in rounds["step"])
        print(f"{prefix}ratio_{name}_{core} {ratio(rounds['step']):.2f}")
        print(f"{prefix}torch_step_us_{name}_{core} {theirs:.1f}", flush=True)


def compare(interpreter, options, argv, prefix):
    """All core types of one interpreter."""
    runs = {}
    for core in options.core_types:
        runs[core] = found = run(interpreter, core, argv)
        if len(runs) == 1:
            for key in ("torch", "blas", "core", "libfl"):
                label = {"core": "blas_core"}.get(key, key)
                print(f"{prefix}{label} {found[key]}")
            print_times(found, prefix)
        else:
            print(f"{prefix}blas_core_{core} {found['core']}")
            print_core(found, core, prefix)
    for name in options.models:
        best = min(runs, key=lambda c: ratio(runs[c]["rounds"][name]["step"]))
        value = ratio(runs[best]["rounds"][name]["step"])
        print(f"{prefix}ratio_best_{name} {value:.2f}")
        print(f"{prefix}best_core_{name} {best}")


def processor():
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def names(text):
    found = text.split(",")
    for name in found:
        if name not in MODELS:
            raise argparse.ArgumentTypeError(
                f"got {name}, want some of {', '.join(MODELS)}")
    return found


def arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", type=names, default=list(MODELS),
                        metavar="LIST", help=", ".join(MODELS))
    parser.add_argument("--runs", type=int, default=11, metavar="N",
                        help="rounds (11)")
    parser.add_argument("--core-types", default="default", metavar="LIST",
                        type=lambda text: text.split(","),
                        help="of OpenBLAS: default, SkylakeX, Haswell, Zen")
    parser.add_argument("--python-torch", metavar="PATH",
                        help="second interpreter")
    parser.add_argument("--bench-models", metavar="PROGRAM",
                        help="that times libfl, with --isa")
    parser.add_argument("--isa", metavar="NAME", help="c, avx2, avx512, ...")
    parser.add_argument("--child", action="store_true",
                        help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.runs < 1:
        parser.error("--runs: want 1 or more")
    if (options.isa is None) != (options.bench_models is None):
        parser.error("--isa, --bench-models: want both or none")
    return options


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    options = arguments(argv)
    if options.child:
        run_child(options)
        return
    print(f"cpu {processor()}")
    compare(sys.executable, options, argv, "")
    if options.python_torch:
        options.core_types = options.core_types[:1]
        compare(options.python_torch, options, argv, "other_")


if __name__ == "__main__":
    main()
