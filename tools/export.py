"""Exports a checkpoint to inference models that inpaint images without this repository.

    python tools/export.py CHECKPOINT|RUN_FOLDER|released --output FOLDER [--format paddle|onnx|both]

writes FOLDER/completion.json (with Paddle 2.6: .pdmodel) and .pdiparams for Paddle Inference, completion.onnx for
ONNX Runtime and others, and about.json, which says what they are and under which terms the weights may be used. Both
take image [N, 3, H, W] in [-1, 1], RGB, and mask [N or 1, 1, H, W], 1 = hole; they hide the hole and return the
inpainted image, equal to the input outside of the hole. N, H and W are free, H and W divisible by 8. docs/deploy.md
uses each in 30 lines.

Every inference model is first compared with the network itself on random images and masks at three sizes; the largest
difference is printed. Above 1e-4, and after any error, FOLDER stays as it was; the exit code is 1, or 2. Otherwise
it holds the inference models of this export and none of an earlier one.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import importlib.metadata
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.cli import UserError, friendly_errors, one_line, prepare_paddle, set_thread_count  # noqa: E402

with friendly_errors():
    prepare_paddle()

import numpy as np  # noqa: E402
import paddle  # noqa: E402

from models.export import (  # noqa: E402
    PROGRAM_SUFFIXES,
    TOLERANCE,
    Completion,
    Predictor,
    largest_difference,
    output_names,
    program_file,
    save_program,
)
from tester import Tester, resolve_checkpoint  # noqa: E402
from utils.checkpoint import list_checkpoints, load_checkpoint  # noqa: E402
from utils.paths import prepare_folder  # noqa: E402
from utils.text_files import write_text  # noqa: E402

NAME = "completion"
ABOUT = "about.json"
WRITTEN = (*(NAME + suffix for suffix in (*PROGRAM_SUFFIXES, ".pdiparams", ".onnx")), ABOUT)
OPSET = 17
CHECKED = ((1, 64, 48), (2, 104, 72), (1, 128, 128))  # images, height, width
NEEDS_ONNX = "paddle2onnx, onnx and onnxruntime: pip install paddle2onnx==2.1.0 'onnx<=1.17' onnxruntime"


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Exports a checkpoint to Paddle Inference and ONNX.")
    parser.add_argument("checkpoint", help="a checkpoint, the folder of a run (its newest one), or: released")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="where the inference models go")
    parser.add_argument("--format", choices=("paddle", "onnx", "both"), default="paddle", help="default: %(default)s")
    return parser.parse_args(argv)


@contextlib.contextmanager
def captured():
    """Keeps what Python and C++ code print inside from the terminal; gives a list, which then holds the text."""
    printed: list[str] = []
    sys.stdout.flush()
    sys.stderr.flush()
    before = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile("w+", errors="replace") as sink:
        for stream in (1, 2):
            os.dup2(sink.fileno(), stream)
        try:
            yield printed
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for stream, saved in zip((1, 2), before):
                os.dup2(saved, stream)
                os.close(saved)
            sink.seek(0)
            printed.append(sink.read())


def save_onnx(program: str, path: str, names: list[str]) -> None:
    """Converts Paddle's inference model `program` (without suffix) to ONNX; UserError if that cannot be done."""
    paddle2onnx, onnx = import_optional("paddle2onnx", NEEDS_ONNX), import_optional("onnx", NEEDS_ONNX)
    with captured() as messages:
        content = paddle2onnx.export(
            program_file(program),
            program + ".pdiparams",
            opset_version=OPSET,
            auto_upgrade_opset=False,
            verbose=False,
            optimize_tool="None",
        )
    if not content:
        reason = one_line("".join(messages))[-200:] or "it does not say why"
        raise UserError(f"paddle2onnx cannot convert the inference model: {reason}")
    model = onnx.load_from_string(content)
    rename = dict(zip((output.name for output in model.graph.output), names))
    for node in model.graph.node:
        node.output[:] = [rename.get(name, name) for name in node.output]
        node.input[:] = [rename.get(name, name) for name in node.input]
    for output in model.graph.output:
        output.name = rename[output.name]
    drop_unused(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def drop_unused(graph) -> None:
    """Removes the nodes of an ONNX graph whose outputs nobody takes: ONNX Runtime warns of each such constant."""
    count = None
    while count != len(graph.node):
        count = len(graph.node)
        used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
        kept = [node for node in graph.node if not used.isdisjoint(node.output)]
        del graph.node[:]
        graph.node.extend(kept)


def onnx_session(path: str) -> Callable[[np.ndarray, np.ndarray], list[np.ndarray]]:
    """The inference model in ONNX Runtime."""
    runtime = import_optional("onnxruntime", NEEDS_ONNX)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = set_thread_count()
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda image, mask: session.run(None, {"image": image, "mask": mask})


def import_optional(name: str, needs: str):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"--format onnx needs {needs} ({one_line(error)})") from None


