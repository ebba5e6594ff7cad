"""The conversion from the outside: reference outputs are reproduced, own files round trip, errors are one line.

Tolerance: 1e-4 absolute, float32, on outputs in [-1, 1]; scores of the critics to 1e-4 as well.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import paddle
import pytest

import tester
from models.critics import GlobalCritic, LocalCritic
from models.generator import InpaintingGenerator
from models.layers import composite
from tests import malicious_pickles, tiny_checkpoint
from tests.weight_writers import (
    NamedArray,
    write_old_torch,
    write_paddle,
    write_safetensors,
    write_tensorflow,
    write_torch,
)
from tools import convert_weights
from utils.checkpoint import load_checkpoint, load_parameters, section
from utils.cli import UserError

PROJECT = Path(__file__).resolve().parents[2]
CRITICS = {"local_critic": LocalCritic, "global_critic": GlobalCritic}


def convert(source: Path, destination: Path, *options: str) -> Path:
    convert_weights.main([str(source), str(destination), *options])
    return destination


def run(checkpoint: Path, image: np.ndarray, mask: np.ndarray, hidden: bool = False) -> list[np.ndarray]:
    """Coarse, refined and inpainted image of a converted model, loaded as test.py does."""
    network = tester.Tester(str(checkpoint)).network
    image, mask = paddle.to_tensor(np.ascontiguousarray(image)), paddle.to_tensor(mask)
    with paddle.no_grad():
        coarse, refined, _ = network(image if hidden else image * (1 - mask), mask)
    return [x.numpy() for x in (coarse, refined, composite(refined, image, mask))]


def score(checkpoint: Path, name: str, x: np.ndarray) -> np.ndarray:
    arrays, meta = load_checkpoint(str(checkpoint))
    told = meta["architecture"]
    size = told["box_size"] if name == "local_critic" else told["image_size"]
    network = CRITICS[name](told["critic_channels"], size, told["dialect"])
    load_parameters(network, section(arrays, name), "converted")
    with paddle.no_grad():
        return network(paddle.to_tensor(np.ascontiguousarray(x))).numpy()


def close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-4


def reference(path: Path, case: str) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {key[len(case) + 1 :]: file[key] for key in file.files if key.startswith(f"{case}/")}


# The authors' release. It saw BGR: its images are reversed on the way in and out.


@pytest.fixture(scope="module", params=["tf1_ckpt/snap-1", "tf1_ckpt", "tf1_model_weights.npz"])
def tf1(request, golden: Path, tmp_path_factory) -> Path:
    return convert(golden / request.param, tmp_path_factory.mktemp("tf1") / "model.npz")


@pytest.mark.parametrize("case", ["inf_b2", "inf_b1"])
def test_tf1_inference(golden: Path, tf1: Path, case: str) -> None:
    data = reference(golden / "tf1_model_infer.npz", case)
    coarse, refined, completed = run(tf1, data["image"][:, ::-1], data["mask"])
    close(coarse[:, ::-1], data["x_stage1"])
    close(refined[:, ::-1], data["x_stage2"])
    close(completed[:, ::-1], data["completed"])


def test_tf1_server_road(golden: Path, tf1: Path) -> None:
    """What its test.py does with an image read by OpenCV, here with the same image in RGB."""
    data = reference(golden / "tf1_model_infer.npz", "server")
    rgb = data["image_uint8_hwc"][:, :, ::-1].astype(np.float32).transpose(2, 0, 1)[None] / np.float32(127.5) - 1
    mask = (data["mask_uint8_hwc"][None, None, :, :, 0] > 127.5).astype(np.float32)
    completed = run(tf1, rgb, mask)[2]
    close(completed[:, ::-1], data["complete"])
    # The reference's bytes are reversed from BGR, so RGB; truncation makes a level of a last digit.
    saved = np.clip((completed + 1) * 127.5, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    assert np.abs(saved.astype(int) - data["test_py_result_reversed_u8"]).max() <= 1


def test_tf1_tester(golden: Path, tf1: Path) -> None:
    """The same through uint8 images, as test.py uses it; rounded, where TF1 truncates."""
    data = reference(golden / "tf1_model_infer.npz", "server")
    image = data["image_uint8_hwc"][None, :, :, ::-1]
    mask = (data["mask_uint8_hwc"][None, :, :, 0] > 127.5).astype(np.uint8)
    inpainted = tester.Tester(str(tf1)).inpaint_stages(image, mask)[1]
    difference = inpainted.astype(int) - data["test_py_result_reversed_u8"]
    assert difference.min() >= -1 and difference.max() <= 1
    assert np.array_equal(inpainted[mask == 0], image[mask == 0])


@pytest.mark.parametrize("name", CRITICS)
def test_tf1_critics(golden: Path, tf1: Path, name: str) -> None:
    data = reference(golden / "tf1_model_infer.npz", "critic")
    side = name.split("_")[0]
    close(score(tf1, name, data[f"{side}_in"][:, ::-1]), data[f"{side}_out"])


def test_tf1_meta(golden: Path, tf1: Path) -> None:
    meta = load_checkpoint(str(tf1))[1]
    npz = meta["source"]["files"][0]["name"].endswith(".npz")
    assert meta["architecture"] == {
        "generator_channels": 8,
        "critic_channels": 16,
        "image_size": [64, 64],
        "box_size": [32, 32],
        "dialect": "tf1",
        "critic_sees_mask": False,
    }
    assert meta["iteration"] == (0 if npz else 1)
    assert meta["mask_type"] == "hole" and meta["coarse_only"] is False and meta["format_version"] == 1


# The PyTorch port


@pytest.mark.parametrize("case", ["small64", "full256"])
def test_pytorch(golden: Path, tmp_path: Path, case: str) -> None:
    folder = golden / "daa_pytorch"
    if case == "full256":
        path = convert(folder / "ckpt256", tmp_path / "a.npz", "--from", "pytorch")
    else:
        files = (folder / "ckpt64" / f"{part}_00000000.pt" for part in ("gen", "dis"))
        path = convert(next(files), tmp_path / "a.npz", "--critics", str(next(files)))
    data = reference(folder / "daa_forward.npz", case)
    coarse, refined, completed = run(path, data["ground_truth"], data["mask"])
    close(coarse, data["x1"])
    close(refined, data["x2"])
    # The critics have no reference scores; their loss does: mean(fake) - mean(real), local and global.
    loss = 0.0
    top_left = data["bboxes_tlhw"][:, :2]
    for name in CRITICS:
        real, fake = data["ground_truth"], completed
        if name == "local_critic":
            side = data["bboxes_tlhw"][0, 2]
            real, fake = (
                np.stack([x[i, :, t : t + side, u : u + side] for i, (t, u) in enumerate(top_left)])
                for x in (real, fake)
            )
        loss += score(path, name, fake).mean() - score(path, name, real).mean()
    assert abs(loss - data["loss/wgan_d"]) <= 1e-4
    meta = load_checkpoint(str(path))[1]
    assert meta["iteration"] == (1000 if case == "full256" else 0)
    assert meta["architecture"]["dialect"] == "pytorch"
    assert meta["architecture"]["image_size"] == [int(case[-3:].lstrip("l"))] * 2


# The Paddle-GI port


def test_predecessor(golden: Path, tmp_path: Path) -> None:
    path = convert(golden / "paddle_gi", tmp_path / "a.npz")
    for case in ("a64", "b96x128"):
        data = reference(golden / "paddle_gi" / "gi_forward.npz", case)
        coarse, refined, completed = run(path, data["x"], data["mask"], hidden=True)
        close(coarse, data["x1"])
        close(refined, data["x2"])
        close(completed, data["x2_inpaint"])
    data = reference(golden / "paddle_gi" / "gi_forward.npz", "critic")
    for name in CRITICS:
        side = name.split("_")[0]
        close(score(path, name, data[f"{side}_in"]), data[f"{side}_out"])
    meta = load_checkpoint(str(path))[1]
    assert meta["iteration"] == 144000
    assert [file["name"] for file in meta["source"]["files"]] == ["gen_00144000.pdparams", "dis_00144000.pdparams"]


# Own data: our networks' weights, written as the other implementations would


def own_arrays(dialect: str, seen: int = 3) -> dict[str, np.ndarray]:
    paddle.seed(5)
    networks = {
        "generator": InpaintingGenerator(4, dialect),
        "local_critic": LocalCritic(6, 32, dialect),
        "global_critic": GlobalCritic(6, 48, dialect, seen),
    }
    rng = np.random.default_rng(3)
    return {
        f"{key}/{name}": rng.normal(size=value.shape).astype(np.float32)
        for key, network in networks.items()
        for name, value in network.state_dict().items()
    }


def as_tf1(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our weights as the authors' release would hold them; written apart from the converter."""
    variables = {}
    for name, array in arrays.items():
        network, parameter = name.split("/")
        parts = parameter.split(".")
        if array.ndim == 4:
            if array.shape[1] in (3, 4, 5) and array.shape[2] == 5:  # colours come in
                array = np.stack([array[:, i] for i in [2, 1, 0, 3, 4][: array.shape[1]]], axis=1)
            array = np.einsum("oihw->hwio", array)
        if parts[-3:-2] and parts[-3].endswith("conv17"):  # colours go out: the last axis, or the only one
            array = np.stack([array[..., i] for i in (2, 1, 0)], axis=-1)
        if parameter == "linear.weight":
            side = 2 if network == "local_critic" else 3
            array = np.einsum("chw->hwc", array.reshape(-1, side, side)).reshape(-1, 1)
        kind = {"weight": "kernel", "bias": "bias"}[parts[-1]]
        if network == "generator":
            layer = ("x" if parts[0] == "fine_generator" and parts[1].startswith("conv") else "") + parts[1]
            if layer.endswith(("conv13", "conv15")):
                layer = f"{layer}_upsample/{layer}_upsample_conv"
            scope = f"inpaint_net/{layer}"
        else:
            side = network.split("_")[0]
            scope = f"dout_{side}_fc" if parts[0] == "linear" else f"discriminator_{side}/{parts[1]}"
            scope = f"discriminator/{scope}"
        variables[f"{scope}/{kind}"] = np.ascontiguousarray(array)
    return variables


