"""Losses, gradients and steps against what TF1 and the PyTorch port recorded, and losses against the oracle.

Tolerances, float32, each about four times the worst difference seen or more: losses 2e-4 relative; critics'
gradients 1e-4 of the largest value in each array; the generator's, through a sharp softmax, 3e-4.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from tests import golden_weights, oracle
from trainer import Architecture, Objective, Optimization, Trainer
from utils.run_state import training_arrays

BOTH = pytest.mark.parametrize("dialect", ["tf1", "pytorch"])
PORT_NAMES = {"generator": "netG", "local_critic": "localD", "global_critic": "globalD"}


def build(channels, critic_channels, size, box, dialect, gamma=0.9):
    """A trainer whose weights are still random. Both originals ran with gamma 0.9."""
    architecture = Architecture(channels, critic_channels, (size, size), (box, box), dialect)
    return Trainer(architecture, Objective(spatial_discounting_gamma=gamma), Optimization(), np.random.default_rng(0))


def as_floats(scalars):
    return {name: float(value) for name, value in scalars.items()}


def gradients(trainer, loss):
    """Every gradient that is not zero, by network and parameter; cleared afterwards."""
    loss.backward()
    found = {}
    for network_name, network in trainer.networks().items():
        for name, parameter in network.named_parameters():
            if parameter.grad is not None and parameter.grad.numpy().any():
                found[network_name, name] = parameter.grad.numpy()
        network.clear_gradients()
    return found


def assert_gradients(found, expected, tolerance):
    """found: by (network, parameter); a recorded gradient of zeros may be missing in it."""
    for key, value in expected.items():
        gradient = found.get(key, np.zeros(value.shape, np.float32))
        assert gradient.shape == value.shape, key
        assert np.abs(gradient - value).max() <= tolerance * max(np.abs(value).max(), 1e-6), key


# TF1


@pytest.fixture(scope="module")
def tf1(golden):
    """Trainer with TF1's weights, batch, interpolation points and everything recorded."""
    trainer = build(8, 16, 64, 32, "tf1")
    with np.load(golden / "tf1_model_weights.npz") as variables:
        for name, network in trainer.networks().items():
            golden_weights.fill(network, golden_weights.tf1_arrays(name, network, variables))
    with np.load(golden / "tf1_model_losses.npz") as file:
        data = {key: file[key] for key in file.files}
    image = (data["batch_data_0_255"] / np.float32(127.5) - 1).astype(np.float32)
    batch = SimpleNamespace(image=image, mask=data["mask"], box=data["bbox_tlhw"][None].astype(np.int64))
    alphas = [data[f"alpha_{side}"].reshape(-1, 1, 1, 1) for side in ("local", "global")]
    return trainer, batch, alphas, data


def recorded_tf1_gradients(trainer, data, loss):
    expected = {}
    for name, network in trainer.networks().items():
        for parameter, value in golden_weights.tf1_arrays(name, network, data, f"grad_{loss}/").items():
            expected[name, parameter] = value
    assert len(expected) == sum(key.startswith(f"grad_{loss}/") for key in data)
    return expected


def test_tf1_generator_losses(tf1):
    trainer, batch, _, data = tf1
    image, mask = paddle.to_tensor(batch.image), paddle.to_tensor(batch.mask)
    with paddle.no_grad():
        coarse, refined, _ = trainer.generator(image * (1 - mask), mask)
    assert np.abs(coarse.numpy() - data["x1"]).max() <= 1e-4
    assert np.abs(refined.numpy() - data["x2"]).max() <= 1e-4

    loss, scalars = trainer.generator_losses(batch)
    expected = {
        "l1": data["loss/l1_loss"],
        "ae": data["loss/ae_loss"],
        "wgan_g": data["g_loss_local"] + data["g_loss_global"],
        "g": data["loss/g_loss"],
    }
    assert as_floats(scalars) == pytest.approx(as_floats(expected), rel=1e-5)
    found = gradients(trainer, loss)
    assert {network for network, _ in found} == {"generator"}
    expected = recorded_tf1_gradients(trainer, data, "g_loss")
    assert expected.keys() == found.keys()  # of every variable
    assert_gradients(found, expected, 3e-4)


def test_tf1_critic_losses(tf1):
    trainer, batch, alphas, data = tf1
    loss, scalars = trainer.critic_losses(batch, alphas)
    expected = {
        "wgan_d": data["d_loss_local"] + data["d_loss_global"],
        "wgan_gp": data["penalty_local"] + data["penalty_global"],
        "d": data["loss/d_loss"],
    }
    assert as_floats(scalars) == pytest.approx(as_floats(expected), rel=1e-4)
    found = gradients(trainer, loss)
    assert {network for network, _ in found} == {"local_critic", "global_critic"}
    assert_gradients(found, recorded_tf1_gradients(trainer, data, "d_loss"), 1e-4)


