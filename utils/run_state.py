"""A training run's state: which checkpoint to resume from, what one holds, and setting a trainer back to it.

Paddle keys an optimiser's state by automatic names ("conv2d_0.w_0_moment1_0"), which depend on the order in which
layers were built; here it goes by the parameter's place in its network, so that no layer can get another's moments.
Does not import paddle: `trainer` is a `trainer.Trainer`.
"""

from __future__ import annotations

import math
import os
import platform
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.checkpoint import (
    RELEASED,
    CheckpointError,
    checkpoint_path,
    latest_checkpoint,
    list_checkpoints,
    listed,
    load_checkpoint,
    load_parameters,
    rotate_checkpoints,
    save_checkpoint,
    section,
)
from utils.config import BOOKKEEPING, ConfigError, TrainConfig, config_digest, plain, to_yaml
from utils.config_file import RENAMED_KEYS, RENAMED_VALUES, parse_yaml

# Adam's per-parameter state; Paddle appends a running number to the names.
_ACCUMULATORS = ("moment1", "moment2", "beta1_pow_acc", "beta2_pow_acc")
_KEY = re.compile(rf"(.+)_({'|'.join(_ACCUMULATORS)})_0")


@dataclass
class Progress:
    """How far a run has come: iterations done and batches used."""

    iteration: int = 0
    position: int = 0


def learning_rate(config: TrainConfig, iteration: int) -> float:
    """The learning rate of iteration 1 ... niter, a function of the configuration and the iteration alone.

    lr_warmup: it rises in equal steps, from lr / lr_warmup in the first iteration to lr. Then constant: lr; steps:
    times lr_decay after every iteration of lr_steps; cosine: half a wave from lr to lr_min in iteration niter.
    """
    if iteration <= config.lr_warmup:
        return config.lr * iteration / config.lr_warmup
    if config.lr_schedule == "steps":
        return config.lr * config.lr_decay ** sum(iteration > step for step in config.lr_steps)
    if config.lr_schedule == "cosine":
        share = min(1.0, (iteration - config.lr_warmup) / max(1, config.niter - config.lr_warmup))
        return config.lr_min + (config.lr - config.lr_min) * (1 + math.cos(math.pi * share)) / 2
    return config.lr


def find_checkpoint(config: TrainConfig, folder: str, warn: Callable[[str], None]) -> str | None:
    """The checkpoint to resume from, or None for a new run, which must not run over an old one."""
    if config.resume == "latest":
        return latest_checkpoint(folder, warn)
    if config.resume and not os.path.exists(config.resume):
        raise CheckpointError(f"{config.resume}: no such checkpoint; --resume alone takes the newest one of {folder}")
    found = list_checkpoints(folder)
    inside = config.resume and os.path.realpath(os.path.dirname(config.resume)) == os.path.realpath(folder)
    if found and not inside:
        raise CheckpointError(
            f"{folder}: already holds a run; resume it with --resume, or give the new one a name with expname=NAME"
        )
    return config.resume or None


def run_header(config: TrainConfig, source: str | None, device: str, ranks: int, images: int, paddle: str) -> str:
    """The first line of a run in its log, or of the part that resumes it."""
    return (f"# {'resumed from ' + source if source else 'new run'}; seed {config.seed}; {device}; "
            f"{ranks} rank{'s' * (ranks > 1)}; PaddlePaddle {paddle}; NumPy {np.__version__}; "
            f"Python {platform.python_version()}; {images} images; configuration {config_digest(config)}")


def list_digest(paths: Sequence[str]) -> str:
    """Number and names of the images in one word; their folders may change, their order may not."""
    names = "\n".join(os.path.basename(path) for path in paths)
    return f"{len(paths)}-{zlib.crc32(names.encode('utf-8', 'surrogateescape')):08x}"


