"""tools/check_device.py on the CPU: against itself, against one that rounds otherwise, and with planted errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from models.layers import ConvBlock
from tools import check_device

PROJECT = Path(__file__).resolve().parents[2]
TINY = SimpleNamespace(channels=4, critic_channels=4, image=32, trained=32)


@pytest.fixture
def on_device(monkeypatch):
    """Whether the code runs as the device that is compared, which here is the CPU as well: every other time."""
    state = SimpleNamespace(now=True)

    def set_device(name):
        state.now = not state.now
        return name

    monkeypatch.setattr(check_device, "set_device", set_device)
    return state


def spoil(monkeypatch, on_device, owner, name, change):
    """On the device, results of owner.name are changed."""
    original = getattr(owner, name)

    def spoiled(*arguments, **options):
        result = original(*arguments, **options)
        return change(result) if on_device.now else result

    monkeypatch.setattr(owner, name, spoiled)


def test_against_itself_from_the_outside():
    done = subprocess.run([sys.executable, "tools/check_device.py", "--device", "cpu", "--quick"], cwd=PROJECT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "device     cpu" and lines[-1] == "result: all agree with the CPU"
    assert "largest batch that ran: 2" in lines
    assert [line.split()[0] for line in lines if line.startswith("    ")] == ["1", "2"]
    assert "WRONG" not in done.stdout and str(Path.home()) not in done.stdout and str(PROJECT) not in done.stdout


def test_another_rounding_is_no_error(monkeypatch, on_device, capsys):
    """Convolutions that differ by 1e-6 of a value, as those of two libraries do, stay well within the tolerances."""
    rng = np.random.default_rng(5)

    def rounded(y):
        return y * paddle.to_tensor(1 + 1e-6 * rng.standard_normal(y.shape).astype(np.float32))

    spoil(monkeypatch, on_device, ConvBlock, "forward", rounded)
    assert check_device.compare("cpu", TINY) == []
    rows = [line.rsplit(None, 3)[1:3] for line in capsys.readouterr().out.splitlines() if line.endswith("ok")]
    errors, tolerances = np.array(rows, float).T
    assert len(rows) == 15 and errors.max() > 0 and (errors < tolerances / 3).all()


@pytest.mark.parametrize(
    ("owner", "name", "change", "found"),
    [
        (check_device.ContextualAttention, "forward", lambda y: (y[0], y[1].roll(1)), ["attention: offsets"]),
        (check_device.ContextualAttention, "forward", lambda y: (y[0] * 1.001, y[1]),
         ["attention: features", "attention: gradients", "attention in chunks: features"]),
        (check_device, "gradient_penalty", lambda y: y * 1.01,
         [f"{kind} critic: {what}" for kind in ("local", "global")
          for what in ("gradient penalty", "its second gradients")]),
        (check_device.GlobalCritic, "forward", lambda y: y * float("nan"), ["global critic: scores"]),
        (check_device.Trainer, "train_critics", lambda y: {**y, "d": 1.5 * y["d"]},
         [f"iteration {i}: losses, gradient norms" for i in (1, 2, 3)]),
        (check_device.Trainer, "train_generator", lambda y: {**y, "ae": 1.02 * y["ae"]},
         [f"iteration {i}: losses, gradient norms" for i in (1, 2, 3)]),
    ],
)
def test_a_planted_error_is_found(monkeypatch, on_device, capsys, owner, name, change, found):
    spoil(monkeypatch, on_device, owner, name, change)
    wrong = check_device.compare("cpu", TINY)
    assert set(found) <= set(wrong)
    assert len(wrong) == len(found) or owner in (check_device.GlobalCritic, check_device.ContextualAttention)
    assert capsys.readouterr().out.count("WRONG") == len(wrong)


def test_wrong_first_gradients_of_a_convolution_are_found(monkeypatch, on_device):
    def scaled_gradient(y):
        return y.detach() + 1.01 * (y - y.detach())

    spoil(monkeypatch, on_device, ConvBlock, "forward", scaled_gradient)
    wrong = check_device.compare("cpu", TINY)
    assert "global critic: its second gradients" in wrong and "iteration 1: losses, gradient norms" in wrong
    assert "generator: coarse and refined" not in wrong


def test_what_the_device_cannot_do_is_said(monkeypatch, on_device, capsys):
    def refuse(_):
        raise NotImplementedError("no kernel\nfor this device")

    spoil(monkeypatch, on_device, check_device, "gradient_penalty", refuse)
    wrong = check_device.compare("cpu", TINY)
    assert "local critic: gradient penalty" in wrong and "generator: coarse and refined" not in wrong
    assert "nan    1e-04  WRONG: NotImplementedError: no kernel for this device\n" in capsys.readouterr().out


def test_the_end_of_memory_ends_the_timing(monkeypatch, capsys):
    def out_of_memory(n, side):
        if n == 2:
            raise MemoryError("ResourceExhaustedError: out of memory")
        return make_batch(n, side)

    make_batch = check_device.make_batch
    monkeypatch.setattr(check_device, "make_batch", out_of_memory)
    check_device.time_iterations("cpu", TINY)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["    2   MemoryError: ResourceExhaustedError: out of memory", "largest batch that ran: 1"]
    assert float(lines[-3].split()[1]) > 0


@pytest.mark.parametrize(
    ("wrong", "code", "last"),
    [
        ([], 0, "result: all agree with the CPU"),
        (["a", "b"], 0, "result: 2 results do not agree (a; b)"),
        ([], -9, "result: all agree with the CPU; the timing ended with code -9"),
    ],
)
def test_the_last_line_says_it_all(monkeypatch, capsys, wrong, code, last):
    monkeypatch.setattr(check_device.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=code))
    monkeypatch.setattr(check_device, "compare", lambda *_: wrong)
    assert check_device.main(["--device", "cpu"]) == (1 if wrong or code else 0)
    assert capsys.readouterr().out.splitlines()[-1] == last


@pytest.mark.skipif(paddle.device.is_compiled_with_cuda(), reason="this Paddle may have a GPU")
def test_without_a_gpu_one_line_says_so(capsys):
    with pytest.raises(SystemExit, match="2"):
        check_device.main(["--device", "gpu"])
    assert capsys.readouterr().err.startswith("error: --device gpu: this is Paddle's CPU package")