def test_tf1_gradient_penalty(tf1):
    trainer, batch, alphas, data = tf1
    _, scalars = trainer.critic_losses(batch, alphas)
    penalty = 10 * scalars["wgan_gp"]
    assert float(penalty) == pytest.approx(float(data["loss/gp_loss"]), rel=1e-4)
    assert_gradients(gradients(trainer, penalty), recorded_tf1_gradients(trainer, data, "gp_loss"), 1e-4)


# The PyTorch port


def load_port(trainer, folder, number):
    weights = golden_weights.load_pt(folder / f"dis_{number}.pt")
    weights["netG"] = golden_weights.load_pt(folder / f"gen_{number}.pt")
    for name, network in trainer.networks().items():
        golden_weights.fill(network, golden_weights.from_pytorch(weights[PORT_NAMES[name]]))


def port_batch(data):
    return SimpleNamespace(
        image=data["ground_truth"], mask=data["mask"], box=data["bboxes_tlhw"].astype(np.int64)
    )


def of_the_port(arrays, prefix):
    """Recorded parameters or gradients, by (network, parameter), in our layout."""
    found = {}
    for ours, theirs in PORT_NAMES.items():
        start = f"{prefix}{theirs}."
        named = {key[len(start) :]: value for key, value in arrays.items() if key.startswith(start)}
        found.update({(ours, name): value for name, value in golden_weights.from_pytorch(named).items()})
    assert len(found) == sum(key.startswith(prefix) for key in arrays)
    return found


@pytest.mark.parametrize("case", ["full256", "small64", "small64_diffmask"])
def test_port_losses_and_gradients(golden, case):
    folder = golden / "daa_pytorch"
    with np.load(folder / "daa_forward.npz") as file:
        data = {key[len(case) + 1 :]: file[key] for key in file.files if key.startswith(case + "/")}
    if case == "full256":
        trainer = build(8, 16, 256, 128, "pytorch")
        load_port(trainer, folder / "ckpt256", "00001000")
    else:
        trainer = build(8, 8, 64, 32, "pytorch")
        load_port(trainer, folder / "ckpt64", "00000000")
    if (
        case == "small64_diffmask"
    ):  # as the port does it: the first sample's mask for the whole batch's attention
        trainer.generator.fine_generator.contextual_attention.register_forward_pre_hook(
            lambda layer, inputs: (*inputs[:2], inputs[2][:1])
        )
    batch = port_batch(data)
    d, critic_scalars = trainer.critic_losses(batch, (data["alpha_local"], data["alpha_global"]))
    critic_gradients = gradients(trainer, d)
    g, generator_scalars = trainer.generator_losses(batch)
    generator_gradients = gradients(trainer, g)
    found = as_floats({**critic_scalars, **generator_scalars})
    expected = {key[5:]: float(value) for key, value in data.items() if key.startswith("loss/")}
    assert found == pytest.approx(expected, rel=2e-4, abs=1e-6)
    assert_gradients(critic_gradients, of_the_port(data, "grad_d/"), 1e-4)
    assert_gradients(generator_gradients, of_the_port(data, "grad_g/"), 3e-4)


@pytest.fixture(scope="module")
def trajectory(golden):
    """Five iterations: both losses differentiated at the same weights, then both optimisers stepped.

    Returns the trainer at the end, its parameters at the start, the losses on the way, and what is recorded.
    """
    folder = golden / "daa_pytorch"
    with np.load(folder / "daa_trajectory.npz") as file:
        data = {key: file[key] for key in file.files}
    assert int(data["n_critic"]) == 1 and float(data["lr"]) == pytest.approx(Optimization().lr)
    trainer = build(8, 8, 64, 32, "pytorch")
    load_port(trainer, folder / "ckpt64", "00000000")
    start = parameters(trainer)
    losses = {}
    for i in range(1, int(data["niter"]) + 1):
        here = {key[len(f"it{i}/") :]: value for key, value in data.items() if key.startswith(f"it{i}/")}
        batch = port_batch(here)
        d, scalars = trainer.critic_losses(batch, (here["alpha_local"], here["alpha_global"]))
        g, more = trainer.generator_losses(batch)
        d.backward()
        g.backward()
        for optimizer in (trainer.critic_optimizer, trainer.generator_optimizer):
            optimizer.step()
            optimizer.clear_grad()
        losses.update({f"it{i}/{name}": float(value) for name, value in {**scalars, **more}.items()})
    return trainer, start, losses, data


def parameters(trainer):
    return {
        (network_name, name): parameter.numpy()
        for network_name, network in trainer.networks().items()
        for name, parameter in network.named_parameters()
    }


def test_port_trajectory_losses(trajectory):
    _, _, losses, data = trajectory
    recorded = {
        key[len("clean/") :].replace("loss/", ""): float(value)
        for key, value in data.items()
        if key.startswith("clean/") and "/loss/" in key
    }
    assert len(recorded) == 5 * 7
    assert losses == pytest.approx(recorded, rel=1e-4, abs=1e-5)


