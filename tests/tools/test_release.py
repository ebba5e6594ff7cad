"""tools/release.py: what it averages, what it publishes, and that the result can be used."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

import tester
from tests import tiny_checkpoint
from utils.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint
from utils.config import TrainConfig, load_config, to_yaml

PROJECT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("release", PROJECT / "tools" / "release.py")
release = importlib.util.module_from_spec(spec)
spec.loader.exec_module(release)

TERMS = ["--data", "320 photographs", "--licence", "research only"]

LOG = """\
# resumed from /home/someone/run of mine/checkpoint_00000010.npz; seed 0; cpu; 1 rank; 4 photographs
# the configuration differs from that of ~/runs/small/c.npz: data_root: /home/someone/photos/all; lr: 0.1
# a checkpoint later than run/c.npz is now /home/someone/runs/small/c.npz.newer
/home/someone/photos/my photos/a b.png: is not an image; another image takes its place
photos/b.png: is empty; another image takes its place
Iter: [30/30] l1: 0.5 speed: 1.00 batches/s
"""
PUBLISHED = """\
# resumed from .../run of mine/checkpoint_00000010.npz; seed 0; cpu; 1 rank; 4 photographs
# the configuration differs from that of .../small/c.npz: data_root: .../photos/all; lr: 0.1
# a checkpoint later than run/c.npz is now .../small/c.npz.newer
.../my photos/a b.png: is not an image; another image takes its place
photos/b.png: is empty; another image takes its place
Iter: [30/30] l1: 0.5 speed: 1.00 batches/s
"""


def write(folder: Path, iteration: int, gain: float = 1.0, **changes) -> str:
    """A training checkpoint whose weights are `gain` times those of the others."""
    config = TrainConfig(train_data_path="/home/someone/photos/train.txt", resume="latest")
    arrays = tiny_checkpoint.arrays(gain=gain)
    arrays["local_critic/linear.weight"] = np.ones((2, 1), np.float32)
    arrays["generator_optimizer/moment1/coarse_generator.conv1.conv.bias"] = np.ones(4, np.float32)
    path = checkpoint_path(str(folder), iteration)
    more = {"config": to_yaml(config), "rng": {"state": 1}, "paddle": "3.3.1", "position": 5}
    save_checkpoint(path, arrays, tiny_checkpoint.meta(iteration=iteration, **{**more, **changes}))
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    for iteration, gain in ((10, 9.0), (20, 1.0), (30, 3.0)):
        write(folder, iteration, gain)
    (folder / "train.txt").write_text(LOG)
    return folder


def test_a_release(run: Path, tmp_path: Path, capsys) -> None:
    results = tmp_path / "val_center"
    results.mkdir()
    (results / "test.txt").write_text("python test.py\n")
    (tmp_path / "terms.txt").write_text("Non-commercial research.\n")
    output = tmp_path / "checkpoints" / "released"
    arguments = ["--data", "320 photographs", "--licence", str(tmp_path / "terms.txt")]
    metrics = ["--metrics", str(results / "test.txt")]
    assert release.main([str(run), "--output", str(output), *arguments, *metrics]) == 0
    files = {"generator.npz", "config.yaml", "train.txt", "metrics_val_center.txt", "README.md", "SHA256SUMS"}
    assert {path.name for path in output.iterdir()} == files

    arrays, meta = load_checkpoint(str(output / "generator.npz"))
    newest = tiny_checkpoint.arrays(gain=3.0)
    assert arrays.keys() == newest.keys()
    assert all(array.dtype == np.float32 and (array == newest[name]).all() for name, array in arrays.items())
    assert meta["averaged"] == ["checkpoint_00000030.npz"] and meta["paddle"] == "3.3.1" and "rng" not in meta
    model = tester.Tester(str(output / "generator.npz")).model
    assert (model.channels, model.iteration, model.coarse_only) == (4, 30, False)

    config = load_config(str(output / "config.yaml"))
    assert config.train_data_path == ".../photos/train.txt" and config.resume is False and config.data_root == ""
    assert not any(b"someone" in path.read_bytes() for path in output.iterdir())
    assert (output / "train.txt").read_text() == PUBLISHED
    readme = (output / "README.md").read_text()
    assert "320 photographs" in readme and "Non-commercial research." in readme
    assert "a run of train.py after 30 iterations: 58,086 weights" in " ".join(readme.split())
    digest = hashlib.sha256((run / "checkpoint_00000030.npz").read_bytes()).hexdigest()
    assert f"- checkpoint_00000030.npz, SHA-256 {digest}" in readme
    assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=output, capture_output=True).returncode == 0
    assert (output / "SHA256SUMS").read_text().count("\n") == len(files) - 1


@pytest.mark.parametrize("by_name", [False, True])
def test_the_mean_of_the_last(run: Path, tmp_path: Path, capsys, by_name: bool) -> None:
    """Weights of 1 and 3 times the same: the mean is twice, for a release and for one checkpoint."""
    names = [checkpoint_path(str(run), iteration) for iteration in (20, 30)]
    sources = names if by_name else [str(run), "--last", "2"]
    mean = str(tmp_path / "new" / "mean.npz")
    assert release.main([*sources, "--output", mean]) == 0
    assert capsys.readouterr().out == f"{mean}: the mean of checkpoint_00000020.npz, checkpoint_00000030.npz\n"
    assert release.main([*sources, "--output", str(tmp_path / "out"), *TERMS]) == 0
    for path in (mean, str(tmp_path / "out/generator.npz")):
        arrays, meta = load_checkpoint(path)
        expected = tiny_checkpoint.arrays(gain=2.0)
        assert arrays.keys() == expected.keys() and "rng" not in meta and meta["iteration"] == 30
        for name, array in expected.items():
            np.testing.assert_allclose(arrays[name], array, rtol=1e-6, err_msg=name)
        assert meta["averaged"] == ["checkpoint_00000020.npz", "checkpoint_00000030.npz"]
        assert tester.Tester(path).model.iteration == 30
    readme = (tmp_path / "out/README.md").read_text()
    assert "the mean of the weights of 2 checkpoints" in " ".join(readme.split())


def test_the_averaged_generator_of_a_run_is_taken(tmp_path: Path) -> None:
    path = checkpoint_path(str(tmp_path), 5)
    ema = {f"ema/{name[len('generator/'):]}": 5 * array for name, array in tiny_checkpoint.arrays().items()}
    save_checkpoint(path, {**tiny_checkpoint.arrays(), **ema}, tiny_checkpoint.meta(iteration=5))
    assert release.main([path, "--output", str(tmp_path / "mean.npz")]) == 0
    arrays, single = load_checkpoint(str(tmp_path / "mean.npz"))[0], tiny_checkpoint.arrays()
    assert arrays.keys() == single.keys()
    assert all((array == 5 * single[name]).all() for name, array in arrays.items())


def test_crops_of_another_size_are_of_the_same_network(run: Path, tmp_path: Path) -> None:
    """A run may resume with larger crops; the critics' sizes in the meta then differ."""
    architecture = {**tiny_checkpoint.meta()["architecture"], "image_size": [128, 128], "box_size": [64, 64]}
    write(run, 40, architecture=architecture)
    assert release.main([str(run), "--last", "2", "--output", str(tmp_path / "mean.npz")]) == 0
    assert tester.Tester(str(tmp_path / "mean.npz")).model.image_size == (128, 128)


