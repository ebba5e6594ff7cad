"""The configuration: YAML -> frozen dataclasses, checked. Does not import paddle.

Every instance is checked, also one made in code or by ``dataclasses.replace``. Names and meanings are
those of the earlier Paddle and PyTorch ports' ``configs/config.yaml`` where they have the key, with one
difference: an iteration is the paper's, ``n_critic`` critic updates and then one generator update,
while those ports count critic updates.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import yaml

from utils.config_check import (
    MAX_COUNT,
    MAX_SIDE,
    Check,
    ConfigError,
    boolean,
    choice,
    eval_crop,
    even,
    folder_name,
    hole_source,
    integer,
    milestones,
    number,
    resume_value,
    sequence,
    short_repr,
    text,
)
from utils.config_file import GONE_KEYS, nearest_key, parse_yaml, read_mapping

BOX_PROTOCOLS = ("center", "random_box")
MASK_PROTOCOLS = ("mask_dir", "mask_list")
FREEFORM_PROTOCOLS = ("freeform-thin", "freeform-medium", "freeform-thick")
PROTOCOLS = (*BOX_PROTOCOLS, *MASK_PROTOCOLS, *FREEFORM_PROTOCOLS)
"""Where the holes of an evaluation come from."""
SCHEDULES = ("constant", "steps", "cosine")
"""The learning rate after the warm-up; see `utils.run_state.learning_rate`."""
MAX_BATCH_PIXELS = 1 << 30  # 12 GiB as float32 RGB

# Keys that change what a run writes or how long it takes, not what a step computes: left out of the digest.
BOOKKEEPING = frozenset(
    ("resume", "init_from", "num_workers", "niter", "print_iter", "viz_iter", "viz_max_out", "snapshot_save_iter")
    + ("keep_checkpoints", "keep_checkpoint_interval", "max_bad_images", "cache_mb")
    + ("val_iter", "val_count", "val_best", "visualdl")
)


def _setting(default: Any, check: Check) -> Any:
    return field(default=default, metadata={"check": check})


class _Checked:
    """Passes every field through its check on construction."""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = _checked(item, getattr(self, item.name), item.name)
            object.__setattr__(self, item.name, value)


def _checked(item: dataclasses.Field, value: Any, key: str) -> Any:
    try:
        return item.metadata["check"](value)
    except ValueError as error:
        raise ConfigError(f"{key} {error}") from None


def _section(key: str, kind: type) -> Check:
    names = [f.name for f in dataclasses.fields(kind)]

    def check(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        if not isinstance(value, dict):
            raise ValueError(f"must hold {' and '.join(names)}, not {short_repr(value)}")
        for name in value:
            if name not in names:
                raise ConfigError(f"unknown key {short_repr(f'{key}.{name}')}{nearest_key(name, names)}")
        try:
            return kind(**value)
        except ConfigError as error:
            raise ConfigError(f"{key}.{error}") from None

    return check


@dataclass(frozen=True)
class GeneratorConfig(_Checked):
    """netG: colour channels of the image, and channels of the first layer (the paper: 32)."""

    input_dim: int = _setting(3, integer(3, 3))
    ngf: int = _setting(32, even(integer(2, 512)))


@dataclass(frozen=True)
class CriticConfig(_Checked):
    """netD: colour channels of the image, and channels of the first layer (the paper: 64)."""

    input_dim: int = _setting(3, integer(3, 3))
    ndf: int = _setting(64, integer(1, 512))


@dataclass(frozen=True)
class _CommonConfig(_Checked):
    """What training and evaluation share. Shapes are [height, width] in pixels; image_shape has 3 behind."""

    dataset_name: str = _setting("places2", folder_name)
    expname: str = _setting("benchmark", folder_name)
    val_data_path: str = _setting("", text)
    data_root: str = _setting("", text)
    image_shape: tuple[int, int, int] = _setting((256, 256, 3), sequence(3, integer(1, MAX_SIDE)))
    mask_shape: tuple[int, int] = _setting((128, 128), sequence(2, integer(1, MAX_SIDE)))
    max_delta_shape: tuple[int, int] = _setting((32, 32), sequence(2, integer(0, MAX_SIDE)))
    margin: tuple[int, int] = _setting((0, 0), sequence(2, integer(0, MAX_SIDE)))
    mask_type: str = _setting("hole", choice("hole", "mosaic"))
    mosaic_unit_size: int = _setting(12, integer(2, MAX_SIDE))
    seed: int = _setting(0, integer(0, 2**31 - 1))

    def __post_init__(self) -> None:
        super().__post_init__()
        height, width, channels = self.image_shape
        if height % 8 or width % 8:
            raise ConfigError(f"image_shape: height and width must be divisible by 8, not {height} x {width}")
        if channels != 3:
            raise ConfigError(f"image_shape: the third value is the number of channels, 3, not {channels}")
        self._check_boxes()

    def _check_boxes(self) -> None:
        for axis, side in enumerate(("height", "width")):
            image, mask = self.image_shape[axis], self.mask_shape[axis]
            margin, delta = self.margin[axis], self.max_delta_shape[axis]
            if mask + 2 * margin > image:
                sides = f"{side} {mask} + 2 x {margin} is more than {image}"
                raise ConfigError(f"mask_shape and margin do not fit into image_shape: {sides}")
            if delta >= mask:
                sides = f"{side} {delta} leaves nothing of {mask}"
                raise ConfigError(f"max_delta_shape must be smaller than mask_shape: {sides}")


@dataclass(frozen=True)
class TrainConfig(_CommonConfig):
    """Everything a training run can be told; ``configs/config.yaml`` explains the keys one by one."""

    dialect: str = _setting("tf1", choice("tf1", "pytorch"))
    train_data_path: str = _setting("", text)
    resume: bool | str = _setting(False, resume_value)
    init_from: str = _setting("", text)
    hole: str = _setting("box", hole_source)
    batch_size: int = _setting(48, integer(1, 4096))
    random_crop: bool = _setting(True, boolean)
    horizontal_flip: bool = _setting(False, boolean)
    scale_range: tuple[float, float] = _setting((1.0, 1.0), sequence(2, number(0.01, 100)))
    mask_batch_same: bool = _setting(True, boolean)
    discounted_mask: bool = _setting(True, boolean)
    spatial_discounting_gamma: float = _setting(0.99, number(0, 1, above=True))
    num_workers: int = _setting(4, integer(0, 256))
    cache_mb: int = _setting(0, integer(0, 1 << 20))
    max_bad_images: int = _setting(100, integer(0, MAX_COUNT))
    lr: float = _setting(1e-4, number(0, 1, above=True))
    lr_schedule: str = _setting("constant", choice(*SCHEDULES))
    lr_warmup: int = _setting(0, integer(0, MAX_COUNT))
    lr_steps: tuple[int, ...] = _setting((), milestones)
    lr_decay: float = _setting(0.1, number(0, 1, above=True))
    lr_min: float = _setting(0.0, number(0, 1))
    ema_decay: float = _setting(0.0, number(0, 1, below=True))
    accumulate: int = _setting(1, integer(1, 4096))
    beta1: float = _setting(0.5, number(0, 1, below=True))
    beta2: float = _setting(0.9, number(0, 1, below=True))
    n_critic: int = _setting(5, integer(1, 1000))
    niter: int = _setting(100_000, integer(1, MAX_COUNT))
    print_iter: int = _setting(100, integer(1, MAX_COUNT))
    viz_iter: int = _setting(1000, integer(1, MAX_COUNT))
    viz_max_out: int = _setting(16, integer(1, 256))
    snapshot_save_iter: int = _setting(5000, integer(1, MAX_COUNT))
    keep_checkpoints: int = _setting(3, integer(1, 100_000))
    keep_checkpoint_interval: int = _setting(0, integer(0, MAX_COUNT))
    val_iter: int = _setting(0, integer(0, MAX_COUNT))
    val_count: int = _setting(16, integer(1, 100_000))
    val_best: str = _setting("psnr", choice("psnr", "ssim", "l1", "tv_ratio"))
    visualdl: bool = _setting(False, boolean)
    coarse_l1_alpha: float = _setting(1.2, number(0, 1e6))
    l1_loss_alpha: float = _setting(1.2, number(0, 1e6))
    ae_loss_alpha: float = _setting(1.2, number(0, 1e6))
    global_wgan_loss_alpha: float = _setting(1.0, number(0, 1e6))
    gan_loss_alpha: float = _setting(0.001, number(0, 1e6))
    wgan_gp_lambda: float = _setting(10.0, number(0, 1e6))
    pretrain_coarse_network: bool = _setting(False, boolean)
    gan_with_mask: bool = _setting(False, boolean)
    contextual_attention: bool = _setting(True, boolean)
    precision: str = _setting("fp32", choice("fp32", "fp16", "bf16"))
    gradient_clip: bool = _setting(False, boolean)
    gradient_clip_value: float = _setting(0.1, number(0, 1e6, above=True))
    netG: GeneratorConfig = _setting(GeneratorConfig(), _section("netG", GeneratorConfig))
    netD: CriticConfig = _setting(CriticConfig(), _section("netD", CriticConfig))

    def __post_init__(self) -> None:
        super().__post_init__()
        height, width, _ = self.image_shape
        if min(self.mask_shape) < 16:
            raise ConfigError("mask_shape: both sides must be at least 16 for the local critic")
        if self.batch_size * self.accumulate * height * width > MAX_BATCH_PIXELS:
            sizes = f"{self.batch_size * self.accumulate} x {height} x {width}"
            raise ConfigError(f"batch_size and image_shape: {sizes} is more than 2^30 pixels a batch")
        if self.scale_range[0] > self.scale_range[1]:
            raise ConfigError("scale_range: the first value must not be larger than the second")
        if self.keep_checkpoint_interval % self.snapshot_save_iter:
            raise ConfigError(
                f"keep_checkpoint_interval must be 0 or a multiple of snapshot_save_iter: "
                f"{self.keep_checkpoint_interval} is not one of {self.snapshot_save_iter}"
            )
        if (self.lr_schedule == "steps") != bool(self.lr_steps):
            raise ConfigError("lr_schedule: steps needs lr_steps, the iterations at which lr falls, and they need it")
        if self.lr_min > self.lr:
            raise ConfigError(f"lr_min must not be larger than lr: {self.lr_min:g} is more than {self.lr:g}")
        if self.val_iter and not self.val_data_path:
            raise ConfigError("val_iter needs val_data_path: name the list of the images to evaluate on")
        if self.pretrain_coarse_network and self.gan_with_mask:
            raise ConfigError("gan_with_mask needs the critics, which pretrain_coarse_network leaves out")


@dataclass(frozen=True)
class TestConfig(_CommonConfig):
    """Everything an evaluation can be told; ``configs/test.yaml`` explains the keys one by one."""

    __test__ = False  # not a test class, in spite of its name

    max_delta_shape: tuple[int, int] = _setting((0, 0), sequence(2, integer(0, MAX_SIDE)))
    protocol: str = _setting("center", choice(*PROTOCOLS))
    mask_path: str = _setting("", text)
    mask_invert: bool = _setting(False, boolean)
    masks_per_image: int = _setting(1, integer(1, 1000))
    eval_crop: str | tuple[int, int] = _setting("center", eval_crop)
    num_workers: int = _setting(2, integer(0, 256))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.protocol in MASK_PROTOCOLS and not self.mask_path:
            raise ConfigError(f"protocol {self.protocol} needs mask_path: name the masks")
        if self.mask_invert and self.protocol not in MASK_PROTOCOLS:
            raise ConfigError("mask_invert needs protocol mask_dir or mask_list, which have masks to invert")
        if self.protocol == "center" and self.masks_per_image > 1:
            raise ConfigError("masks_per_image must be 1 with protocol center, which has one hole for all")

    def _check_boxes(self) -> None:
        if self.protocol in BOX_PROTOCOLS:
            super()._check_boxes()


Config = TypeVar("Config", TrainConfig, TestConfig)
_REQUIRED = {TrainConfig: "train_data_path", TestConfig: "val_data_path"}
_KNOWN = {f.name: f for kind in (TestConfig, TrainConfig) for f in dataclasses.fields(kind)}


def load_config(path: str, kind: type[Config] = TrainConfig, overrides: Iterable[str] = ()) -> Config:
    """Reads and checks a configuration file.

    path: a YAML file of at most 64 KiB. kind: TrainConfig or TestConfig; keys that only the other kind
    has are checked and left out, so that one file can serve both. overrides: "key=value" texts, the value
    in YAML but for text, which is taken as it is; "netG.ngf=16" for a key within a section; they win over the file.
    Raises ConfigError, one line that names the file or the key.
    """
    values = read_mapping(path)
    for key, value in values.items():
        _check_key(key, value, where=path)
    for override in overrides:
        _apply_override(values, override)
    required = _REQUIRED[kind]
    if not values.get(required):
        raise ConfigError(f"{path}: {required} is missing: name a file list, a folder or a glob")
    own = {f.name for f in dataclasses.fields(kind)}
    try:
        return kind(**{key: value for key, value in values.items() if key in own})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _check_key(key: str, value: Any, where: str) -> None:
    """ConfigError unless ``key`` exists and ``value`` alone is allowed for it."""
    if key in GONE_KEYS:
        raise ConfigError(f"{where}: key {key} is not used here: {GONE_KEYS[key]}")
    if key not in _KNOWN:
        raise ConfigError(f"{where}: unknown key {short_repr(key)}{nearest_key(key, _KNOWN)}")
    try:
        _checked(_KNOWN[key], value, key)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _apply_override(values: dict[str, Any], override: str) -> None:
    where = f"command line ({short_repr(override)})"
    key, equals, source = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"{where}: write key=value")
    try:
        value = source if _is_text(key) else parse_yaml(source)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    key, dot, name = key.partition(".")
    if dot:
        section = values.get(key)
        value = {**(section if isinstance(section, dict) else {}), name: value}
    _check_key(key, value, where)
    values[key] = value


def _is_text(key: str) -> bool:
    """Whether a key holds text, which a command line gives as it is: a path may look like YAML of another kind."""
    return key in _KNOWN and _KNOWN[key].metadata["check"] in (text, folder_name, hole_source, resume_value)


def plain(config: TrainConfig | TestConfig) -> dict[str, Any]:
    """Keys and values as YAML has them."""
    return json.loads(json.dumps(dataclasses.asdict(config)))  # tuples become lists


def to_yaml(config: TrainConfig | TestConfig) -> str:
    """The configuration as YAML, every key written out; ``load_config`` reads it back to an equal object."""
    style = {"sort_keys": False, "allow_unicode": True, "default_flow_style": None, "width": 10**6}
    return yaml.safe_dump(plain(config), **style)


def config_digest(config: TrainConfig | TestConfig) -> str:
    """16 hexadecimal digits of the SHA-256 of all keys that change what is computed.

    Left out are the number of iterations, intervals, workers, caches and the like: a run may be
    resumed with other values of those and stays the same run.
    """
    values = {key: value for key, value in plain(config).items() if key not in BOOKKEEPING}
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def run_folder(config: TrainConfig | TestConfig) -> str:
    """checkpoints/<dataset_name>/<mask_type>_<expname>: where a run keeps its files."""
    return os.path.join("checkpoints", config.dataset_name, f"{config.mask_type}_{config.expname}")
