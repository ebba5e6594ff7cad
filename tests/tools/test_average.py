"""tools/average.py: what it writes is the mean, and can be used."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

import tester
from tests import tiny_checkpoint
from utils.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint
from utils.mean_weights import is_mean_of

PROJECT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("average", PROJECT / "tools" / "average.py")
average = importlib.util.module_from_spec(spec)
spec.loader.exec_module(average)

FIRST, SECOND = "RUN/checkpoint_00000010.npz", "RUN/checkpoint_00000020.npz"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for iteration, gain in ((10, 9.0), (20, 1.0), (30, 4.0)):
        arrays = tiny_checkpoint.arrays(gain=gain)
        arrays["local_critic/linear.weight"] = np.ones((2, 1), np.float32)
        meta = tiny_checkpoint.meta(iteration=iteration, rng={"state": 1})
        save_checkpoint(checkpoint_path(str(tmp_path / "run"), iteration), arrays, meta)
    return tmp_path / "run"


@pytest.mark.parametrize("by_name", [False, True])
def test_the_mean_of_the_last(run: Path, capsys, by_name: bool) -> None:
    mean = run / "mean_of_2_00000030.npz"
    names = [checkpoint_path(str(run), iteration) for iteration in (20, 30)]
    assert average.main([*names, "--output", str(mean)] if by_name else [str(run), "--last", "2"]) == 0
    assert capsys.readouterr().out == f"{mean}: the mean of checkpoint_00000020.npz, checkpoint_00000030.npz\n"
    arrays, meta = load_checkpoint(str(mean))
    expected = tiny_checkpoint.arrays(gain=2.5)
    assert arrays.keys() == expected.keys() and "rng" not in meta and meta["iteration"] == 30
    for name, array in expected.items():
        np.testing.assert_allclose(arrays[name], array, rtol=1e-6, err_msg=name)
    assert tester.Tester(str(mean)).model.iteration == 30
    assert tester.find_checkpoint("latest", str(run), pytest.fail) == names[1]  # a mean is never resumed


def test_crops_of_another_size_are_of_the_same_network(run: Path) -> None:
    """A run may go on with larger crops; the critics' sizes in the meta are then others."""
    architecture = {**tiny_checkpoint.meta()["architecture"], "image_size": [128, 128], "box_size": [64, 64]}
    arrays = tiny_checkpoint.arrays(gain=2.0)
    meta = tiny_checkpoint.meta(iteration=40, architecture=architecture)
    save_checkpoint(checkpoint_path(str(run), 40), arrays, meta)
    assert average.main([str(run), "--last", "2"]) == 0
    assert tester.Tester(str(run / "mean_of_2_00000040.npz")).model.image_size == (128, 128)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN", "RUN", "--output", "mean.npz"], "run: a run's folder needs --last K"),
        (["RUN"], "run: a run's folder needs --last K"),
        (["RUN", "--last", "0"], "--last must be a whole number from 1, not 0"),
        (["RUN", "--last", "4"], "holds 3 checkpoints; 4 are needed"),
        (["RUN", "RUN", "--last", "1"], "--last is of one run's folder"),
        ([FIRST, "--last", "1"], "--last is of one run's folder"),
        ([FIRST], "checkpoints by name need --output"),
        ([SECOND, FIRST, "--output", "mean.npz"], "checkpoint_00000010.npz: is of iteration 10, not after the one"),
        ([SECOND, SECOND, "--output", "mean.npz"], "before it: give every checkpoint once, in the order of their"),
        ([SECOND, "--output", "run/../run/checkpoint_00000020.npz"], "is one of the checkpoints"),
        (["absent.npz", "--output", "mean.npz"], "absent.npz: no such checkpoint"),
    ],
)
def test_one_line_says_what_is_wrong(run: Path, tmp_path: Path, capsys, monkeypatch, arguments, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        average.main([word.replace("RUN", str(run)) for word in arguments])
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"] and len(list(run.iterdir())) == 3


def test_whether_a_file_is_the_mean(run: Path) -> None:
    """Only of just these checkpoints, in their order, and not older than any of them."""
    names = [checkpoint_path(str(run), iteration) for iteration in (20, 30)]
    mean = str(run / "mean_of_2_00000030.npz")
    assert not is_mean_of(mean, names)
    assert average.main([*names, "--output", mean]) == 0
    assert is_mean_of(mean, names)
    assert not is_mean_of(mean, [checkpoint_path(str(run), 10), names[1]])
    later = os.path.getmtime(mean) + 5
    os.utime(names[0], (later, later))
    assert not is_mean_of(mean, names)
    assert not is_mean_of(mean, [str(run / "absent.npz")])
    Path(mean).write_bytes(b"damaged")
    os.utime(mean, (later + 5, later + 5))
    assert not is_mean_of(mean, names)