def weights_digest(trainer: Any) -> int:
    """A CRC-32 of all weights, to compare those of several processes."""
    crc = 0
    for network in trainer.networks().values():
        for value in network.state_dict().values():
            crc = zlib.crc32(np.ascontiguousarray(value), crc)
    return crc


def save_run(
    config: TrainConfig, trainer: Any, folder: str, progress: Progress, facts: Mapping[str, Any], name: str = ""
) -> str:
    """Writes the checkpoint of an iteration and returns its path; a name of its own is outside the rotation.

    facts: more for its meta.
    """
    meta = {
        **facts,
        **vars(progress),
        "rng": trainer.rng.bit_generator.state,
        # enough to build the networks without a configuration
        "architecture": {**vars(trainer.architecture)},
        "mask_type": config.mask_type,
        "mosaic_unit_size": config.mosaic_unit_size,
        "coarse_only": config.pretrain_coarse_network,
        "config": to_yaml(config),
        "config_digest": config_digest(config),
    }
    path = os.path.join(folder, name) if name else checkpoint_path(folder, progress.iteration)
    save_checkpoint(path, training_arrays(trainer), meta)
    if not name:
        rotate_checkpoints(folder, config.keep_checkpoints, config.keep_checkpoint_interval)
    return path


def restore_run(
    config: TrainConfig, trainer: Any, path: str, facts: Mapping[str, Any], note: Callable[[str], None]
) -> Progress:
    """Sets the trainer to a checkpoint; mismatches are reported through `note`. facts: as given to `save_run`."""
    arrays, meta = load_checkpoint(path)
    try:
        progress = Progress(int(meta["iteration"]), int(meta["position"]))
        if min(vars(progress).values()) < 0:
            raise ValueError(f"negative counts {progress}")
        trainer.rng.bit_generator.state = meta["rng"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: holds no state of a training run ({error}); to start a new run from its weights: init_from"
        ) from None
    _check_attention(config, meta, path)
    for name in restore_training(trainer, arrays, path):
        note(f"{name} is not in {path} and starts fresh")
    if meta.get("rollbacks"):
        note(f"the order of the images starts anew from seed {config.seed}: {path} is of a run with rollbacks")
    changed = changed_keys(meta.get("config"), config)
    if changed:
        note(f"the configuration differs from that of {path}: {changed}")
    for name, value in facts.items():
        if name in meta and meta[name] != value:
            note(f"{name} differs from that of {path}: {value}, was {meta[name]}")
    return progress


def changed_keys(before: str | None, config: TrainConfig) -> str:
    """The settings that change what is computed and had another value in `before`, an earlier run's YAML."""
    try:
        earlier = parse_yaml(before or "")
    except ConfigError:
        earlier = None
    if not isinstance(earlier, dict):
        return "its own is unknown"
    for old, new in RENAMED_KEYS.items():
        if old in earlier:
            earlier[new] = RENAMED_VALUES.get(earlier[old], earlier[old])
    defaults, ignored = plain(type(config)()), BOOKKEEPING
    if config.lr_schedule == "cosine":
        ignored = ignored - {"niter"}  # where the schedule ends
    now = plain(config)
    changed = {key for key in now if key not in ignored and now[key] != earlier.get(key, defaults[key])}
    return "; ".join(line for line in to_yaml(config).splitlines() if line.partition(":")[0] in changed)


