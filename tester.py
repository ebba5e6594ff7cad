"""Inference: a checkpoint -> a Tester that inpaints images. Trains nothing, reads no configuration.

    from tester import Tester
    result = Tester("released").inpaint(image, mask)  # uint8 [H, W, 3] RGB of any size; [H, W], 1 = hole
"""

# ruff: noqa: E402 (what people edit comes before the imports)
from __future__ import annotations

CHECKPOINT = "latest"  # what test.py evaluates: "latest", the newest valid one of the run, "released", or a path

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from utils.cli import prepare_paddle

prepare_paddle()

import numpy as np
import paddle

from models.export import Completion
from models.generator import InpaintingGenerator
from models.layers import DIALECTS, hide_hole
from utils.checkpoint import (
    CheckpointError,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    load_parameters,
    section,
)
from utils.visualization import to_uint8

# The generator that comes with the project, where there is one; see checkpoints/README.md.
RELEASED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "checkpoints", "released", "generator.npz")
MAX_CHANNELS = 512
# A generator of c channels has a little more than 3500 c^2 weights.
WEIGHTS_PER_SQUARE = 3500
MULTIPLE = 8  # of which the generator's sides must be


@dataclass(frozen=True)
class ModelInfo:
    """What a checkpoint says about its generator, checked."""

    channels: int  # netG.ngf, the paper's c
    dialect: str  # "tf1" or "pytorch"
    iteration: int  # how long it was trained
    mask_type: str  # "hole" or "mosaic": what it was shown in the hole
    mosaic_unit_size: int  # pixels
    coarse_only: bool  # the refinement stage was not trained
    image_size: tuple[int, int] | None = None  # height and width that it was trained at, where it is known
    box_size: tuple[int, int] | None = None  # and of the boxes around its holes
    contextual_attention: bool = True  # False: trained without that layer

    @property
    def without_attention(self) -> str:
        """Why it has no attention to look at, as the end of a sentence; empty if it has."""
        if self.coarse_only:
            return "since only its coarse stage was trained"
        return "" if self.contextual_attention else "since it was trained with contextual_attention: false"


