"""Measures cells of `tools/benchmark.py` in a process of its own; started by it, not by hand.

    python tools/benchmark_row.py REQUEST ANSWER [--untouched]

REQUEST is a JSON file, ANSWER gets one JSON line a cell. --untouched leaves Paddle's settings as they come.
"""

# ruff: noqa: E402 (paddle has to be prepared before it is imported)
from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(PROJECT))

from utils.cli import one_line, prepare_paddle

if "--untouched" not in sys.argv:
    prepare_paddle()

import cv2  # noqa: F401 (before paddle, see utils/cli.py)
import numpy as np
import paddle
import plain_forms

from data.dataset import PhotoDataset, center_crop, decode_image
from data.loader import TrainLoader
from data.masks import boxes_to_mask, center_box
from models.contextual_attention import ContextualAttention, resize_nearest
from models.generator import InpaintingGenerator
from models.layers import hide_hole
from tester import Tester
from trainer import Architecture, Objective, Optimization, Trainer
from utils.checkpoint import save_checkpoint
from utils.device import MemoryMeter, process_memory, set_device
from utils.run_state import training_arrays

PHOTOS = (
    "astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg",
    "motorcycle_left.png", "ihc.png", "retina.jpg", "hubble_deep_field.jpg",
)
N_CRITIC = 5
LARGEST_JUDGED = 256 * 256  # pixels; sharpness needs the whole matrix of weights


def photo_paths() -> list[str]:
    """Photographs inside scikit-image's package, found without importing it."""
    package = importlib.util.find_spec("skimage")
    if package is None or not package.submodule_search_locations:
        raise RuntimeError("scikit-image is not installed: run `make setup`")
    return [str(Path(package.submodule_search_locations[0]) / "data" / name) for name in PHOTOS]


def photographs(size, batch: int) -> np.ndarray:
    """uint8 [N, H, W, 3]."""
    paths = photo_paths()
    return np.stack([center_crop(decode_image(paths[i % len(paths)]), *size) for i in range(batch)])