def init_weights(config: TrainConfig, trainer: Any, source: str, note: Callable[[str], None]) -> None:
    """Sets the weights of a new run's networks to those of a checkpoint: of a run, released or converted.

    source: a path, or "released". What it does not hold, and a critic that was built for other sizes,
    starts fresh; `note` gets a line for each. The averaged generator is taken where there is one. Raises
    CheckpointError where generator or critics have another dialect or width.
    """
    path = RELEASED if source == "released" else source
    arrays, meta = load_checkpoint(path)
    architecture = meta.get("architecture")
    dialect = architecture.get("dialect") if isinstance(architecture, dict) else None
    if dialect != config.dialect:
        raise CheckpointError(f"{path}: is of dialect {dialect}, not {config.dialect}: set dialect to it")
    _check_attention(config, meta, path)
    note(f"weights of {path}, iteration {meta.get('iteration')}")
    if meta.get("coarse_only"):
        note(f"the refinement stage of {path} was not trained")
    for name, network in trainer.networks().items():
        weights = section(arrays, name)
        if name == "generator" and section(arrays, "ema"):
            weights = section(arrays, "ema")
            note("of the generator its average (ema)")
        elif name != "generator" and _of_another_size(network, weights):
            note(f"{name} of {path} was built for another size of its input")
            weights = {}
        if weights or name == "generator":
            load_parameters(network, weights, f"{path}: {name}")
        else:
            note(f"{name} starts fresh")
    if trainer.ema_generator is not None:
        trainer.ema_generator.set_state_dict(trainer.generator.state_dict())


def _of_another_size(network: Any, weights: Mapping[str, np.ndarray]) -> bool:
    """Whether the last, dense layer of a critic alone does not fit: it has a weight for every place of its input."""
    wrong = {name for name, value in network.state_dict().items()
             if name in weights and list(value.shape) != list(weights[name].shape)}  # fmt: skip
    return wrong == {"linear.weight"}


def _check_attention(config: TrainConfig, meta: dict[str, Any], path: str) -> None:
    """CheckpointError where the weights would fit but not the network; a refinement not yet trained fits both."""
    architecture = meta.get("architecture")
    trained_with = architecture.get("contextual_attention", True) if isinstance(architecture, dict) else True
    if config.contextual_attention != trained_with and not meta.get("coarse_only"):
        here, there = (str(value).lower() for value in (config.contextual_attention, trained_with))
        raise CheckpointError(
            f"{path}: its refinement was trained with contextual_attention: {there} and is another network with "
            f"{here}: train that from the start, as a run of its own (expname=NAME)"
        )


def training_arrays(trainer: Any) -> dict[str, np.ndarray]:
    """Every weight ("generator/...", its average "ema/..."), optimiser state ("generator_optimizer/moment1/...") and
    loss scale."""
    arrays = {}
    for network_name, network in _all_networks(trainer).items():
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


def _all_networks(trainer: Any) -> dict[str, Any]:
    average = {} if trainer.ema_generator is None else {"ema": trainer.ema_generator}
    return {**trainer.networks(), **average}


def restore_training(trainer: Any, arrays: Mapping[str, np.ndarray], source: str) -> list[str]:
    """Sets a trainer to a checkpoint's arrays and returns the names of what starts fresh.

    Critics, average (from the generator's weights) and loss scales start fresh if the checkpoint has none, as after
    training without them. Everything else must fit: CheckpointError names `source` and what is missing, left over or
    of another shape.
    """
    fresh = []
    for network_name, network in _all_networks(trainer).items():
        weights = section(arrays, network_name)
        if not weights and network_name != "generator":
            fresh.append(network_name)
            if network_name == "ema":
                network.set_state_dict(trainer.generator.state_dict())
            continue
        load_parameters(network, weights, f"{source}: {network_name}")
    for optimizer_name, (optimizer, parameters) in trainer.optimizers().items():
        state = section(arrays, optimizer_name)
        if any(name.split(".")[0] not in fresh for name in parameters):
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
    problems = [
        listed("missing", [key for key in wanted if key not in state]),
        listed("left over", [key for key in state if key not in wanted]),
    ]
    if any(problems):
        raise CheckpointError(f"{source}: {'; '.join(filter(None, problems))}")
    keyed = {}
    for key in wanted:
        kind, name = key.split("/")
        shape = list(parameters[name].shape) if kind.startswith("moment") else [1]
        if list(state[key].shape) != shape:
            raise CheckpointError(f"{source}: {key} has shape {list(state[key].shape)}, not {shape}")
        keyed[f"{parameters[name].name}_{kind}_0"] = state[key]
    return keyed
