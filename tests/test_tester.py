from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

import tester
from models.generator import InpaintingGenerator
from tests import tiny_checkpoint
from utils.checkpoint import CheckpointError, save_checkpoint

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> tester.Tester:
    return tester.Tester(tiny_checkpoint.write(tmp_path_factory.mktemp("run")))


def some_images(count: int, height: int = 32, width: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def some_masks(count: int, height: int = 32, width: int = 40) -> np.ndarray:
    masks = np.zeros((count, height, width), np.uint8)
    for i in range(count):
        masks[i, 2 + 4 * i : 18 + 4 * i, 6 * i : 6 * i + 16] = 1
    return masks


def test_the_choice_of_the_checkpoint_comes_first() -> None:
    _docstring, _future, first, *_ = ast.parse((PROJECT / "tester.py").read_text(encoding="utf-8")).body
    assert ast.unparse(first) == "CHECKPOINT = 'latest'"


def test_inpaints_as_the_generator_does(model: tester.Tester) -> None:
    """From bytes to bytes, spelled out: scale, hide the hole, run, round, keep what is known."""
    images, masks = some_images(2), some_masks(2)
    image = np.float32(images.transpose(0, 3, 1, 2)) / 127.5 - 1
    mask = np.float32(masks[:, None])
    network = InpaintingGenerator(4)
    network.set_state_dict({name[len("generator/") :]: a for name, a in tiny_checkpoint.arrays().items()})
    outputs = network(paddle.to_tensor(image * (1 - mask)), paddle.to_tensor(mask))
    expected = [
        np.where(masks[..., None] == 1, np.rint((x.numpy().transpose(0, 2, 3, 1) + 1) * 127.5), images)
        for x in outputs[:2]
    ]

    coarse, refined, offsets = model.inpaint_stages(images, masks)
    assert coarse.dtype == refined.dtype == np.uint8
    np.testing.assert_array_equal(coarse, expected[0])
    np.testing.assert_array_equal(refined, expected[1])
    np.testing.assert_array_equal(offsets, outputs[2].numpy())
    assert offsets.shape == (2, 2, 4, 5)
    assert (coarse != refined).any()


def test_known_pixels_come_back_bit_identical(model: tester.Tester) -> None:
    images, masks = some_images(3), some_masks(3)
    before = images.copy(), masks.copy()
    coarse, refined, _ = model.inpaint_stages(images, masks)
    np.testing.assert_array_equal(images, before[0])
    np.testing.assert_array_equal(masks, before[1])
    for result in (coarse, refined):
        np.testing.assert_array_equal(result[masks == 0], images[masks == 0])
        assert (result[masks == 1] != images[masks == 1]).any()


def test_a_batch_is_its_images_one_by_one(model: tester.Tester) -> None:
    images, masks = some_images(3), some_masks(3)
    together = model.inpaint_stages(images, masks)
    for i in range(3):
        alone = model.inpaint_stages(images[i : i + 1], masks[i : i + 1])
        for batch, single in zip(together, alone):
            np.testing.assert_array_equal(batch[i], single[0])


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64, np.float32])
def test_one_mask_of_any_type_serves_a_batch(model: tester.Tester, kind: type) -> None:
    images, mask = some_images(2), some_masks(1)
    expected = model.inpaint_stages(images, np.repeat(mask, 2, axis=0))
    for got, wanted in zip(model.inpaint_stages(images, mask.astype(kind)), expected):
        np.testing.assert_array_equal(got, wanted)


def test_does_not_see_what_the_hole_hides(model: tester.Tester) -> None:
    images, masks = some_images(1), some_masks(1)
    others = np.where(masks[..., None] == 1, 255 - images, images)
    for got, wanted in zip(model.inpaint_stages(others, masks), model.inpaint_stages(images, masks)):
        np.testing.assert_array_equal(got, wanted)
    seen = model.masked_input(images, masks)
    assert (seen[masks == 1] == 128).all()
    np.testing.assert_array_equal(seen[masks == 0], images[masks == 0])


