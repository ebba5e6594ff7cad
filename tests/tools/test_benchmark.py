from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

from models.contextual_attention import ContextualAttention
from models.critics import LocalCritic
from models.layers import ConvBlock
from models.static_attention import attend_statically

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "benchmark.py"
spec = importlib.util.spec_from_file_location("benchmark", SCRIPT)  # a script is run, not imported by name
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)


def run(*options: str, **kwargs) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPT), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=280, **kwargs)


@pytest.fixture
def reference_forms(monkeypatch: pytest.MonkeyPatch):
    """`use_reference_forms`, whose effect ends with the test."""
    for layer in (ConvBlock, ContextualAttention):
        monkeypatch.setattr(layer, "forward", layer.forward)
    return benchmark.use_reference_forms


def test_the_table_and_the_figures_of_a_small_run(tmp_path: Path) -> None:
    options = ["--rows", "attention", "--size", "32", "--batch", "1", "--pairs", "2", "--json", "figures.json"]
    done = run(*options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()]
    assert table[0] == ["32x32, batch 1", "ours", "reference", "loop"]
    assert [line[0] for line in table[2:]] == ["matrix product", "attention"]
    assert "attention, turn 2 of 2: ours " in done.stderr and "Traceback" not in done.stderr

    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    records = figures["records"]
    assert [record["form"] for record in records] == ["ours", "ours", "reference", "loop"]
    for record in records:
        assert record["error"] is None and len(record["turns"]) == 2 and record["version"] == paddle.__version__
        assert min(record["turns"]) <= record["seconds"] <= max(record["turns"]) and record["peak_mib"] > 50
    for record in records[1:]:
        assert record["ratios"] == [a / b for a, b in zip(records[1]["turns"], record["turns"])]


def test_every_row_runs_and_counts_flops() -> None:
    rows = {row: benchmark.our_steps(row, "ours", 32, 2, "tf1") for row in benchmark.ROWS}
    for row, (steps, flops) in rows.items():
        for step in dict.fromkeys(steps):
            step()
        assert flops > 0 and len(steps) == {"cycle": 6, "attention-backward": 2}.get(row, 1)
    flops = {row: flops for row, (_, flops) in rows.items()}
    assert flops["attention-backward"] == 3 * flops["attention"]
    assert flops["generator"] == 2 * flops["image"]  # an image is a batch of one
    assert flops["cycle"] == pytest.approx(5 * flops["critic-update"] + flops["generator-update"])
    single = benchmark.our_steps("cycle", "ours", 32, 1, "tf1")[1]
    assert flops["cycle"] == pytest.approx(2 * single)


@pytest.mark.parametrize("dialect", ["tf1", "pytorch"])
def test_reference_forms_give_the_same_results(dialect: str, reference_forms) -> None:
    critic = LocalCritic(4, (32, 32), dialect)
    image = paddle.to_tensor(np.random.default_rng(0).normal(size=[2, 3, 32, 32]).astype(np.float32))
    [generator], _ = benchmark.our_steps("generator", "ours", 32, 2, dialect)
    [attention], _ = benchmark.our_steps("attention", "ours", 32, 2, dialect)

    def results() -> list[np.ndarray]:
        return [x.numpy() for x in (*generator()[:2], attention(), critic(image))]

    ours = results()
    reference_forms()
    for own, reference in zip(ours, results()):
        np.testing.assert_allclose(own, reference, rtol=0, atol=1e-4 * np.abs(reference).max())


