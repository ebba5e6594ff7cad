"""Formulas and what passes through the layers give the same counts, and both what a hand gets."""

from __future__ import annotations

import paddle
import pytest

from models import costs
from models.critics import GlobalCritic, LocalCritic
from models.generator import InpaintingGenerator
from models.layer_costs import critic_costs, generator_costs, network_costs, training_cost


def total(layers, what="operations"):
    return sum(getattr(layer, what) for layer in layers)


def test_formulas_by_hand():
    # 5x5 from 3 to 8 channels onto 4 x 6 pixels
    assert costs.convolution_operations(25, 3, 8, 24) == 2 * 25 * 3 * 8 * 24
    # 256x256: 1024 positions of 128 channels; 2 * 9 * 128 for scores, 2 * 9 for each fusion, 2 * 16 * 128 to paste
    assert costs.attention_operations(1024, 128, plain=True) == 1024**2 * (2 * 1152 + 2 * 18 + 2 * 2048)
    assert costs.attention_operations(1024, 128) == 1024**2 * (2 * 3 * 128 + 2 * 8 * 128 + 8)
    assert costs.update_operations(7, 2, 5) == {"critics": 27, "generator": 25, "iteration": 160}
    assert costs.update_operations(7, 2, 5, plain=True) == {"critics": 27, "generator": 27, "iteration": 162}
    assert costs.update_operations(7, 0, 5) == {"critics": 0, "generator": 21, "iteration": 21}
    assert costs.kept_bytes(7, 2) == {"critics": 8, "generator": 9}
    assert costs.attention_kept_floats(12, 4) == 2 * 144 + 11 * 4 * 12


def test_layers_of_the_generator():
    generator = InpaintingGenerator(8)
    layers = {layer.name: layer for layer in generator_costs(generator, (64, 96))}
    first = layers["coarse_generator.conv1"]
    assert (first.shape, first.parameters) == ((8, 64, 96), 25 * 5 * 8 + 8)
    assert first.operations == 2 * 25 * 5 * 8 * 64 * 96
    assert first.kept == 4 * (5 + 8) * 64 * 96
    down = layers["coarse_generator.conv2_downsample"]
    assert (down.shape, down.operations) == ((16, 32, 48), 2 * 9 * 8 * 16 * 32 * 48)
    attention = layers["fine_generator.contextual_attention"]
    assert (attention.shape, attention.parameters) == ((32, 16, 24), 0)
    assert attention.operations == 96**2 * (22 * 32 + 8)
    assert attention.kept == 4 * (2 * 108**2 + 11 * 32 * 108)  # 9 rows of 12: one of slack
    assert len(layers) == 17 + 25 + 1
    assert total(layers.values()) == costs.generator_operations((64, 96), 8)
    assert total(layers.values(), "parameters") == sum(p.size for p in generator.parameters())
    assert next(iter(layers)) == "coarse_generator.conv1" and list(layers)[-1] == "fine_generator.allconv17"


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (96, 64), (72, 72), (32, 40)])
def test_taps_outside_are_those_without_gradient(size):
    """Exactly the taps that the counts say keep a gradient of zero, in every dilated convolution."""
    generator = InpaintingGenerator(8)
    counted = {layer.name: layer.taps_outside for layer in generator_costs(generator, size)}
    mask = paddle.zeros([1, 1, *size])
    mask[:, :, 8:24, 8:24] = 1.0
    coarse, refined, _ = generator(paddle.rand([1, 3, *size]) * (1 - mask), mask)
    (coarse.square().sum() + refined.square().sum()).backward()
    for name, layer in generator.named_sublayers():
        if name.endswith("atrous"):
            gradient = layer.conv.weight.grad.numpy()
            assert (abs(gradient).max(axis=(0, 1)) == 0).sum() == counted.pop(name), name
    assert not any(counted.values())


def test_layers_of_the_critics():
    size = (64, 96)
    networks = {"local_critic": LocalCritic(4, (32, 48)), "global_critic": GlobalCritic(4, size)}
    found = network_costs(networks, size)
    assert sum(map(total, found.values())) == costs.critic_operations(size, 4)
    for name, layers in found.items():
        assert total(layers, "parameters") == sum(p.size for p in networks[name].parameters())
        assert layers[-1].name == "linear" and layers[-1].kept == 4 * networks[name].linear.weight.shape[0]
    with_mask = critic_costs(GlobalCritic(4, size, in_channels=4))
    assert with_mask[0].operations * 3 == found["global_critic"][0].operations * 4


def test_parts_of_the_generator():
    networks = {"generator": InpaintingGenerator(2, contextual_attention=False)}
    names = [layer.name for layer in network_costs(networks, (32, 32))["generator"]]
    assert "fine_generator.contextual_attention" not in names and "fine_generator.pmconv9" in names
    (coarse,) = network_costs(networks, (32, 32), coarse_only=True).values()
    assert [layer.name for layer in coarse] == [name for name in names if name.startswith("coarse")]
    whole = training_cost({"generator": coarse}, n_critic=5)
    assert whole.parameters == sum(p.size for p in networks["generator"].coarse_generator.parameters())
    assert whole.operations == {"critics": 0, "generator": 3 * total(coarse), "iteration": 3 * total(coarse)}


def test_a_training():
    layers = {"generator": generator_costs(InpaintingGenerator(2), (32, 32)),
              "local_critic": critic_costs(LocalCritic(2, 16)), "global_critic": critic_costs(GlobalCritic(2, 32))}
    cost = training_cost(layers, n_critic=3)
    critics = [*layers["local_critic"], *layers["global_critic"]]
    assert cost.parameters == total([*layers["generator"], *critics], "parameters")
    assert cost.operations["iteration"] == 6 * total(layers["generator"]) + 32 * total(critics)
    assert cost.kept["generator"] == total([*layers["generator"], *critics], "kept")


def test_counting_leaves_nothing_behind():
    generator = InpaintingGenerator(2)
    counted = [generator_costs(generator, (16, 16)) for _ in range(2)]
    assert counted[0] == counted[1] and counted[0]
    with pytest.raises(ValueError, match="divisible by 8"):
        generator_costs(generator, (16, 20))
    for layer in generator.sublayers():
        assert not layer._forward_post_hooks
    assert all(p.grad is None for p in generator.parameters())
    assert generator(paddle.zeros([1, 3, 16, 16]), paddle.zeros([1, 1, 16, 16]))[0].stop_gradient is False
