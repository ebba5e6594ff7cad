"""Photographs, lists and configurations that nobody should have."""

from __future__ import annotations

import os
import resource
import shutil
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.faults.harness import CONFIG, fault


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(path: Path) -> None:
    """A PNG of a few bytes that says it has 60000 x 60000 pixels."""
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    data = png_chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + data + png_chunk(b"IEND", b""))


def truncated_jpeg(path: Path) -> None:
    """OpenCV returns such a file as an image with a grey tail."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    content = cv2.imencode(".jpg", noise)[1].tobytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    assert cv2.imread(str(path)) is not None


def animated(path: Path) -> None:
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "green", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])


BAD = {
    "zero bytes": ("a.png", lambda path: path.write_bytes(b"")),
    "a truncated JPEG that OpenCV accepts": ("a.jpg", truncated_jpeg),
    "text called .jpg": ("a.jpg", lambda path: path.write_text("no picture\n" * 99)),
    "a decompression bomb's header": ("a.png", bomb),
    "a program called .png": ("a.png", lambda path: shutil.copy("/bin/true", path)),
}


def limited(megabytes: int):
    """Address space; Paddle itself maps less than 8 GB."""
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))


def with_photos(place, photos):
    folder = place.folder / "mixed"
    shutil.copytree(photos, folder)
    return folder


@pytest.mark.parametrize("kind", BAD)
@fault("an unusable photograph", "named once, another takes its place; the training ends well, memory bounded")
def test_bad_photograph(place, photos, kind):
    folder = with_photos(place, photos)
    name, make = BAD[kind]
    make(folder / name)
    output = place.run(f"train_data_path={folder}", preexec_fn=limited(8192))
    assert output.count("another one takes its place") == 1 and f"{name}: " in output
    assert max(place.checkpoints()) == 40


@fault("images of 1x1 pixels, animations, mislabelled formats", "used like any other", long=False)
def test_odd_photographs(place, photos):
    folder = with_photos(place, photos)
    cv2.imwrite(str(folder / "tiny.png"), np.full((1, 1, 3), 200, np.uint8))
    animated(folder / "animated.gif")
    cv2.imwrite(str(folder / "jpeg.jpg"), np.zeros((40, 50, 3), np.uint8))
    (folder / "jpeg.jpg").rename(folder / "called.png")
    output = place.run(f"train_data_path={folder}", "niter=8")
    assert "another image" not in output


@fault("photographs that vanish during the training", "named once each, others take their place; ends well")
def test_vanishing(place, photos):
    folder = with_photos(place, photos)
    process = place.start(f"train_data_path={folder}", f"val_data_path={photos}", "num_workers=1")
    place.wait_for_iteration(process, 3)
    (folder / "1.png").unlink()
    (folder / "2.png").unlink()
    output = place.finish(process)
    assert output.count("No such file or directory; another one takes its place") == 2


@fault("more unusable photographs than max_bad_images", "one line that names some; exit code 2", long=False)
def test_too_many_bad(place, photos):
    folder = with_photos(place, photos)
    for number in range(4):
        (folder / f"bad{number}.png").write_bytes(b"")
    refusal = place.refusal(f"train_data_path={folder}", "max_bad_images=2")
    assert refusal.startswith("3 images cannot be used, more than max_bad_images (2) allows, e.g. ")


@fault("a folder with loops of links", "each photograph is found once; no hang")
def test_link_loop(place, photos):
    folder = with_photos(place, photos)
    (folder / "again").symlink_to(folder)
    (folder / "self").symlink_to("self")
    assert "7 photographs" in place.run(f"train_data_path={folder}", "niter=1")


@fault("a pipe and a device among the photographs", "refused; no hang")
def test_pipe(place, photos):
    folder = with_photos(place, photos)
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    assert "2 of 9 files" in place.refusal(f"train_data_path={folder}")
    (folder / "list.txt").write_text("0.png\npipe.png\n")
    assert "1 of 2 files listed" in place.refusal(f"train_data_path={folder}/list.txt")


@fault("a list of a million lines, all missing", "one line; memory bounded")
def test_long_list(place, photos):
    path = place.folder / "list.txt"
    path.write_text("".join(f"some/folder/{number // 1000}/{number:09d}.png\n" for number in range(10**6)))
    refusal = place.refusal(f"train_data_path={path}", preexec_fn=limited(8192))
    assert refusal.startswith("1000000 of 1000000 files listed in ") and len(refusal) < 600


@fault("a list of a million lines of which seven exist", "the good photographs are used; memory bounded")
def test_long_list_of_repeats(place, photos):
    path = place.folder / "list.txt"
    path.write_text("".join(f"photos/{number % 7}.png\n" for number in range(10**6)))
    output = place.run(f"train_data_path={path}", "niter=1", preexec_fn=limited(8192))
    assert "7 photographs" in output


@fault("a folder that cannot be read", "one line that names it")
def test_unreadable_folder(place):
    (place.folder / "loop").symlink_to("loop")
    assert "loop" in place.refusal("train_data_path=loop")
    if os.geteuid() == 0:
        return  # the superuser may read everything
    (place.folder / "closed").mkdir(mode=0)
    assert "closed" in place.refusal("train_data_path=closed")


@fault("list entries that lead out of the root", "read as written; what is no photograph is named, never shown")
def test_escaping_entries(place):
    (place.folder / "list.txt").write_text("photos/0.png\n../../../../../../../../../../etc/passwd\n/etc/hostname\n")
    output = place.run("train_data_path=list.txt", "niter=4")
    assert output.count("another one takes its place") == 2 and "root:" not in output
    (place.folder / "list.txt").write_text("photos/0.png\n../../../../../../../../etc/absent.png\n")
    assert "1 of 2 files listed in list.txt are missing" in place.refusal("train_data_path=list.txt")


CONFIGS = {
    "aliases that multiply": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    "an object": "lr: !!python/object/apply:os.system ['touch sprung']\n",
    "deep nesting": "lr: " + "[" * 9000 + "]" * 9000,
    "ten megabytes": "# " + "x" * 10_000_000,
    "a number of 10,000 digits": "niter: " + "9" * 10_000,
    "a huge batch of huge images": "batch_size: 4096\nimage_shape: [4096, 4096, 3]\n",
    "a huge network": "netG: {input_dim: 3, ngf: 1000000}\n",
    "not a number": "lr: .nan\n",
    "binary": "\x00\x01\x02",
    "two documents": "lr: 0.1\n---\nlr: 0.2\n",
    "a name that leads out of the folder": "expname: ../../../outside\n",
}


@pytest.mark.parametrize("kind", CONFIGS)
@fault("a hostile configuration", "one line, before anything is allocated")
def test_hostile_configuration(place, kind):
    keys = {line.split(":")[0] for line in CONFIGS[kind].splitlines()}
    own = [line for line in CONFIG.splitlines() if line.split(":")[0] not in keys]
    (place.folder / "config.yaml").write_text("\n".join([*own, CONFIGS[kind]]) + "\n")
    refusal = place.refusal(preexec_fn=limited(8192))
    assert refusal.startswith("config.yaml: ") and len(refusal) < 300
    assert not (place.folder / "sprung").exists() and not (place.folder / "checkpoints").exists()
