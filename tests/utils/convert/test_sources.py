"""Which program a file comes from, which files belong together, and refusals."""

from __future__ import annotations

import json
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests import malicious_pickles
from tests.weight_writers import (
    NamedArray,
    write_old_torch,
    write_paddle,
    write_safetensors,
    write_tensorflow,
    write_torch,
)
from utils.checkpoint import save_checkpoint
from utils.cli import UserError
from utils.convert.sources import iteration_of, open_source
from utils.convert.weights import describe

ONE = np.ones((2, 3), np.float32)
GENERATOR = {"coarse_generator.conv1.conv.weight": ONE}
CRITICS = {"localD": {"linear.weight": ONE}, "globalD": {"linear.weight": 2 * ONE}}
OPTIMISER = {"gen": {"state": {0: {"step": 1, "exp_avg": ONE}}, "param_groups": []}, "dis": {"state": {}}}


def fill(folder: Path, *kinds: str) -> Path:
    folder.mkdir(exist_ok=True)
    for kind in kinds:
        if kind == "tf1":
            write_tensorflow(folder / "snap-12", {"inpaint_net/conv1/kernel": ONE})
            (folder / "checkpoint").write_text('model_checkpoint_path: "snap-12"\n')
        write = {".pt": write_torch, ".pdparams": write_paddle}.get(kind)
        for iteration in (5, 100) if write else ():
            write(folder / f"gen_{iteration:08d}{kind}", GENERATOR)
            write(folder / f"dis_{iteration:08d}{kind}", CRITICS)
            write(folder / f"optimizer{kind}", OPTIMISER)
    return folder


@pytest.mark.parametrize(
    ("kind", "program", "names", "iteration"),
    [
        ("tf1", "tf1", ["snap-12.index", "snap-12.data-00000-of-00001"], 12),
        (".pt", "pytorch", ["gen_00000100.pt", "dis_00000100.pt"], 100),
        (".pdparams", "predecessor", ["gen_00000100.pdparams", "dis_00000100.pdparams"], 100),
    ],
)
@pytest.mark.parametrize("said", [False, True])
def test_folders(tmp_path, kind: str, program: str, names: list[str], iteration: int, said: bool) -> None:
    folder = fill(tmp_path / "run", kind)
    source = open_source(str(folder), program if said else None)
    assert (source.program, iteration_of(source)) == (program, iteration)
    assert [Path(path).name for path in source.files] == names
    if kind != "tf1":
        assert set(source.variables) == {*GENERATOR, "localD.linear.weight", "globalD.linear.weight"}
        assert np.array_equal(source.variables["globalD.linear.weight"], 2 * ONE)


def test_a_folder_of_two_programs(tmp_path: Path) -> None:
    folder = str(fill(tmp_path / "run", "tf1", ".pt"))
    with pytest.raises(UserError, match="run: holds checkpoints of tf1 and pytorch: say which with --from"):
        open_source(folder)
    assert open_source(folder, "tf1").program == "tf1"
    with pytest.raises(UserError, match="holds none of these: TensorFlow's"):
        open_source(folder, "predecessor")


def test_a_folder_without_critics(tmp_path: Path) -> None:
    folder = fill(tmp_path / "run", ".pt")
    (folder / "dis_00000100.pt").unlink()
    source = open_source(str(folder))
    assert len(source.files) == 1 and not source.has_critics


@pytest.mark.parametrize("suffix", [".pt", ".pdparams"])
def test_generator_and_critics_as_two_files(tmp_path: Path, suffix: str) -> None:
    folder = fill(tmp_path / "run", suffix)
    generator, critics = str(folder / f"gen_00000005{suffix}"), str(folder / f"dis_00000100{suffix}")
    assert open_source(generator).files == (generator,)
    both = open_source(generator, critics=critics)
    assert both.files == (generator, critics) and both.has_critics and iteration_of(both) == 5
    with pytest.raises(UserError, match=r"gen_00000005\S+: holds something else than critics"):
        open_source(generator, critics=generator)


def test_critics_of_another_program(tmp_path: Path) -> None:
    folder = fill(tmp_path / "run", ".pt", ".pdparams", "tf1")
    with pytest.raises(UserError, match="looks like a file of predecessor, not of pytorch"):
        open_source(str(folder / "gen_00000005.pt"), critics=str(folder / "dis_00000005.pdparams"))
    with pytest.raises(UserError, match="holds the critics itself"):
        open_source(str(folder / "snap-12"), critics=str(folder / "dis_00000005.pt"))


@pytest.mark.parametrize("suffix", [".pt", ".pdparams"])
def test_optimisers_are_refused(tmp_path: Path, suffix: str) -> None:
    folder = fill(tmp_path / "run", suffix)
    with pytest.raises(UserError, match=rf"optimizer{suffix}: holds an optimiser's state, which is not converted"):
        describe(open_source(str(folder / f"optimizer{suffix}")))


