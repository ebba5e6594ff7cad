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
from utils.mean_weights import last_checkpoints, mean_generator, mean_path  # noqa: E402


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Writes the mean of the generators of several checkpoints.")
    parser.add_argument("sources", nargs="+", metavar="RUN_FOLDER_OR_CHECKPOINT")
    parser.add_argument("--last", type=int, metavar="K", help="of a run: its last K checkpoints")
    parser.add_argument("--output", metavar="PATH", help="default for a run: mean_of_<K>_<iteration>.npz in it")
    args = parser.parse_args(argv)
    if args.last is None:
        if any(os.path.isdir(source) for source in args.sources):
            raise UserError("a run's folder needs --last K")
        if args.output is None:
            raise UserError("checkpoints by name need --output")
    elif len(args.sources) > 1 or os.path.isfile(args.sources[0]):
        raise UserError("--last is of one run's folder; checkpoints given by name are all averaged")
    elif args.last < 1:
        raise UserError(f"--last must be a whole number from 1, not {args.last}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    with friendly_errors():
        args = parse_arguments(argv)
        paths = args.sources if args.last is None else last_checkpoints(args.sources[0], args.last)
        arrays, meta, _ = mean_generator(paths)
        output = args.output or mean_path(args.sources[0], args.last, meta["iteration"])
        prepare_folder(os.path.dirname(output) or ".")
        save_checkpoint(output, arrays, meta)
        print(f"{output}: the mean of {', '.join(meta['averaged'])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
