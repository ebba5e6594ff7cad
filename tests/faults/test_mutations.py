"""Photographs and configurations with random damage: used or refused in words, in bounded memory and time."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
from PIL import Image

from tests.faults.harness import CONFIG, PROJECT, fault
from tests.faults.test_input import limited

# Reads paths from standard input; says at the end how many were used and refused and the peak memory in KiB.
CHILD = """
import resource, sys
sys.path.insert(0, {project!r})
from data.image_io import read_rgb
from utils.cli import UserError
from utils.config import TrainConfig, load_config, to_yaml
used = refused = 0
for path in sys.stdin.read().split():
    try:
        if path.endswith(".yaml"):
            to_yaml(load_config(path, TrainConfig))
        else:
            image = read_rgb(path)
            assert image.ndim == 3 and image.dtype.name == "uint8" and image.shape[2] == 3, path
        used += 1
    except UserError as error:
        assert "\\n" not in str(error) and len(str(error)) < 500, str(error)
        refused += 1
print(used, refused, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def judge(paths: list[str]) -> tuple[int, int]:
    """How many were used and refused by one process with an address space of 2 GiB."""
    child = subprocess.run(
        [sys.executable, "-c", CHILD.format(project=str(PROJECT))],
        input="\n".join(paths), capture_output=True, text=True, timeout=300, preexec_fn=limited(2048),
    )  # fmt: skip
    assert child.returncode == 0 and "Traceback" not in child.stderr, child.stderr[-2000:]
    used, refused, memory = (int(word) for word in child.stdout.split()[-3:])
    print(f"{used} used, {refused} refused, peak memory {memory / 1024:.0f} MiB")
    assert used + refused == len(paths) and memory < 7 << 18  # two copies of the 2^28 pixels allowed
    return used, refused


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Bytes overwritten, cut out, doubled or truncated; mostly near the start, where the headers are."""
    result = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        place = int(rng.integers(0, len(result) if rng.random() < 0.4 else min(len(result), 80)))
        length = int(rng.integers(1, 9))
        kind = rng.integers(4)
        if kind == 0:
            del result[place : place + length]
        elif kind == 1:
            result[place:place] = result[place : place + length]
        elif kind == 2 and rng.random() < 0.3:
            del result[max(place, 8) :]
        else:
            result[place : place + length] = rng.integers(0, 256, length).astype(np.uint8).tobytes()
        if len(result) < 8:
            break
    return bytes(result)


@fault("1,000 photographs of nine formats with random damage", "used or refused in words; bounded memory, no hang",
       long=False)  # fmt: skip
def test_mutated_images(tmp_path):
    rng = np.random.default_rng(9)
    picture = cv2.resize(rng.integers(0, 256, (9, 9, 3)).astype(np.uint8), (61, 47))
    sources = {name: cv2.imencode(name, picture)[1].tobytes() for name in (".png", ".jpg", ".bmp", ".webp", ".tif")}
    for name, mode in ((".gif", "P"), (".ppm", "RGB"), ("-cmyk.jpg", "CMYK"), ("-16.png", "I;16")):
        path = tmp_path / f"source{name}"
        Image.fromarray(picture[..., 0]).convert("I;16").save(path) if mode == "I;16" else \
            Image.fromarray(picture).convert(mode).save(path)
        sources[name] = path.read_bytes()
    paths = []
    for number in range(1000):
        name = list(sources)[number % len(sources)]
        paths.append(tmp_path / f"{number}{name}")
        paths[-1].write_bytes(mutated(sources[name], rng))
    used, refused = judge([str(path) for path in paths])
    assert used > 50 and refused > 300


@fault("500 configurations with random damage", "used or refused in one line; bounded memory, no hang", long=False)
def test_mutated_configurations(tmp_path):
    rng = np.random.default_rng(4)
    sources = [CONFIG.encode(), *(path.read_bytes() for path in sorted((PROJECT / "configs").glob("*.yaml")))]
    paths = []
    for number in range(500):
        paths.append(tmp_path / f"{number}.yaml")
        paths[-1].write_bytes(mutated(sources[number % len(sources)], rng))
    used, refused = judge([str(path) for path in paths])
    assert used > 20 and refused > 100
