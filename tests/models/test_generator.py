"""The generator against recorded outputs of TF1, the PyTorch and the earlier Paddle port, and the oracle.

Tolerance: 1e-4 absolute, float32, on outputs in [-1, 1].
"""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from models.contextual_attention import resize_nearest
from models.generator import InpaintingGenerator
from models.layers import composite
from tests import golden_weights, oracle

BOTH = pytest.mark.parametrize("dialect", ["tf1", "pytorch"])


def run(network, image, mask):
    """The hole is zeroed here. Returns coarse, refined, offsets and the completed image."""
    image, mask = paddle.to_tensor(image), paddle.to_tensor(mask)
    with paddle.no_grad():
        coarse, refined, offsets = network(image * (1 - mask), mask)
    return [x.numpy() for x in (coarse, refined, offsets, composite(refined, image, mask))]


def close(found, expected, tolerance=1e-4):
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance


def box_mask(n, h, w, *boxes):
    mask = np.zeros((n, 1, h, w), np.float32)
    for sample, (top, left, height, width) in enumerate(boxes):
        mask[sample, :, top : top + height, left : left + width] = 1
    return mask


@pytest.fixture(scope="module")
def tf1_generator(golden):
    network = InpaintingGenerator(8, "tf1")
    with np.load(golden / "tf1_model_weights.npz") as variables:
        golden_weights.fill(network, golden_weights.tf1_arrays("generator", network, variables))
    return network


@pytest.mark.parametrize("case", ["inf_b2", "inf_b1"])
def test_tf1_inference(golden, tf1_generator, case):
    with np.load(golden / "tf1_model_infer.npz") as file:
        data = {key.split("/")[1]: file[key] for key in file.files if key.startswith(case)}
    coarse, refined, offsets, completed = run(tf1_generator, data["image"], data["mask"])
    close(coarse, data["x_stage1"])
    close(refined, data["x_stage2"])
    close(completed, data["completed"])
    small_mask = resize_nearest(paddle.to_tensor(data["mask"]), 4, "tf1")
    assert np.array_equal(small_mask.numpy(), data["ca_mask"])

    # The attention layer alone, and where the refinement network looks
    layer = tf1_generator.fine_generator.contextual_attention
    with paddle.no_grad():
        ca_in = paddle.to_tensor(data["ca_in"])
        ca_out, alone = layer(ca_in, ca_in, small_mask)
    assert np.abs(ca_out.numpy() - data["ca_out"]).max() <= 1e-5 * np.abs(data["ca_out"]).max()
    gap = oracle.contextual_attention(data["ca_in"], data["ca_in"], data["ca_mask"])[2]
    clear = np.broadcast_to((gap > 1e-3)[:, None], offsets.shape)
    h, w = offsets.shape[2:]
    expected = data["offsets_abs"] - np.stack(np.meshgrid(np.arange(h), np.arange(w), indexing="ij"))
    assert clear.mean() > 0.5
    assert (alone.numpy() == expected)[clear].all() and (offsets == expected)[clear].all()


def test_tf1_attention_input(golden, tf1_generator):
    """What the attention branch feeds into the attention: the layers before it, one by one."""
    with np.load(golden / "tf1_model_infer.npz") as file:
        image, mask, ca_in = (file[f"inf_b2/{key}"] for key in ("image", "mask", "ca_in"))
    seen = []
    layer = tf1_generator.fine_generator.contextual_attention
    hook = layer.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].numpy()))
    run(tf1_generator, image, mask)
    hook.remove()
    assert np.abs(seen[0] - ca_in).max() <= 1e-5 * np.abs(ca_in).max()


def test_tf1_server_road(golden, tf1_generator):
    """From a BGR uint8 picture and mask to the saved uint8 picture, as TF1's test.py does."""
    with np.load(golden / "tf1_model_infer.npz") as file:
        data = {key.split("/")[1]: file[key] for key in file.files if key.startswith("server")}
    image = data["image_uint8_hwc"].astype(np.float32).transpose(2, 0, 1)[None] / np.float32(127.5) - 1
    mask = (data["mask_uint8_hwc"][None, None, :, :, 0] > 127.5).astype(np.float32)
    completed = run(tf1_generator, image, mask)[3]
    close(completed, data["complete"])
    saved = np.clip((completed + 1) * 127.5, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)[..., ::-1]
    difference = np.abs(saved.astype(int) - data["test_py_result_reversed_u8"])
    assert difference.max() <= 1  # truncation turns a last-digit difference into one level
    assert (difference > 0).mean() < 1e-3