def central_hole(size) -> np.ndarray:
    """A hole of half the sides, float32 [1, 1, H, W]."""
    return boxes_to_mask([center_box(size, (size[0] // 2, size[1] // 2))], size)


def pictures(size, batch: int):
    """What a generator is called with: pictures without their hole, and the mask."""
    image = photographs(size, batch).transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
    mask = paddle.to_tensor(central_hole(size))
    return hide_hole(paddle.to_tensor(image), mask), mask


def features_file(folder: str, kind: str, size, batch: int) -> str:
    return os.path.join(folder, f"{kind}_{size[0]}x{size[1]}_{batch}.npy")


def write_features(folder: str, network, kind: str, size, batch: int):
    """Inputs of the attention at a picture size: normal numbers, or what it gets from photographs."""
    shape = [batch, network.fine_generator.pmconv6.conv.weight.shape[0], size[0] // 4, size[1] // 4]
    if kind == "random":
        features = np.random.default_rng(0).standard_normal(shape, np.float32)
    else:
        captured = []
        attention = network.fine_generator.contextual_attention
        hook = attention.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0].numpy()))
        with paddle.no_grad():
            for i in range(batch):
                image, mask = pictures(size, batch)
                network(image[i : i + 1], mask)
        hook.remove()
        features = np.concatenate(captured)
    np.save(features_file(folder, kind, size, batch), features)
    return features


def prepare(folder: str, checkpoint: str | None, channels: int, wanted: list) -> dict:
    """Writes the inputs that cells read, so that making them leaves no trace in a cell's memory.

    wanted: (kind, size, batch) of attention inputs. Returns what is known about the machine and the inputs.
    """
    if checkpoint is None:
        paddle.seed(0)
        arrays = InpaintingGenerator(channels).state_dict()
        meta = {"architecture": {"generator_channels": channels, "dialect": "tf1"}, "iteration": 0}
        meta.update(mask_type="hole", mosaic_unit_size=12, coarse_only=False)
        checkpoint = os.path.join(folder, "untrained.npz")
        save_checkpoint(checkpoint, {f"generator/{name}": value.numpy() for name, value in arrays.items()}, meta)
    tester = Tester(checkpoint)
    judged = []
    for kind, size, batch in wanted:
        features = write_features(folder, tester.network, kind, size, batch)
        if size[0] * size[1] <= LARGEST_JUDGED:
            mask = resize_nearest(paddle.to_tensor(central_hole(size)), 4, tester.model.dialect)
            found = plain_forms.sharpness(paddle.to_tensor(features), mask, tester.model.dialect)
            judged.append({"features": kind, "size": size, "batch": batch, **found})
    return {
        "environment": {
            "paddle": paddle.__version__,
            "python": platform.python_version(),
            "threads": os.environ.get("OMP_NUM_THREADS", "not set"),
            "mkl_cpu_type": os.environ.get("MKL_DEBUG_CPU_TYPE"),
        },
        "checkpoint": checkpoint,
        "channels": tester.model.channels,
        "dialect": tester.model.dialect,
        "sharpness": judged,
    }


# Each of these builds what one cell repeats: a function that does the work once and returns arrays (or numbers) to
# compare between forms.


def matmul(cell, request):
    rng = np.random.default_rng(0)
    a, b = (paddle.to_tensor(rng.standard_normal([cell["side"]] * 2, np.float32)) for _ in range(2))
    return lambda: {"product": paddle.matmul(a, b)[:1]}


def attention(cell, request):
    features = np.load(features_file(request["folder"], cell["features"], cell["size"], cell["batch"]))
    x = paddle.to_tensor(features)
    mask = resize_nearest(paddle.to_tensor(central_hole(cell["size"])), 4, request["dialect"])
    layer = ContextualAttention(dialect=request["dialect"])
    flush = cell["form"] == "published, flushed"

    def forward():
        if cell["form"] == "ours":
            return layer(x, x, mask)[0]
        return plain_forms.attention(x, x, mask, request["dialect"], flush)[0]

    if not cell["backward"]:

        def work():
            with paddle.no_grad():
                return {"features": forward()}

        return work

    upstream = paddle.to_tensor(np.random.default_rng(1).standard_normal(features.shape, np.float32))
    x.stop_gradient = False

    def work_with_gradient():
        x.clear_gradient()
        result = forward()
        result.backward(upstream)
        return {"features": result.detach(), "gradient": x.grad}

    return work_with_gradient


def generator(cell, request):
    network = Tester(request["checkpoint"]).network
    image, mask = pictures(cell["size"], cell["batch"])
    if cell["form"] == "ours, compiled":
        network = paddle.jit.to_static(network, full_graph=True)
    elif cell["form"] != "ours":
        network = plain_forms.Generator(network, request["dialect"], flush=cell["form"] == "published, flushed")

    def work():
        with paddle.no_grad():
            return dict(zip(("coarse", "refined"), network(image, mask)))

    return work


def tester(cell, request):
    program = Tester(request["checkpoint"])
    images, masks = photographs(cell["size"], 1), central_hole(cell["size"])[:, 0].astype(np.uint8)
    if cell["form"] == "ours, --engine inference":
        program.use_inference_engine()
    elif cell["form"] != "ours":
        plain = plain_forms.Generator(program.network, request["dialect"])
        program.network = lambda *inputs: (*plain(*inputs), paddle.zeros([1]))
    return lambda: {"completed": np.float32(program.complete(images, masks)[1])}


def batches(cell, num_workers: int = 0) -> TrainLoader:
    h, w = cell["size"]
    data = PhotoDataset(photo_paths(), (h, w), seed=0)
    delta = (h // 8, w // 8)
    return TrainLoader(data, cell["batch"], (h // 2, w // 2), max_delta=delta, num_workers=num_workers)


def loader(cell, request):
    stream = batches(cell, num_workers=cell["workers"])

    def work():
        for _ in range(N_CRITIC + 1):
            last = next(stream)
        return {"image": last.image, "mask": last.mask}

    return work


def training(cell, request):
    h, w = cell["size"]
    channels = request["training_channels"]
    paddle.seed(0)
    trainer = Trainer(
        Architecture(channels, 2 * channels, (h, w), (h // 2, w // 2)),
        Objective(),
        Optimization(),
        rng=np.random.default_rng(0),
    )
    steps = trainer
    if cell["form"] != "ours":
        steps = plain_forms.Training(trainer, flush=cell["form"] == "published, flushed")
    with batches(cell) as stream:
        ready = [next(stream) for _ in range(N_CRITIC + 1)]
    critics = N_CRITIC if cell["part"] == "iteration" else int(cell["part"] == "critics")
    moments = {"critics": "critic_optimizer/moment1/", "generator": "generator_optimizer/moment1/"}.get(cell["part"])
    first = True

    def work():
        nonlocal first
        scalars = {}
        for batch in ready[:critics]:
            scalars.update(steps.train_critics(batch))
        if cell["part"] != "critics":
            scalars.update(steps.train_generator(ready[-1]))
        losses = [value for name, value in scalars.items() if not name.startswith("grad_norm")]
        result = {"losses": np.array(losses)}
        if first and moments:  # after one update these are its gradients, times a constant
            found = [value.ravel() for name, value in training_arrays(trainer).items() if name.startswith(moments)]
            result["gradient"] = np.concatenate(found)
        first = False
        return result

    return work


WORK: dict[str, Callable] = {f.__name__: f for f in (matmul, attention, generator, tester, loader, training)}


def limit_memory():
    """Lets an allocation fail that the machine has no memory for, rather than have the system end some process."""
    with contextlib.suppress(OSError, ImportError, ValueError):
        import resource

        with open("/proc/meminfo", encoding="ascii") as file:
            free = next(int(line.split()[1]) for line in file if line.startswith("MemAvailable"))
        allowed = int(0.9 * free * 1024 + process_memory("VmSize") * 2**20)
        resource.setrlimit(resource.RLIMIT_AS, (allowed, resource.getrlimit(resource.RLIMIT_AS)[1]))


def measure(cell: dict, request: dict, gpu: bool) -> dict:
    work = WORK[cell["work"]](cell, request)
    memory = MemoryMeter(gpu)

    def timed():
        started = time.perf_counter()
        result = work()
        if gpu:
            paddle.device.synchronize()
        return time.perf_counter() - started, result

    slow, result = timed()  # warm-up
    values = {name: np.asarray(value) for name, value in result.items()}
    np.savez(os.path.join(request["folder"], f"{cell['number']}.npz"), **values)
    del result, values
    if slow < 1:
        timed()
    times = []
    while len(times) < request["repeats"] and (len(times) < 2 or sum(times) < request["seconds"]):
        times.append(timed()[0])
    return {"times": times, "seconds": float(np.median(times)), "base_mib": memory.base, "peak_mib": memory.extra()}


def main(request_path: str, answer_path: str):
    with open(request_path, encoding="utf-8") as file:
        request = json.load(file)
    device = set_device(request["device"])
    gpu = device.startswith("gpu")
    if not gpu:
        limit_memory()
    with open(answer_path, "w", encoding="utf-8") as answer:
        if "prepare" in request:
            found = prepare(**request["prepare"])
            found["environment"]["device"] = device
            print(json.dumps(found), file=answer)
        for cell in request.get("cells", []):
            try:
                record = measure(cell, request, gpu)
            except (MemoryError, RuntimeError, OSError) as error:
                scarce = isinstance(error, MemoryError) or "ResourceExhausted" in str(error)
                reason = "not enough memory" if scarce else one_line(error)[:200] or type(error).__name__
                record = {"error": reason}
            print(json.dumps(record), file=answer, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
