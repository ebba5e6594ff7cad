"""The documents: every command in them is run here in a short form, or it says why not; every link leads somewhere.

A command is a line of an ```sh block of README.md, README_zh-CN.md or docs/*.md. COMMANDS has each of them, with what
makes it short: it is run as it stands, in a folder that has a tiny one of every file, on tiny networks.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.util
import os
import re
import shlex
import signal
import sys
import xml.etree.ElementTree
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from models.critics import GlobalCritic, LocalCritic
from models.generator import InpaintingGenerator
from tests import tiny_checkpoint
from tests.golden_weights import tf1_name
from tests.weight_writers import write_paddle, write_tensorflow, write_torch
from utils.cli import UserError
from utils.config import TestConfig, TrainConfig, load_config

PROJECT = Path(__file__).resolve().parents[1]
ENGLISH, CHINESE = "README.md", "README_zh-CN.md"
DOCUMENTS = [ENGLISH, CHINESE, *sorted(f"docs/{path.name}" for path in (PROJECT / "docs").glob("*.md"))]
SIZES = ["image_shape=[32,32,3]", "mask_shape=[16,16]", "num_workers=0"]
TRAIN = [*SIZES, "max_delta_shape=[8,8]", "netG.ngf=2", "netD.ndf=2", "batch_size=2", "n_critic=1", "niter=1"]
TRAIN += ["print_iter=1", "viz_max_out=1", "cache_mb=0"]


@dataclass
class Run:
    """A command's short form."""

    add: list[str] = field(default_factory=list)  # words behind it
    replace: dict[str, str] = field(default_factory=dict)  # words in it
    after: str = ""  # the command whose files it needs
    makes: list[str] = field(default_factory=list)  # files that have to be there afterwards


@dataclass
class NotRun:
    """Why a command is not run here; its options are checked all the same."""

    why: str


ENVIRONMENT = NotRun("sets up an environment; .ci/run does so on a clean clone, and runs the parts")
SHELL = NotRun("is the system's, not the project's")
LISTS = ["train_data_path=data_mine/train.txt", "val_data_path=data_mine/val.txt"]
MINE_LISTS = "python tools/make_file_list.py my_photos --val-count 100 --output data_mine"
MINE = " ".join(["dataset_name=mine", *LISTS])
PAGE = NotRun("serves until it is stopped; make test-web drives it in a browser")
PLACES2 = "python tools/make_file_list.py /data/places2 --min-side 256"
WEIGHTS = NotRun("needs PyTorch and the weights of other networks, which have to be downloaded")
BENCHMARK = NotRun("takes long; tests/tools/test_benchmark.py runs it at a small size")
RANKS = NotRun("needs several devices; tests/faults/test_ranks.py runs two processes on the CPU")