@pytest.mark.parametrize("write", [write_torch, write_old_torch])
def test_old_and_new_pytorch(tmp_path: Path, write) -> None:
    write(tmp_path / "gen_00000003.pt", GENERATOR)
    source = open_source(str(tmp_path / "gen_00000003.pt"))
    assert source.program == "pytorch" and np.array_equal(source.variables[next(iter(GENERATOR))], ONE)


def test_paddles_pairs_and_tables_of_names(tmp_path: Path) -> None:
    state = {**GENERATOR, "paired": NamedArray("conv2d_3.w_0", 3 * ONE), "StructuredToParameterName@@": {"a": "b"}}
    write_paddle(tmp_path / "weights.pdparams", state)
    source = open_source(str(tmp_path / "weights.pdparams"))
    assert np.array_equal(source.variables["paired"], 3 * ONE) and iteration_of(source) == 0
    assert source.variables.keys() == {*GENERATOR, "paired"} and source.ignored == {"names": 1}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_of_variables(tmp_path: Path, save) -> None:
    values = {"inpaint_net/conv1/kernel:0": np.asfortranarray(ONE), "inpaint_net/conv1/bias": ONE[0]}
    save(tmp_path / "tf1_weights_40.npz", **values)
    source = open_source(str(tmp_path / "tf1_weights_40.npz"))
    assert source.program == "tf1" and iteration_of(source) == 40
    assert {name: array.tolist() for name, array in source.variables.items()} == {
        "inpaint_net/conv1/kernel": ONE.tolist(),
        "inpaint_net/conv1/bias": ONE[0].tolist(),
    }


MMAGIC_NAMES = ["generator.stage1.encoder.enc1.conv.weight", "generator.stage2.encoder_attention.enc1.conv.weight"]


@pytest.mark.parametrize("write", [write_torch, write_old_torch])
@pytest.mark.parametrize("program", [None, "mmagic", "pytorch"])
@pytest.mark.parametrize("name", MMAGIC_NAMES)
def test_mmagic_is_refused_with_the_reason(tmp_path: Path, write, program, name: str) -> None:
    path = tmp_path / "deepfillv1_256x256.pth"
    write(path, {"meta": {"iter": 3}, "state_dict": {name: ONE}})
    with pytest.raises(UserError, match=r"^\S+\.pth: is mmagic's DeepFillv1, .*reflection.*-inf[^\n]*$"):
        open_source(str(path), program)


def test_something_else_than_mmagic(tmp_path: Path) -> None:
    path = str(fill(tmp_path / "run", ".pt") / "gen_00000005.pt")
    with pytest.raises(UserError, match="has none of the parameter names of mmagic's DeepFillv1"):
        open_source(path, "mmagic")


