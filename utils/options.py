"""The command line of train.py."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from utils.cli import UserError
from utils.dry_run import IMAGE


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options; what belongs to the configuration, as key=value, is in `overrides`. Raises UserError."""
    parser = argparse.ArgumentParser(description="Train DeepFill v1.")
    parser.add_argument("--config", default="configs/config.yaml", help="YAML file (default: %(default)s)")
    parser.add_argument("--resume", nargs="?", const="latest", metavar="latest|PATH", help="resume the run")
    parser.add_argument("--seed", type=int, help="overrides the file's seed")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="default: the GPU if there is a usable one")
    parser.add_argument("--dry-run", action="store_true", help="show the networks, their FLOPs, memory and time, "
                        f"write the first batch to ./{IMAGE}, stop")  # fmt: skip
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. batch_size=16 netG.ngf=16")
    args = parser.parse_intermixed_args(argv)
    if args.resume and "=" in args.resume and not os.path.exists(args.resume):
        args.overrides.insert(0, args.resume)  # --resume key=value: the word after it was not meant for it
        args.resume = "latest"
    if args.dry_run and not all("=" in word for word in args.overrides):
        raise UserError(f"--dry-run takes no file name: it writes {IMAGE} into the current folder")
    for key in ("seed", "resume"):
        if getattr(args, key) is not None:
            args.overrides.append(f"{key}={getattr(args, key)}")
    return args
