"""What every layer of a network costs, seen while one picture passes through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import paddle
import paddle.nn as nn

from models.contextual_attention import ContextualAttention
from models.costs import (
    attention_kept_floats,
    attention_operations,
    convolution_operations,
    kept_bytes,
    update_operations,
)
from models.critics import Critic
from models.generator import InpaintingGenerator
from models.layers import ConvBlock


@dataclass(frozen=True)
class LayerCost:
    """Of one picture: operations as in models/costs.py, and an estimate of what a training step keeps, in bytes."""

    name: str
    shape: tuple[int, ...]  # of the output, without the batch
    parameters: int
    operations: float
    kept: int
    taps_outside: int  # of the kernel's taps, how many meet padding alone and so get no gradient


@dataclass(frozen=True)
class TrainingCost:
    """Of a whole training: parameters; of one picture, operations and bytes kept by update (see models/costs.py)."""

    parameters: int
    operations: dict[str, float]
    kept: dict[str, int]


def training_cost(costs: dict[str, list[LayerCost]], n_critic: int) -> TrainingCost:
    """From the costs of the layers that are trained, by network: "generator", and critics if there are any."""

    def total(what: str, critics: bool):
        return sum(getattr(x, what) for name in costs if critics == (name != "generator") for x in costs[name])

    return TrainingCost(
        total("parameters", False) + total("parameters", True),
        update_operations(total("operations", False), total("operations", True), n_critic),
        kept_bytes(total("kept", False), total("kept", True)),
    )


def network_costs(networks: dict[str, nn.Layer], size: tuple[int, int], coarse_only: bool = False):
    """The costs of all layers of a trainer's networks, by their names; of the coarse stage alone with coarse_only."""
    return {
        name: critic_costs(network) if isinstance(network, Critic) else generator_costs(network, size, coarse_only)
        for name, network in networks.items()
    }


def generator_costs(generator: InpaintingGenerator, size: tuple[int, int], coarse_only: bool = False):
    """The costs of all layers, or of the first stage's alone, for pictures of (height, width)."""
    image, mask = paddle.zeros([1, 3, *size]), paddle.zeros([1, 1, *size])
    return layer_costs(generator, lambda: (generator.coarse if coarse_only else generator)(image, mask))


def critic_costs(critic: Critic):
    """The costs of all layers for the inputs that the critic was built for."""
    channels = critic.dis_conv_module.conv1.conv.weight.shape[1]
    return layer_costs(critic, lambda: critic(paddle.zeros([1, channels, *critic.size])))


def layer_costs(network: nn.Layer, run) -> list[LayerCost]:
    """The costs of a network's layers in the order in which `run()`, a pass of one picture, goes through them."""
    found, hooks = [], []
    for name, layer in network.named_sublayers():
        for kind, cost in COSTS.items():
            if isinstance(layer, kind):

                def note(layer, inputs, output, name=name, cost=cost):
                    output = output[0] if isinstance(output, tuple) else output
                    parameters = sum(p.size for p in layer.parameters())
                    shape = tuple(output.shape[1:])
                    values = *cost(layer, inputs[0], output), taps_outside(layer, shape)
                    found.append(LayerCost(name, shape, parameters, *values))

                hooks.append(layer.register_forward_post_hook(note))
    try:
        with paddle.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def taps_outside(layer: nn.Layer, shape: Sequence[int]) -> int:
    """How many taps of a dilated 3x3 convolution never meet its input of [C, H, W] `shape`, only the padding.

    At 64x64 pixels, 16x16 features, these are 8 of the 9 with dilation 16: training leaves them as they began.
    """
    if not isinstance(layer, ConvBlock) or layer.dilation == 1:
        return 0
    rows, columns = (3 if layer.dilation < side else 1 for side in shape[1:])
    return 9 - rows * columns


# Each returns operations and bytes kept of one layer.


def _convolution(layer: ConvBlock, x, output) -> tuple[float, int]:
    out_channels, in_channels, *kernel = layer.conv.weight.shape
    operations = convolution_operations(kernel[0] * kernel[1], in_channels, out_channels, output.size // out_channels)
    return operations, 4 * (x.size + output.size)  # the output before its activation; after it, the next one's input


def _dense(layer: nn.Linear, x, output) -> tuple[float, int]:
    return convolution_operations(1, *layer.weight.shape, 1), 4 * x.size


def _attention(layer: ContextualAttention, x, output) -> tuple[float, int]:
    _, channels, height, width = x.shape
    rows, columns = height // 2, width // 2
    kept = attention_kept_floats((rows + 1) * columns, channels)
    return attention_operations(rows * columns, channels), 4 * kept


COSTS = {ConvBlock: _convolution, nn.Linear: _dense, ContextualAttention: _attention}