def test_mosaic_shows_blocks_of_the_hole(tmp_path: Path) -> None:
    path = tiny_checkpoint.write(tmp_path, mask_type="mosaic", mosaic_unit_size=8)
    model = tester.Tester(path)
    images, masks = some_images(1), some_masks(1)
    masks[:] = 0
    masks[0, 8:24, 8:24] = 1
    seen = model.masked_input(images, masks)
    # 32 / 8 = 4 blocks a column, each of the colour of its first pixel
    assert (seen[0, 8:16, 8:16] == images[0, 8, 8]).all()
    assert (seen[0, 16:24, 8:16] == images[0, 16, 8]).all()
    others = np.where(masks[..., None] == 1, 255 - images, images)
    assert (model.inpaint_stages(others, masks)[1] != model.inpaint_stages(images, masks)[1]).any()


@pytest.mark.parametrize("value", [0, 1])
def test_stages_with_nothing_and_everything_as_a_hole(model: tester.Tester, value: int) -> None:
    images = some_images(1)
    _, refined, _ = model.inpaint_stages(images, np.full((1, 32, 40), value))
    assert (refined == images).all() == (value == 0)


def test_a_coarse_model_inpaints_by_its_coarse_stage(model: tester.Tester, tmp_path: Path) -> None:
    images, masks = some_images(2), some_masks(2)
    coarse_model = tester.Tester(tiny_checkpoint.write(tmp_path, coarse_only=True))
    coarse, refined, offsets = coarse_model.inpaint_stages(images, masks)
    np.testing.assert_array_equal(coarse, refined)
    np.testing.assert_array_equal(coarse, model.inpaint_stages(images, masks)[0])
    assert offsets is None


def test_a_model_without_contextual_attention(model: tester.Tester, tmp_path: Path) -> None:
    architecture = {"generator_channels": 4, "dialect": "tf1", "contextual_attention": False}
    path = tiny_checkpoint.write(tmp_path, architecture=architecture)
    without = tester.Tester(path)
    assert model.model.contextual_attention and not model.model.without_attention  # older checkpoints do not say it
    assert not without.model.contextual_attention
    images, masks = some_images(2), some_masks(2)
    coarse, refined, offsets = without.inpaint_stages(images, masks)
    assert offsets is None
    usual = model.inpaint_stages(images, masks)
    np.testing.assert_array_equal(coarse, usual[0])
    assert (refined != usual[1]).any() and (refined != coarse).any()
    with pytest.raises(ValueError, match="has no attention, since it was trained with contextual_attention: false"):
        without.attention_at(images, masks, 1, 1)


