"""The critics against recorded scores of TF1 and the earlier Paddle port, and against the oracle; to 1e-5."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from models.critics import GlobalCritic, LocalCritic
from tests import golden_weights, oracle

BOTH = pytest.mark.parametrize("dialect", ["tf1", "pytorch"])
KINDS = {"local_critic": LocalCritic, "global_critic": GlobalCritic}


def score(network, x):
    with paddle.no_grad():
        return network(paddle.to_tensor(x)).numpy()


def filled(kind, channels, size, dialect, in_channels=3):
    rng = np.random.default_rng(1)
    network = KINDS[kind](channels, size, dialect, in_channels)
    weights = {}
    for name, value in network.state_dict().items():
        fan_in = value.shape[0] if name.startswith("linear") else np.prod(value.shape[1:])
        spread = 0.2 if value.ndim == 1 else np.sqrt(2 / fan_in)
        weights[name] = rng.normal(0, spread, value.shape).astype(np.float32)
    golden_weights.fill(network, weights)
    return network, {name: value.astype(np.float64) for name, value in weights.items()}


@pytest.mark.parametrize(("kind", "size"), [("local_critic", 32), ("global_critic", 64)])
def test_tf1(golden, kind, size):
    network = KINDS[kind](16, size, "tf1")
    with np.load(golden / "tf1_model_weights.npz") as variables:
        golden_weights.fill(network, golden_weights.tf1_arrays(kind, network, variables))
    side = kind.split("_")[0]
    with np.load(golden / "tf1_model_infer.npz") as data:
        found, expected = score(network, data[f"critic/{side}_in"]), data[f"critic/{side}_out"]
    assert found.shape == expected.shape == (3, 1)
    assert np.abs(found - expected).max() <= 1e-5


@pytest.mark.parametrize(
    ("kind", "size", "key"), [("local_critic", 128, "localD"), ("global_critic", 256, "globalD")]
)
def test_earlier_paddle_port(golden, kind, size, key):
    network = KINDS[kind](16, size, "pytorch")
    weights = golden_weights.load_pdparams(golden / "paddle_gi" / "dis_00144000.pdparams")
    golden_weights.fill(network, golden_weights.from_paddle(weights[key]))
    side = kind.split("_")[0]
    with np.load(golden / "paddle_gi" / "gi_forward.npz") as data:
        found, expected = score(network, data[f"critic/{side}_in"]), data[f"critic/{side}_out"]
    assert found.shape == expected.shape == (1, 1)
    assert np.abs(found - expected).max() <= 1e-5


@BOTH
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("size", "in_channels"), [(32, 3), ((24, 40), 4), (17, 3), (30, 3)])
def test_oracle(kind, size, in_channels, dialect):
    network, weights = filled(kind, 4, size, dialect, in_channels)
    sides = (size, size) if isinstance(size, int) else size
    x = np.random.default_rng(0).uniform(-1, 1, (3, in_channels, *sides)).astype(np.float32)
    expected, _ = oracle.critic(weights, x, dialect)
    assert np.abs(expected).min() > 1e-3
    assert np.abs(score(network, x) - expected).max() <= 1e-5


@BOTH
def test_slope_of_the_score_against_the_oracle(dialect):
    network, weights = filled("local_critic", 4, 32, dialect)
    x = np.random.default_rng(0).uniform(-1, 1, (2, 3, 32, 32)).astype(np.float32)
    inputs = paddle.to_tensor(x, stop_gradient=False)
    network(inputs).sum().backward()
    assert np.abs(inputs.grad.numpy() - oracle.critic_slope(weights, x, dialect)).max() <= 1e-5


def test_the_oracles_slope_against_finite_differences():
    _, weights = filled("local_critic", 2, 32, "tf1")
    rng = np.random.default_rng(0)
    x, direction = rng.uniform(-1, 1, (2, 3, 32, 32)), rng.normal(size=(2, 3, 32, 32))
    slope = oracle.slope_along(lambda x: oracle.critic(weights, x)[0].sum(), [x], [direction], 1e-7)
    assert (oracle.critic_slope(weights, x) * direction).sum() == pytest.approx(slope, rel=1e-5)


@BOTH
def test_batch_is_a_loop_of_singles(dialect):
    network, _ = filled("global_critic", 4, 48, dialect)
    x = np.random.default_rng(0).uniform(-1, 1, (3, 3, 48, 48)).astype(np.float32)
    singles = np.concatenate([score(network, x[n : n + 1]) for n in range(3)])
    assert np.abs(score(network, x) - singles).max() <= 1e-5


def test_full_width_parameters_are_tf1s(golden):
    networks = {"local_critic": LocalCritic(), "global_critic": GlobalCritic()}
    ours = {}
    for name, network in networks.items():
        ours.update(golden_weights.tf1_shapes(name, network))
    listed = golden_weights.full_width_shapes(golden / "tf1_fullwidth_variables.txt")
    assert ours == {name: shape for name, shape in listed.items() if name.startswith("discriminator/")}
    counts = [int(np.prod(p.shape)) for network in networks.values() for p in network.parameters()]
    assert sum(counts) == 7_072_770


def test_the_ports_local_critic_is_narrower():
    def widths(network):
        return [getattr(network.dis_conv_module, f"conv{i}").conv.weight.shape[0] for i in range(1, 5)]

    assert widths(LocalCritic(64, 32, "tf1")) == [64, 128, 256, 512]
    assert widths(LocalCritic(64, 32, "pytorch")) == [64, 128, 256, 256]
    assert (
        widths(GlobalCritic(64, 32, "tf1")) == widths(GlobalCritic(64, 32, "pytorch")) == [64, 128, 256, 256]
    )


def test_another_size_is_refused():
    with pytest.raises(ValueError, match=r"built for \(32, 32\)"):
        LocalCritic(2, 32)(paddle.zeros([1, 3, 48, 48]))
    with pytest.raises(ValueError, match="dialect must be one of"):
        GlobalCritic(2, 32, "caffe")
