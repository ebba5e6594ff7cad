"""Writes the mean of the generators of a run's last checkpoints, as a checkpoint for test.py.

    python tools/average.py RUN_FOLDER --last K [--output MEAN.npz]
    python tools/average.py A.npz B.npz ... --output MEAN.npz

It holds the generator's weights alone (float32): it can be evaluated and complete pictures, and not be resumed. Train
with keep_checkpoints of at least K.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(PROJECT))

from utils.checkpoint import save_checkpoint  # noqa: E402
from utils.cli import UserError, friendly_errors  # noqa: E402
from utils.evaluation.report import prepare_folder  # noqa: E402
from utils.mean_weights import chosen_checkpoints, mean_generator, mean_path  # noqa: E402


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Writes the mean of the generators of several checkpoints.")
    parser.add_argument("sources", nargs="+", metavar="RUN_FOLDER_OR_CHECKPOINT")
    parser.add_argument("--last", type=int, metavar="K", help="of a run: its last K checkpoints")
    parser.add_argument("--output", metavar="PATH", help="default for a run: mean_of_<K>_<iteration>.npz in it")
    args = parser.parse_args(argv)
    if args.last is None and args.output is None and not os.path.isdir(args.sources[0]):
        raise UserError("checkpoints by name need --output")
    if args.output and any(os.path.realpath(args.output) == os.path.realpath(source) for source in args.sources):
        raise UserError(f"--output {args.output}: is one of the checkpoints")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    with friendly_errors():
        args = parse_arguments(argv)
        paths = chosen_checkpoints(args.sources, args.last)
        arrays, meta, _ = mean_generator(paths)
        output = args.output or mean_path(args.sources[0], args.last, meta["iteration"])
        prepare_folder(os.path.dirname(output) or ".")
        save_checkpoint(output, arrays, meta)
        print(f"{output}: the mean of {', '.join(meta['averaged'])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
