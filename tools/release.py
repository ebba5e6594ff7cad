"""Averages checkpoints and publishes a trained generator.

    python tools/release.py RUN_FOLDER --last 8 --output MEAN.npz
    python tools/release.py A.npz B.npz --output MEAN.npz
    python tools/release.py RUN_FOLDER [--last 8] --output checkpoints/NAME --data TEXT --licence TEXT

The first two write one checkpoint: the mean of several generators (stochastic weight averaging) for test.py, never
resumed. The third writes a new folder: generator.npz (float32, at most 20 MB), config.yaml and train.txt without the
machine's folders, summaries (--metrics), README.md and SHA256SUMS. Where a checkpoint holds an averaged generator
(ema_decay), that one is taken. TEXT: a text, or a file that holds it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import yaml  # noqa: E402

from utils.checkpoint import CheckpointError, list_checkpoints, load_checkpoint, save_checkpoint, section  # noqa: E402
from utils.cli import UserError, friendly_errors  # noqa: E402
from utils.paths import portable_path, portable_text, prepare_folder  # noqa: E402
from utils.text_files import write_text  # noqa: E402

MAX_BYTES = 20_000_000  # of generator.npz
# Of a checkpoint's meta: what is needed to build the generator, and where it comes from.
NETWORK = ("architecture", "mask_type", "mosaic_unit_size", "coarse_only", "pretrain_coarse_network")
KEPT = (*NETWORK, "iteration", "paddle", "photographs")
SIZES = ("image_size", "box_size", "image_shape", "mask_shape")  # the generator does not depend on them


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Averages checkpoints and publishes a trained generator.")
    parser.add_argument("sources", nargs="+", metavar="RUN_FOLDER_OR_CHECKPOINT")
    parser.add_argument("--last", type=int, metavar="K", help="of a run: the mean of its last K checkpoints (1)")
    parser.add_argument("--output", required=True, metavar="PATH", help="MEAN.npz, or the new folder of a release")
    parser.add_argument("--data", metavar="TEXT|FILE", help="of a release: what it was trained on")
    parser.add_argument("--licence", metavar="TEXT|FILE", help="of a release: the terms of weights and data")
    parser.add_argument("--metrics", nargs="+", default=[], metavar="TEST_TXT", help="summaries that test.py wrote")
    args = parser.parse_args(argv)
    args.alone = args.output.endswith(".npz")
    terms = [args.data, args.licence]
    if any([*terms, args.metrics]) if args.alone else not all(terms):
        raise UserError(f"--output {args.output}: a folder needs --data and --licence; an .npz has neither")
    if any(os.path.realpath(args.output) == os.path.realpath(source) for source in args.sources):
        raise UserError(f"--output {args.output}: is one of the sources")
    return args


def chosen_checkpoints(sources: Sequence[str], last: int | None) -> list[str]:
    """The checkpoints meant: the last ones of a run's folder, or all given by name. Raises CheckpointError."""
    if not os.path.isdir(sources[0]) or len(sources) > 1:
        folders = [source for source in sources if os.path.isdir(source)]
        if folders or last is not None:
            raise CheckpointError(f"{(folders or sources)[0]}: give one run's folder, or checkpoints without --last")
        return list(sources)
    last = 1 if last is None else last
    found = [path for _, path in list_checkpoints(sources[0])]
    if not 1 <= last <= len(found):
        raise CheckpointError(f"--last {last}: {sources[0]} holds {len(found)} checkpoints")
    return found[-last:]


def mean_generator(paths: Sequence[str]) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, Any]]:
    """The mean of the generators, float32 by "generator/<name>"; its meta; the meta of the last checkpoint.

    paths: in the order of their iterations. Raises CheckpointError if they are not, or are not of one network.
    """
    sums: dict[str, np.ndarray] = {}
    network: dict[str, Any] = {}
    before = -1
    for path in paths:
        arrays, meta = load_checkpoint(path)
        weights = section(arrays, "ema") or section(arrays, "generator")
        if not weights:
            raise CheckpointError(f"{path}: holds no generator")
        if not sums:
            network, sums = network_of(meta), {name: np.zeros(array.shape) for name, array in weights.items()}
        different = [key for key in NETWORK if network_of(meta)[key] != network[key]]
        shapes = [{name: array.shape for name, array in part.items()} for part in (weights, sums)]
        if different or shapes[0] != shapes[1]:
            reason = f"{', '.join(different)} differ" if different else "its weights have other names or shapes"
            raise CheckpointError(f"{path}: is of another network than {paths[0]}: {reason}")
        if meta["iteration"] <= before:
            raise CheckpointError(f"{path}: is of iteration {meta['iteration']}, not after the one before it: give "
                                  "every checkpoint once, in the order of their iterations")
        before = meta["iteration"]
        for name, array in weights.items():
            sums[name] += array
    mean = {f"generator/{name}": (total / len(paths)).astype(np.float32) for name, total in sums.items()}
    kept = {key: meta[key] for key in KEPT if key in meta}
    return mean, {**kept, "averaged": [os.path.basename(path) for path in paths]}, meta