def ports_files(arrays: dict[str, np.ndarray], transposed: bool) -> tuple[dict, dict]:
    def part(name: str) -> dict:
        found = section(arrays, name)
        return {key: v.T.copy() if transposed and key == "linear.weight" else v for key, v in found.items()}

    return part("generator"), {"localD": part("local_critic"), "globalD": part("global_critic")}


def check(path: Path, expected: dict[str, np.ndarray]) -> dict:
    arrays, meta = load_checkpoint(str(path))
    assert arrays.keys() == expected.keys()
    assert all(np.array_equal(arrays[name], expected[name]) for name in expected)
    assert tester.Tester(str(path)).model.channels == 4
    return meta


@pytest.mark.parametrize("seen", [3, 4])
def test_own_tf1_snapshot_of_a_training(tmp_path: Path, capsys, seen: int) -> None:
    arrays = own_arrays("tf1", seen)
    variables = as_tf1(arrays)
    moments = {f"{k}/{slot}": np.zeros_like(v) for k, v in variables.items() for slot in ("Adam", "Adam_1")}
    counters = {"beta1_power": np.float32(0.5), "lr": np.float32(1e-4), "global_step": np.int32(9)}
    snapshot = {**variables, **moments, **{k: np.array(v) for k, v in counters.items()}}
    write_tensorflow(tmp_path / "snap-9", snapshot, shards=2)
    meta = check(convert(tmp_path / "snap-9.index", tmp_path / "a.npz"), arrays)
    assert meta["iteration"] == 9 and len(meta["source"]["files"]) == 3
    assert meta["architecture"]["critic_sees_mask"] is (seen == 4)
    assert meta["architecture"]["box_size"] == [32, 32] and meta["architecture"]["image_size"] == [48, 48]
    output = capsys.readouterr().out
    assert f"ignored {2 * len(variables)} Adam moments" in output and "optimisers are not converted" in output
    assert meta["source"]["ignored"]["step counters and learning rates"] == 2