# fmt: off
COMMANDS: dict[str, Run | NotRun] = {
    "make demo": ENVIRONMENT,
    "make setup": ENVIRONMENT,
    "make bench": BENCHMARK,
    "make check-gpu": NotRun("needs a GPU; tests/tools/test_check_device.py runs the tool on the CPU"),
    "python tools/check_device.py --device gpu":
        NotRun("needs a GPU; tests/tools/test_check_device.py runs the tool on the CPU"),
    "tools/ablation.sh train_list.txt val_list.txt":
        NotRun("trains for hours; tests/tools/test_ablation.py runs it with a stand-in for the programs"),
    "python tools/web_demo.py": PAGE,
    "source .venv/bin/activate": SHELL,
    "pip install -r requirements-cpu.txt": ENVIRONMENT,
    "pip install -r requirements-base.txt": ENVIRONMENT,
    "pip install -r requirements-web.txt": ENVIRONMENT,
    "pip install paddle2onnx==2.1.0 'onnx<=1.17' onnxruntime": ENVIRONMENT,
    "find /data/places2/train -name '*.jpg' | sort > train_list.txt": SHELL,
    "find /data/places2/val -name '*.jpg' | sort > val_list.txt": SHELL,

    # Pictures
    "python test.py --image docs/example/photo.jpg --mask docs/example/mask.png "
    "--output out.png": Run(add=["--max-side", "48"], makes=["out.png"]),
    "python test.py --image docs/example/photo.jpg --mask docs/example/mask.png --output out.png "
    "--save-attention attention.png --attention-at 100,150":
        Run(add=["--max-side", "48"], makes=["out.png", "attention.png", "attention_at.png"]),
    "python test.py --checkpoint released --baselines 'image_shape=[128,128,3]' 'mask_shape=[64,64]' "
    "val_data_path=val_list.txt": Run(add=["--count", "1"]),
    "python test.py --checkpoint released --baselines 'image_shape=[128,128,3]' 'mask_shape=[64,64]' "
    "protocol=freeform-thin val_data_path=val_list.txt": Run(add=["--count", "1"]),
    "python test.py --image in.jpg --mask mask.png --output out.png": Run(makes=["out.png"]),
    "python test.py --image photos/ --mask masks/ --output done/": Run(makes=["done/a.png", "done/b.png"]),
    "python test.py --image in.jpg --mask mask.png --output out.png --save-attention colours.png "
    "--attention-at 150,100":
        Run(replace={"150,100": "20,20"}, makes=["out.png", "colours.png", "colours_at.png"]),
    "python test.py --image in.jpg --mask mask.png --output out.png --grow 4 --feather 4": Run(makes=["out.png"]),
    "python test.py --image in.jpg --mask mask.png --output out.png --checkpoint places2.npz --max-side 512":
        Run(makes=["out.png"]),
    "python test.py --image in.jpg --mask erased.png --invert-mask --output out.png": Run(makes=["out.png"]),
    "python test.py --image in.jpg --mask small_mask.png --resize-mask --max-side 512 --output out.png":
        Run(makes=["out.png"]),
    "python tools/attention_transfer.py A.jpg B.jpg --output rebuilt.png --save-attention colours.png":
        Run(makes=["rebuilt.png", "colours.png"]),

    # Lists and training
    PLACES2:
        Run(replace={"/data/places2": "places2", "256": "32"},
            makes=["data_places2/train.txt", "data_places2/val.txt"]),
    MINE_LISTS:
        Run(replace={"100": "1"}, makes=["data_mine/train.txt", "data_mine/val.txt"]),
    "python train.py --dry-run": Run(add=TRAIN, after=PLACES2),
    "python train.py --dry-run train_data_path=train_list.txt val_data_path=val_list.txt":
        Run(add=TRAIN, makes=["dry_run.png"]),
    "python train.py":
        Run(add=[*TRAIN, "expname=new"], after=PLACES2,
            makes=["checkpoints/places2/hole_new/checkpoint_00000001.npz", "checkpoints/places2/hole_new/train.txt"]),
    "python train.py --resume":
        Run(add=[*TRAIN, "expname=new", "niter=2"], after="python train.py",
            makes=["checkpoints/places2/hole_new/checkpoint_00000002.npz"]),
    "python train.py train_data_path=train_list.txt val_data_path=val_list.txt":
        Run(add=[*TRAIN, "expname=lists"], makes=["checkpoints/places2/hole_lists/checkpoint_00000001.npz"]),
    f"python train.py --dry-run {MINE}":
        Run(add=TRAIN, after=MINE_LISTS),
    f"python train.py {MINE}":
        Run(add=TRAIN, after=MINE_LISTS,
            makes=["checkpoints/mine/hole_benchmark/checkpoint_00000001.npz"]),
    f"python train.py --resume {MINE}":
        Run(add=[*TRAIN, "niter=2"], after=f"python train.py {MINE}",
            makes=["checkpoints/mine/hole_benchmark/checkpoint_00000002.npz"]),
    "python train.py --config configs/bsds500_64.yaml":
        Run(add=TRAIN, makes=["checkpoints/bsds500_64/hole_paper_objective/checkpoint_00000001.npz"]),
    "python -m paddle.distributed.launch --gpus 0,1,2,3 train.py train_data_path=train_list.txt "
    "val_data_path=val_list.txt": RANKS,
    "python -m paddle.distributed.launch --nproc_per_node 2 --backend gloo train.py --device cpu "
    "train_data_path=train_list.txt": RANKS,
    "python tools/plot_log.py checkpoints/places2/hole_benchmark/train.txt":
        Run(makes=["checkpoints/places2/hole_benchmark/train.png"]),
    "python tools/plot_log.py docs/with_critics/train.txt --output docs/with_critics/curves.png":
        Run(makes=["docs/with_critics/curves.png"]),
    "python tools/plot_log.py train.txt --output docs/released_curves.png": Run(makes=["docs/released_curves.png"]),

    # Evaluation
    "python test.py --baselines val_data_path=val_list.txt":
        Run(add=SIZES, makes=["checkpoints/places2/hole_benchmark/results.png"]),
    "python test.py --baselines val_data_path=val_list.txt protocol=random_box masks_per_image=5 --output random_box":
        Run(add=SIZES, makes=["random_box/test.txt"]),
    "python test.py --baselines --checkpoint places2.npz --count 100 --save-images --output done "
    "val_data_path=val_list.txt":
        Run(add=SIZES, makes=["done/test.csv", "done/images", "done/originals", "done/masks"]),
    "python test.py --baselines dataset_name=mine val_data_path=data_mine/val.txt":
        Run(add=SIZES, after=f"python train.py {MINE}", makes=["checkpoints/mine/hole_benchmark/test.txt"]),
    "python test.py --config configs/bsds500_64.yaml --baselines":
        Run(add=SIZES, after="python train.py --config configs/bsds500_64.yaml",
            makes=["checkpoints/bsds500_64/hole_paper_objective/test.txt"]),
    "python tools/make_masks.py masks protocol=freeform-thick val_data_path=val_list.txt":
        Run(add=["image_shape=[64,64,3]", "mask_shape=[32,32]"], makes=["masks/000000_0.png", "masks/masks.txt"]),
    "python test.py protocol=mask_list mask_path=masks/masks.txt val_data_path=val_list.txt":
        Run(add=SIZES, after="python tools/make_masks.py masks protocol=freeform-thick val_data_path=val_list.txt"),
    "pyiqa lpips -t done/images -r done/originals": WEIGHTS,
    "python -c \"from cleanfid import fid; print(fid.compute_fid('done/images', 'done/originals'))\"": WEIGHTS,
    "fidelity --fid --input1 done/images --input2 done/originals": WEIGHTS,
    "python tools/benchmark.py --rows attention cycle --json bench.json": BENCHMARK,


    # Weights
    "python tools/convert_weights.py release_places2_256 places2.npz": Run(makes=["places2.npz"]),
    "python tools/convert_weights.py gen_00430000.pt port.npz --critics dis_00430000.pt": Run(makes=["port.npz"]),
    "python tools/convert_weights.py checkpoints/imagenet/hole_run run.npz": Run(makes=["run.npz"]),
    "python tools/convert_weights.py released generator.pdparams --export-pdparams":
        Run(makes=["generator.pdparams"]),
    "python tools/release.py checkpoints/places2/hole_benchmark --output checkpoints/my_release --data data.txt "
    "--licence terms.txt":
        Run(replace={"checkpoints/places2/hole_benchmark": "checkpoints/places2/hole_new"}, after="python train.py",
            makes=["checkpoints/my_release/generator.npz", "checkpoints/my_release/README.md"]),
    "python tools/release.py checkpoints/places2/hole_benchmark --last 8 --output mean.npz":
        Run(replace={"8": "1"}, makes=["mean.npz"]),
    "python test.py --checkpoint mean.npz val_data_path=val_list.txt":
        Run(add=SIZES, after="python tools/release.py checkpoints/places2/hole_benchmark --last 8 --output mean.npz",
            makes=["test.txt"]),
    "python tools/export.py places2.npz --output programs": Run(makes=["programs/about.json"]),
    "python tools/export.py places2.npz --output programs --format both":
        NotRun("needs paddle2onnx; tests/tools/test_export.py runs it where that is installed"),
    "python test.py --checkpoint places2.npz val_data_path=val_list.txt": Run(add=SIZES, makes=["test.txt"]),
}
# fmt: on


