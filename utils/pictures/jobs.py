"""Which picture goes with which mask and where its results go; names only, nothing is opened."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from utils.pictures.reading import PictureError

MASK_ENDING = "_mask"


@dataclass(frozen=True)
class Job:
    """One picture to complete."""

    image: str
    name: str  # relative to what all pictures have in common
    output: str
    attention: str | None


class Masks:
    """One mask for all pictures, or a folder with one for each.

    source: a file or a folder. listed: the images in the folder. In a folder the mask of sub/a.jpg is sub/a.* or
    sub/a_mask.*, with any suffix of images.
    """

    def __init__(self, source: str, listed: Sequence[str] = ()):
        self.source = source
        self.by_stem: dict[str, list[str]] = {}
        for path in listed:
            self.by_stem.setdefault(_stem(os.path.relpath(path, source)), []).append(path)

    def find(self, job: Job) -> str:
        """The mask of a picture; PictureError if there is none, or more than one."""
        if not os.path.isdir(self.source):
            return self.source
        stem = _stem(job.name)
        found = self.by_stem.get(stem, []) + self.by_stem.get(stem + MASK_ENDING, [])
        if len(found) == 1:
            return found[0]
        if found:
            raise PictureError(f"{job.image}: has several masks: {', '.join(sorted(found)[:3])}; keep one")
        names = f"{stem}.png or {stem}{MASK_ENDING}.png"
        raise PictureError(f"{job.image}: has no mask in {self.source}; name it {names}")


def plan_one(image: str, output: str, attention: str | None) -> Job:
    """One picture; an existing folder as output gets it as PNG under its own name."""
    name = os.path.basename(image)
    return Job(image, name, _within(output, name), attention and _within(attention, name))


def plan_many(source: str, images: Sequence[str], output: str, attention: str | None) -> list[Job]:
    """Pictures of a folder or a pattern, to PNG files of the same names in the folders `output` and `attention`.

    Raises PictureError: results would lie among the pictures, or a file stands where a folder is needed.
    """
    base = source if os.path.isdir(source) else os.path.commonpath([os.path.dirname(p) or "." for p in images])
    for folder, option in ((output, "--output"), (attention, "--attention")):
        if folder is None:
            continue
        if os.path.exists(folder) and not os.path.isdir(folder):
            raise PictureError(f"{option} {folder} is a file; several pictures need a folder")
        if os.path.isdir(source) and is_within(folder, source):
            raise PictureError(f"{option} {folder} is within --image {source}; choose a folder outside of it")
    names = [os.path.relpath(path, base) for path in images]
    stems = Counter(_stem(name) for name in names)
    jobs = []
    for path, name in zip(images, names):
        # a.jpg and a.png: both keep their suffix
        result = (name if stems[_stem(name)] > 1 else _stem(name)) + ".png"
        there = attention and os.path.join(attention, result)
        jobs.append(Job(path, name, os.path.join(output, result), there))
    return jobs


def protect_originals(job: Job, mask: str) -> None:
    """PictureError if a result would replace a picture or a mask, or another result."""
    for result in (job.output, job.attention):
        for original in (job.image, mask):
            if result and os.path.exists(result) and os.path.samefile(result, original):
                raise PictureError(f"{result}: is the picture or the mask itself; choose another name for the result")
    if job.attention and os.path.abspath(job.attention) == os.path.abspath(job.output):
        raise PictureError(f"{job.output}: --output and --attention name the same file")


def probe_path(attention: str) -> str:
    """Where the map of --probe goes: beside the colours."""
    stem, suffix = os.path.splitext(attention)
    return f"{stem}_probe{suffix}"


def is_within(path: str, folder: str) -> bool:
    folder = os.path.realpath(folder)
    return os.path.commonpath([os.path.realpath(path), folder]) == folder


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _within(output: str, name: str) -> str:
    is_folder = os.path.isdir(output) or output.endswith(os.sep)
    return os.path.join(output, _stem(name) + ".png") if is_folder else output
