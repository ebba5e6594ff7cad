"""Converts the weights of other DeepFill v1 programs into a checkpoint of this one.

    python tools/convert_weights.py SOURCE DESTINATION [--critics FILE] [--from tf1|pytorch|mmagic|predecessor]

SOURCE is a checkpoint of the authors' TensorFlow release (snap-1, one of its files, the folder, or an .npz of its
variables), a gen_*.pt of the PyTorch port, a gen_*.pdparams of the earlier Paddle port, or the folder that holds
one. Neither TensorFlow nor PyTorch is needed. Nothing in a file is run. Optimisers are not converted.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.cli import friendly_errors, prepare_paddle  # noqa: E402

with friendly_errors():
    prepare_paddle()

from models.critics import GlobalCritic, LocalCritic  # noqa: E402
from models.generator import InpaintingGenerator  # noqa: E402
from utils.checkpoint import checkpoint_path, save_checkpoint  # noqa: E402
from utils.foreign.arrays import WeightsError  # noqa: E402
from utils.foreign.source import PROGRAMS, checksums, iteration_of, open_source  # noqa: E402
from utils.foreign.weights import Source, convert, describe  # noqa: E402


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Converts other DeepFill v1 programs' weights into a checkpoint.")
    parser.add_argument("source", help="a file, a TensorFlow prefix such as snap-1, or a folder")
    parser.add_argument("destination", help="the checkpoint to write, or a folder for checkpoint_<iteration>.npz")
    parser.add_argument("--critics", metavar="FILE", help="dis_*.pt or dis_*.pdparams that belongs to the generator")
    parser.add_argument("--from", dest="program", choices=PROGRAMS, help="the program (default: found out)")
    parser.add_argument(
        "--mask-type", choices=("hole", "mosaic"), default="hole", help="what it was trained on (default: hole)"
    )
    parser.add_argument(
        "--mosaic-unit-size", type=int, default=12, metavar="PIXELS", help="with mosaic: 2 to 4096 (default: 12)"
    )
    args = parser.parse_args(argv)
    if not 2 <= args.mosaic_unit_size <= 4096:
        parser.error(f"--mosaic-unit-size must be from 2 to 4096, not {args.mosaic_unit_size}")
    return args


def network_shapes(architecture: dict, with_critics: bool) -> dict[str, tuple[int, ...]]:
    """The shapes of all arrays of the networks described, by their names in a checkpoint.

    Every side is linear in the number of channels, so two narrow networks tell the shapes of a wide one; a file
    that lies about its width costs no memory.
    """
    dialect = architecture["dialect"]
    builders = {"generator": (architecture["generator_channels"], lambda n: InpaintingGenerator(n, dialect))}
    if with_critics:
        n = architecture["critic_channels"]
        seen = 4 if architecture["critic_sees_mask"] else 3
        builders["local_critic"] = n, lambda n: LocalCritic(n, architecture["box_size"], dialect)
        builders["global_critic"] = n, lambda n: GlobalCritic(n, architecture["image_size"], dialect, seen)
    shapes = {}
    for network, (channels, build) in builders.items():
        narrow, wider = build(2).state_dict(), build(4).state_dict()
        for name in narrow:
            sides = zip(narrow[name].shape, wider[name].shape)
            shapes[f"{network}/{name}"] = tuple(a + (b - a) * (channels - 2) // 2 for a, b in sides)
    return shapes


def destination_path(destination: str, source: Source) -> str:
    """The file to write; never one of the source's."""
    path = destination
    if os.path.isdir(destination) or destination.endswith(os.sep):
        path = checkpoint_path(destination, iteration_of(source))
    if os.path.realpath(path) in map(os.path.realpath, source.files):
        raise WeightsError(f"{path}: is the source itself; name another destination")
    return path


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    source = open_source(args.source, args.program, args.critics)
    destination = destination_path(args.destination, source)
    architecture = describe(source)
    arrays, ignored = convert(source, network_shapes(architecture, source.has_critics))
    files = checksums(source)
    meta = {
        "architecture": architecture,
        "iteration": iteration_of(source),
        "mask_type": args.mask_type,
        "mosaic_unit_size": args.mosaic_unit_size,
        "coarse_only": False,
        "source": {"program": source.program, "files": files, "ignored": dict(ignored)},
    }
    save_checkpoint(destination, arrays, meta)

    for file in files:
        print(f"read {file['name']} (SHA-256 {file['sha256']})")
    critics = "local and global critic" if source.has_critics else "no critics in the source"
    print(
        f"{source.program}: dialect {source.dialect}, generator of {architecture['generator_channels']} channels, "
        f"{critics}; {len(arrays)} arrays, every name and shape as it has to be"
    )
    for reason, count in ignored.items():
        print(f"ignored {count} {reason}")
    print(f"wrote {destination} (optimisers are not converted)")


if __name__ == "__main__":
    with friendly_errors():
        main()