def text_of(document: str) -> str:
    return (PROJECT / document).read_text(encoding="utf-8")


def commands(document: str) -> list[str]:
    """The lines of the ```sh blocks, without comments and with single spaces."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text_of(document), re.MULTILINE | re.DOTALL)
    lines = (line for block in blocks for line in block.replace("\\\n", " ").splitlines())
    bare = (" ".join(re.sub(r"(^|\s)#.*", "", line).split()) for line in lines)
    return [line for line in bare if line]


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]+`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def spans(document: str) -> Iterator[str]:
    """What stands `like this` in the text."""
    text = re.sub(r"^```.*?^```", "", text_of(document), flags=re.MULTILINE | re.DOTALL)
    return (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text))


EVERYTHING = list(dict.fromkeys(command for document in DOCUMENTS for command in commands(document)))
# In the text, too; a synopsis has brackets around its options: it is a form and no command.
SPANS = {span for document in DOCUMENTS for span in spans(document) if span.startswith(("python ", "make "))}
INLINE = sorted(span for span in SPANS if "[-" not in span and "..." not in span)


# The programs


@functools.cache
def program(path: str) -> ModuleType:
    """A script by its path; test.py's own name belongs to a package of Python."""
    if path.startswith("tools/"):
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(PROJECT / "tools")  # as Python does for a script there
            return importlib.import_module(path.replace("/", ".").removesuffix(".py"))
    spec = importlib.util.spec_from_file_location(f"documented_{Path(path).stem}", PROJECT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Parsed(BaseException):
    """Raised in place of going on after the arguments; args: the parser."""


def stop_at_parsing(monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    """Programs end with Parsed when they parse their arguments, `after` they were accepted or before."""

    def stopping(original: Callable) -> Callable:
        def parse(self, *arguments, **options):
            if after:
                original(self, *arguments, **options)
            raise Parsed(self)

        return parse

    for name in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(argparse.ArgumentParser, name, stopping(getattr(argparse.ArgumentParser, name)))


@pytest.fixture
def stop_after_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at_parsing(monkeypatch, after=True)


def parser_of(path: str, words: list[str]) -> argparse.ArgumentParser:
    """The parser with which a program met the words; AssertionError if it refuses them."""
    module = program(path)
    try:
        (getattr(module, "parse_arguments", None) or module.main)(words)
    except Parsed as parsed:
        return parsed.args[0]
    except (UserError, SystemExit) as error:
        raise AssertionError(f"{path} does not take {words}: {error}") from None
    raise AssertionError(f"{path} has not parsed {words}")


def check_command(command: str) -> None:
    """AssertionError unless the program, its options, configuration keys and files of the project exist."""
    words = shlex.split(command)
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word} <= set(targets)
    elif words[:3] == ["pip", "install", "-r"]:
        assert (PROJECT / words[3]).is_file()
    elif words[0] == "python" and words[1] != "-c":
        if words[1] == "-m":  # the launcher has options of its own before the script
            words = ["python", *words[words.index("train.py") :]]
        parser_of(words[1], words[2:])
        keys = [word for word in words[2:] if re.fullmatch(r"[\w.]+=.*", word)]
        if words[1] in ("train.py", "test.py", "tools/make_masks.py"):
            default = "configs/config.yaml" if words[1] == "train.py" else "configs/test.yaml"
            config = words[words.index("--config") + 1] if "--config" in words else default
            load_config(str(PROJECT / config), TrainConfig if words[1] == "train.py" else TestConfig, keys)


@pytest.mark.usefixtures("stop_after_parsing")
@pytest.mark.parametrize("command", [*EVERYTHING, *INLINE])
def test_programs_take_what_the_documents_say(command: str) -> None:
    check_command(command)


@pytest.mark.usefixtures("stop_after_parsing")
@pytest.mark.parametrize(
    "command", ["python train.py --colour", "python test.py --image", "python train.py batchsize=3", "make coffee"]
)
def test_what_programs_do_not_take_is_found(command: str) -> None:
    with pytest.raises((AssertionError, UserError)):
        check_command(command)


def test_options_in_the_text_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--like-this`, in any document, is an option of a program that the documents name."""
    stop_at_parsing(monkeypatch, after=False)
    known = {"--gpus", "--nproc_per_node", "--backend", "--logdir"}  # Paddle's launcher and VisualDL
    known |= {"--fid", "--input1", "--input2"}  # torch-fidelity
    named = {path for d in DOCUMENTS for path in re.findall(r"\b(?:tools/\w+|train|test)\.py", text_of(d))}
    for path in named:
        known.update(parser_of(path, [])._option_string_actions)
    used = {option for d in DOCUMENTS for span in spans(d) for option in re.findall(r"(?<!\S)--[a-z][\w-]*", span)}
    assert sorted(used - known) == []


def test_every_command_has_its_line() -> None:
    assert [command for command in EVERYTHING if command not in COMMANDS] == [], "say in COMMANDS how to run them"
    assert [command for command in COMMANDS if command not in EVERYTHING] == [], "no document has them"


# The commands, run


def write_photo(path: Path, seed: int, height: int = 48, width: int = 40) -> None:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))


def write_foreign_weights(folder: Path) -> None:
    """A small network as the authors' release, the PyTorch port and the Paddle-GI port save theirs."""
    networks = {
        "generator": InpaintingGenerator(2),
        "local_critic": LocalCritic(2, 16),
        "global_critic": GlobalCritic(2, 32),
    }
    states = {key: {k: v.numpy() for k, v in network.state_dict().items()} for key, network in networks.items()}
    variables = {
        tf1_name(key, name): np.ascontiguousarray(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array)
        for key, state in states.items()
        for name, array in state.items()
    }
    release = folder / "release_places2_256"
    release.mkdir()
    write_tensorflow(release / "snap-1", variables)
    (release / "checkpoint").write_text('model_checkpoint_path: "snap-1"\n', encoding="utf-8")

    critics = {"localD": LocalCritic(2, 16, "pytorch"), "globalD": GlobalCritic(2, 32, "pytorch")}
    critics = {key: {k: v.numpy() for k, v in critic.state_dict().items()} for key, critic in critics.items()}
    run = folder / "checkpoints/imagenet/hole_run"
    run.mkdir(parents=True)
    write_paddle(run / "gen_00000020.pdparams", states["generator"])
    write_paddle(run / "dis_00000020.pdparams", critics)
    turned = {
        key: OrderedDict((k, v.T.copy() if k == "linear.weight" else v) for k, v in state.items())
        for key, state in critics.items()
    }
    write_torch(folder / "gen_00430000.pt", states["generator"])
    write_torch(folder / "dis_00430000.pt", turned)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny one of every file that the documents name, and the project's configurations."""
    folder = tmp_path_factory.mktemp("documents")
    (folder / "configs").symlink_to(PROJECT / "configs")
    (folder / "docs/with_critics").mkdir(parents=True)
    (folder / "docs/example").symlink_to(PROJECT / "docs/example")
    for log in ("train.txt", "docs/with_critics/train.txt"):
        (folder / log).write_bytes((PROJECT / log).read_bytes())
    names = ["in.jpg", "A.jpg", "B.jpg", "photos/a.jpg", "photos/b.jpg", *(f"my_photos/{i}.png" for i in range(3))]
    names += [f"places2/{part}/{i}.jpg" for part in ("train", "val") for i in range(2)]
    for seed, name in enumerate(names):
        write_photo(folder / name, seed)
    hole = np.zeros((48, 40), np.uint8)
    hole[16:28, 14:24] = 255
    (folder / "masks").mkdir()
    for name in ("mask.png", "masks/a.png", "masks/b.png"):
        cv2.imwrite(str(folder / name), hole)
    cv2.imwrite(str(folder / "small_mask.png"), hole[::2, ::2])
    erased = np.dstack([cv2.imread(str(folder / "in.jpg")), 255 - hole])
    cv2.imwrite(str(folder / "erased.png"), erased)
    for name in ("train_list.txt", "val_list.txt"):
        (folder / name).write_text("photos/a.jpg\nphotos/b.jpg\n", encoding="utf-8")
    for name in ("data.txt", "terms.txt"):
        (folder / name).write_text("Some words.\n", encoding="utf-8")
    for name in ("photos/train.txt", "photos/val.txt"):
        (folder / name).write_text("a.jpg\nb.jpg\n", encoding="utf-8")
    for run in ("places2/hole_benchmark", "demo/hole_small"):
        path = Path(tiny_checkpoint.write(folder / "checkpoints" / run))
        path.with_name("train.txt").write_bytes((PROJECT / "train.txt").read_bytes())
    (folder / "places2.npz").write_bytes(path.read_bytes())
    write_foreign_weights(folder)
    return folder


@pytest.fixture(scope="module")
def done() -> set[str]:
    """The commands that were run already."""
    return set()


def run(command: str, place: Path, done: set[str]) -> None:
    form = COMMANDS[command]
    if command in done:
        return
    if form.after:
        run(form.after, place, done)
    _, script, *words = shlex.split(command)
    before = {name: (place / name).stat().st_mtime_ns for name in form.makes if (place / name).exists()}
    try:
        code = program(script).main([*(form.replace.get(word, word) for word in words), *form.add])
    except SystemExit as end:
        code = end.code
    assert not code
    for name in form.makes:
        assert (place / name).exists() and (place / name).stat().st_mtime_ns != before.get(name), name
    done.add(command)


@pytest.fixture
def own_signals() -> Iterator[None]:
    """A training takes over the signals that end a program; in a test they are given back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def marked(command: str):
    """Commands that use Paddle Inference get a process of their own."""
    uses_inference = "tools/export.py" in command or "--engine inference" in command
    return pytest.param(command, marks=[pytest.mark.own_process] * uses_inference)


@pytest.mark.usefixtures("own_signals")
@pytest.mark.parametrize("command", [marked(command) for command, form in COMMANDS.items() if isinstance(form, Run)])
def test_command(command: str, place: Path, done: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if "plot_" in command:
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(place)
    monkeypatch.setattr("sys.argv", ["documented"])
    run(command, place, done)


def test_python_of_the_readmes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines for Python users, from another folder; the same in both languages but for their comments."""
    code = [re.search(r"^```python\n(.*?)^```", text_of(readme), re.M | re.S)[1] for readme in (ENGLISH, CHINESE)]
    bare = [re.sub(r" +#.*", "", text) for text in code]
    assert bare[0] == bare[1] and "/path/to/project" in bare[0]
    monkeypatch.chdir(place)
    monkeypatch.setattr("sys.path", list(sys.path))
    found: dict = {}
    exec(bare[0].replace("/path/to/project", str(PROJECT)), found)
    known = ~found["mask"]
    assert found["result"].shape == found["image"].shape and found["mask"].any()
    assert np.array_equal(found["result"][known], found["image"][known])


def test_readmes_are_short() -> None:
    assert all(text_of(readme).count("\n") <= 200 for readme in (ENGLISH, CHINESE))


# The text


def test_both_readmes_are_in_step() -> None:
    english, chinese = text_of(ENGLISH), text_of(CHINESE)
    assert commands(ENGLISH) == commands(CHINESE)

    def shape(text: str) -> list[str]:
        return re.findall(r"^#+(?= )", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)

    def figures(text: str) -> list[str]:
        rows = [line for line in text.splitlines() if line.startswith("|")]
        return [number for row in rows for number in re.findall(r"\d+\.\d+", re.sub(r"\([^)]*\)", "", row))]

    assert shape(english) == shape(chinese)
    assert figures(english) == figures(chinese)
    assert pages(english) == pages(chinese)


def pages(text: str) -> list[str]:
    """The files that a document links to, in order; not its own sections and not the web."""
    return [page for page in (target.partition("#")[0] for target in links(text)) if page and ":" not in page
            and not page.startswith("README")]


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", without_code(text))


def anchors(text: str) -> list[str]:
    """Those that GitHub gives to the headings."""
    found: list[str] = []
    for heading in re.findall(r"^#+ +(.*?) *$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return found


def test_anchors_by_hand() -> None:
    text = "# A b\n## `--device gpu: ...`, or 快速\n## A b\n```\n# no\n```\n"
    assert anchors(text) == ["a-b", "--device-gpu--or-快速", "a-b-1"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_nothing_is_left_to_be_filled_in(document: str) -> None:
    assert re.findall(r"to be measured|to be filled in|待测|\bTODO\b", text_of(document), re.IGNORECASE) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    wrong = []
    for target in links(text_of(document)):
        if target.startswith("https://"):
            continue
        page, _, anchor = target.partition("#")
        path = Path(os.path.normpath(PROJECT / Path(document).parent / page)) if page else PROJECT / document
        there = path.exists() and PROJECT in [path, *path.parents]
        if not there or (anchor and anchor not in anchors(path.read_text(encoding="utf-8"))):
            wrong.append(target)
    assert wrong == []


@pytest.mark.parametrize("picture", sorted((PROJECT / "docs").glob("*.svg")), ids=lambda path: path.name)
def test_diagrams_have_a_ground_of_their_own(picture: Path) -> None:
    """So that they can be read on a dark page: the first thing drawn fills the picture."""
    root = xml.etree.ElementTree.parse(picture).getroot()
    name = "{http://www.w3.org/2000/svg}"
    width, height = (float(root.get(side)) for side in ("width", "height"))
    first = next(part for part in root if part.tag not in (f"{name}title", f"{name}defs"))
    assert first.tag == f"{name}rect" and first.get("fill") == "#ffffff"
    assert float(first.get("width")) >= width - 2 and float(first.get("height")) >= height - 2