@pytest.mark.parametrize("write", [write_torch, write_old_torch])
def test_own_pytorch(tmp_path: Path, write) -> None:
    arrays = own_arrays("pytorch")
    generator, critics = ports_files(arrays, transposed=True)
    write(tmp_path / "gen_00000020.pt", generator)
    write(tmp_path / "dis_00000020.pt", critics)
    check(convert(tmp_path, tmp_path / "a.npz"), arrays)
    alone = convert(tmp_path / "gen_00000020.pt", tmp_path / "b.npz", "--mask-type", "mosaic")
    meta = check(alone, {name: array for name, array in arrays.items() if name.startswith("generator/")})
    assert meta["mask_type"] == "mosaic" and meta["architecture"]["image_size"] == [256, 256]


@pytest.mark.parametrize("protocol", range(2, 6))
def test_own_predecessor(tmp_path: Path, protocol: int) -> None:
    arrays = own_arrays("pytorch")
    generator, critics = ports_files(arrays, transposed=False)
    critics = {key: {k: NamedArray("x.w_0", v) for k, v in part.items()} for key, part in critics.items()}
    write_paddle(tmp_path / "gen_00000020.pdparams", generator, protocol)
    write_paddle(tmp_path / "dis_00000020.pdparams", critics, protocol)
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    convert(tmp_path, run_folder)
    assert check(run_folder / "checkpoint_00000020.npz", arrays)["source"]["program"] == "predecessor"


