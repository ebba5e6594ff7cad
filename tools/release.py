"""Makes a training run's generator fit to be published: its weights alone, and beside them what they are.

    python tools/release.py RUN_FOLDER --output checkpoints/released --data TEXT --licence TEXT [--last K]
    python tools/release.py A.npz B.npz --output checkpoints/released --data notes.txt --licence terms.txt

Writes generator.npz (float32, no critics, no optimisers, at most 20 MB), config.yaml, train.txt without the machine's
folders, the summaries given with --metrics, README.md and SHA256SUMS into a new folder. With several checkpoints, or
--last K of a run, the weights are their mean, and the README names them. --data and --licence are a text or a file
that holds it.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(PROJECT))

from utils.checkpoint import save_checkpoint  # noqa: E402
from utils.cli import UserError, friendly_errors  # noqa: E402
from utils.config import ConfigError, TrainConfig, to_yaml  # noqa: E402
from utils.config_file import parse_yaml  # noqa: E402
from utils.evaluation.report import portable_path, portable_text, prepare_folder  # noqa: E402
from utils.mean_weights import chosen_checkpoints, mean_generator  # noqa: E402
from utils.text_files import write_text  # noqa: E402

MAX_BYTES = 20_000_000  # of generator.npz
LINE = 118  # of text, characters


class ReleaseError(UserError):
    """Nothing can be released; the message names the file or the option."""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Publishes a run's generator: weights, log, metrics, checksums.")
    parser.add_argument("sources", nargs="+", metavar="RUN_FOLDER_OR_CHECKPOINT")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="e.g. checkpoints/released; must be new")
    parser.add_argument("--last", type=int, metavar="K", help="mean of the run's last K checkpoints (of a run: 1)")
    parser.add_argument("--data", required=True, metavar="TEXT|FILE", help="what it was trained on")
    parser.add_argument("--licence", required=True, metavar="TEXT|FILE", help="the terms of weights and data")
    parser.add_argument("--metrics", nargs="+", default=[], metavar="TEST_TXT", help="summaries that test.py wrote")
    args = parser.parse_args(argv)
    if args.last is None and os.path.isdir(args.sources[0]):
        args.last = 1
    return args


def publishable_config(meta: dict[str, Any], source: str) -> str:
    """The run's configuration as YAML, without the folders of the machine that it ran on."""
    try:
        config = TrainConfig(**parse_yaml(meta["config"]))
    except (KeyError, TypeError, ConfigError):
        raise ReleaseError(f"{source}: does not hold the configuration of a run of train.py") from None
    keys = ("train_data_path", "val_data_path", "data_root")
    paths = {key: portable_path(getattr(config, key)) for key in keys if getattr(config, key)}
    return to_yaml(dataclasses.replace(config, resume=False, **paths))


def text_of(value: str) -> str:
    """A text, or the content of the file that it names."""
    if re.fullmatch(r"\S+\.\w+|\S*/\S*", value) and not os.path.exists(value):
        raise ReleaseError(f"{value}: no such file; a text has more than one word")
    return (read_text(value) if os.path.isfile(value) else value).strip()


def sha256(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ReleaseError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ReleaseError(f"{path}: is not text") from None


def read_metrics(paths: Sequence[str]) -> dict[str, str]:
    """The summaries by the names that they are published under, metrics_<name of their folder>.txt."""
    names = [f"metrics_{os.path.basename(os.path.dirname(os.path.abspath(path)))}.txt" for path in paths]
    if len(set(names)) != len(names):
        raise ReleaseError(f"--metrics: two of them are in folders of one name: {', '.join(sorted(names))}")
    return {name: read_text(path) for name, path in zip(names, paths)}


def describe(
    generator: str, paths: Sequence[str], meta: dict[str, Any], weights: int, terms: dict[str, str], files: list[str]
) -> str:
    """The README of the folder. terms: texts by their headings."""
    network = meta["architecture"]
    attention = "with" if network.get("contextual_attention", True) else "without"
    stage = "coarse stage only" if meta.get("coarse_only") else f"two stages, {attention} contextual attention"
    size = " x ".join(map(str, network.get("image_size") or ["?"]))
    hole = " x ".join(map(str, network.get("box_size") or ["?"]))
    averaged = "" if len(paths) == 1 else f", the mean of the weights of {len(paths)} checkpoints of the run"
    sources = [f"- {os.path.basename(path)}, SHA-256 {sha256(path)}" for path in paths]
    what = (
        f"{network['generator_channels']} channels, {stage}, dialect {network['dialect']}, {weights:,} weights "
        f"(float32). Trained by train.py for {meta['iteration']} iterations, the last of them at {size} pixels with "
        f"boxes of {hole}{averaged}."
    )
    made = (
        "config.yaml is the run's configuration at its end and train.txt, where it is here, its log, with every "
        "change of the configuration on the way. tools/release.py took the generator out of:"
    )
    usage = "python test.py --image IN.png --mask MASK.png --output OUT.png --checkpoint"
    return "\n".join(
        [
            "# A trained generator",
            "",
            textwrap.fill(what, LINE),
            "",
            f"    {usage} {portable_path(generator)}",
            "",
            *(line for heading, text in terms.items() for line in (f"## {heading}", "", text, "")),
            "## How it was made",
            "",
            textwrap.fill(made, LINE),
            "",
            *sources,
            "",
            "## Files",
            "",
            *(f"- {name}" for name in files),
            "",
            "`sha256sum -c SHA256SUMS` in this folder checks them.",
            "",
        ]
    )


def release(args: argparse.Namespace) -> None:
    paths = chosen_checkpoints(args.sources, args.last)
    if os.path.isdir(args.output) and os.listdir(args.output):
        raise ReleaseError(f"{args.output}: is not empty: remove it, or name another folder")
    arrays, meta, last = mean_generator(paths)
    weights = sum(array.size for array in arrays.values())
    config = publishable_config(last, paths[-1])
    texts = {"config.yaml": config}
    log = os.path.join(os.path.dirname(paths[-1]), "train.txt")
    if os.path.isfile(log):
        texts["train.txt"] = portable_text(read_text(log))
    texts.update(read_metrics(args.metrics))
    terms = {"Data": text_of(args.data), "Licence and terms": text_of(args.licence)}
    generator = os.path.join(args.output, "generator.npz")
    texts["README.md"] = describe(generator, paths, last, weights, terms, ["generator.npz", *texts])

    prepare_folder(args.output)
    save_checkpoint(generator, arrays, {**meta, "config": config})
    size = os.path.getsize(generator)
    if size > MAX_BYTES:
        os.unlink(generator)
        raise ReleaseError(f"{paths[-1]}: {weights:,} weights make {size:,} bytes, more than {MAX_BYTES:,}")
    for name, text in texts.items():
        write_text(os.path.join(args.output, name), text)
    sums = [f"{sha256(os.path.join(args.output, name))}  {name}\n" for name in ("generator.npz", *texts)]
    write_text(os.path.join(args.output, "SHA256SUMS"), "".join(sums))
    print(f"{generator}: {size:,} bytes, {weights:,} weights, from {', '.join(paths)}")


def main(argv: Sequence[str] | None = None) -> int:
    with friendly_errors():
        release(parse_arguments(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
