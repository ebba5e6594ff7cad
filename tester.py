"""Inference: a checkpoint -> a Tester that completes images. Trains nothing, reads no configuration."""

# ruff: noqa: E402 (what people edit comes before the imports)
from __future__ import annotations

CHECKPOINT = "latest"  # what test.py evaluates: "latest", the newest valid one of the run, "released", or a path

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle

from models.export import TOLERANCE, Completion, Predictor, largest_difference, save_program
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
from utils.cli import UserError, one_line, set_thread_count
from utils.visualization import to_uint8

# The generator that comes with the project, where there is one; see checkpoints/README.md.
RELEASED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "checkpoints", "released", "generator.npz")
MAX_CHANNELS = 512
# A generator of c channels has a little more than 3500 c^2 weights.
WEIGHTS_PER_SQUARE = 3500


# Larger pictures stay with the network, which handles them in chunks: a program holds its attention's matrices whole.
ENGINE_PIXELS = 512 * 512
ENGINE_CHECKED = ((64, 48), (104, 72))  # sizes at which the engine is compared before it is used


class EngineError(UserError):
    """The inference engine cannot be used; the message says why."""


@dataclass(frozen=True)
class Model:
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

    checkpoint: a file written by train.py, or one with the generator's weights alone. Everything needed to
    build the network is taken from its meta. Raises CheckpointError.
    """

    def __init__(self, checkpoint: str):
        arrays, meta = load_checkpoint(checkpoint)
        self.source = checkpoint
        self.model = read_model(meta, checkpoint)
        weights = section(arrays, "generator")
        # Judged before it is built, so that a false width cannot ask for more memory than the file is long.
        if sum(array.size for array in weights.values()) < WEIGHTS_PER_SQUARE * self.model.channels**2:
            width = f"the {self.model.channels} channels that it states"
            raise CheckpointError(f"{checkpoint}: has too few generator weights for {width}")
        self.network = InpaintingGenerator(
            self.model.channels, self.model.dialect, self.model.contextual_attention
        )
        load_parameters(self.network, weights, f"{checkpoint}: generator")
        self.network.eval()
        self.predictor: Predictor | None = None
        self.engine_ran = False  # whether any picture was completed by `predictor`

    def completion(self) -> Completion:
        """The network as a program has it, from picture and mask to completed picture; see `models/export.py`."""
        unit = self.model.mosaic_unit_size if self.model.mask_type == "mosaic" else None
        return Completion(self.network, unit, self.model.coarse_only)

    @paddle.no_grad()
    def complete(
        self, images: np.ndarray, masks: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Completes a batch; known pixels come back bit-identical.

        Args:
            images: uint8 [N, H, W, 3] RGB, H and W divisible by 8. What is in the hole does not count, but
                for a model of mask_type "mosaic", which sees it in coarse blocks.
            masks: [N or 1, H, W], 1 = hole, 0 = known, any type.

        Returns:
            The images completed by the coarse stage alone and those completed by both stages, uint8
            [N, H, W, 3] rounded by `utils.visualization.to_uint8`, and the attention's offsets, int64
            [N, 2, H/8, W/8]. A model that has no more than a coarse stage gives the same images twice, and
            None for the offsets, as does one without contextual attention.

        Raises ValueError for other shapes or values, CheckpointError if the weights give NaN or infinity.
        """
        image, mask = self._planes(images, masks)
        if self.predictor is not None and images.shape[1] * images.shape[2] <= ENGINE_PIXELS:
            coarse, refined, offsets = self._predict(image, mask)
            self.engine_ran = True
        elif self.model.coarse_only:
            coarse = refined = self.network.coarse(*self._hide(image, mask)).numpy()
            offsets = None
        else:
            coarse, refined, offsets = self.network(*self._hide(image, mask))
            coarse, refined = coarse.numpy(), refined.numpy()
            offsets = None if offsets is None else offsets.numpy()
        holes = np.broadcast_to(masks.astype(bool)[..., None], images.shape)
        return (
            np.where(holes, self._levels(coarse), images),
            np.where(holes, self._levels(refined), images),
            offsets,
        )

    @paddle.no_grad()
    def attention_at(self, images: np.ndarray, masks: np.ndarray, row: int, column: int) -> np.ndarray:
        """Where one place copies from: its attention weights, float32 [N, H/8, W/8] from 0 to 1.

        images, masks: as for `complete`, which this repeats up to the attention. row, column: of the place, in
        units of 8 pixels. Raises ValueError for a place outside, or a model that has no attention.
        """
        if self.model.without_attention:
            raise ValueError(f"{self.source} has no attention, {self.model.without_attention}")
        attention = self.network.fine_generator.contextual_attention
        seen = []
        hook = attention.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs))
        try:
            self.network(*self._hide(*self._planes(images, masks)))
        finally:
            hook.remove()
        return attention.weights_at(*seen[0], row, column).numpy()

    @paddle.no_grad()
    def shown(self, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """What the generator gets to see, uint8 [N, H, W, 3]: the hole is mid-grey (zero), or a mosaic."""
        return self._levels(self._hide(*self._planes(images, masks))[0].numpy())

    def use_inference_engine(self) -> None:
        """From here on `complete` runs pictures of up to ENGINE_PIXELS in Paddle Inference with oneDNN, on the CPU.

        The program is made in a temporary folder, read, and compared with the network at a small size first.
        Raises EngineError, and everything stays as it was, if it cannot be made, does not run or differs.
        """
        completion = self.completion()
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "completion")
                save_program(completion, path)
                predictor = Predictor(path, set_thread_count())
            difference = max(largest_difference(completion, predictor, *size) for size in ENGINE_CHECKED)
        except Exception as error:  # tracing, saving and foreign kernels can raise nearly anything
            reason = one_line(error)[:200] or type(error).__name__
            raise EngineError(f"the inference engine does not run: {reason}") from error
        if not difference <= TOLERANCE:
            raise EngineError(f"the inference engine differs from the network by {difference:.1e}")
        self.predictor = predictor

    def _predict(self, image: np.ndarray, mask: np.ndarray):
        """Coarse and refined pictures, of one image after another, and offsets; see `use_inference_engine`."""
        results = [self.predictor(image[i : i + 1], mask[i % len(mask)][None]) for i in range(len(image))]
        completed, *others = (np.concatenate(parts) for parts in zip(*results))
        return (others[0] if others else completed), completed, (others[1] if len(others) > 1 else None)

    def _hide(self, image: np.ndarray, mask: np.ndarray):
        """[N, 3, H, W] in [-1, 1] with the hole hidden, and [N or 1, 1, H, W], as tensors."""
        image, mask = paddle.to_tensor(image), paddle.to_tensor(mask)
        return hide_hole(image, mask, self.model.mask_type, self.model.mosaic_unit_size), mask

    def _planes(self, images: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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

    def _levels(self, values: np.ndarray) -> np.ndarray:
        values = values.transpose(0, 2, 3, 1)
        if not np.isfinite(values).all():
            raise CheckpointError(f"{self.source}: its weights give values that are not finite")
        return to_uint8(values)


def find_checkpoint(chosen: str, folder: str, warn: Callable[[str], None], fall_back: bool = True) -> str:
    """The path that `chosen` stands for: "latest", the newest valid checkpoint of `folder`; "released"; or a path.

    fall_back: whether the released generator, where there is one, stands in for a run without any checkpoint.
    That, and a damaged checkpoint on the way to the latest, is told to `warn`. CheckpointError if there is none.
    """
    if chosen not in ("latest", "released"):
        return chosen
    if chosen == "latest" and list_checkpoints(folder):
        return latest_checkpoint(folder, warn)
    released = os.path.relpath(RELEASED)
    released = RELEASED if released.split(os.sep)[0] == os.pardir else released
    there = os.path.isfile(RELEASED)
    if chosen == "released" and not there:
        raise CheckpointError(f"{released}: this copy of the project holds no released generator")
    if chosen == "latest" and not (there and fall_back):
        raise CheckpointError(
            f"{folder}: holds no checkpoint: train first (python train.py with the same --config), "
            "or name a checkpoint with --checkpoint" + (" (released: the one of this project)" if there else "")
        )
    if chosen == "latest":
        warn(f"{folder}: holds no checkpoint; the released generator is used, {released}")
    return released


def read_model(meta: Mapping[str, Any], source: str) -> Model:
    """A checkpoint's meta -> what is needed to build its generator; CheckpointError for a bad value."""
    architecture = meta.get("architecture")
    if not isinstance(architecture, dict):
        raise CheckpointError(f"{source}: its meta does not describe a network (no architecture)")
    model = Model(
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
