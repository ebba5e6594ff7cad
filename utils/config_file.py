"""Reading a configuration file safely, and the keys that it may not have.

YAML can carry objects, and text whose expansion fills the memory; configurations need neither.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from typing import Any

import yaml

from utils.cli import one_line
from utils.config_check import ConfigError, short_repr

MAX_BYTES = 1 << 16
MAX_DEPTH = 16
MAX_SCALAR = 2048  # characters; also keeps whole numbers printable (Python refuses above 4300 digits)

COUNTS = (
    "; in a file of the earlier ports also divide niter, print_iter, viz_iter and snapshot_save_iter by "
    "n_critic: an iteration here is n_critic critic updates and one generator update"
)
RENAMED_KEYS = {
    "amp": "precision",
    "cache_megabytes": "cache_mb",
    "keep_every_iter": "keep_checkpoint_interval",
    "holes_per_image": "masks_per_image",
}
RENAMED_VALUES = {"none": "fp32", "float16": "fp16", "bfloat16": "bf16"}  # of precision
GONE_KEYS = {
    **{old: f"its name is {new}" for old, new in RENAMED_KEYS.items()},
    "amp": "its name is precision: fp32, fp16 or bf16",
    "max_rollbacks": "a value that is not finite stops the run; use --resume, with a lower lr if it comes back",
    "invert_mask": "its name is mask_invert",
    "eval_batch_size": "images are evaluated one by one; remove the key",
    "cuda": "choose the device with --device gpu or --device cpu" + COUNTS,
    "gpu_ids": "choose the device with --device and CUDA_VISIBLE_DEVICES" + COUNTS,
    "data_with_subfolder": "folders are always searched with their subfolders; remove the key" + COUNTS,
}


def nearest_key(key: str, names: Iterable[str]) -> str:
    """": did you mean <name>?" for the most similar of ``names``, or nothing."""
    by_lower = {name.lower(): name for name in names}  # TF1 wrote its keys in capitals
    near = difflib.get_close_matches(key.lower()[:100], by_lower, n=1, cutoff=0.5)
    return f": did you mean {by_lower[near[0]]}?" if near else ""


def read_mapping(path: str) -> dict[str, Any]:
    """The keys and plain values of a YAML file; ConfigError names the file and, where known, the line."""
    if not os.path.exists(path):
        raise ConfigError(f"{path}: no such configuration file")
    if not os.path.isfile(path):
        raise ConfigError(f"{path}: not a file: name a YAML file such as configs/config.yaml")
    try:
        with open(path, "rb") as file:
            source = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        values = parse_yaml(source)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if values is None:
        raise ConfigError(f"{path}: is empty: start from a copy of configs/config.yaml")
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold lines of the form key: value, not {short_repr(values)}")
    return values


class _PlainLoader(yaml.SafeLoader):
    """YAML of scalars, lists and mappings alone: no aliases, tags, merges or repeated keys; bounded depth."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        line = event.start_mark.line + 1
        if getattr(event, "anchor", None) is not None or getattr(event, "tag", None) is not None:
            raise ConfigError(f"line {line}: anchors, aliases (& and *) and tags (!) are not supported here")
        if len(getattr(event, "value", None) or "") > MAX_SCALAR:
            raise ConfigError(f"line {line}: a value is longer than {MAX_SCALAR} characters")
        if self.depth >= MAX_DEPTH:
            raise ConfigError(f"line {line}: nested deeper than {MAX_DEPTH} levels")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"line {line}: a key must be a word")
            key = key_node.value  # as written: YAML 1.1 would turn a key called "on" into True
            if key in result:
                raise ConfigError(f"line {line}: key {short_repr(key)} is given twice")
            result[key] = self.construct_object(value_node, deep=True)
        return result


def parse_yaml(source: bytes | str) -> Any:
    """The plain value of a YAML text of at most MAX_BYTES; ConfigError, with the line, where it has none."""
    if len(source) > MAX_BYTES:
        raise ConfigError(f"is larger than {MAX_BYTES >> 10} KiB, which no configuration is")
    try:
        loader = _PlainLoader(source)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise ConfigError(f"{where}not valid YAML: {one_line(error.problem or error.context)}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ConfigError(f"not valid YAML: {one_line(error)}") from None