def prefixed(prefix: str, state: dict) -> dict:
    return {f"{prefix}{key}": value for key, value in state.items()}


WRAPPED = {  # generator and critics -> what people save
    "module": lambda gen, dis: prefixed("module.", gen),
    "compiled": lambda gen, dis: prefixed("_orig_mod.", gen),
    "compiled and parallel": lambda gen, dis: prefixed("module._orig_mod.", gen),
    "state_dict": lambda gen, dis: {"state_dict": OrderedDict(gen), "epoch": 3},
    "netG": lambda gen, dis: {"netG": gen, "optimizer": {"state": {0: {"exp_avg": np.ones(3, np.float32)}}}},
    "gen": lambda gen, dis: {"gen": gen, "args": ["a", 1]},
    "generator": lambda gen, dis: {"model": {"generator": prefixed("module.", gen)}},
    "trainer": lambda gen, dis: {
        **prefixed("netG.", gen),
        **{k: v for key in dis for k, v in prefixed(f"{key}.", dis[key]).items()},
    },
    "lightning": lambda gen, dis: {
        "state_dict": {
            **prefixed("net.generator.", gen),
            **prefixed("net.localD.", dis["localD"]),
            **prefixed("net.globalD.", dis["globalD"]),
        },
        "hparams": {"lr": 1e-4},
    },
}


@pytest.mark.parametrize("form", WRAPPED)
@pytest.mark.parametrize("write", [write_torch, write_old_torch, write_safetensors, write_paddle])
def test_weights_as_people_have_them(tmp_path: Path, capsys, form: str, write) -> None:
    arrays = own_arrays("pytorch")
    content = WRAPPED[form](*ports_files(arrays, transposed=write is not write_paddle))
    if write is write_safetensors:  # knows names alone
        content = {name: value for name, value in flatten(content).items() if isinstance(value, np.ndarray)}
    write(tmp_path / "weights_12.pt", content)
    with_critics = form in ("trainer", "lightning")
    expected = {name: array for name, array in arrays.items() if with_critics or name.startswith("generator/")}
    meta = check(convert(tmp_path / "weights_12.pt", tmp_path / "a.npz"), expected)
    assert meta["iteration"] == 12
    assert ("local and global critic" in capsys.readouterr().out) == with_critics


def flatten(table: dict, start: str = "") -> dict:
    found = {}
    for name, value in table.items():
        found.update(flatten(value, f"{start}{name}.") if isinstance(value, dict) else {f"{start}{name}": value})
    return found


def test_bfloat16_weights(tmp_path: Path) -> None:
    arrays = {k: v for k, v in own_arrays("pytorch").items() if k.startswith("generator/")}
    upper = {k: (v.view(np.uint32) >> 16).astype(np.uint16) for k, v in arrays.items()}
    expected = {k: (v.astype(np.uint32) << 16).view(np.float32) for k, v in upper.items()}
    for write in (write_torch, write_safetensors):
        write(tmp_path / "a.pt", section(upper, "generator"))
        check(convert(tmp_path / "a.pt", tmp_path / "a.npz"), expected)


def test_critics_out_of_a_whole_trainer(tmp_path: Path) -> None:
    arrays = own_arrays("pytorch")
    generator, critics = ports_files(arrays, transposed=True)
    write_torch(tmp_path / "gen_1.pt", generator)
    write_torch(tmp_path / "trainer.pt", {"netG": {k: v + 1 for k, v in generator.items()}, "netD": critics})
    check(convert(tmp_path / "gen_1.pt", tmp_path / "a.npz", "--critics", str(tmp_path / "trainer.pt")), arrays)


# For Paddle code elsewhere


def test_export_pdparams(tmp_path: Path, capsys) -> None:
    """Of other implementations' weights and of a checkpoint, the same file, which plain paddle.load reads."""
    arrays = {k: v for k, v in own_arrays("pytorch").items() if k.startswith("generator/")}
    write_torch(tmp_path / "gen_1.pt", prefixed("module.", section(arrays, "generator")))
    checkpoint = convert(tmp_path / "gen_1.pt", tmp_path / "a.npz")
    for source in (tmp_path / "gen_1.pt", checkpoint):
        path = convert(source, tmp_path / "out.pdparams", "--export-pdparams")
        assert f"wrote {path}: {len(arrays)} arrays" in capsys.readouterr().out
        state = paddle.load(str(path))
        assert {f"generator/{name}" for name in state} == set(arrays)
        network = InpaintingGenerator(4, "pytorch")
        network.set_state_dict(state)
        assert all(np.array_equal(v.numpy(), arrays[f"generator/{k}"]) for k, v in network.state_dict().items())
        again = convert(path, tmp_path / "b.npz")  # and back
        check(again, arrays)
        path.unlink()
    assert sorted(os.listdir(tmp_path)) == ["a.npz", "b.npz", "gen_1.pt"]