def test_git_keeps_a_release_and_no_run() -> None:
    def ignored(path: str) -> bool:
        return subprocess.run(["git", "check-ignore", "-q", path], cwd=PROJECT).returncode == 0

    if not (PROJECT / ".git").exists():
        pytest.skip("not a git checkout")
    assert not any(ignored(f"checkpoints/released/{name}") for name in ("generator.npz", "train.txt", "SHA256SUMS"))
    assert ignored("checkpoints/small/hole_x/checkpoint_00000001.npz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN", "--last", "4"], "--last 4: .*run holds 3 checkpoints"),
        (["RUN", "--last", "0"], "--last 0: .*run holds 3 checkpoints"),
        (["RUN", "RUN"], "run: give one run's folder, or checkpoints without --last"),
        (["RUN/checkpoint_00000020.npz", "RUN/checkpoint_00000010.npz"], "is of iteration 10, not after the one"),
        (["RUN/checkpoint_00000020.npz", "RUN/checkpoint_00000020.npz"], "before it: give every checkpoint once"),
        (["RUN", "--output", "mean.npz"], "mean.npz: a folder needs --data and --licence; an .npz has neither"),
        (["RUN", "--licence", ""], "out: a folder needs --data and --licence"),
        (["RUN", "--licence", "terms.txt"], "terms.txt: no such file; a text has more than one word"),
        (["RUN", "--data", "notes/data"], "notes/data: no such file; a text has more than one word"),
        (["absent.npz"], "absent.npz: no such checkpoint"),
        (["RUN/checkpoint_00000010.npz", "--last", "2"], "give one run's folder, or checkpoints without --last"),
        (["RUN/checkpoint_00000010.npz", "OTHER"], "is of another network than .*: architecture, coarse_only differ"),
        (["BARE"], "bare/checkpoint_00000001.npz: does not hold the configuration of a run"),
        (["RUN", "--metrics", "absent/test.txt"], "absent/test.txt: cannot be read: No such file"),
        (["RUN", "--metrics", "a/test.txt", "b/../a/test.txt"], "two of them are in folders of one name"),
        (["RUN", "--metrics", "RUN"], "run: cannot be read: Is a directory"),
        (["RUN", "--output", "RUN"], "is one of the sources"),
        (["RUN/checkpoint_00000010.npz", "--output", "RUN"], "is not empty: remove it, or name another folder"),
    ],
)
def test_one_line_says_what_is_wrong_and_nothing_is_left(run, tmp_path, capsys, arguments, message) -> None:
    network = {"generator_channels": 4, "dialect": "tf1", "contextual_attention": False}
    other = write(tmp_path / "other", 40, architecture=network, coarse_only=True)
    bare = write(tmp_path / "bare", 1, config=None)
    for name, path in (("RUN", run), ("OTHER", other), ("BARE", bare)):
        arguments = [word.replace(name, str(path)) for word in arguments]
    with pytest.raises(SystemExit) as exit_:
        release.main(["--output", str(tmp_path / "out"), *TERMS, *arguments])
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert re.search(message, error)
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_too_large(run: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """It is the file that counts: its weights alone would do."""
    arguments = [str(run), "--output", str(tmp_path / "out"), *TERMS]
    limit = sum(array.nbytes for array in tiny_checkpoint.arrays().values())
    monkeypatch.setattr(release, "MAX_BYTES", limit)
    with pytest.raises(SystemExit):
        release.main(arguments)
    assert re.search(rf"[\d,]+ weights make [\d,]+ bytes, more than {limit:,}$", capsys.readouterr().err.strip())
    assert list((tmp_path / "out").iterdir()) == []
    monkeypatch.undo()
    assert release.main(arguments) == 0
