"""What a checkpoint of a training run holds: networks and optimisers by structured names.

Paddle keys an optimiser's state by automatic names ("conv2d_0.w_0_moment1_0"), which depend on the order in
which layers were built; here the state goes by the parameter's place in its network, so that no layer can
get another's moments. Does not import paddle: `trainer` is a `trainer.Trainer`, or has its `networks()`,
`optimizers()` and `loss_scales`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from utils.checkpoint import CheckpointError, load_parameters, section

# Adam's per-parameter state; Paddle appends a running number to the names.
_ACCUMULATORS = ("moment1", "moment2", "beta1_pow_acc", "beta2_pow_acc")
_KEY = re.compile(rf"(.+)_({'|'.join(_ACCUMULATORS)})_0")


def training_arrays(trainer: Any) -> dict[str, np.ndarray]:
    """Every weight ("generator/..."), optimiser state ("generator_optimizer/moment1/...") and loss scale."""
    arrays = {}
    for network_name, network in trainer.networks().items():
        for name, value in network.state_dict().items():
            arrays[f"{network_name}/{name}"] = np.asarray(value)
    for optimizer_name, (optimizer, parameters) in trainer.optimizers().items():
        structured = {parameter.name: name for name, parameter in parameters.items()}
        for key, value in optimizer.state_dict().items():
            match = _KEY.fullmatch(key)
            if not match or match[1] not in structured:
                raise ValueError(f"unexpected optimiser state {key!r}")
            arrays[f"{optimizer_name}/{match[2]}/{structured[match[1]]}"] = np.asarray(value)
    for optimizer_name, loss_scale in trainer.loss_scales.items():
        arrays[f"loss_scale/{optimizer_name}"] = np.array(loss_scale.state)
    return arrays


def restore_training(trainer: Any, arrays: Mapping[str, np.ndarray], source: str) -> list[str]:
    """Sets a trainer to a checkpoint's arrays and returns the names of what starts fresh.

    Critics and loss scales start fresh if the checkpoint has none, as after training without them. Everything else
    must fit: CheckpointError names `source` and what is missing, left over or of another shape.
    """
    fresh = []
    for network_name, network in trainer.networks().items():
        weights = section(arrays, network_name)
        if not weights and network_name != "generator":
            fresh.append(network_name)
            continue
        load_parameters(network, weights, f"{source}: {network_name}")
    for optimizer_name, (optimizer, parameters) in trainer.optimizers().items():
        state = section(arrays, optimizer_name)
        expected = [name for name in parameters if name.split(".")[0] not in fresh]
        if expected:
            optimizer.set_state_dict(_optimizer_state(parameters, state, f"{source}: {optimizer_name}"))
    for optimizer_name, loss_scale in trainer.loss_scales.items():
        key = f"loss_scale/{optimizer_name}"
        if key not in arrays:
            fresh.append(key)
            continue
        try:
            loss_scale.state = arrays[key]
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{source}: {key} holds no loss scale: {error}") from None
    return fresh


def _optimizer_state(parameters: Mapping[str, Any], state: Mapping[str, np.ndarray], source: str) -> dict:
    """Paddle's keys for a structured state of all parameters, or of the coarse stage alone (pretraining)."""
    wanted = [f"{kind}/{name}" for name in parameters for kind in _ACCUMULATORS]
    coarse = [key for key in wanted if key.split("/")[1].startswith("coarse_generator.")]
    if coarse and set(state) == set(coarse):
        wanted = coarse
    missing = [key for key in wanted if key not in state]
    left_over = [key for key in state if key not in wanted]
    for what, keys in (("missing", missing), ("left over", left_over)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise CheckpointError(f"{source}: {len(keys)} {what}: {', '.join(keys[:3])}{more}")
    keyed = {}
    for key in wanted:
        kind, name = key.split("/")
        shape = list(parameters[name].shape) if kind.startswith("moment") else [1]
        if list(state[key].shape) != shape:
            raise CheckpointError(f"{source}: {key} has shape {list(state[key].shape)}, not {shape}")
        keyed[f"{parameters[name].name}_{kind}_0"] = state[key]
    return keyed