def test_port_trajectory_parameters(golden, trajectory):
    """All parameters of the port's last checkpoint, five of which the file of the trajectory holds, too.

    They have gone up to 5e-4 by then, so what counts is the difference relative to the way. Where the gradient of
    a critic's last bias, real against completed, cancels to rounding errors, Adam makes a full step (1e-4) of them.
    """
    trainer, start, _, data = trajectory
    end = build(8, 8, 64, 32, "pytorch")
    load_port(end, golden / "daa_pytorch" / "ckpt64", "00000005")
    expected, found = parameters(end), parameters(trainer)
    for key, value in of_the_port(data, "clean/final/").items():
        assert np.array_equal(expected[key], value)
    assert len(expected) == 84 + 20
    gone = np.concatenate([(expected[key] - start[key]).ravel() for key in expected]).astype(np.float64)
    off = np.concatenate([(expected[key] - found[key]).ravel() for key in expected]).astype(np.float64)
    assert np.abs(gone).max() > 3e-4
    for key in expected:
        limit = 1e-4 if key[0] != "generator" and key[1].endswith("conv4.conv.bias") else 2e-5
        assert np.abs(expected[key] - found[key]).max() <= limit, key
    assert np.linalg.norm(off) <= 1e-3 * np.linalg.norm(gone)


def test_port_trajectory_optimizer_state(golden, trajectory):
    """Both moments and the step count in the port's own optimiser file, in its order of parameters."""
    arrays = training_arrays(trajectory[0])
    recorded = golden_weights.load_pt(golden / "daa_pytorch" / "ckpt64" / "optimizer.pt")
    for theirs, ours in (("gen", "generator_optimizer"), ("dis", "critic_optimizer")):
        names = list(trajectory[0].optimizers()[ours][1])
        states = [recorded[theirs]["state"][k] for k in range(len(names))]
        for name, state in zip(names, states):
            for moment, key in (("moment1", "exp_avg"), ("moment2", "exp_avg_sq")):
                expected = state[key].T if name.endswith("linear.weight") else state[key]
                found = arrays[f"{ours}/{moment}/{name}"]
                assert found.shape == expected.shape
                assert np.abs(found - expected).max() <= 2e-4 * np.abs(expected).max() + 1e-12, name
            assert float(state["step"]) == 5
            assert arrays[f"{ours}/beta1_pow_acc/{name}"].item() == pytest.approx(0.5**6)  # for the next step


# Own data


@BOTH
@pytest.mark.parametrize("boxes", ["one", "each"])
def test_losses_against_the_oracle(boxes, dialect):
    rng = np.random.default_rng(7)
    trainer = build(4, 4, 48, 16, dialect)
    weights = {}
    for network_name, network in trainer.networks().items():
        weights[network_name] = {}
        for name, value in network.state_dict().items():
            fan_in = value.shape[0] if name == "linear.weight" else np.prod(value.shape[1:])
            spread = 0.1 if value.ndim == 1 else np.sqrt(1.5 / fan_in)
            weights[network_name][name] = rng.normal(0, spread, value.shape).astype(np.float32)
        golden_weights.fill(network, weights[network_name])
    box = np.array([[5, 9, 16, 16], [30, 0, 16, 16], [1, 32, 16, 16]])[: 1 if boxes == "one" else 3]
    mask = np.zeros((len(box), 1, 48, 48), np.float32)
    for n, (t, k, h, w) in enumerate(box):
        mask[n, :, t + n + 1 : t + h - n - 1, k + 2 : k + w - 2] = 1
    image = rng.uniform(-1, 1, (3, 3, 48, 48)).astype(np.float32)
    alphas = rng.random((2, 3, 1, 1, 1)).astype(np.float32)
    batch = SimpleNamespace(image=image, mask=mask, box=box)
    d, critic_scalars = trainer.critic_losses(batch, alphas)
    g, generator_scalars = trainer.generator_losses(batch)
    found = as_floats({**critic_scalars, **generator_scalars})
    assert found == pytest.approx(
        oracle.losses(weights, image, mask, box, alphas, dialect, 0.9), rel=1e-4, abs=1e-5
    )

    # The gradients along themselves, by central differences of the oracle in float64
    for loss, names in ((d, ("local_critic", "global_critic")), (g, ("generator",))):
        of_all = gradients(trainer, loss)
        assert {network for network, _ in of_all} == set(names)
        keys = list(of_all)
        length = np.sqrt(sum((value.astype(np.float64) ** 2).sum() for value in of_all.values()))

        def value(*arrays, keys=keys, name="d" if "local_critic" in names else "g"):
            moved = {network: dict(own) for network, own in weights.items()}
            for (network, parameter), array in zip(keys, arrays):
                moved[network][parameter] = array
            return oracle.losses(moved, image, mask, box, alphas, dialect, 0.9)[name]

        slope = oracle.slope_along(
            value, [weights[n][p] for n, p in keys], [of_all[key] / length for key in keys], 1e-6
        )
        assert slope == pytest.approx(length, rel=1e-3)
