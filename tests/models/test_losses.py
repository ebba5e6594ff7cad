"""Each loss alone: discount mask, the gradient penalty's value and gradients, and values by hand."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from models.critics import GlobalCritic, LocalCritic
from models.losses import (
    adversarial_loss,
    critic_loss,
    discount_mask,
    gradient_penalty,
    interpolate,
    known_fraction,
    weighted_l1,
)
from tests import golden_weights, oracle

BOTH = pytest.mark.parametrize("dialect", ["tf1", "pytorch"])


@pytest.mark.parametrize("size", [32, 128])
def test_recorded_discount_masks(golden, size):
    with np.load(golden / "tf1_model_losses.npz") as data:
        expected = data[f"spatial_discounting_mask_{size}"]
    found = discount_mask(size, size, gamma=0.9)
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-6


@pytest.mark.parametrize("size", [(32, 32), (5, 8), (1, 7), (16, 9)])
@pytest.mark.parametrize("gamma", [0.99, 0.9, 1.0])
def test_discount_mask(size, gamma):
    assert np.abs(discount_mask(*size, gamma)[0, 0] - oracle.discount(*size, gamma)).max() <= 1e-7


def test_discount_mask_by_hand():
    assert discount_mask(3, 4, 0.5)[0, 0].tolist() == [[1, 1, 1, 1], [1, 0.5, 0.5, 0.5], [1, 0.5, 0.5, 0.5]]
    assert discount_mask(5, 5, 0.5)[0, 0, 2].tolist() == [1, 0.5, 0.25, 0.25, 0.5]
    assert discount_mask(8, 8).min() == np.float32(0.99**4)  # the paper's gamma is the default


@pytest.mark.parametrize("gamma", [0.0, -0.5, 1.01, float("nan")])
def test_refused_gamma(gamma):
    with pytest.raises(ValueError, match="gamma must be in"):
        discount_mask(4, 4, gamma)


def test_l1_by_hand():
    prediction = paddle.to_tensor([[[[1.0, 2.0], [3.0, -4.0]]]])
    target = paddle.to_tensor([[[[0.0, 4.0], [3.0, 1.0]]]])
    assert float(weighted_l1(prediction, target)) == 2.0  # (1 + 2 + 0 + 5) / 4
    weight = paddle.to_tensor([[[[1.0, 0.5], [9.0, 0.0]]]])
    assert float(weighted_l1(prediction, target, weight)) == 0.5  # (1 + 1 + 0 + 0) / 4
    # a weight of one channel counts for all of them, and the mean is over all elements
    three = paddle.concat([prediction] * 3, axis=1)
    assert float(weighted_l1(three, target, weight)) == 0.5


def test_wasserstein_losses_by_hand():
    real, fake = paddle.to_tensor([[1.0], [2.0]]), paddle.to_tensor([[5.0], [-1.0]])
    assert float(critic_loss(real, fake)) == 0.5
    assert float(adversarial_loss(fake)) == -2.0


def test_interpolate_by_hand():
    real, fake = paddle.zeros([2, 1, 1, 1]), paddle.to_tensor([10.0, 20.0]).reshape([2, 1, 1, 1])
    alpha = paddle.to_tensor([0.1, 0.5]).reshape([2, 1, 1, 1])
    assert interpolate(real, fake, alpha).numpy().ravel().tolist() == [1.0, 10.0]


def test_known_fraction():
    mask = paddle.zeros([1, 1, 4, 4])
    assert float(known_fraction(mask)) == 1.0
    mask[:, :, :1] = 1
    assert float(known_fraction(mask)) == 0.75
    assert float(known_fraction(paddle.ones([1, 1, 4, 4]))) > 0


def tiny_critic(dialect, dtype="float32"):
    rng = np.random.default_rng(1)
    network = LocalCritic(3, (24, 16), dialect)
    weights = {}
    for name, value in network.state_dict().items():
        fan_in = value.shape[0] if name.startswith("linear") else np.prod(value.shape[1:])
        spread = 0.1 if value.ndim == 1 else np.sqrt(2 / fan_in)
        weights[name] = rng.normal(0, spread, value.shape).astype(np.float32)
    golden_weights.fill(network, weights)
    network.to(dtype=dtype)
    x = rng.uniform(-1, 1, (3, 3, 24, 16)).astype(np.float32)
    mask = np.zeros((3, 1, 24, 16), np.float32)
    for n in range(3):
        mask[n, :, n : 12 + 4 * n, 2 : 9 + n] = 1
    return network, {name: value.astype(np.float64) for name, value in weights.items()}, x, mask


@BOTH
@pytest.mark.parametrize("masks", ["none", "one", "each"])
def test_gradient_penalty_against_the_oracle(masks, dialect):
    network, weights, x, mask = tiny_critic(dialect)
    mask = {"none": None, "one": mask[1:2], "each": mask}[masks]
    found = gradient_penalty(network, paddle.to_tensor(x), None if mask is None else paddle.to_tensor(mask))
    assert float(found) == pytest.approx(oracle.gradient_penalty(weights, x, mask, dialect), rel=1e-5)


@BOTH
def test_gradient_of_the_gradient_penalty_against_finite_differences(dialect):
    """In float64, each parameter along a random direction; the oracle's differences and the loss's own."""
    network, weights, x, mask = tiny_critic(dialect, "float64")
    x64, mask64 = (paddle.to_tensor(array.astype(np.float64)) for array in (x, mask))
    gradient_penalty(network, x64, mask64).backward()
    rng = np.random.default_rng(2)
    for name, parameter in network.named_parameters():
        direction, value = rng.normal(size=parameter.shape), parameter.numpy()

        def at(moved, name=name):
            return oracle.gradient_penalty({**weights, name: moved}, x, mask, dialect)

        def own(moved, parameter=parameter):
            parameter.set_value(moved)
            return float(gradient_penalty(network, x64, mask64))

        # no slope depends on the biases, but through the side of the leaky ReLU that a unit is on
        gradient = np.zeros(direction.shape) if parameter.grad is None else parameter.grad.numpy()
        slopes = [oracle.slope_along(function, [value], [direction], 1e-7) for function in (at, own)]
        parameter.set_value(value)
        largest = np.abs(gradient).max()
        assert np.allclose(slopes, (gradient * direction).sum(), rtol=1e-4, atol=1e-7 + 1e-5 * largest), name
        assert (largest > 1e-4) == name.endswith("weight"), name


def test_gradient_penalty_of_singles_averages_to_the_batch():
    network, _, x, mask = tiny_critic("tf1")
    x, mask = paddle.to_tensor(x), paddle.to_tensor(mask)
    singles = [float(gradient_penalty(network, x[n : n + 1], mask[n : n + 1])) for n in range(3)]
    assert float(gradient_penalty(network, x, mask)) == pytest.approx(np.mean(singles), abs=1e-5)
    assert max(singles) - min(singles) > 1e-3


@pytest.mark.parametrize("what", ["zero weights", "empty mask", "black picture and dead layer"])
@BOTH
def test_zero_slope_is_finite(what, dialect):
    """The penalty is 1 there and its gradient finite; TF1 and the ports get NaN."""
    network, _, x, mask = tiny_critic(dialect)
    if what == "zero weights":
        for parameter in network.parameters():
            parameter.set_value(np.zeros(parameter.shape, np.float32))
    elif what == "empty mask":
        mask = mask * 0
    else:
        x = x * 0
        network.dis_conv_module.conv2.conv.weight.set_value(
            np.zeros(network.dis_conv_module.conv2.conv.weight.shape, np.float32)
        )
    penalty = gradient_penalty(network, paddle.to_tensor(x), paddle.to_tensor(mask))
    penalty.backward()
    assert float(penalty) == pytest.approx(1.0)
    for parameter in network.parameters():
        assert parameter.grad is None or np.isfinite(parameter.grad.numpy()).all()


def test_gradient_penalty_leaves_its_samples_alone():
    network, _, x, _ = tiny_critic("tf1")
    samples = paddle.to_tensor(x, stop_gradient=False)
    gradient_penalty(network, samples * 2).backward()
    assert samples.grad is None


def test_recorded_interpolates_and_penalties(golden):
    """TF1's own points between real and fake, and the penalty there, local and global."""
    with np.load(golden / "tf1_model_losses.npz") as file:
        keys = ("batch_data_0_255", "bbox_tlhw", "mask", "x2")
        image, box, mask, refined = (file[key] for key in keys)
        found = {}
        image = (image / np.float32(127.5) - 1).astype(np.float32)
        fake = refined * mask + image * (1 - mask)
        boxes = box[None].astype(int)
        views = {"global": (GlobalCritic, image, fake, mask)}
        views["local"] = (LocalCritic, *(oracle.crop(x, boxes) for x in (image, fake, mask)))
        for side, (kind, real, made, hole) in views.items():
            network = kind(16, real.shape[2], "tf1")
            with np.load(golden / "tf1_model_weights.npz") as variables:
                weights = golden_weights.tf1_arrays(f"{side}_critic", network, variables)
            golden_weights.fill(network, weights)
            alpha = file[f"alpha_{side}"].reshape(-1, 1, 1, 1)
            between = interpolate(*(paddle.to_tensor(x) for x in (real, made, alpha)))
            assert np.abs(between.numpy() - file[f"interp_{side}"]).max() <= 1e-5
            found[side] = float(gradient_penalty(network, between, paddle.to_tensor(hole)))
            assert found[side] == pytest.approx(float(file[f"penalty_{side}"]), rel=1e-4)
            for name, picture in (("pos", real), ("neg", made)):
                with paddle.no_grad():
                    scores = network(paddle.to_tensor(picture)).numpy()
                assert np.abs(scores - file[f"{name}_{side}"]).max() <= 1e-4
        assert float(file["loss/gp_loss"]) == pytest.approx(10 * sum(found.values()), rel=1e-4)
