# SPDX-License-Identifier: Apache-2.0
"""Includes go down the layers only, and each outside library has one user."""
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from cases import ROOT, Cases

# Module -> modules whose headers it may include (its own always).
BELOW = {"base": set()}
BELOW["kernels"] = {"base"}
BELOW["crypto"] = {"base"}
BELOW["store"] = {"base"}
BELOW["linalg"] = {"base", "kernels"}
BELOW["wire"] = {"base", "crypto"}
BELOW["channel"] = {"base", "crypto", "wire"}
BELOW["model"] = {"base", "kernels", "crypto", "wire", "linalg"}
BELOW["compress"] = BELOW["model"] | {"model"}
BELOW["cache"] = {"base", "crypto"}
BELOW["freeze"] = BELOW["model"] | {"model", "cache"}
BELOW["cohort"] = {"base", "crypto", "wire"}
BELOW["embedding"] = BELOW["compress"] | {"compress"}
BELOW["strategy"] = {"base", "kernels", "crypto", "wire"}
BELOW["client"] = BELOW["compress"] | {"compress", "freeze", "embedding"}
BELOW["server"] = BELOW["compress"] | {"compress", "freeze", "embedding",
                                       "store", "cohort", "strategy"}

# Public headers by the module that implements them.
PUBLIC = {"base.h": "base", "protocol.h": "wire", "model.h": "model",
          "layers.h": "model", "train.h": "model", "weights.h": "model",
          "idx.h": "model", "compress.h": "compress",
          "feedback.h": "compress", "cache.h": "cache",
          "freeze.h": "freeze", "cohort.h": "cohort",
          "embedding.h": "embedding", "slices.h": "embedding",
          "client.h": "client", "paged.h": "client", "server.h": "server", "store.h": "store",
          "selection.h": "server",
          "strategy.h": "strategy", "channel.h": "channel",
          "host.h": "adapters", "sqlite.h": "adapters",
          "mpi.h": "adapters"}

# Outside header, or folder of headers -> the one module that may include it.
ENGINES = {"sodium": "crypto", "msgpack": "wire", "jsmn": "wire",
           "cblas": "linalg", "openblas": "linalg", "openblas_config": "linalg"}

# stdio.h is there for snprintf; tests/abi/check_symbols.py sees what is called.
FORBIDDEN = ["time.h", "pthread.h", "unistd.h", "signal.h",
             "locale.h", "threads.h", "sys/"]

def includes(path):
    text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
    return re.findall(r'^\s*#\s*include\s+[<"]([^>"]+)[>"]', text, re.M)


def main():
    cases = Cases()
    upward, engines, system = [], [], []
    files = 0
    for path in sorted((ROOT / "lib").rglob("*.[ch]")):
        relative = path.relative_to(ROOT / "lib")
        module = relative.parts[0]
        if module not in BELOW:
            continue
        files += 1
        allowed = BELOW[module] | {module}
        for name in includes(path):
            target = None
            if name.startswith("fl/"):
                # The umbrella header, too, is above every module.
                target = PUBLIC.get(name[3:], name)
            elif "/" in name and name.split("/")[0] in BELOW:
                target = name.split("/")[0]
            if target and target not in allowed:
                upward.append(f"{relative} includes {name}")
            engine = re.sub(r"(\.h|/.*)$", "", name)
            if ENGINES.get(engine, module) != module:
                engines.append(f"{relative} includes {name}")
            if any(name.startswith(bad) for bad in FORBIDDEN):
                system.append(f"{relative} includes {name}")
    cases.check("there_are_files_to_check", [] if files > 30 else [str(files)])
    cases.check("includes_go_down_the_layers", upward)
    cases.check("each_engine_has_one_module", engines)
    cases.check("core_includes_no_threads_clock_files", system)
    cases.close()


main()