def network_of(meta: dict[str, Any]) -> dict[str, Any]:
    architecture = {key: value for key, value in meta.get("architecture", {}).items() if key not in SIZES}
    return {**{key: meta.get(key) for key in NETWORK}, "architecture": architecture}


def publishable_config(meta: dict[str, Any], source: str) -> str:
    """The run's configuration as YAML, without the folders of the machine that it ran on."""
    config = yaml.safe_load(meta.get("config") or "")
    if not isinstance(config, dict):
        raise UserError(f"{source}: does not hold the configuration of a run of train.py")
    for key in ("train_data_path", "val_data_path", "data_root", "init_from", "hole"):
        if isinstance(config.get(key), str) and os.sep in config[key]:
            config[key] = portable_path(config[key])
    config["resume"] = False
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True, default_flow_style=None, width=10**6)


def text_of(value: str) -> str:
    """A text, or the content of the file that it names."""
    if re.fullmatch(r"\S+\.\w+|\S*/\S*", value) and not os.path.exists(value):
        raise UserError(f"{value}: no such file; a text has more than one word")
    return (read_text(value) if os.path.isfile(value) else value).strip()


def read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'is not text'}") from None


def sha256(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def read_metrics(paths: Sequence[str]) -> dict[str, str]:
    """The summaries by the names that they are published under, metrics_<name of their folder>.txt."""
    named = {f"metrics_{os.path.basename(os.path.dirname(os.path.abspath(path)))}.txt": path for path in paths}
    if len(named) != len(paths):
        raise UserError(f"--metrics: two of them are in folders of one name; here are {', '.join(sorted(named))}")
    return {name: read_text(path) for name, path in named.items()}


def readme(output: str, paths: Sequence[str], meta: dict[str, Any], weights: int, terms: dict[str, str]) -> str:
    averaged = "" if len(paths) == 1 else f", the mean of the weights of {len(paths)} checkpoints of the run"
    what = (f"The generator of a run of train.py after {meta['iteration']} iterations{averaged}: {weights:,} weights "
            "(float32). config.yaml is the run's configuration at its end, train.txt, where it is here, its log with "
            "every change of the configuration on the way.")
    usage = "python test.py --image IN.png --mask MASK.png --output OUT.png --checkpoint"
    sections = [f"## {heading}\n\n{text}" for heading, text in terms.items()]
    sources = [f"- {os.path.basename(path)}, SHA-256 {sha256(path)}" for path in paths]
    return "\n\n".join(["# A trained generator", textwrap.fill(what, 118),
                        f"    {usage} {portable_path(os.path.join(output, 'generator.npz'))}", *sections,
                        "## Made by tools/release.py from\n\n" + "\n".join(sources),
                        "`sha256sum -c SHA256SUMS` in this folder checks its files.\n"])


def release(args: argparse.Namespace) -> None:
    paths = chosen_checkpoints(args.sources, args.last)
    if not args.alone and os.path.isdir(args.output) and os.listdir(args.output):
        raise UserError(f"{args.output}: is not empty: remove it, or name another folder")
    arrays, meta, last = mean_generator(paths)
    weights = sum(array.size for array in arrays.values())
    if args.alone:
        save_checkpoint(args.output, arrays, meta)
        print(f"{args.output}: the mean of {', '.join(meta['averaged'])}")
        return
    texts = {"config.yaml": publishable_config(last, paths[-1])}
    log = os.path.join(os.path.dirname(paths[-1]), "train.txt")
    if os.path.isfile(log):
        texts["train.txt"] = portable_text(read_text(log))
    texts.update(read_metrics(args.metrics))
    terms = {"Data": text_of(args.data), "Licence and terms": text_of(args.licence)}
    texts["README.md"] = readme(args.output, paths, last, weights, terms)

    prepare_folder(args.output)
    generator = os.path.join(args.output, "generator.npz")
    save_checkpoint(generator, arrays, {**meta, "config": texts["config.yaml"]})
    if (size := os.path.getsize(generator)) > MAX_BYTES:
        os.unlink(generator)
        raise UserError(f"{paths[-1]}: {weights:,} weights make {size:,} bytes, more than {MAX_BYTES:,}")
    for name, text in texts.items():
        write_text(os.path.join(args.output, name), text)
    sums = "".join(f"{sha256(os.path.join(args.output, name))}  {name}\n" for name in ("generator.npz", *texts))
    write_text(os.path.join(args.output, "SHA256SUMS"), sums)
    print(f"{generator}: {size:,} bytes, {weights:,} weights, from {', '.join(paths)}")


def main(argv: Sequence[str] | None = None) -> int:
    with friendly_errors():
        release(parse_arguments(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
