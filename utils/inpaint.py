"""Inpainting of users' images: --image, --mask, --output of test.py."""

from __future__ import annotations

import argparse
import os
from typing import Any

from data.decode import ImageError, decode_image
from data.file_list import read_file_list
from utils.cli import UserError
from utils.paths import portable_path, prepare_folder
from utils.pictures.attention_view import probe_picture
from utils.pictures.completion import complete
from utils.pictures.files import LOSSY, fill_hole, fit_to_format, write_picture
from utils.pictures.holes import MULTIPLE, fit_hole, picture_remarks, read_hole
from utils.pictures.jobs import Job, Masks, plan_many, plan_one, probe_path, protect_originals
from utils.pictures.options import add_picture_options as add_options  # noqa: F401 (for test.py)
from utils.pictures.options import check_picture_options as check_options  # noqa: F401 (for test.py)
from utils.pictures.reading import PictureError, read_picture
from utils.progress import show_progress, warn
from utils.visualization import write_image


def inpaint_files(args: argparse.Namespace, tester: Any) -> None:
    """--image, --mask, --output: what cannot be inpainted is named, and the rest goes on.

    tester: a `tester.Tester`. Raises UserError, DataError.
    """
    jobs, masks = _plan(args)
    single = os.path.isfile(args.image)
    print(f"weights: {portable_path(tester.source)}, iteration {tester.model.iteration}")
    if args.attention and tester.model.without_attention:
        raise UserError(f"--attention: {tester.source} has no attention, {tester.model.without_attention}")
    failed = []
    with show_progress(len(jobs), "picture") as advance:
        for job in jobs:
            try:
                _inpaint_file(args, tester, job, masks.find(job))
            except (ImageError, PictureError) as error:
                if single:
                    raise
                failed.append(job.image)
                warn(f"skipped {error}")
            advance(1)
    if failed:
        some = ", ".join(failed[:3]) + (", ..." if len(failed) > 3 else "")
        raise PictureError(f"{len(failed)} of {len(jobs)} pictures were not completed: {some}; the warnings say why")
    print(f"{len(jobs)} picture{'s' * (len(jobs) != 1)} completed: {jobs[0].output if single else args.output}")


def _plan(args: argparse.Namespace) -> tuple[list[Job], Masks]:
    if not os.path.exists(args.mask):
        raise PictureError(f"--mask {args.mask}: no such file or folder")
    masks = Masks(args.mask, read_file_list(args.mask) if os.path.isdir(args.mask) else ())
    if os.path.isfile(args.image):
        return [plan_one(args.image, args.output, args.attention)], masks
    if not os.path.isdir(args.image) and not any(sign in args.image for sign in "*?["):
        raise PictureError(f"--image {args.image}: no such picture or folder")
    images = read_file_list(args.image)
    return plan_many(args.image, images, args.output, args.attention), masks


def _inpaint_file(args: argparse.Namespace, tester: Any, job: Job, mask_path: str) -> None:
    """One picture from file to file. Raises ImageError, PictureError, OutputError."""
    protect_originals(job, mask_path)
    for path in filter(None, (job.output, job.attention)):
        prepare_folder(os.path.dirname(path) or ".")
    rgb = decode_image(job.image)
    picture = fit_to_format(read_picture(job.image, rgb), rgb, job.output)
    mask_rgb = decode_image(mask_path)
    hole = read_hole(read_picture(mask_path, mask_rgb), mask_rgb, args.invert_mask)
    hole = fit_hole(hole, rgb.shape[:2], args.resize_mask, mask_path, job.image)
    if args.probe and not all(place < side for place, side in zip(args.probe, hole.shape[::-1])):
        raise PictureError(f"{job.image}: --probe {args.probe} is outside of the picture")

    def remark(text: str) -> None:
        warn(f"{job.image}: {text}")

    for text in picture_remarks(picture, hole):
        remark(text)
    if job.output.lower().endswith(LOSSY):
        remark("JPEG changes known pixels; .png keeps them")
    try:
        done = complete(tester, rgb, hole, args.max_side, remark)
    except PictureError as error:
        raise PictureError(f"{job.image}: {error}") from None
    write_picture(job.output, fill_hole(picture, done.refined, hole))
    if job.attention:
        write_image(job.attention, done.attention_picture())
    if args.probe:
        cell = done.cell(*args.probe)
        weights = tester.attention_at(*done.shown, *cell)[0]
        write_image(probe_path(job.attention), probe_picture(done.small, weights, MULTIPLE, cell))
