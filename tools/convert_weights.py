"""Converts the weights of other DeepFill v1 implementations into a checkpoint of this one.

    python tools/convert_weights.py SOURCE DESTINATION [--critics FILE] [--from tf1|pytorch|mmagic|predecessor]
    python tools/convert_weights.py CHECKPOINT FILE.pdparams --export-pdparams

SOURCE is a checkpoint of the authors' TensorFlow release (snap-1, one of its files, the folder, or an .npz of its
variables), a .pt of the PyTorch port, a .pdparams of the Paddle-GI port, a .safetensors of either, or the folder that
holds one. Neither TensorFlow nor PyTorch is needed. Nothing in a file is run. Optimisers are not converted.
--export-pdparams writes the generator of SOURCE, which may be a checkpoint of this project or "released", for
paddle.load.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.cli import UserError, friendly_errors, prepare_paddle  # noqa: E402

with friendly_errors():
    prepare_paddle()

import paddle  # noqa: E402

from models.critics import GlobalCritic, LocalCritic  # noqa: E402
from models.generator import InpaintingGenerator  # noqa: E402
from tester import Tester, resolve_checkpoint  # noqa: E402
from utils.checkpoint import checkpoint_path, save_checkpoint, section  # noqa: E402
from utils.convert.files import PROGRAMS, kind_of, naming  # noqa: E402
from utils.convert.sources import iteration_of, open_source  # noqa: E402
from utils.convert.weights import Source, convert, describe  # noqa: E402


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", help="a file, a TensorFlow prefix such as snap-1, or a folder")
    parser.add_argument("destination", help="the checkpoint to write, or a folder for checkpoint_<iteration>.npz")
    parser.add_argument("--critics", metavar="FILE", help="dis_*.pt or dis_*.pdparams that belongs to the generator")
    parser.add_argument(
        "--from", dest="program", choices=PROGRAMS, help="where SOURCE comes from, if a folder holds files of several"
    )
    parser.add_argument(
        "--mask-type", choices=("hole", "mosaic"), default="hole", help="what it was trained on (default: hole)"
    )
    parser.add_argument(
        "--mosaic-unit-size", type=int, default=12, metavar="PIXELS", help="with mosaic: 2 to 4096 (default: 12)"
    )
    parser.add_argument(
        "--export-pdparams", action="store_true", help="write the generator alone, as a file for paddle.load"
    )
    args = parser.parse_args(argv)
    if not 2 <= args.mosaic_unit_size <= 4096:
        parser.error(f"--mosaic-unit-size must be from 2 to 4096, not {args.mosaic_unit_size}")
    return args


def network_shapes(architecture: dict, with_critics: bool) -> dict[str, tuple[int, ...]]:
    """The shapes of all arrays of the networks described, by their names in a checkpoint.

    Every side is linear in the number of channels, so two narrow networks give the shapes of a wide one; a file
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


def destination_path(destination: str, iteration: int, sources: tuple[str, ...]) -> str:
    """The file to write; never one of the sources."""
    path = destination
    if os.path.isdir(destination) or destination.endswith(os.sep):
        path = checkpoint_path(destination, iteration)
    if os.path.realpath(path) in map(os.path.realpath, sources):
        raise UserError(f"{path}: is the source itself; name another destination")
    return path


def checksums(source: Source) -> list[dict[str, str]]:
    """Name and SHA-256 of each file."""
    return [
        {"name": os.path.basename(path), "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}
        for path in source.files
    ]


def is_checkpoint(path: str) -> bool:
    """Whether SOURCE is a checkpoint of this project."""
    with naming(path):
        return path == "released" or (os.path.isfile(path) and kind_of(path) == "ours")


def save_pdparams(path: str, state: dict) -> None:
    """Writes a file of parameters for `paddle.load`; `path` holds either its old content or all of the new."""
    temporary = f"{path}.tmp-{os.getpid()}"
    try:
        paddle.save({name: paddle.to_tensor(value) for name, value in state.items()}, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        Path(temporary).unlink(missing_ok=True)
    print(f"wrote {path}: {len(state)} arrays of the generator, by their names in models/generator.py")


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    if args.export_pdparams and is_checkpoint(args.source):
        path = resolve_checkpoint(args.source, "", print)
        save_pdparams(
            destination_path(args.destination, 0, (path,)),
            {name: value.numpy() for name, value in Tester(path).network.state_dict().items()},
        )
        return
    source = open_source(args.source, args.program, args.critics)
    destination = destination_path(args.destination, iteration_of(source), source.files)
    architecture = describe(source)
    arrays, ignored = convert(source, network_shapes(architecture, source.has_critics))
    files = checksums(source)
    for file in files:
        print(f"read {file['name']} (SHA-256 {file['sha256']})")
    if args.export_pdparams:
        save_pdparams(destination, section(arrays, "generator"))
        return
    meta = {
        "architecture": architecture,
        "iteration": iteration_of(source),
        "mask_type": args.mask_type,
        "mosaic_unit_size": args.mosaic_unit_size,
        "coarse_only": False,
        "source": {"program": source.program, "files": files, "ignored": dict(ignored)},
    }
    save_checkpoint(destination, arrays, meta)
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