def test_export_pdparams_of_the_released_weights(tmp_path: Path) -> None:
    if not os.path.exists(tester.RELEASED):
        pytest.skip("this copy holds no released weights")
    convert_weights.main(["released", str(tmp_path / "a.pdparams"), "--export-pdparams"])
    arrays = section(load_checkpoint(tester.RELEASED)[0], "generator")
    state = paddle.load(str(tmp_path / "a.pdparams"))
    assert state.keys() == arrays.keys() and all(np.array_equal(state[k].numpy(), arrays[k]) for k in arrays)


def test_export_pdparams_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "out.pdparams").mkdir()
    checkpoint = tiny_checkpoint.write(tmp_path / "run")
    with pytest.raises(UserError, match=r"^\S*out.pdparams: cannot be written: "):
        convert_weights.save_pdparams(
            str(tmp_path / "out.pdparams"), section(load_checkpoint(checkpoint)[0], "generator")
        )
    assert sorted(os.listdir(tmp_path)) == ["out.pdparams", "run"]


def test_a_width_lie_costs_no_memory(tmp_path: Path) -> None:
    write_paddle(tmp_path / "gen_1.pdparams", {"coarse_generator.conv1.conv.bias": np.zeros(512, np.float32)})
    with pytest.raises(UserError, match="83 missing: coarse_generator.conv1.conv.weight, "):
        convert(tmp_path / "gen_1.pdparams", tmp_path / "a.npz")
    assert not (tmp_path / "a.npz").exists()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("conv3.conv.weight", np.zeros((6, 8, 3, 3), np.float32), r"\[6, 8, 3, 3\], not float32 \[8, 8, 3, 3\]"),
        ("conv3.conv.weight", np.zeros((8, 8, 3, 3), np.int32), "is int32"),
        ("conv18.conv.bias", np.zeros(3, np.float32), "1 left over: coarse_generator.conv18"),
        ("conv3.conv.weight", 7, "is int"),
        ("conv3.conv.bias", np.full(8, np.nan, np.float32), "conv3.conv.bias holds values that are not finite"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, name: str, value: object, reason: str) -> None:
    state = {**ports_files(own_arrays("pytorch"), transposed=False)[0], f"coarse_generator.{name}": value}
    write_paddle(tmp_path / "gen_1.pdparams", state)
    with pytest.raises(UserError, match=reason):
        convert(tmp_path / "gen_1.pdparams", tmp_path / "a.npz")
    assert sorted(os.listdir(tmp_path)) == ["gen_1.pdparams"]


def test_the_source_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "gen_1.pdparams"
    write_paddle(path, ports_files(own_arrays("pytorch"), transposed=False)[0])
    before = path.read_bytes()
    with pytest.raises(UserError, match="is the source itself"):
        convert(path, tmp_path / "." / "gen_1.pdparams")
    assert path.read_bytes() == before


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    line = [sys.executable, str(PROJECT / "tools" / "convert_weights.py"), *arguments]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=120)


def test_a_crafted_file_from_the_command_line(tmp_path: Path) -> None:
    """One line, exit code 2, nothing run, nothing written."""
    canary = tmp_path / "canary"
    gadget = malicious_pickles.simple(canary)["mkdir"]
    (tmp_path / "gen_1.pdparams").write_bytes(pickle.dumps(malicious_pickles.wrapped(gadget)["value"]))
    done = command(tmp_path, "gen_1.pdparams", "a.npz")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: gen_1.pdparams: asks for {os.mkdir.__module__}.mkdir, which a file of weights has no use for; "
        "nothing in it was run\n"
    )
    assert sorted(os.listdir(tmp_path)) == ["gen_1.pdparams"]


def test_mosaic_unit_is_checked(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        convert_weights.main(["a", "b", "--mosaic-unit-size", "1"])
    assert caught.value.code == 2 and "must be from 2 to 4096, not 1" in capsys.readouterr().err