class Tester:
    """A generator with the weights of a checkpoint, for inference only.

    checkpoint: a file written by train.py, or one with the generator's weights alone, or "released": the weights
    that come with the project. Everything needed to build the network is taken from its meta; of a checkpoint
    that holds an averaged generator, this one is used. Raises CheckpointError.
    """

    def __init__(self, checkpoint: str):
        self.source = released_checkpoint() if checkpoint == "released" else os.fspath(checkpoint)
        arrays, meta = load_checkpoint(self.source)
        self.model = read_model_info(meta, self.source)
        weights = section(arrays, "ema") or section(arrays, "generator")
        # Judged before it is built, so that a false width cannot ask for more memory than the file is long.
        if sum(array.size for array in weights.values()) < WEIGHTS_PER_SQUARE * self.model.channels**2:
            width = f"the {self.model.channels} channels that it states"
            raise CheckpointError(f"{self.source}: has too few generator weights for {width}")
        self.network = InpaintingGenerator(
            self.model.channels, self.model.dialect, self.model.contextual_attention
        )
        load_parameters(self.network, weights, f"{self.source}: generator")
        self.network.eval()

    def inpaint(self, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The image with its hole filled; known pixels come back bit-identical.

        Args:
            image: uint8 [H, W, 3] RGB of any size, or a batch [N, H, W, 3], whose images go one by one.
            mask: [H, W] (one for all), or [N, H, W]: 0 = known, 1 (or True, or 255 throughout) = hole.

        Returns:
            uint8 of the image's shape.

        Raises ValueError for other shapes or values, or where nothing is known; CheckpointError if the weights
        give NaN or infinity.
        """
        image, mask = np.asarray(image), np.asarray(mask)
        if image.ndim == 4:
            masks = [mask] * len(image) if mask.ndim == 2 else mask
            if len(masks) != len(image):
                raise ValueError(f"{len(image)} images need as many masks, or one, not {len(masks)}")
            return np.stack([self.inpaint(*pair) for pair in zip(image, masks)]) if len(image) else image.copy()
        if image.ndim != 3 or mask.shape != image.shape[:2]:
            raise ValueError(f"the mask must be [H, W] of an image [H, W, 3], not {mask.shape} of {image.shape}")
        if not (np.isin(mask, (0, 1)).all() or np.isin(mask, (0, 255)).all()):
            raise ValueError("the mask must be 1 (or 255) in the hole and 0 elsewhere; threshold it: mask > 127")
        hole = mask != 0
        if not hole.any():
            return image.copy()
        if hole.all():
            raise ValueError("the hole is the whole image, which leaves nothing to inpaint it from")
        # A mirror continues textures where zeros would show an edge; the hole is mirrored, so none of it is known.
        (height, width), border = hole.shape, [(0, -side % MULTIPLE) for side in hole.shape]
        padded = np.pad(image, (*border, (0, 0)), mode="symmetric")
        _, refined, _ = self.inpaint_stages(padded[None], np.pad(hole, border, mode="symmetric")[None])
        return refined[0, :height, :width]

    @paddle.no_grad()
    def inpaint_stages(
        self, images: np.ndarray, masks: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """A batch inpainted by each stage; known pixels come back bit-identical.

        Args:
            images: uint8 [N, H, W, 3] RGB, H and W divisible by 8. What is in the hole does not count, but
                for a model of mask_type "mosaic", which sees it in coarse blocks.
            masks: [N or 1, H, W], 1 = hole, 0 = known, any type.

        Returns:
            The images inpainted by the coarse stage alone and by both stages, uint8 [N, H, W, 3] rounded by
            `utils.visualization.to_uint8`, and the attention's offsets, int64 [N, 2, H/8, W/8]. A model that
            has no more than a coarse stage gives the same images twice, and None for the offsets, as does one
            without contextual attention.

        Raises ValueError for other shapes or values, CheckpointError if the weights give NaN or infinity.
        """
        image, mask = self._hide(*self._to_nchw(images, masks))
        if self.model.coarse_only:
            coarse = refined = self.network.coarse(image, mask)
            offsets = None
        else:
            coarse, refined, offsets = self.network(image, mask)
        hole = np.broadcast_to(masks.astype(bool)[..., None], images.shape)
        return (
            np.where(hole, self._to_uint8_nhwc(coarse), images),
            np.where(hole, self._to_uint8_nhwc(refined), images),
            None if offsets is None else offsets.numpy(),
        )

    def completion(self) -> Completion:
        """The network as an inference model has it, from image and mask to result; see `models/export.py`."""
        unit = self.model.mosaic_unit_size if self.model.mask_type == "mosaic" else None
        return Completion(self.network, unit, self.model.coarse_only)

    @paddle.no_grad()
    def attention_at(self, images: np.ndarray, masks: np.ndarray, row: int, column: int) -> np.ndarray:
        """Where one place copies from: its attention weights, float32 [N, H/8, W/8] from 0 to 1.

        images, masks: as for `inpaint_stages`, which this repeats up to the attention. row, column: of the place, in
        units of 8 pixels. Raises ValueError for a place outside, or a model that has no attention.
        """
        if self.model.without_attention:
            raise ValueError(f"{self.source} has no attention, {self.model.without_attention}")
        attention = self.network.fine_generator.contextual_attention
        seen = []
        hook = attention.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs))
        try:
            self.network(*self._hide(*self._to_nchw(images, masks)))
        finally:
            hook.remove()
        return attention.weights_at(*seen[0], row, column).numpy()

    @paddle.no_grad()
    def masked_input(self, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """What the generator sees, uint8 [N, H, W, 3]: the hole is mid-grey (zero), or a mosaic."""
        return self._to_uint8_nhwc(self._hide(*self._to_nchw(images, masks))[0])

    def _hide(self, image: np.ndarray, mask: np.ndarray):
        """[N, 3, H, W] in [-1, 1] with the hole hidden, and [N or 1, 1, H, W], as tensors."""
        image, mask = paddle.to_tensor(image), paddle.to_tensor(mask)
        return hide_hole(image, mask, self.model.mask_type, self.model.mosaic_unit_size), mask

    def _to_nchw(self, images: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """float32 [N, 3, H, W] in [-1, 1] and [N or 1, 1, H, W]."""
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise ValueError(f"images must be uint8 [N, H, W, 3], not {images.dtype} {list(images.shape)}")
        n, h, w, _ = images.shape
        if h % 8 or w % 8:
            raise ValueError(f"images must have sides divisible by 8, not {h} x {w}")
        if masks.shape not in ((n, h, w), (1, h, w)):
            raise ValueError(f"masks must be [{n} or 1, {h}, {w}], not {list(masks.shape)}")
        if not np.isin(masks, (0, 1)).all():
            raise ValueError("masks must be 1 in the hole and 0 elsewhere, and nothing between")
        planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
        return planes / 127.5 - 1, masks[:, None].astype(np.float32)

    def _to_uint8_nhwc(self, values: paddle.Tensor) -> np.ndarray:
        values = values.numpy().transpose(0, 2, 3, 1)
        if not np.isfinite(values).all():
            raise CheckpointError(f"{self.source}: its weights give values that are not finite")
        return to_uint8(values)


def resolve_checkpoint(chosen: str, folder: str, warn: Callable[[str], None], fall_back: bool = True) -> str:
    """The path that `chosen` stands for: "latest", the newest valid checkpoint of `folder`; "released"; or a path.

    fall_back: whether the released generator, where there is one, stands in for a run without any checkpoint.
    warn: called with each damaged checkpoint on the way to the latest. CheckpointError if there is none.
    """
    if chosen == "released":
        return released_checkpoint()
    if chosen != "latest":
        return chosen
    if list_checkpoints(folder):
        return latest_checkpoint(folder, warn)
    there = os.path.isfile(RELEASED)
    if there and fall_back:
        return released_checkpoint()
    raise CheckpointError(
        f"{folder}: holds no checkpoint: train first (python train.py with the same --config), "
        "or name a checkpoint with --checkpoint" + (" (released: the one of this project)" if there else "")
    )


def released_checkpoint() -> str:
    """The path of the released generator, relative within the working folder. Raises CheckpointError."""
    path = os.path.relpath(RELEASED)
    path = RELEASED if path.split(os.sep)[0] == os.pardir else path
    if not os.path.isfile(RELEASED):
        raise CheckpointError(f"{path}: this copy of the project holds no released generator")
    return path


def read_model_info(meta: Mapping[str, Any], source: str) -> ModelInfo:
    """A checkpoint's meta -> what is needed to build its generator; CheckpointError for a bad value."""
    architecture = meta.get("architecture")
    if not isinstance(architecture, dict):
        raise CheckpointError(f"{source}: its meta does not describe a network (no architecture)")
    model = ModelInfo(
        channels=architecture.get("generator_channels"),
        dialect=architecture.get("dialect"),
        iteration=meta.get("iteration"),
        mask_type=meta.get("mask_type"),
        mosaic_unit_size=meta.get("mosaic_unit_size"),
        coarse_only=meta.get("coarse_only"),
        image_size=_size(architecture.get("image_size")),
        box_size=_size(architecture.get("box_size")),
        contextual_attention=architecture.get("contextual_attention", True),
    )
    even = _is_whole(model.channels, 2, MAX_CHANNELS) and model.channels % 2 == 0
    attention = model.contextual_attention
    for key, value, good, wanted in (
        ("generator_channels", model.channels, even, f"an even number from 2 to {MAX_CHANNELS}"),
        ("dialect", model.dialect, model.dialect in DIALECTS, " or ".join(DIALECTS)),
        ("iteration", model.iteration, _is_whole(model.iteration, 0, 10**12), "a whole number"),
        ("mask_type", model.mask_type, model.mask_type in ("hole", "mosaic"), "hole or mosaic"),
        ("mosaic_unit_size", model.mosaic_unit_size, _is_whole(model.mosaic_unit_size, 2, 4096), "2 to 4096"),
        ("coarse_only", model.coarse_only, type(model.coarse_only) is bool, "true or false"),
        ("contextual_attention", attention, type(attention) is bool, "true or false"),
    ):
        if not good:
            found = "missing" if value is None else repr(value)[:40]
            raise CheckpointError(f"{source}: {key} in its meta must be {wanted}, but is {found}")
    return model


def _size(value: Any) -> tuple[int, int] | None:
    """Two whole numbers of a meta, or None for anything else: they only serve for advice."""
    good = isinstance(value, list) and len(value) == 2 and all(_is_whole(side, 1, 10**6) for side in value)
    return tuple(value) if good else None


def _is_whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


# Names until the other rooms use the new ones.
find_checkpoint = resolve_checkpoint
Tester.complete, Tester.shown = Tester.inpaint_stages, Tester.masked_input