@pytest.mark.parametrize("case", ["small64", "small64_diffmask", "full256"])
def test_pytorch_port(golden, case):
    folder = golden / "daa_pytorch"
    file = "ckpt256/gen_00001000.pt" if case == "full256" else "ckpt64/gen_00000000.pt"
    network = InpaintingGenerator(8, "pytorch")
    golden_weights.fill(network, golden_weights.load_pt(folder / file))
    with np.load(folder / "daa_forward.npz") as arrays:
        data = {key[len(case) + 1 :]: arrays[key] for key in arrays.files if key.startswith(case + "/")}
    coarse, refined, _, completed = run(network, data["ground_truth"], data["mask"])
    close(coarse, data["x1"])
    # the port gives the whole batch the mask of its first sample
    compared = slice(0, 1 if case == "small64_diffmask" else None)
    close(refined[compared], data["x2"][compared])
    if "x2_inpaint" in data:
        close(completed[compared], data["x2_inpaint"][compared])
    if case == "small64_diffmask":
        assert np.abs(refined - data["x2"])[1].max() > 1e-3
        # and so would we
        network.fine_generator.contextual_attention.register_forward_pre_hook(
            lambda layer, inputs: (*inputs[:2], inputs[2][:1])
        )
        close(run(network, data["ground_truth"], data["mask"])[1], data["x2"])


@pytest.mark.parametrize("case", ["a64", "b96x128"])
def test_earlier_paddle_port(golden, case):
    network = InpaintingGenerator(8, "pytorch")
    weights = golden_weights.load_pdparams(golden / "paddle_gi" / "gen_00144000.pdparams")
    golden_weights.fill(network, golden_weights.from_paddle(weights))
    with np.load(golden / "paddle_gi" / "gi_forward.npz") as file:
        data = {key.split("/")[1]: file[key] for key in file.files if key.startswith(case)}
    coarse, refined, _, completed = run(network, data["x"], data["mask"])
    close(coarse, data["x1"])
    close(refined, data["x2"])
    close(completed, data["x2_inpaint"])


def filled(channels, dialect, seed=0):
    """A small generator with weights of ordinary size, biases included; and the weights in float64."""
    rng = np.random.default_rng(seed)
    network = InpaintingGenerator(channels, dialect)
    weights = {}
    for name, value in network.state_dict().items():
        spread = 0.1 if value.ndim == 1 else np.sqrt(1.5 / np.prod(value.shape[1:]))
        weights[name] = rng.normal(0, spread, value.shape).astype(np.float32)
    golden_weights.fill(network, weights)
    return network, {name: value.astype(np.float64) for name, value in weights.items()}


@BOTH
@pytest.mark.parametrize("size", [(32, 32), (40, 24), (16, 64)])
def test_oracle(size, dialect):
    rng = np.random.default_rng(2)
    network, weights = filled(4, dialect)
    image = rng.uniform(-1, 1, (2, 3, *size)).astype(np.float32)
    mask = box_mask(2, *size, (3, 5, 9, 11), (1, 2, 14, 8))
    coarse, refined, offsets, _ = run(network, image, mask)
    expected = oracle.generator(weights, image * (1.0 - mask), mask, dialect)
    close(coarse, expected[0], 1e-5)
    close(refined, expected[1], 1e-4)
    assert coarse.std() > 0.1 and refined.std() > 0.1 and (np.abs(refined) < 1).mean() > 0.3
    assert (offsets == expected[2]).mean() > 0.99


@pytest.mark.parametrize("size", [(8, 8), (8, 24), (24, 8)])
def test_smallest_sides(size):
    network, weights = filled(2, "tf1")
    image = np.random.default_rng(2).uniform(-1, 1, (1, 3, *size)).astype(np.float32)
    mask = box_mask(1, *size, (1, 1, 2, 2))
    coarse, refined, _, _ = run(network, image, mask)
    expected = oracle.generator(weights, image * (1.0 - mask), mask)
    close(coarse, expected[0], 1e-5)
    close(refined, expected[1], 1e-4)


@BOTH
def test_gradient_against_finite_differences_of_the_oracle(dialect):
    rng = np.random.default_rng(4)
    network, weights = filled(4, dialect, seed=1)
    image = rng.uniform(-1, 1, (2, 3, 32, 32)).astype(np.float32)
    mask = box_mask(2, 32, 32, (3, 5, 9, 11), (16, 2, 14, 20))
    toward = [rng.normal(size=image.shape).astype(np.float32) for _ in range(2)]
    coarse, refined, _ = network(paddle.to_tensor(image * (1 - mask)), paddle.to_tensor(mask))
    (coarse * paddle.to_tensor(toward[0]) + refined * paddle.to_tensor(toward[1])).sum().backward()
    names = list(weights)
    gradients = [dict(network.named_parameters())[name].grad.numpy().astype(np.float64) for name in names]
    # along a random direction, and along the gradient itself: its square is a sharp test of every layer
    for directions in ([rng.normal(size=g.shape) * (np.abs(g).max() > 0) for g in gradients], gradients):
        length = np.sqrt(sum((d**2).sum() for d in directions))

        def value(*arrays):
            outputs = oracle.generator(dict(zip(names, arrays)), image * (1.0 - mask), mask, dialect)
            return sum((output * t).sum() for output, t in zip(outputs, toward))

        unit = [d / length for d in directions]
        slope = oracle.slope_along(value, weights.values(), unit, 1e-6)
        found = sum((g * d).sum() for g, d in zip(gradients, unit))
        scale = np.sqrt(sum((g**2).sum() for g in gradients))
        assert abs(found - slope) <= 2e-3 * scale


