"""Saves the holes of an evaluation as masks, so that others can measure on the same ones.

    python tools/make_masks.py FOLDER [--config configs/test.yaml] [--count N] [key=value ...]
    python tools/make_masks.py masks protocol=freeform-thick image_shape=[256,256,3] seed=0 --count 100

writes FOLDER/000000_0.png (image 0, hole 0; white is the hole), ... and FOLDER/masks.txt. Exactly the
holes that `python test.py` draws for the same protocol, image_shape, seed and masks_per_image, whatever the
images are; with the files,

    python test.py protocol=mask_list mask_path=FOLDER/masks.txt

measures on them again. Without --count there are masks for as many images as val_data_path lists.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from data.eval_set import RandomMasks
from data.file_list import read_file_list
from data.image_io import write_image
from utils.cli import UserError, friendly_errors
from utils.config import MASK_PROTOCOLS, TestConfig, load_config
from utils.paths import prepare_folder
from utils.text_files import write_text


def write_masks(config: TestConfig, folder: Path, images: int) -> int:
    """Returns how many. Raises UserError."""
    boxes = config.mask_shape, config.margin, config.max_delta_shape
    holes = RandomMasks(config.protocol, config.image_shape[:2], *boxes, config.seed)
    prepare_folder(str(folder))
    names = []
    for index in range(images):
        for number in range(config.masks_per_image):
            mask = holes.hole(index, number)[0]
            names.append(f"{index:06d}_{number}.png")
            write_image(folder / names[-1], np.repeat(mask[..., None] * np.uint8(255), 3, axis=2))
    write_text(str(folder / "masks.txt"), "\n".join(names) + "\n")
    return len(names)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Saves the holes of an evaluation as masks.")
    parser.add_argument("folder", type=Path, help="for the masks and their list")
    parser.add_argument("--config", default="configs/test.yaml", help="YAML file (default: %(default)s)")
    parser.add_argument("--count", type=int, help="of images (default: those of val_data_path)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. protocol=freeform-thin")
    args = parser.parse_intermixed_args(arguments)
    with friendly_errors():
        config = load_config(args.config, TestConfig, args.overrides)
        if config.protocol in MASK_PROTOCOLS:
            raise UserError(f"protocol {config.protocol} is of saved masks; name one that draws them")
        if args.count is not None and args.count < 1:
            raise UserError(f"--count must be a whole number from 1, not {args.count}")
        images = args.count or len(read_file_list(config.val_data_path, config.data_root))
        count = write_masks(config, args.folder, images)
    print(f"{count} masks, listed in {args.folder / 'masks.txt'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