@pytest.mark.parametrize(
    ("name", "program", "found"),
    [
        ("gen_00000005.pt", "tf1", "pytorch"),
        ("gen_00000005.pt", "predecessor", "pytorch"),
        ("gen_00000005.pdparams", "pytorch", "predecessor"),
        ("gen_00000005.pdparams", "mmagic", "predecessor"),
        ("snap-12", "pytorch", "tf1"),
    ],
)
def test_another_program_than_said(tmp_path: Path, name: str, program: str, found: str) -> None:
    folder = fill(tmp_path / "run", ".pt", ".pdparams", "tf1")
    with pytest.raises(UserError, match=f"looks like a file of {found}, not of {program} as --from says"):
        open_source(str(folder / name), program)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pdparams", ".npz", ".index", ""])
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\3\4", b"PK\3\4" + bytes(40), bytes(100), b"\x80\4"])
def test_rubbish(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"gen_00000001{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"^\S+gen_00000001\S*: [^\n]+$"):
        open_source(str(path))


def test_missing_and_special_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gen_1\.pt: no such file"):
        open_source(str(tmp_path / "gen_1.pt"))
    with pytest.raises(UserError, match="is not an ordinary file"):
        open_source("/dev/zero")
    with pytest.raises(UserError, match="holds none of these"):
        open_source(str(tmp_path))
    folder = fill(tmp_path / "run", ".pt")
    with pytest.raises(UserError, match=r"dis_7\.pt: no such file"):
        open_source(str(folder / "gen_00000005.pt"), critics=str(folder / "dis_7.pt"))


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "gen_1.pdparams"
    with open(path, "wb") as file:
        file.truncate(2**33)  # sparse: takes no room
    with pytest.raises(UserError, match="is 8192 MiB long; such a file has at most 1024"):
        open_source(str(path))


def test_our_own_checkpoint(tmp_path: Path) -> None:
    path = str(tmp_path / "checkpoint_00000001.npz")
    save_checkpoint(path, {"generator/a": ONE}, {"iteration": 1})
    with pytest.raises(UserError, match="is a checkpoint of this project already"):
        open_source(path)


def npz(path: Path, content: bytes, **options) -> str:
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("inpaint_net/conv1/kernel.npy", content)
    return str(path)


def header(shape: str, descr: str = "<f4") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (header("(3,)") + bytes(8), "not as long as its shape says"),
        (header("(99999999999999,)") + bytes(8), "not as long as its shape says"),
        (header("(1073741824, 1073741824)") + bytes(8), "not as long as its shape says"),
        (header("(-1,)") + bytes(8), "not as long as its shape says"),
        (header("(1,)", "|O") + pickle.dumps(1), "is a pickle, which could run code"),
        (header("__import__('os')") + bytes(8), "damaged"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "in a format that"),
        (b"", "damaged"),
    ],
)
def test_crafted_npz(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        open_source(npz(tmp_path / "a.npz", content))


def test_a_bomb_of_zeros_is_not_unpacked(tmp_path: Path) -> None:
    """32 KiB that say 32 MiB: refused by the table of contents alone."""
    content = header("(8388608,)") + bytes(2**25)
    path = npz(tmp_path / "a.npz", content, compression=zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    with pytest.raises(UserError, match="unpacks to more than weights can"):
        open_source(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


# .safetensors


@pytest.mark.parametrize("program", [None, "pytorch", "predecessor"])
def test_safetensors(tmp_path: Path, program: str | None) -> None:
    upper = np.array([0x3F80, 0xC020], np.uint16)  # 1 and -2.5 as bfloat16
    write_safetensors(tmp_path / "gen_7.safetensors", {**GENERATOR, "half": ONE.astype(np.float16), "upper": upper})
    source = open_source(str(tmp_path / "gen_7.safetensors"), program)
    assert source.program == (program or "pytorch") and iteration_of(source) == 7
    assert np.array_equal(source.variables[next(iter(GENERATOR))], ONE)
    assert source.variables["half"].dtype == np.float16 and source.variables["upper"].tolist() == [1, -2.5]


def place(shape: object = (2,), offsets: object = (0, 8), dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"a": place()}, None),
        ({"a": place(), "b": place()}, "cut off, or holds overlapping"),
        ({"a": place(), "b": place([0], [8, 0]), "c": place([0], [0, 8])}, "cut off, or holds overlapping"),
        ({"a": place(offsets=[0, 2**60])}, "impossible shape"),
        ({"a": place(offsets=[0, 2**29])}, "cut off"),
        ({"a": place(shape=[3])}, "not as long as its shape says"),
        ({"a": place(shape=[-2])}, "impossible shape"),
        ({"a": place(shape=[2**29, 2**29])}, "not as long as its shape says"),
        ({"a": place(shape=[1] * 40)}, "impossible shape"),
        ({"a": place(dtype="F8_E4M3")}, "of type F8_E4M3, which is not supported"),
        ({"a": 3}, "damaged"),
        ([], "is none of these"),
    ],
)
def test_crafted_safetensors(tmp_path: Path, header: object, reason: str | None) -> None:
    text = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    if reason is None:
        assert open_source(str(path)).variables["a"].tolist() == [0, 0]
        return
    with pytest.raises(UserError, match=f"^{path}: .*{reason}"):
        open_source(str(path))


@pytest.mark.parametrize("length", [9, 100, -1])
def test_truncated_safetensors(tmp_path: Path, length: int) -> None:
    write_safetensors(tmp_path / "a.safetensors", {f"tensor{i}": ONE for i in range(9)})
    data = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "b.safetensors").write_bytes(data[:length])
    with pytest.raises(UserError, match="is cut off"):
        open_source(str(tmp_path / "b.safetensors"))


@pytest.mark.parametrize("protocol", malicious_pickles.protocols())
@pytest.mark.parametrize("suffix", [".pdparams", ".pdopt", ".pt", ".pth"])
def test_malicious_pickles_are_refused_and_not_run(tmp_path: Path, protocol: int, suffix: str) -> None:
    canary = tmp_path / "canary"
    path = tmp_path / f"optimizer{suffix}"
    for gadget in malicious_pickles.simple(canary).values():
        for content in malicious_pickles.wrapped(gadget).values():
            path.write_bytes(pickle.dumps(content, protocol=protocol))
            for program in (None, "predecessor", "pytorch"):
                with pytest.raises(UserError, match=r"^\S+: [^\n]+$"):
                    open_source(str(path), program)
            assert not canary.exists()
