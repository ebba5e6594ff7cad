"""Makes the demonstration's images and lists from those inside scikit-image's package.

    python tools/make_demo_data.py [--output data_demo]

Writes train.txt and val.txt and, beside them, the images that they list, cut into tiles as PNG. No original has tiles
in both lists. Always the same pixels; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

import cv2
import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(PROJECT))

from utils.cli import UserError, friendly_errors  # noqa: E402

# file -> (rows, columns) of tiles; most tiles are 200 to 300 pixels a side
TRAIN = {
    "astronaut.png": (2, 2),
    "brick.png": (2, 2),
    "camera.png": (2, 2),
    "coins.png": (1, 2),
    "grass.png": (2, 2),
    "hubble_deep_field.jpg": (2, 2),
    "ihc.png": (2, 2),
    "motorcycle_left.png": (2, 3),
    "motorcycle_right.png": (2, 3),
    "retina.jpg": (2, 2),
}
VAL = {
    "chelsea.png": (1, 2),
    "coffee.png": (2, 2),
    "gravel.png": (2, 2),
    "rocket.jpg": (2, 3),
}


def image_folder() -> Path:
    """scikit-image's folder of images, found without importing it: its own functions download what is missing."""
    package = importlib.util.find_spec("skimage")
    if package is None or not package.submodule_search_locations:
        raise UserError("scikit-image is not installed: run `make setup`, or pip install scikit-image")
    return Path(package.submodule_search_locations[0]) / "data"


def cut(image: np.ndarray, rows: int, columns: int) -> list[np.ndarray]:
    """Cuts [H, W, 3] into rows x columns equal tiles, row by row; what is left over at the end is dropped."""
    height, width = image.shape[0] // rows, image.shape[1] // columns
    return [
        image[i * height : (i + 1) * height, j * width : (j + 1) * width]
        for i in range(rows)
        for j in range(columns)
    ]


def write_split(originals: Path, output: Path, name: str, split: dict[str, tuple[int, int]]) -> list[str]:
    """Writes the tiles of one split to output/name/ and then the list output/name.txt; returns its lines."""
    folder = output / name
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for file_name, (rows, columns) in split.items():
        image = cv2.imread(str(originals / file_name), cv2.IMREAD_COLOR)
        if image is None:
            raise UserError(f"{originals / file_name} cannot be read: reinstall scikit-image")
        for number, tile in enumerate(cut(image, rows, columns)):
            path = folder / f"{Path(file_name).stem}_{number}.png"
            if not cv2.imwrite(str(path), tile):
                raise UserError(f"cannot write {path}: is the disk full?")
            lines.append(path.relative_to(output).as_posix())
    list_path = output / f"{name}.txt"
    list_path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{list_path}: {len(lines)} images")
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Makes the demonstration's images and lists.")
    parser.add_argument("--output", type=Path, default=PROJECT / "data_demo", help="folder (default: data_demo)")
    output = parser.parse_args(arguments).output
    with friendly_errors(OSError):
        originals = image_folder()
        write_split(originals, output, "train", TRAIN)
        write_split(originals, output, "val", VAL)
    return 0


if __name__ == "__main__":
    sys.exit(main())