def test_infers_without_gradients(model: tester.Tester) -> None:
    assert not any(layer.training for layer in model.network.sublayers(include_self=True))
    recorded = []
    handle = model.network.coarse_generator.register_forward_post_hook(
        lambda _layer, _inputs, output: recorded.append(output.stop_gradient)
    )
    model.inpaint_stages(some_images(1), some_masks(1))
    handle.remove()
    assert recorded == [True]


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        (np.zeros((1, 32, 40, 3), np.float32), np.zeros((1, 32, 40)), "uint8"),
        (np.zeros((32, 40, 3), np.uint8), np.zeros((1, 32, 40)), r"\[N, H, W, 3\]"),
        (np.zeros((1, 32, 40, 4), np.uint8), np.zeros((1, 32, 40)), r"\[N, H, W, 3\]"),
        (np.zeros((3, 32, 40, 3), np.uint8), np.zeros((2, 32, 40)), r"\[3 or 1, 32, 40\], not \[2, 32, 40\]"),
        (np.zeros((1, 32, 40, 3), np.uint8), np.full((1, 32, 40), 255), "1 in the hole"),
        (np.zeros((1, 32, 40, 3), np.uint8), np.full((1, 32, 40), 0.5), "1 in the hole"),
        (np.zeros((1, 30, 40, 3), np.uint8), np.zeros((1, 30, 40)), "divisible by 8"),
    ],
)
def test_refuses_other_inputs(model: tester.Tester, images, masks, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.inpaint_stages(images, masks)


def test_weights_that_overflow_are_named(tmp_path: Path) -> None:
    path = str(tmp_path / "wild.npz")
    save_checkpoint(path, tiny_checkpoint.arrays(gain=1e30), tiny_checkpoint.meta())
    with pytest.raises(CheckpointError, match="wild.npz: its weights give values that are not finite"):
        tester.Tester(path).inpaint_stages(some_images(1), some_masks(1))


@pytest.mark.parametrize("dialect", ["tf1", "pytorch"])
def test_takes_the_generator_out_of_a_training_run(tmp_path: Path, dialect: str) -> None:
    arrays = {
        **tiny_checkpoint.arrays(),
        "local_critic/linear.weight": np.ones((2, 1), np.float32),
        "generator_optimizer/moment1/coarse_generator.conv1.conv.bias": np.ones(4, np.float32),
    }
    architecture = {"generator_channels": 4, "dialect": dialect, "critic_channels": 8, "box_size": [16, 16]}
    path = str(tmp_path / "checkpoint.npz")
    save_checkpoint(path, arrays, tiny_checkpoint.meta(architecture=architecture, config_digest="ab"))
    model = tester.Tester(path)
    assert model.model == tester.ModelInfo(4, dialect, 7, "hole", 12, False, None, (16, 16))
    assert model.network.fine_generator.dialect == dialect
    loaded = model.network.state_dict()["fine_generator.allconv17.conv.weight"].numpy()
    np.testing.assert_array_equal(loaded, arrays["generator/fine_generator.allconv17.conv.weight"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": None}, "does not describe a network"),
        ({"architecture": [4, "tf1"]}, "does not describe a network"),
        ({"channels": None}, "generator_channels in its meta must be an even .* but is missing"),
        ({"channels": True}, "generator_channels"),
        ({"channels": "4"}, "generator_channels"),
        ({"channels": 5}, "even number from 2 to 512, but is 5"),
        ({"channels": 0}, "generator_channels"),
        ({"channels": 10**9}, "but is 1000000000"),
        ({"channels": 512}, "too few generator weights for the 512 channels"),
        ({"channels": 6}, "too few generator weights for the 6 channels"),
        ({"channels": 2}, r"of another width \(4 channels, here 2"),
        ({"dialect": "torch"}, "dialect in its meta must be tf1 or pytorch, but is 'torch'"),
        ({"dialect": ["tf1"]}, "dialect"),
        (
            {"architecture": {"generator_channels": 4, "dialect": "tf1", "contextual_attention": None}},
            "contextual_attention in its meta must be true or false, but is missing",
        ),
        (
            {"architecture": {"generator_channels": 4, "dialect": "tf1", "contextual_attention": 1}},
            "contextual_attention in its meta must be true or false, but is 1",
        ),
        ({"iteration": -1}, "iteration"),
        ({"iteration": 1.5}, "iteration"),
        ({"mask_type": None}, "mask_type in its meta must be hole or mosaic, but is missing"),
        ({"mask_type": {}}, "mask_type"),
        ({"mosaic_unit_size": 0}, "mosaic_unit_size"),
        ({"coarse_only": 0}, "coarse_only in its meta must be true or false, but is 0"),
    ],
)
def test_refuses_what_a_file_cannot_be(tmp_path: Path, changes: dict, message: str) -> None:
    path = str(tmp_path / "odd.npz")
    save_checkpoint(path, tiny_checkpoint.arrays(), tiny_checkpoint.meta(**changes))
    with pytest.raises(CheckpointError, match=message) as caught:
        tester.Tester(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_layer_is_named(tmp_path: Path) -> None:
    arrays = tiny_checkpoint.arrays()
    arrays["generator/renamed"] = arrays.pop("generator/coarse_generator.conv17.conv.bias")
    path = str(tmp_path / "odd.npz")
    save_checkpoint(path, arrays, tiny_checkpoint.meta())
    with pytest.raises(CheckpointError, match="1 missing: coarse_.*conv17.conv.bias; 1 left over: renamed"):
        tester.Tester(path)


def test_latest_is_the_newest_valid_checkpoint(tmp_path: Path) -> None:
    good = tiny_checkpoint.write(tmp_path, 20)
    tiny_checkpoint.write(tmp_path, 10)
    damaged = Path(tiny_checkpoint.write(tmp_path, 30))
    damaged.write_bytes(damaged.read_bytes()[:1000])
    warnings = []
    assert tester.resolve_checkpoint("latest", str(tmp_path), warnings.append) == good
    assert len(warnings) == 1
    assert "checkpoint_00000030.npz" in warnings[0]


def test_a_named_checkpoint_needs_no_run(tmp_path: Path) -> None:
    assert tester.resolve_checkpoint("some/file.npz", str(tmp_path / "absent"), pytest.fail) == "some/file.npz"


@pytest.mark.parametrize("folder", ["absent", "."])
def test_without_a_checkpoint_it_says_what_to_do(tmp_path: Path, folder: str, monkeypatch) -> None:
    monkeypatch.setattr(tester, "RELEASED", str(tmp_path / "released.npz"))
    with pytest.raises(CheckpointError, match="holds no checkpoint: train first .* with --checkpoint$"):
        tester.resolve_checkpoint("latest", str(tmp_path / folder), pytest.fail)
    with pytest.raises(CheckpointError, match="released.npz: this copy of the project holds no released generator$"):
        tester.resolve_checkpoint("released", str(tmp_path / folder), pytest.fail)


def test_the_released_generator_stands_in_for_a_run_without_checkpoints(tmp_path: Path, monkeypatch) -> None:
    released, run = tmp_path / "released.npz", str(tmp_path / "run")
    released.write_bytes(b"")
    monkeypatch.setattr(tester, "RELEASED", str(released))
    assert tester.resolve_checkpoint("released", run, pytest.fail) == str(released)
    assert tester.resolve_checkpoint("latest", run, pytest.fail) == str(released)
    with pytest.raises(CheckpointError, match="holds no checkpoint: train first .*--checkpoint .released: the one"):
        tester.resolve_checkpoint("latest", run, pytest.fail, fall_back=False)
    monkeypatch.chdir(tmp_path)
    assert tester.resolve_checkpoint("released", run, pytest.fail) == "released.npz"
    own = tiny_checkpoint.write(tmp_path / "run", 5)
    assert tester.resolve_checkpoint("latest", run, pytest.fail) == own


def test_the_released_generator_is_in_the_projects_folder() -> None:
    assert Path(tester.RELEASED) == PROJECT / "checkpoints" / "released" / "generator.npz"


def test_attention_of_one_place_agrees_with_the_offsets(model: tester.Tester) -> None:
    images, masks = some_images(1), some_masks(1)
    _, before, offsets = model.inpaint_stages(images, masks)
    for row, column in ((1, 1), (3, 4), (0, 0)):
        weights = model.attention_at(images, masks, row, column)
        assert weights.shape == (1, 4, 5)
        assert weights.min() >= 0 and weights.sum() <= 1 + 1e-5
        best = np.unravel_index(weights[0].argmax(), (4, 5))
        assert tuple(offsets[0, :, row, column] + (row, column)) == best
    np.testing.assert_array_equal(model.inpaint_stages(images, masks)[1], before)  # the look leaves nothing behind


def test_a_coarse_model_has_no_attention_to_look_at(tmp_path: Path) -> None:
    coarse = tester.Tester(tiny_checkpoint.write(tmp_path, coarse_only=True))
    with pytest.raises(ValueError, match="has no attention"):
        coarse.attention_at(some_images(1), some_masks(1), 0, 0)


@pytest.mark.parametrize("size", [None, 3, [1], ["a", 2], [0, 4], [1.5, 4]])
def test_sizes_in_a_meta_that_mean_nothing_are_unknown(tmp_path: Path, size) -> None:
    architecture = {"generator_channels": 4, "dialect": "tf1", "box_size": size}
    assert tester.Tester(tiny_checkpoint.write(tmp_path, architecture=architecture)).model.box_size is None


@pytest.mark.parametrize("size", [(32, 40), (37, 53), (8, 1), (1, 9), (100, 65)])
def test_images_of_any_size(model: tester.Tester, size: tuple[int, int]) -> None:
    image = some_images(1, *size)[0]
    mask = np.zeros(size, np.uint8)
    mask[: -(-size[0] // 2), -(-size[1] // 3) :] = 1
    mask[0, 0] = 1
    mask[-1, -1] = 0
    before = image.copy(), mask.copy()
    result = model.inpaint(image, mask)
    assert result.dtype == np.uint8 and result.shape == image.shape
    np.testing.assert_array_equal(result[mask == 0], image[mask == 0])
    hidden = np.where(mask[..., None] == 1, 255 - image, image)
    np.testing.assert_array_equal(model.inpaint(hidden, mask * 255), result)  # 255 as well as 1, and unseen
    np.testing.assert_array_equal(model.inpaint(image, mask == 1), result)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])


def test_an_image_is_mirrored_to_a_size_that_the_generator_takes(model: tester.Tester) -> None:
    image, mask = some_images(1, 32, 40)[0], some_masks(1, 32, 40)[0]
    padded = np.pad(image[:29, :38], ((0, 3), (0, 2), (0, 0)), mode="symmetric")
    hole = np.pad(mask[:29, :38], ((0, 3), (0, 2)), mode="symmetric")
    expected = model.inpaint_stages(padded[None], hole[None])[1][0, :29, :38]
    np.testing.assert_array_equal(model.inpaint(image[:29, :38], mask[:29, :38]), expected)
    np.testing.assert_array_equal(
        model.inpaint(image, mask), model.inpaint_stages(image[None], mask[None])[1][0]
    )


def test_a_batch_of_users_images(model: tester.Tester) -> None:
    images, masks = some_images(3, 21, 30), some_masks(3, 21, 30)
    together = model.inpaint(images, masks)
    assert together.shape == images.shape
    for i in range(3):
        np.testing.assert_array_equal(together[i], model.inpaint(images[i], masks[i]))
    np.testing.assert_array_equal(model.inpaint(images, masks[0])[2], model.inpaint(images[2], masks[0]))
    np.testing.assert_array_equal(model.inpaint(images, masks * 0), images)


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        (np.zeros((9, 9, 3), np.uint8), np.zeros((9, 8)), r"must be \[H, W\] of an image"),
        (np.zeros((9, 9), np.uint8), np.zeros((9, 9)), r"must be \[H, W\] of an image"),
        (np.zeros((2, 9, 9, 3), np.uint8), np.zeros((3, 9, 9)), "2 images need as many masks, or one, not 3"),
        (np.zeros((9, 9, 3), np.uint8), np.full((9, 9), 128), "threshold it: mask > 127"),
        (np.zeros((9, 9, 3), np.uint8), np.ones((9, 9)), "leaves nothing to inpaint it from"),
        (np.zeros((9, 9, 3)), np.eye(9), "uint8"),
        (np.zeros((9, 9, 4), np.uint8), np.eye(9), "uint8"),
    ],
)
def test_refuses_other_inputs_of_users(model: tester.Tester, images, masks, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.inpaint(images, masks)


def test_an_averaged_generator_is_the_one_used(tmp_path: Path) -> None:
    path, plain = str(tmp_path / "both.npz"), tiny_checkpoint.arrays()
    average = {name.replace("generator/", "ema/"): array for name, array in tiny_checkpoint.arrays(seed=4).items()}
    save_checkpoint(path, {**plain, **average}, tiny_checkpoint.meta())
    used = tester.Tester(path).network.state_dict()
    for name, array in average.items():
        np.testing.assert_array_equal(used[name[len("ema/") :]].numpy(), array)
    average["ema/renamed"] = average.pop("ema/coarse_generator.conv17.conv.bias")
    save_checkpoint(path, {**plain, **average}, tiny_checkpoint.meta())
    with pytest.raises(CheckpointError, match="1 missing: coarse_.*conv17.conv.bias"):
        tester.Tester(path)


ELSEWHERE = """
import io, signal, sys
sys.path.append(sys.argv[1])
sys.stdout = io.StringIO()  # a notebook's is no file
numbers = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
before = {number: signal.getsignal(number) for number in numbers}
from tester import Tester
import numpy as np
model = Tester(sys.argv[2])
image = np.full((37, 53, 3), 90, np.uint8)
mask = np.zeros((37, 53), bool)
mask[5:20, 7:31] = True
result = model.inpaint(image, mask)
assert {number: signal.getsignal(number) for number in numbers} == before
assert result.shape == image.shape and (result[~mask] == 90).all()
print(model.source, file=sys.__stdout__)
"""


@pytest.mark.parametrize("checkpoint", ["released", None])
def test_from_another_folder_and_in_a_notebook(tmp_path: Path, checkpoint: str | None) -> None:
    """As docs and notebooks import it: no file as stdout, no signal handler changed, any working folder."""
    if checkpoint and not Path(tester.RELEASED).is_file():
        pytest.skip("this copy holds no released generator")
    checkpoint = checkpoint or tiny_checkpoint.write(tmp_path)
    command = [sys.executable, "-c", ELSEWHERE, str(PROJECT), checkpoint]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (tester.RELEASED if checkpoint == "released" else checkpoint)
