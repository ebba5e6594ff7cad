"""Checkpoints: whole or not at all, damage found, nothing executed, strict fit."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from utils.checkpoint import (
    FORMAT_VERSION,
    CheckpointError,
    checkpoint_path,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    load_parameters,
    rotate_checkpoints,
    save_checkpoint,
    section,
    set_aside_newer,
)

PROJECT = Path(__file__).resolve().parents[2]
META = {"dialect": "tf1", "iteration": 7, "random_state": {"state": 2**127, "name": "照片"}}


def some_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "generator/conv1.weight": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "generator/conv1.bias": np.zeros(4, np.float32),
        "generator_optimizer/moment1/conv1.weight": rng.standard_normal((4, 3, 3, 3)),
        "position": np.array(12, np.int64),
        "flags": np.array([True, False]),
        "none": np.zeros((0, 3), np.uint8),
        "columns": np.asfortranarray(rng.standard_normal((3, 2))),
    }


def same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    return list(left) == list(right) and all(
        left[k].dtype == right[k].dtype and left[k].shape == right[k].shape and (left[k] == right[k]).all()
        for k in left
    )


@pytest.fixture
def saved(tmp_path):
    path = str(tmp_path / "run" / "checkpoint_00000007.npz")
    save_checkpoint(path, some_arrays(), META)
    return path


def refusal(path: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message[len(path) + 2 :]


def member_file(path: str, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> str:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def npy(array: np.ndarray, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def meta_of(document: object) -> bytes:
    return npy(np.frombuffer(json.dumps(document).encode(), np.uint8))


def test_round_trip_is_exact_and_plain_numpy_reads_it(saved):
    arrays, meta = load_checkpoint(saved)
    assert same(arrays, some_arrays())
    assert meta == {**META, "format_version": FORMAT_VERSION}
    assert arrays["generator/conv1.weight"].flags.writeable
    with np.load(saved, allow_pickle=False) as file:
        assert same({name: file[name] for name in file.files if name != "meta"}, some_arrays())
        assert json.loads(file["meta"].tobytes())["iteration"] == 7


def test_same_content_gives_the_same_bytes_and_leaves_no_temporary(saved, tmp_path):
    save_checkpoint(str(tmp_path / "other.npz"), some_arrays(), META)
    assert (tmp_path / "other.npz").read_bytes() == Path(saved).read_bytes()
    assert os.listdir(os.path.dirname(saved)) == ["checkpoint_00000007.npz"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_not_saved(saved, value):
    before = Path(saved).read_bytes()
    poisoned = {**some_arrays(), "w": np.array([1.0, value], np.float32)}
    with pytest.raises(CheckpointError, match="not saved: w holds values that are not finite$"):
        save_checkpoint(saved, poisoned, META)
    assert Path(saved).read_bytes() == before
    assert len(os.listdir(os.path.dirname(saved))) == 1


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("w", np.array([None]), "w is of type object, not numbers"),
        ("w", np.array(["a"]), "w is of type <U1, not numbers"),
        ("w", np.array([1j]), "w is of type complex128, not numbers"),
        ("meta", np.zeros(1), "'meta' cannot be the name of an array"),
        ("", np.zeros(1), "'' cannot be the name of an array"),
    ],
)
def test_what_cannot_be_saved(tmp_path, name, array, message):
    with pytest.raises(CheckpointError, match=f"not saved: {message}$"):
        save_checkpoint(str(tmp_path / "c.npz"), {name: array}, {})
    assert os.listdir(tmp_path) == []


def test_meta_must_be_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(str(tmp_path / "c.npz"), {}, {"loss": float("nan")})
    assert os.listdir(tmp_path) == []


def test_folders_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "taken.npz").mkdir()
    for path in (tmp_path / "file" / "c.npz", tmp_path / "taken.npz"):
        with pytest.raises(CheckpointError, match=f"^{path}: the checkpoint cannot be written: "):
            save_checkpoint(str(path), some_arrays(), META)
    assert sorted(os.listdir(tmp_path)) == ["file", "taken.npz"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_save_leaves_the_older_file(saved, monkeypatch, error):
    def fail(handle):
        raise error

    before = Path(saved).read_bytes()
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CheckpointError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        save_checkpoint(saved, {"w": np.ones(3)}, {})
    if isinstance(error, OSError):
        assert str(caught.value) == f"{saved}: the checkpoint cannot be written: No space left on device"
    assert Path(saved).read_bytes() == before
    assert len(os.listdir(os.path.dirname(saved))) == 1


def test_the_data_is_on_the_disk_before_the_rename_and_the_folder_after(tmp_path, monkeypatch):
    steps = []
    sync, replace = os.fsync, os.replace

    def traced_sync(handle):
        steps.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")
        sync(handle)

    def traced_replace(*paths):
        steps.append("rename")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", traced_sync)
    monkeypatch.setattr(os, "replace", traced_replace)
    save_checkpoint(str(tmp_path / "c.npz"), some_arrays(), META)
    assert steps == ["file", "rename", "folder"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_FSIZE")
@pytest.mark.parametrize("limit", [0, 10_000, 399_000])
def test_a_full_disk_is_one_line_and_the_older_file_stays(saved, limit):
    before = Path(saved).read_bytes()
    code = (
        "import resource, sys, numpy as np\n"
        "from utils.checkpoint import save_checkpoint\n"
        "from utils.cli import friendly_errors\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "with friendly_errors():\n"
        f"    save_checkpoint({saved!r}, {{'w': np.ones(50_000)}}, {{}})\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == f"error: {saved}: the checkpoint cannot be written: File too large\n"
    assert Path(saved).read_bytes() == before
    assert os.listdir(os.path.dirname(saved)) == ["checkpoint_00000007.npz"]


def test_truncation_anywhere_is_found(saved):
    content = Path(saved).read_bytes()
    for length in [*range(0, len(content), max(1, len(content) // 100)), len(content) - 1]:
        Path(saved).write_bytes(content[:length])
        message = refusal(saved)
        if length == 0:
            assert message == "the checkpoint is empty (0 bytes)"


def test_1000_flipped_bytes_are_refused_or_change_nothing(saved):
    content = Path(saved).read_bytes()
    expected = some_arrays()
    rng = np.random.default_rng(2)
    refused = 0
    for _ in range(1000):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= int(rng.integers(1, 256))
        Path(saved).write_bytes(damaged)
        try:
            arrays, meta = load_checkpoint(saved)
        except CheckpointError as error:
            assert str(error).startswith(saved) and "\n" not in str(error)
            refused += 1
        else:
            assert same(arrays, expected) and meta == {**META, "format_version": FORMAT_VERSION}
    assert refused > 500  # the others hit fields of the container that mean nothing here, such as dates


class Trap:
    def __reduce__(self):
        return (os.mkdir, (self.where,))

    def __init__(self, where: str) -> None:
        self.where = where


def test_pickles_are_refused_and_not_run(tmp_path):
    trap = Trap(str(tmp_path / "sprung"))
    plain = tmp_path / "a.pdparams"
    plain.write_bytes(pickle.dumps(trap))
    assert refusal(str(plain)).startswith("holds weights of another implementation: convert them with ")
    inside = npy(np.array([trap], dtype=object), allow_pickle=True)
    members = {"w.npy": inside, "meta.npy": meta_of({"format_version": 1})}
    hidden = member_file(str(tmp_path / "b.npz"), members)
    assert refusal(hidden) == "w.npy is a pickle, which could run code; it was not read"
    torch = member_file(str(tmp_path / "c.pt"), {"archive/data.pkl": pickle.dumps(trap)})
    assert refusal(torch).startswith("holds weights of another implementation: convert them with ")
    assert not (tmp_path / "sprung").exists()


def test_files_that_are_no_checkpoint(tmp_path):
    path = str(tmp_path / "c.npz")
    assert refusal(path) == "no such checkpoint"
    assert refusal(str(tmp_path)) == "not a file"
    Path(path).write_text("Iter: [1/2]")
    assert refusal(path) == "not a checkpoint of this program, or damaged at its start"
    np.savez(path, w=np.zeros(3))
    assert refusal(path) == "not a checkpoint of this program: it says nothing about itself (no meta)"
    member_file(path, {"meta.npy": meta_of([1])})
    assert refusal(path) == "not a checkpoint of this program: its meta has no format_version"
    member_file(path, {"meta.npy": meta_of({"format_version": 2, "arrays": {}})})
    assert refusal(path) == "is of format version 2; this program reads version 1"


def test_crafted_files(tmp_path):
    path = str(tmp_path / "c.npz")
    meta = meta_of({"format_version": 1, "arrays": {"w": ["<f4", [3]]}})
    good = npy(np.ones(3, np.float32))
    member_file(path, {"w.npy": good, "meta.npy": meta})
    assert load_checkpoint(path)[0]["w"].tolist() == [1, 1, 1]
    member_file(path, {"w.npy": good, "meta.npy": meta}, zipfile.ZIP_DEFLATED)
    assert refusal(path) == "holds compressed or overlapping data, which this program never writes"
    member_file(path, {"meta.npy": meta})
    assert refusal(path) == "the checkpoint is damaged: its arrays are not those it lists"
    member_file(path, {"w.npy": npy(np.ones(3)), "meta.npy": meta})
    assert refusal(path) == "the checkpoint is damaged: its arrays are not those it lists"
    member_file(path, {"w.npy": npy(np.array([1, np.nan, 1], np.float32)), "meta.npy": meta})
    assert refusal(path) == "w holds values that are not finite"
    # A header that asks for 4 TB must be refused by its length alone.
    huge = good.replace(b"(3,), }" + b" " * 12, b"(1099511627776,), }")
    assert len(huge) == len(good)
    member_file(path, {"w.npy": huge, "meta.npy": meta})
    assert refusal(path) == "w.npy is not as long as its shape says"


def test_names_and_list(tmp_path):
    assert checkpoint_path("a", 500) == "a/checkpoint_00000500.npz"
    assert list_checkpoints(str(tmp_path / "gone")) == []
    names = ["checkpoint_00000500.npz", "checkpoint_123456789.npz", "checkpoint_00010000.npz"]
    for name in [*names, "checkpoint_00000501.npz.tmp-3", "checkpoint_12.npz", "train.txt"]:
        (tmp_path / name).write_text("")
    order = [(500, names[0]), (10_000, names[2]), (123_456_789, names[1])]
    assert list_checkpoints(str(tmp_path)) == [(number, str(tmp_path / name)) for number, name in order]


def test_rotation_keeps_the_newest_and_clears_leftovers(tmp_path):
    for iteration in (1, 2, 3, 4):
        Path(checkpoint_path(str(tmp_path), iteration)).write_text("")
    (tmp_path / "checkpoint_00000003.npz.tmp-77").write_text("half")
    (tmp_path / "train.txt").write_text("")
    rotate_checkpoints(str(tmp_path), keep=2)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint_00000003.npz", "checkpoint_00000004.npz", "train.txt"]
    rotate_checkpoints(str(tmp_path), keep=9)
    assert len(os.listdir(tmp_path)) == 3
    with pytest.raises(ValueError, match="at least 1"):
        rotate_checkpoints(str(tmp_path), keep=0)


def test_rotation_keeps_every_nth(tmp_path):
    for iteration in range(1, 10):
        Path(checkpoint_path(str(tmp_path), iteration)).write_text("")
    (tmp_path / "train.txt.tmp-5").write_text("half")
    rotate_checkpoints(str(tmp_path), keep=2, every=3)
    assert [iteration for iteration, _ in list_checkpoints(str(tmp_path))] == [3, 6, 8, 9]
    assert len(os.listdir(tmp_path)) == 4


def test_newer_checkpoints_are_set_aside_and_not_lost(tmp_path):
    folder = str(tmp_path)
    for content in ("first", "second"):
        for iteration in (5, 10, 15):
            Path(checkpoint_path(folder, iteration)).write_text(content)
        names = [os.path.basename(path) for path in set_aside_newer(folder, 5)]
        assert [iteration for iteration, _ in list_checkpoints(folder)] == [5]
    assert names == ["checkpoint_00000010.npz.superseded-2", "checkpoint_00000015.npz.superseded-2"]
    assert (tmp_path / "checkpoint_00000010.npz.superseded-1").read_text() == "first"
    rotate_checkpoints(folder, keep=1)
    assert len(os.listdir(folder)) == 5
    assert set_aside_newer(folder, 5) == []


def test_latest_passes_over_damaged_ones_by_name(tmp_path):
    folder, warnings = str(tmp_path), []
    with pytest.raises(CheckpointError, match="holds no checkpoint; a new run starts without --resume$"):
        latest_checkpoint(folder, warnings.append)
    for iteration in (5, 10, 15):
        save_checkpoint(checkpoint_path(folder, iteration), some_arrays(), META)
    assert latest_checkpoint(folder, warnings.append) == checkpoint_path(folder, 15)
    assert warnings == []
    newest = Path(checkpoint_path(folder, 15))
    newest.write_bytes(newest.read_bytes()[:-30])
    assert latest_checkpoint(folder, warnings.append) == checkpoint_path(folder, 10)
    assert len(warnings) == 1 and warnings[0].startswith(f"skipped {newest}: ")
    for iteration in (5, 10):
        Path(checkpoint_path(folder, iteration)).write_bytes(b"")
    with pytest.raises(CheckpointError, match="none of its 3 checkpoints can be used"):
        latest_checkpoint(folder, warnings.append)


class Network:
    """The two methods of a paddle Layer that are used."""

    def __init__(self, **parameters: np.ndarray) -> None:
        self.parameters = parameters

    def state_dict(self):
        return self.parameters

    def set_state_dict(self, state):
        self.parameters = dict(state)


def network(width: int = 4) -> Network:
    weight, bias = np.zeros((width, 3), np.float32), np.zeros(width, np.float32)
    return Network(weight=weight, bias=bias, last=np.zeros(2, np.float32))


def test_parameters_are_taken_over(saved):
    arrays = section(load_checkpoint(saved)[0], "generator")
    assert list(arrays) == ["conv1.weight", "conv1.bias"]
    target = Network(**{name: np.full_like(array, 9) for name, array in arrays.items()})
    load_parameters(target, arrays, saved)
    assert same(target.parameters, arrays)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": None}, "weights do not fit this network: 1 missing: bias"),
        ({"extra": np.zeros(1)}, "weights do not fit this network: 1 left over: extra"),
        (
            {"last": np.zeros(3, np.float32), "bias": None},
            "weights do not fit this network: 1 missing: bias; "
            "1 of another shape or type: last is float32 [3], not float32 [2]",
        ),
        (
            {"last": np.zeros(2)},
            "weights do not fit this network: "
            "1 of another shape or type: last is float64 [2], not float32 [2]",
        ),
        (
            {str(n): np.zeros(1) for n in range(5)},
            "weights do not fit this network: 5 left over: 0, 1, 2 and 2 more",
        ),
    ],
)
def test_parameters_that_do_not_fit_are_listed_and_nothing_is_set(change, message):
    target = network()
    arrays = {**{k: v + 1 for k, v in target.parameters.items()}, **change}
    with pytest.raises(CheckpointError) as caught:
        load_parameters(target, {k: v for k, v in arrays.items() if v is not None}, "a.npz")
    assert str(caught.value) == "a.npz: " + message
    assert all((value == 0).all() for value in target.parameters.values())


def test_another_width_is_called_so():
    with pytest.raises(CheckpointError, match=r"of another width \(8 channels, here 4; see ngf and ndf\)"):
        load_parameters(network(4), network(8).parameters, "a.npz")


def test_paddle_layers_load():
    paddle = pytest.importorskip("paddle")
    source = paddle.nn.Sequential(paddle.nn.Conv2D(3, 2, 3), paddle.nn.Linear(2, 5))
    target = paddle.nn.Sequential(paddle.nn.Conv2D(3, 2, 3), paddle.nn.Linear(2, 5))
    arrays = {name: value.numpy() for name, value in source.state_dict().items()}
    load_parameters(target, arrays, "a.npz")
    assert all((value.numpy() == arrays[name]).all() for name, value in target.state_dict().items())
    with pytest.raises(CheckpointError, match="1 missing: 1.bias"):
        load_parameters(target, {k: v for k, v in arrays.items() if k != "1.bias"}, "a.npz")
