"""The command line of train.py."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from utils.cli import UserError

PICTURE = "dry_run.png"


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; what belongs to the configuration, as key=value, is in `overrides`. Raises UserError."""
    parser = argparse.ArgumentParser(description="Train DeepFill v1.")
    parser.add_argument("--config", default="configs/config.yaml", help="YAML file (default: %(default)s)")
    parser.add_argument(
        "--resume", nargs="?", const="latest", metavar="latest|PATH", help="go on from a checkpoint of the run"
    )
    parser.add_argument("--seed", type=int, help="overrides the file's seed")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="default: the GPU if there is a usable one")
    parser.add_argument(
        "--dry-run", nargs="?", const=PICTURE, metavar="PICTURE", help="show the networks, their operations, memory "
        "and time, write the first batch as a picture (default: ./%(const)s), stop"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. batch_size=16 netG.ngf=16")
    args = parser.parse_intermixed_args(argv)
    for name, value in (("resume", "latest"), ("dry_run", PICTURE)):
        word = getattr(args, name)
        if word and "=" in word and not os.path.exists(word):
            args.overrides.insert(0, word)  # --resume key=value: the word after it was not meant for it
            setattr(args, name, value)
    if args.dry_run == "":
        raise UserError(f"--dry-run: the picture's name is empty: leave it out for {PICTURE}")
    if args.seed is not None:
        args.overrides.append(f"seed={args.seed}")
    if args.resume is not None:
        args.overrides.append(f"resume={args.resume}")
    return args
