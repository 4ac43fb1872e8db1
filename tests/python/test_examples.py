# SPDX-License-Identifier: Apache-2.0
"""The Python examples, run as a reader would run them."""
import copy
import importlib
import importlib.util
import json
import re
import struct
import subprocess
import sys

import numpy as np
import pytest

import libfl as fl

PATIENCE = 600  # seconds; other tests run beside these


def run(root, name, *arguments):
    result = subprocess.run(
        [sys.executable, root / "examples" / "python" / name, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        timeout=PATIENCE)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    return result.stdout


def accuracies(output):
    return [float(value) for value in
            re.findall(r"accuracy ([\d.]+)%", output)]


def test_first_steps_learns_in_25_lines(root):
    text = (root / "examples" / "python" / "first_steps.py").read_text()
    assert len(text.splitlines()) <= 25
    assert accuracies(run(root, "first_steps.py"))[0] > 90


def test_first_steps_with_torch_learns(root):
    assert accuracies(run(root, "first_steps_torch.py"))[0] > 80


def test_own_server_goes_on_after_it_is_killed(root, tmp_path):
    path = tmp_path / "job.sqlite"
    output = run(root, "own_server.py", path)
    assert output.count("round_finished") == 6
    assert output.count("client_returned") == 3
    version, distance = re.search(r"version (\d+), ([\d.]+) off", output).groups()
    assert int(version) == 6 and float(distance) < 0.1
    assert path.stat().st_size > 0


def test_train_lenet_learns(root):
    output = run(root, "train_lenet.py", "--epochs", "2", "--samples", "4000")
    assert "Model(61,706 weights, 10 outputs)" in output
    assert "250 steps" in output and "ankle boot" in output
    assert accuracies(output)[0] > 65


def test_lora_transformer_learns_with_a_tenth_of_the_weights(root, tmp_path):
    path = tmp_path / "base.safetensors"
    output = run(root, "lora_transformer.py", "--epochs", "2", "--samples",
                 "4000", "--base", path)
    base, lora, whole = accuracies(output)
    assert base > 65 and lora > 60 and whole > 60
    rows = re.findall(r"(\d+) trained, update (\d+) bytes, (\d+) with THC",
                      output)
    (few, few_bytes, few_thc), (many, many_bytes, many_thc) = [
        map(int, row) for row in rows]
    assert few_bytes == 4 * few and many_bytes == 4 * many
    assert 10 * few < many and 7 * few_thc < many_thc
    assert float(re.search(r"the same answer for ([\d.]+)%",
                           output).group(1)) > 99
    # The file holds the whole base.
    assert 4 * many < path.stat().st_size < 4 * many + 10000


def outcomes(output):
    """Numbers of the lines without and with freezing."""
    return [list(map(float, re.findall(r"[\d.]+", re.search(
        f"^{name} freezing: (.*)$", output, re.M).group(1))))
            for name in ("without", "with")]


SMALL = ["--samples", "1000", "--pretrain-epochs", "1"]


def test_freezing_saves_bytes_and_memory(root, images, tmp_path):
    record = tmp_path / "record"
    output = run(root, "freezing.py", images, *SMALL, "--epochs", "4",
                 "--criterion", "fixed", "--schedule", "0:1,2:2",
                 "--cache-type", "f16", "--record", record)
    whole, less = outcomes(output)
    # accuracy, seconds, MB, MB at the end, update, cache, modules
    assert less[2] < 1.2 * whole[2]  # without the cache
    assert less[3] < 0.8 * whole[3] and less[4] < whole[4]
    assert whole[5:] == [0, 0] and less[6] == 2
    assert 32 * 7 * 7 * 2 * 1000 < less[5] < 32 * 7 * 7 * 2.2 * 1000
    events = [json.loads(line) for line in record.read_text().splitlines()]
    assert [(event["step"], event["first_active"]) for event in events
            if event["kind"] == "changed"] == [(0, 1), (32, 2)]
    assert "step 32: modules below 2 are frozen" in output


def test_freezing_has_the_options_of_its_twin_in_c(root, images, tmp_path):
    """Their names, and the defaults in parentheses; a base that was saved is not trained, and a cache in a file changes no
    loss."""
    source = (root / "examples" / "freezing.c").read_text()
    text = " ".join(run(root, "freezing.py", "--help").split())
    shared = ["base", "save-base", "pretrain-epochs", "epochs", "samples",
              "criterion", "preset", "schedule", "cache", "cache-type",
              "seed", "record"]
    for name in shared:
        assert f'{{"{name}", SETTING_' in source and f"--{name} " in text
    assert re.search(r"--criterion {gradnorm,plasticity,relative,fixed}", text)
    for cache in ("memory)", "f32)", "0:1,4:2)"):
        assert cache in text and cache in source
    common = [images, "--samples", "640", "--pretrain-epochs", "1",
              "--epochs", "2", "--criterion", "fixed", "--schedule", "0:1"]
    seen = []
    for more in (["--save-base", tmp_path / "base"],
                 ["--base", tmp_path / "base", "--cache", "none"],
                 ["--base", tmp_path / "base", "--cache", tmp_path / "rows"]):
        output = run(root, "freezing.py", *common, *more)
        assert ("base, 5 classes" in output) == ("--base" not in more)
        _, less = outcomes(output)
        seen.append(less[0])
        assert (less[5] > 0) == ("none" not in more)
    assert len(set(seen)) == 1 and (tmp_path / "rows").stat().st_size > 640
    run(root, "freezing.py", *common, "--criterion", "relative")


def test_freezing_decides_by_the_gradient(root, images, tmp_path):
    record = tmp_path / "record"
    output = run(root, "freezing.py", images, *SMALL, "--epochs", "5",
                 "--record", record)
    assert "bootstrapping phase is over" in output
    events = [json.loads(line) for line in record.read_text().splitlines()]
    raws = [event["raw"] for event in events if event["kind"] == "evaluated"]
    assert len(raws) > 16 and min(raws) > 0
    assert outcomes(output)[1][6] == events[-1]["first_active"] > 0


def test_torch_freezes_what_the_controller_says(root, images):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    output = run(root, "freezing_torch.py", images, *SMALL, "--epochs", "4",
                 "--cache", "f32", "--fixed", "0", "2")
    whole, less = outcomes(output)
    # accuracy, seconds, modules, samples
    assert min(whole[1], less[1]) > 0 and less[2:] == [2, 2000]
    for step, first in ((0, 1), (32, 2)):
        assert f"step {step}: modules below {first} are frozen" in output


@pytest.fixture
def freezing_torch(root, monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    monkeypatch.syspath_prepend(str(root / "examples" / "python"))
    return importlib.import_module("freezing_torch")


def test_frozen_torch_modules_keep_their_bits(freezing_torch, capsys):
    torch = importlib.import_module("torch")
    torch.manual_seed(3)
    x, y = torch.randn(130, 1, 12, 12), torch.randint(0, 10, (130,))
    networks = [freezing_torch.Vgg()]
    networks += [copy.deepcopy(networks[0]) for _ in range(2)]
    caches = [fl.ActivationCache(), None]
    for network, cache in zip(networks[1:], caches):
        freeze = fl.Freeze(5, "fixed", steps_per_epoch=3,
                           fixed=[(0, 1), (6, 2)])
        freezing_torch.train(network, x, y, 4, 1, freeze, cache)
    assert caches[0].status.hits == 2 * 130
    assert "step 6: modules below 2 are frozen" in capsys.readouterr().out
    before, cached, plain = [network.state_dict() for network in networks]
    for name, value in before.items():
        assert torch.equal(value, cached[name]) == name.startswith("parts.0")
        # Rows were computed in batches of another size.
        assert torch.allclose(cached[name], plain[name], atol=1e-4)


def small_training(freezing_torch, cache):
    """A network that froze its first module at once, trained on noise."""
    torch = importlib.import_module("torch")
    torch.manual_seed(3)
    x, y = torch.randn(130, 1, 12, 12), torch.randint(0, 10, (130,))
    network = freezing_torch.Vgg()
    freeze = fl.Freeze(5, "fixed", steps_per_epoch=3, fixed=[(0, 1), (6, 2)])
    freezing_torch.train(network, x, y, 4, 1, freeze, cache)
    return {name: value.numpy().copy()
            for name, value in network.state_dict().items()}


def test_torch_trains_on_without_a_cache_that_fails(freezing_torch, capsys):
    """Rows of 130 samples are 16 x 6 x 6 floats; and what came out of the
    cache may not be what can be kept."""
    plain = small_training(freezing_torch, None)
    assert "no cache" not in capsys.readouterr().out

    class Broken(fl.ActivationCache):
        def put(self, ids, rows):
            super().put(np.asarray(ids) + 130, rows)

    for cache, says in ((fl.ActivationCache(byte_cap=100000), "cap is 100000"),
                        (Broken(), "130")):
        without = small_training(freezing_torch, cache)
        out = capsys.readouterr().out
        assert out.count("no cache from now on: ") == 1
        assert says in out and cache.status.hits == 0
        assert "step 6: modules below 2 are frozen" in out
        assert all((plain[name] == without[name]).all() for name in plain)


def test_torch_decides_by_the_gradient(root, images):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    output = run(root, "freezing_torch.py", images, *SMALL, "--epochs", "6")
    assert "bootstrapping phase is over" in output
    assert outcomes(output)[1][2] > 0
    assert "the criterion is met" in output


@pytest.mark.parametrize("name", ["train_lenet.py", "lora_transformer.py",
                                  "freezing.py"])
def test_examples_say_what_is_missing_and_what_they_take(root, tmp_path,
                                                         name):
    program = root / "examples" / "python" / name
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x01"
                                                       b"\0\0\0\x01\0")

    def said(*arguments):
        result = subprocess.run([sys.executable, program, *arguments],
                                stdout=subprocess.PIPE, text=True,
                                stderr=subprocess.PIPE, timeout=PATIENCE)
        return result.returncode, result.stdout, result.stderr

    status, _, error = said(tmp_path / "nowhere")
    assert status == 1 and "train-images-idx3-ubyte.gz is missing" in error
    assert "apt install dataset-fashion-mnist" in error
    assert "Traceback" not in error
    status, _, error = said(tmp_path)
    assert status == 1 and "train-labels-idx1-ubyte.gz is missing" in error
    status, out, _ = said("--help")
    assert status == 0 and "--epochs" in out and "folder" in out
    for bad in (["--epochs", "0"], ["--samples", "x"]):
        assert said(*bad)[0] == 2


def test_cohorts_finds_its_groups_in_60_lines(root):
    text = (root / "examples" / "python" / "cohorts.py").read_text()
    assert len(text.splitlines()) <= 60
    output = run(root, "cohorts.py")
    kinds = re.findall(r"^round \d+: cohorts \d, \d: ([\w ]+),", output, re.M)
    assert kinds.count("stay") == 3
    last = output.splitlines()[-1]
    assert "4 models" in last and accuracies(last)[0] > 95
    assert float(re.search(r"worst 10 % ([\d.]+)%", last).group(1)) > 85


@pytest.fixture(scope="session")
def clicks(tmp_path_factory):
    """Rows of three fields, as prepare.py has them: the label is whether two
    of them agree."""
    rng = np.random.default_rng(4)
    values = rng.integers(0, (20, 20, 30000), (16000, 3)).astype("<u4")
    labels = (values[:, 0] % 2 == values[:, 1] % 2).astype(np.uint8)
    path = tmp_path_factory.mktemp("clicks") / "rows"
    path.write_bytes(
        b"FLCLICKS" + struct.pack("<IIQQIIQ", 1, 3, 16000, 14000, 0, 0,
                                  48 + 3 * 24 + 16000 * 13)
        + b"".join(struct.pack("<16sQ", b"field", n)
                   for n in (20, 20, 30000))
        + values.tobytes() + labels.tobytes())
    return path


def test_recommender_learns_within_its_budget(root, clicks):
    text = (root / "examples" / "python" / "recommender.py").read_text()
    assert len(text.splitlines()) <= 100
    output = run(root, "recommender.py", clicks, "--budget", ".3",
                 "--epochs", "6")
    lines = [tuple(map(float, found)) for found in re.findall(
        r"^step \d+: loss ([\d.]+), AUC ([\d.]+), ([\d.]+) MB, (\d+) rows$",
        output, re.M)]
    assert len(lines) == 10
    for (first, *_), (loss, auc, size, rows) in (
            (lines[0], lines[4]), (lines[5], lines[9])):
        assert loss < first and auc > .6
    assert size <= .3 < lines[4][2] and 0 < rows < lines[4][3]
    full, small, size = map(float, re.search(
        r"^AUC ([\d.]+) with all rows, ([\d.]+) in ([\d.]+) MB$", output,
        re.M).groups())
    assert (full, small, size) == (lines[4][1], lines[9][1], lines[9][2])


def test_recommender_makes_rows_up(root):
    output = run(root, "recommender.py", "--rows", "60000", "--epochs", "2",
                 "--budget", "1")
    full, small = map(float, re.search(
        r"^AUC ([\d.]+) with all rows, ([\d.]+) in 0.9", output,
        re.M).groups())
    assert min(full, small) > .6


def test_recommender_names_what_is_wrong(root, clicks, tmp_path):
    cut, plain = tmp_path / "cut", tmp_path / "plain"
    cut.write_bytes(clicks.read_bytes()[:-1])
    plain.write_bytes(b"")
    for arguments, status, says in (
            (["--help"], 0, ""), (["--dim", "x"], 2, "--dim"),
            ([tmp_path / "nowhere"], 1, "nowhere"),
            ([cut], 1, "cut: is no file of prepare.py, or is cut"),
            ([plain], 1, "plain: is no file"),
            (["--rows", "5"], 1, "or to test on"),
            ([clicks, "--budget", ".001"], 1, "byte_budget, got 1000"),
            ([clicks, "--chunks", "3"], 1, "chunks, got 3")):
        result = subprocess.run(
            [sys.executable, root / "examples" / "python" / "recommender.py",
             *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, timeout=PATIENCE)
        assert result.returncode == status, result.stderr
        assert says in result.stderr and "Traceback" not in result.stderr


def test_compress_numpy_shows_size_and_error(root):
    rows = re.findall(r"^(\w+) +([\d.]+) bits .* ([\d.e+-]+)$",
                      run(root, "compress_numpy.py"), re.M)
    assert [row[0] for row in rows] == ["f32", "bf16", "thc"]
    bits = [float(row[1]) for row in rows]
    assert bits[0] < 32.1 and bits[1] < 16.1 and bits[2] < 4.2
    assert float(rows[0][2]) < 1e-6 and float(rows[2][2]) < 0.1


@pytest.mark.parametrize("codec", ["f32", "bf16", "thc"])
def test_federated_numpy_learns(root, codec):
    output = run(root, "federated_numpy.py", "--codec", codec)
    assert len(accuracies(output)) == 10
    assert accuracies(output)[-1] > 80
    assert "bytes up" in output


def test_own_trainer_torch_learns(root, torch):
    output = run(root, "own_trainer_torch.py")
    assert len(accuracies(output)) == 20
    assert accuracies(output)[-1] > 90
    frozen = re.findall(r"^round (\d+): modules below (\d) of 3 are frozen$",
                        output, re.M)
    assert [int(first) for _, first in frozen][:1] == [1]
    assert 7 < int(frozen[0][0]) < 20


def test_own_trainer_torch_follows_the_plan(own_trainer):
    """What the plan froze keeps its bits, and reports are of the module behind
    it; a client of less depth has nothing to say."""
    rng = np.random.default_rng(2)
    reports = {0: [], 1: []}

    class Trainer(own_trainer.TorchTrainer):
        def train(self, task):
            before = task.weights.copy()  # which are trained in place
            result = super().train(task)
            reports[self.number].append(result.report)
            frozen = sum(weight.numel() for part in
                         self.parts[:task.first_active]
                         for weight in part.parameters())
            after = result.weights.detach().numpy()
            assert (after[:frozen] == before[:frozen]).all()
            assert (after[frozen:] != before[frozen:]).any()
            return result

    centres = rng.standard_normal((own_trainer.CLASSES, own_trainer.FEATURES))
    module = own_trainer.network()
    with own_trainer.described(module) as model, fl.Server() as server:
        model.set_weights(own_trainer.flat(module).detach().numpy())
        server.add_job(model, rounds=16, min_clients=2, codec="f32",
                       batch_size=8, freeze={
                           "criterion": "gradnorm", "loss_change": 1e3,
                           "loss_level": 1e3, "tolerance": 1e3,
                           "max_frozen": 2})
        trainers = [Trainer(*own_trainer.draw(rng, centres, 64))
                    for _ in range(2)]
        clients = []
        for number, trainer in enumerate(trainers):
            trainer.number = number
            clients.append(fl.Client(f"c{number}", model=model,
                                     max_depth=1 if number else 0,
                                     train=trainer.train))
        events = list(fl.Loopback(server, clients).events())
    changed = [e for e in events
               if e.kind == fl.ServerEventKind.FREEZE_CHANGED]
    assert [e.first_active for e in changed] == [1]
    at = changed[0].round - 1
    assert 7 <= at < 16
    assert [report.module for report in reports[0]] \
        == [0] * at + [1] * (16 - at)
    assert reports[1] == [None] * 16


@pytest.fixture
def own_trainer(root, torch, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "examples" / "python"))
    return importlib.import_module("own_trainer_torch")


@pytest.mark.parametrize("mode, feedback, bits, ratio", [
    ("table", "--feedback", 4, 7.5), ("uniform", "--feedback", 2, 15),
    ("dither", "--no-feedback", 4, 7.5)])
def test_ddp_torch_ranks_end_with_the_same_bits(root, torch, tmp_path, mode,
                                                feedback, bits, ratio):
    output = run(root, "ddp_torch.py", "--mode", mode, feedback, "--bits",
                 str(bits), "--samples", "4096", "--epochs", "2",
                 "--images", str(tmp_path / "none"))
    first, second = re.findall(r"^rank \d weights (\w{32})$", output, re.M)
    assert first == second
    last = re.findall(r"epoch 2  accuracy ([\d.]+)%", output)
    assert len(last) == 2 and min(map(float, last)) > 80
    away, less = re.search(r": ([+-][\d.]+) points .* ([\d.]+)x fewer",
                           output).groups()
    assert float(away) > -2 and float(less) > ratio


def test_ddp_torch_refuses_fewer_samples_than_a_step(root, torch):
    result = subprocess.run(
        [sys.executable, root / "examples" / "python" / "ddp_torch.py",
         "--samples", "255"], stderr=subprocess.PIPE, text=True,
        timeout=PATIENCE)
    assert result.returncode == 2 and "want 2 x --batch" in result.stderr


def test_torch_parameters_are_libfls_tensors(torch):
    module = torch.nn.Linear(5, 3)
    with fl.Model([fl.Input((5,)), fl.Dense(3), fl.SoftmaxCrossEntropy()],
                  seed=4) as model:
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(model["dense1.weight"]))
            module.bias.copy_(torch.from_numpy(model["dense1.bias"]))
        x, y = torch.randn(6, 5), torch.tensor([0, 1, 2, 0, 1, 2])
        assert model.predict(x.numpy()) == pytest.approx(
            module(x).detach().numpy(), abs=1e-5)
        # One step of SGD is the same step.
        loss = torch.nn.functional.cross_entropy(module(x), y)
        loss.backward()
        assert model.step(x.numpy(), y.numpy(), 0.1) == pytest.approx(
            loss.item(), abs=1e-5)
        assert model["dense1.weight"] == pytest.approx(
            (module.weight - 0.1 * module.weight.grad).detach().numpy(),
            abs=1e-5)