def check(completion: Completion, program: Callable, engine: str) -> float:
    """Prints the largest difference of each size and returns that of all; one that is too large ends the script."""
    largest = 0.0
    for count, height, width in CHECKED:
        difference = largest_difference(completion, program, height, width, count)
        print(f"{engine}: {count} x {height}x{width}: largest difference {difference:.1e}")
        largest = max(largest, difference)
    if not largest <= TOLERANCE:
        what = f"differs from the network by more than {TOLERANCE}; nothing was written"
        print(f"error: {engine}: {what}", file=sys.stderr)
        sys.exit(1)
    return largest


def terms(checkpoint: str) -> str:
    """The terms of a checkpoint's weights: those in the README of its release, or where they are to be found."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        readme = Path(checkpoint).with_name("README.md").read_text(encoding="utf-8")
        parts = dict(re.findall(r"^## (.+)\n+((?:(?!## ).*\n?)*)", readme, re.MULTILINE))
        if "Licence and terms" in parts and os.path.basename(checkpoint) in readme:
            return one_line(f"{parts['Licence and terms']} Trained on: {parts.get('Data', 'not stated')}")
    source = load_checkpoint(checkpoint)[1].get("source")
    if isinstance(source, dict):
        return f"those of the weights that it was converted from ({one_line(source.get('program'))})"
    return "those of the images that it was trained on"


def about(tester: Tester, names: list[str]) -> dict:
    """What a deployer should know of the inference models; outputs are in their order."""
    model = tester.model
    digest = hashlib.sha256(Path(tester.source).read_bytes()).hexdigest()
    hole = "not seen" if model.mask_type == "hole" else f"seen as a mosaic of {model.mosaic_unit_size} pixels"
    outputs = {
        "completed": "float32 [N, 3, H, W], -1 to 1, the inpainted image, the input itself outside of the hole",
        "coarse": "the same of the first stage alone",
        "offsets": "int64 [N, 2, H/8, W/8], where the attention copied from, minus the own position: row, column",
    }
    return {
        "checkpoint": {"file": os.path.basename(tester.source), "sha256": digest, "iteration": model.iteration},
        "terms": terms(tester.source),
        "network": {
            "channels": model.channels,
            "dialect": model.dialect,
            "coarse_only": model.coarse_only,
            "contextual_attention": model.contextual_attention and not model.coarse_only,
        },
        "inputs": {
            "image": "float32 [N, 3, H, W], RGB, -1 to 1: level / 127.5 - 1",
            "mask": "float32 [N or 1, 1, H, W], above 0.5 = hole",
        },
        "outputs": {name: outputs[name] for name in names},
        "sizes": "any N; H and W divisible by 8; the attention needs memory in proportion to (H * W)^2",
        "hole": f"what the image shows in the hole is {hole}",
        "versions": {"paddle": paddle.__version__},
        "largest_difference": {},
    }


def build(tester: Tester, folder: str, formats: tuple[str, ...]) -> None:
    """Makes the inference models and about.json in an empty folder; each is compared with the network."""
    completion = tester.completion()
    names = output_names(completion)
    description = about(tester, names)
    path = os.path.join(folder, NAME)
    save_program(completion, path)
    differences = description["largest_difference"]
    for engine, onednn in (("Paddle Inference", False), ("Paddle Inference with oneDNN", True)):
        differences[engine] = check(completion, Predictor(path, set_thread_count(), onednn), engine)
    if "onnx" in formats:
        save_onnx(path, path + ".onnx", names)
        description["versions"]["paddle2onnx"] = importlib.metadata.version("paddle2onnx")
        description["onnx_opset"] = OPSET
        differences["ONNX Runtime"] = check(completion, onnx_session(path + ".onnx"), "ONNX Runtime")
    if "paddle" not in formats:
        for file in (program_file(path), path + ".pdiparams"):
            os.unlink(file)
    write_text(os.path.join(folder, ABOUT), json.dumps(description, indent=2) + "\n")


def publish(folder: str, output: str) -> list[str]:
    """Moves what `build` made to its place and removes the rest of an earlier export; returns the paths.

    about.json goes first and comes last: a folder without it is not complete. Raises UserError.
    """
    made = [name for name in WRITTEN if os.path.exists(os.path.join(folder, name))]
    paths = [os.path.join(output, name) for name in made]
    try:
        for name in (ABOUT, *(name for name in WRITTEN if name not in made)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(output, name))
                if name != ABOUT:
                    print(f"removed {os.path.join(output, name)} of an earlier export")
        for name, path in zip(made, paths):
            os.replace(os.path.join(folder, name), path)
    except OSError as error:
        raise UserError(f"cannot write to the folder {output}: {error.strerror or error}") from None
    return paths


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    formats = ("paddle", "onnx") if args.format == "both" else (args.format,)
    if "onnx" in formats:
        for name in ("paddle2onnx", "onnx", "onnxruntime"):
            import_optional(name, NEEDS_ONNX)
    paddle.set_device("cpu")
    chosen = "latest" if list_checkpoints(args.checkpoint) else args.checkpoint  # a run's folder, or as it is
    tester = Tester(resolve_checkpoint(chosen, args.checkpoint, print, fall_back=False))
    prepare_folder(args.output)
    with tempfile.TemporaryDirectory(dir=args.output, prefix=".export-") as folder:
        build(tester, folder, formats)
        print(f"wrote {', '.join(publish(folder, args.output))}")


if __name__ == "__main__":
    with friendly_errors():
        main()