@BOTH
def test_batch_is_a_loop_of_singles(dialect):
    network, _ = filled(4, dialect)
    image = np.random.default_rng(5).uniform(-1, 1, (3, 3, 32, 40)).astype(np.float32)
    mask = box_mask(3, 32, 40, (3, 5, 9, 11), (16, 2, 14, 20), (0, 0, 8, 40))
    whole = run(network, image, mask)
    for n in range(3):
        for batched, alone in zip(whole, run(network, image[n : n + 1], mask[n : n + 1])):
            assert np.abs(batched[n : n + 1] - alone).max() <= 1e-5


@BOTH
@pytest.mark.parametrize("hole", [0.0, 1.0])
def test_empty_and_full_masks_are_finite(hole, dialect):
    network, _ = filled(4, dialect)
    image = np.random.default_rng(5).uniform(-1, 1, (2, 3, 16, 16)).astype(np.float32)
    mask = paddle.full([1, 1, 16, 16], hole)
    shown = paddle.to_tensor(image) * (1 - mask)
    shown.stop_gradient = False
    coarse, refined, _ = network(shown, mask)
    (coarse + refined).sum().backward()
    gradients = [shown.grad, *(p.grad for p in network.parameters())]
    assert all(np.isfinite(x.numpy()).all() for x in (coarse, refined, *gradients))


@BOTH
def test_black_picture_with_zero_weights_is_finite(dialect):
    """All features zero: patches without a direction."""
    network = InpaintingGenerator(2, dialect)
    for parameter in network.parameters():
        parameter.set_value(np.zeros(parameter.shape, np.float32))
    coarse, refined, _ = network(paddle.zeros([1, 3, 16, 16]), paddle.zeros([1, 1, 16, 16]))
    (coarse + refined).sum().backward()
    assert all(np.isfinite(p.grad.numpy()).all() for p in network.parameters())


@BOTH
def test_without_contextual_attention_the_layer_alone_is_gone(dialect):
    """One seed gives the same weights; the output is that of the full network whose layer passes features on."""
    networks = []
    for attention in (True, False):
        paddle.seed(5)
        networks.append(InpaintingGenerator(2, dialect, attention))
    full, without = networks
    weights = [{name: value.numpy() for name, value in network.state_dict().items()} for network in networks]
    assert weights[0].keys() == weights[1].keys()
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])

    rng = np.random.default_rng(0)
    image = paddle.to_tensor(rng.uniform(-1, 1, (2, 3, 32, 32)).astype(np.float32))
    mask = paddle.to_tensor(np.pad(np.ones((1, 1, 16, 16), np.float32), ((0, 0), (0, 0), (8, 8), (8, 8))))
    coarse, refined, offsets = without(image, mask)
    assert offsets is None
    before = full(image, mask)
    full.fine_generator.contextual_attention.register_forward_post_hook(
        lambda layer, inputs, outputs: (inputs[0], outputs[1])
    )
    after = full(image, mask)
    assert np.array_equal(coarse.numpy(), after[0].numpy()) and np.array_equal(refined.numpy(), after[1].numpy())
    assert not np.array_equal(refined.numpy(), before[1].numpy())

    refined.square().mean().backward()
    gradients = {name: parameter.grad.numpy() for name, parameter in without.named_parameters()}
    assert all(np.abs(gradient).max() > 0 for name, gradient in gradients.items() if "pmconv" in name)


def test_full_width_parameters_are_tf1s(golden):
    network = InpaintingGenerator()
    ours = golden_weights.tf1_shapes("generator", network)
    listed = golden_weights.full_width_shapes(golden / "tf1_fullwidth_variables.txt")
    assert ours == {name: shape for name, shape in listed.items() if name.startswith("inpaint_net/")}
    assert sum(int(np.prod(p.shape)) for p in network.parameters()) == 3_601_542


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ((1, 3, 20, 16), (1, 1, 20, 16)),
        ((1, 4, 16, 16), (1, 1, 16, 16)),
        ((3, 3, 16, 16), (2, 1, 16, 16)),
        ((1, 3, 16, 16), (1, 1, 8, 8)),
    ],
)
def test_refused_shapes(image, mask):
    with pytest.raises(ValueError, match="must be"):
        InpaintingGenerator(2)(paddle.zeros(list(image)), paddle.zeros(list(mask)))