@pytest.mark.parametrize("scale", [benchmark.FEATURE_SCALE, 1.0])
def test_the_attention_forms_agree_in_features_and_gradients(scale: float) -> None:
    rng = np.random.default_rng(5)
    mask = np.zeros([1, 1, 12, 16], np.float32)
    mask[:, :, 2:8, 2:6] = 1
    mask, upstream = paddle.to_tensor(mask), paddle.to_tensor(rng.standard_normal([2, 4, 12, 16], np.float32))
    values = rng.standard_normal([2, 4, 12, 16], np.float32) * np.float32(scale)
    layer = ContextualAttention(dialect="pytorch")
    found = []
    for form in (
        lambda x: layer(x, x, mask)[0],
        lambda x: attend_statically(x, mask, 10.0, True, "pytorch")[0],
        lambda x: benchmark.loop_attention(x, mask),
    ):
        x = paddle.to_tensor(values, stop_gradient=False)
        features = form(x)
        features.backward(upstream)
        found.append([features.numpy(), x.grad.numpy()])
    for other in found[1:]:
        for own, theirs in zip(found[0], other):
            np.testing.assert_allclose(own, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


# A checkout of the port without the port and without torch: it writes down what the benchmark calls.
PORT = {
    "torch.py": "__version__ = 'stub'\ndef rand(*shape): return 1\ndef no_grad(): return lambda f: f\n",
    "configs/config.yaml": "{cuda: true, l1_loss_alpha: 1, ae_loss_alpha: 1, gan_loss_alpha: 1, wgan_gp_lambda: 1}",
    "model/networks.py": "class ContextualAttention: pass\n",
    "utils/tools.py": "def random_bbox(config, n): return n, config['mask_shape']\n"
    "def mask_image(image, boxes, config): return image, boxes\n",
    "trainer.py": """
def note(*words):
    with open("calls.txt", "a") as file:
        print(*words, file=file)
class Loss:
    def __init__(self, name): self.name = name
    def __mul__(self, factor): return self
    def __add__(self, other): return Loss(self.name + other.name)
    def backward(self): note("backward", self.name)
class Optimizer:
    def __init__(self, name): self.name = name
    def zero_grad(self): note("zero", self.name)
    def step(self): note("step", self.name)
class Trainer:
    def __init__(self, config):
        assert config["cuda"] is False and config["image_shape"] == [256, 256, 3]
        self.optimizer_g, self.optimizer_d = Optimizer("g"), Optimizer("d")
    def __call__(self, hidden, boxes, mask, image, with_generator):
        assert boxes == (2, [128, 128])
        print("noise on standard output")
        names = ["wgan_d", "wgan_gp"] + ["l1", "ae", "wgan_g"] * with_generator
        return {name: Loss(f"({name})") for name in names}, None, None
""",
}


@pytest.fixture
def port(tmp_path: Path) -> Path:
    for name, text in PORT.items():
        path = tmp_path / "the port" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "the port"


def test_the_cycle_of_the_port_is_the_same_work(port: Path, tmp_path: Path) -> None:
    request = json.dumps(["cycle", "port", 256, 2, str(port)])
    done = run("--serve", request, cwd=tmp_path, input="turn\n")
    first, second = map(json.loads, done.stdout.splitlines())
    assert first == {"version": "stub", "flops": None} and second["seconds"] > 0
    assert "noise" in done.stderr
    critics = ["zero d", "backward (wgan_d)(wgan_gp)", "step d"]
    both = ["zero g", "backward (l1)(ae)(wgan_g)", *critics, "step g"]
    calls = (tmp_path / "calls.txt").read_text(encoding="utf-8").splitlines()
    assert calls[:9] == critics + both  # warm-up
    cycle = 4 * critics + both
    assert calls[9:] == cycle * (len(calls[9:]) // len(cycle)) != []


def arguments(**changed) -> argparse.Namespace:
    values = {"size": 256, "batch": 2, "pairs": 2, "peer": None, "peer_python": sys.executable}
    return argparse.Namespace(**{**values, **changed})


def test_a_failing_form_is_reported(port: Path, tmp_path: Path, capfd, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    failed = benchmark.measure("cycle", ["port"], arguments(peer=str(tmp_path / "empty")))
    assert failed[0]["error"].startswith("ModuleNotFoundError") and failed[0]["turns"] == []
    assert "error: cycle, port: ModuleNotFoundError" in capfd.readouterr().err
    killed = benchmark.measure("cycle", ["port"], arguments(peer=str(port), peer_python="/bin/true"))
    assert killed[0]["error"] == "its process was killed; out of memory?"
    good = benchmark.measure("cycle", ["port"], arguments(peer=str(port)))
    assert good[0]["error"] is None and len(good[0]["turns"]) == 2

    ours = {"row": "cycle", "form": "ours", "error": None, "seconds": 2.0, "ratios": [1], "flops": 4e9, "peak_mib": 9}
    other = {**ours, "form": "port", "seconds": 4.0, "ratios": [0.4, 0.5, 0.7], "peak_mib": 8}
    lines = benchmark.table("title", [ours, other, {**ours, "row": "image"}, {**failed[0], "row": "image"}], 8e9)
    assert lines == [
        "| title | ours | port |",
        "| --- | --- | --- |",
        "| cycle | 2 s, 25%, 9 MiB | 4 s (0.50), 8 MiB |",
        "| image | 2 s, 25%, 9 MiB | failed |",
    ]


@pytest.mark.parametrize(
    ("options", "code", "measured"),
    [
        ([], 0, {"attention": "ours reference loop", "cycle": "ours reference", "image": "ours reference"}),
        (["--size", "1024"], 0, {"attention": "ours", "cycle": "ours"}),
        (["--rows", "cycle", "--forms", "loop"], 0, {"cycle": "ours"}),
        (["--peer", "PORT"], 0, {"attention": "ours port reference loop", "cycle": "ours port reference",
                                 "generator-update": "ours reference"}),
        (["--peer", "PORT", "--forms", "port"], 1, {"attention": "ours port", "generator-update": "ours"}),
    ],
)
def test_which_forms_a_row_has(options, code, measured, port: Path, monkeypatch, capsys) -> None:
    seen = {}

    def measure(row: str, forms: list[str], _) -> list[dict]:
        seen[row] = " ".join(forms)
        record = {"row": row, "form": "ours", "seconds": 1.0, "flops": 1.0, "peak_mib": 1.0, "ratios": [1.0]}
        return [{**record, "error": "broken" if code and row == "image" else None}]

    monkeypatch.setattr(benchmark, "measure", measure)
    monkeypatch.setattr(benchmark.sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", str(port))
    assert benchmark.main([str(port) if option == "PORT" else option for option in options]) == code
    assert seen.pop(benchmark.PEAK) == "ours"
    assert measured.items() <= seen.items() and list(seen) == (["cycle"] if "cycle" in options else [*benchmark.ROWS])
    assert "| failed |" in capsys.readouterr().out or not code


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "100"], "--size must be divisible by 8, from 32 to 4096"),
        (["--batch", "0"], "--batch and --pairs at least 1"),
        (["--rows", "everything"], "invalid choice: 'everything'"),
        (["--peer", ".", "--size", "64"], "--peer: the port's critics are built for --size 256"),
        (["--peer", "nowhere"], "error: --peer nowhere: no checkout of the PyTorch port: no model/networks.py"),
        (["--peer", "PORT", "--peer-python", "no-python"], "error: [Errno 2] No such file or directory: 'no-python'"),
        (["--peer", "PORT", "--peer-python", "/bin/false"], "error: --peer-python /bin/false: cannot import torch"),
    ],
)
def test_bad_options(options: list[str], message: str, port: Path, tmp_path: Path) -> None:
    done = run(*(str(port) if option == "PORT" else option for option in options), cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr and not done.stdout


def test_a_busy_machine_is_said(monkeypatch, capsys) -> None:
    record = {"row": "x", "form": "ours", "error": None, "seconds": 1.0, "flops": 1.0, "peak_mib": 1.0, "ratios": []}
    monkeypatch.setattr(benchmark, "measure", lambda *_: [record])
    monkeypatch.setattr(benchmark.sys, "path", [*sys.path])
    for load, expected in ((0.4, ""), (0.6, "warning: this machine is busy (load 0.6)")):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert benchmark.main([]) == 0
        text = capsys.readouterr().err
        assert text.startswith(expected) and bool(text) == bool(expected)
