"""Checks a device: compares it with the CPU, and measures which batch size fits.

    python tools/check_device.py [--device cpu|gpu] [--quick]

An iteration of the paper (five critic updates, one generator update, 256x256) is timed at batch 1 to 48, or until
memory ends; on a CPU at batch 1 and 2. Attention, networks, the second gradients of the penalty, a few iterations and
mixed precision are computed on the CPU and on the device from the same numbers. The last line says whether all agree;
the output is made to be pasted into a report. The exit code is 1 where something is wrong.

An error is |device - CPU| / |CPU|, with Euclidean norms. Comparisons are in float32 without TF32; iterations are
timed as train.py runs them.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

ENVIRONMENT = dict(os.environ)  # of the process that times: with TF32 as it was
if __name__ == "__main__" and "--times" not in sys.argv:
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")

from utils.cli import friendly_errors, one_line, prepare_paddle  # noqa: E402

with friendly_errors():
    prepare_paddle()

import numpy as np  # noqa: E402
import paddle  # noqa: E402

from data.loader import Batch  # noqa: E402
from models import patch_matching  # noqa: E402
from models.contextual_attention import ContextualAttention  # noqa: E402
from models.critics import GlobalCritic, LocalCritic  # noqa: E402
from models.generator import InpaintingGenerator  # noqa: E402
from models.losses import gradient_penalty  # noqa: E402
from trainer import Architecture, Objective, Optimization, Trainer  # noqa: E402
from utils.device import MemoryMeter, set_device  # noqa: E402

BATCHES = (1, 2, 4, 8, 16, 24, 32, 48)
# Channels of generator and critics, sides of images and of those that are trained on; the box has half of a side.
PAPER = SimpleNamespace(channels=32, critic_channels=64, image=256, trained=128)
QUICK = SimpleNamespace(channels=8, critic_channels=8, image=64, trained=64)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def holes(n: int, side: int) -> np.ndarray:
    """Masks [n, 1, side, side] with 1 = hole, another one for each sample."""
    mask = np.zeros((n, 1, side, side), np.float32)
    for i in range(n):
        mask[i, :, side // 4 + 2 * i : side // 2 + 2 * i, side // 4 : side // 2 + 3 * i] = 1
    return mask


def with_weights(network):
    """The network with weights that do not depend on the device, as Paddle's own initial ones do."""
    for number, parameter in enumerate(network.parameters()):
        outputs = parameter.shape[-1 if len(parameter.shape) == 2 else 0]  # of a linear unit, of a convolution
        scale = 0.05 if len(parameter.shape) == 1 else (2 * outputs / parameter.size) ** 0.5
        parameter.set_value(normal(*parameter.shape, seed=number) * np.float32(scale))
    return network


def make_trainer(side: int, channels: int, critic_channels: int, precision: str = "fp32") -> Trainer:
    architecture = Architecture(channels, critic_channels, image_size=(side, side), box_size=(side // 2, side // 2))
    trainer = Trainer(architecture, Objective(), Optimization(precision=precision), np.random.default_rng(0))
    for network in trainer.networks().values():
        with_weights(network)
    return trainer


def make_batch(n: int, side: int, seed: int = 0) -> Batch:
    image = np.tanh(normal(n, 3, side, side, seed=seed))
    return Batch(image, holes(1, side), np.array([[side // 4, side // 4, side // 2, side // 2]]))


def check_attention(sizes) -> Iterator[tuple]:
    """Yields, as the other checks, (name of a result, largest error, arrays)."""
    shape = (2, 4 * sizes.channels, sizes.image // 4, sizes.image // 4)
    inputs = [paddle.to_tensor(normal(*shape, seed=seed), stop_gradient=False) for seed in (1, 2)]
    mask = paddle.to_tensor(holes(2, sizes.image // 4))
    features, offsets = ContextualAttention()(*inputs, mask)
    yield "attention: features", 1e-4, [features.numpy()]
    yield "attention: offsets", 5e-2, [offsets.numpy()]  # a few ties may fall otherwise
    (features * paddle.to_tensor(normal(*shape, seed=3))).sum().backward()
    yield "attention: gradients", 1e-4, [tensor.grad.numpy() for tensor in inputs]
    with paddle.no_grad(), mock.patch.object(patch_matching, "MEMORY_BUDGET", 1):  # one row at a time
        yield "attention in chunks: features", 1e-4, [ContextualAttention()(*inputs, mask)[0].numpy()]


def check_networks(sizes) -> Iterator[tuple]:
    generator, mask = with_weights(InpaintingGenerator(sizes.channels)), holes(2, sizes.image)
    image = np.tanh(normal(2, 3, sizes.image, sizes.image))
    with paddle.no_grad():
        coarse, refined, _ = generator(paddle.to_tensor(image * (1 - mask)), paddle.to_tensor(mask))
    yield "generator: coarse and refined", 1e-4, [coarse.numpy(), refined.numpy()]
    for name, kind, side in (("local", LocalCritic, sizes.image // 2), ("global", GlobalCritic, sizes.image)):
        critic, shown = with_weights(kind(sizes.critic_channels, side)), paddle.to_tensor(image[..., :side, :side])
        yield f"{name} critic: scores", 1e-4, [critic(shown).numpy()]
        penalty = gradient_penalty(critic, shown, paddle.to_tensor(holes(2, side)))
        penalty.backward()
        second = [np.zeros(1) if p.grad is None else p.grad.numpy() for p in critic.parameters() if p.ndim > 1]
        yield f"{name} critic: gradient penalty", 1e-4, [penalty.numpy()]
        yield f"{name} critic: its second gradients", 1e-3, second


def check_training(sizes) -> Iterator[tuple]:
    trainer = make_trainer(sizes.trained, sizes.channels, sizes.channels)
    before = np.concatenate([parameter.numpy().ravel() for parameter in trainer.generator.parameters()])
    for iteration in range(3):
        batch = make_batch(2, sizes.trained, iteration)
        scalars = {**trainer.train_critics(batch), **trainer.train_generator(batch)}
        l1_and_ae = [np.array(scalars.pop(name)) for name in ("l1", "ae")]
        # The others as one vector: the critics' losses are differences and may be near zero.
        yield f"iteration {iteration + 1}: losses, gradient norms", 1e-2, [*l1_and_ae, np.array([*scalars.values()])]
    after = np.concatenate([parameter.numpy().ravel() for parameter in trainer.generator.parameters()])
    yield "3 iterations: change of the weights", 2e-1, [after - before]
    for precision, tolerance in (("fp16", 5e-2), ("bf16", 1e-1)):  # off on CPUs, which compute in float32
        on_cpu = paddle.device.get_device() == "cpu"
        trainer = make_trainer(sizes.trained, sizes.channels, sizes.channels, "fp32" if on_cpu else precision)
        scalars = trainer.train_generator(batch)
        yield f"mixed precision: {precision}", tolerance, [np.array(scalars[name]) for name in ("l1", "ae", "g")]


def compare(device: str, sizes) -> list[str]:
    """Prints a line for each result; returns the names of those that do not agree."""
    print(f"\n{'compared with the CPU':40}{'error':>9}{'at most':>9}", flush=True)
    wrong = []
    for check in (check_attention, check_networks, check_training):
        set_device("cpu")
        expected = list(check(sizes))
        set_device(device)
        found, failure = [], "WRONG"
        try:
            found.extend(arrays for _, _, arrays in check(sizes))
        except Exception as error:  # whatever an operator without support for this device raises
            failure = f"WRONG: {type(error).__name__}: {one_line(error)[-200:]}"
        for number, (name, tolerance, arrays) in enumerate(expected):
            if name.startswith("mixed") and device == "cpu":
                continue
            pairs = zip(found[number], arrays) if number < len(found) else [(np.nan, 1.0)]
            error = np.max([np.linalg.norm(np.float64(a) - b) / max(np.linalg.norm(b), 1e-30) for a, b in pairs])
            agrees = bool(error <= tolerance)  # False for NaN
            wrong += [] if agrees else [name]
            print(f"{name:40}{error:9.1e}{tolerance:9.0e}  {'ok' if agrees else failure}", flush=True)
    return wrong


def time_iterations(device: str, sizes) -> None:
    """Prints what the device is, time and memory of an iteration for each batch size, and the largest that ran."""
    print(f"device     {set_device(device)}")
    if device == "gpu":
        about = paddle.device.cuda.get_device_properties()
        print(f"           {about.total_memory >> 20} MiB, compute capability {about.major}.{about.minor}, "
              f"CUDA {paddle.version.cuda()}, cuDNN {paddle.version.cudnn()}")
    print(f"versions   Paddle {paddle.__version__}, Python {platform.python_version()}, {platform.platform()}\n\n"
          f"one iteration, {sizes.image}x{sizes.image}\nbatch   seconds   peak MiB", flush=True)
    largest = "none"
    for n in BATCHES if device == "gpu" else BATCHES[:2]:
        try:
            meter = MemoryMeter(device == "gpu")
            trainer = make_trainer(sizes.image, sizes.channels, sizes.critic_channels)
            batch = make_batch(n, sizes.image)
            for critic_updates in (1, 5):  # the first ones choose algorithms and take memory
                start = time.perf_counter()
                for _ in range(critic_updates):
                    trainer.train_critics(batch)
                trainer.train_generator(batch)
            seconds, extra = time.perf_counter() - start, meter.extra()
        except Exception as error:  # Paddle has several for the end of memory
            print(f"{n:5}   {type(error).__name__}: {one_line(error)[-200:]}")
            break
        print(f"{n:5}{seconds:10.3f}{'-' if extra is None else round(meter.base + extra):>11}", flush=True)
        largest = str(n)
    print(f"largest batch that ran: {largest}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Checks a device: compares it with the CPU, and times training.")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="default: the GPU where Paddle can use one")
    parser.add_argument("--quick", action="store_true", help="small networks and images")
    parser.add_argument("--times", action="store_true", help=argparse.SUPPRESS)
    with friendly_errors():
        args = parser.parse_args(argv)
        device, sizes = set_device(args.device)[:3], QUICK if args.quick else PAPER
        if args.times:
            time_iterations(device, sizes)
            return 0
        # In a process of its own, whose memory may end, and before the comparison takes any
        command = [sys.executable, __file__, "--times", "--device", device, *(["--quick"] if args.quick else [])]
        code = subprocess.run(command, env=ENVIRONMENT).returncode
        wrong = compare(device, sizes)
        agreement = f"{len(wrong)} results do not agree ({'; '.join(wrong)})" if wrong else "all agree with the CPU"
        print(f"\nresult: {agreement}{f'; the timing ended with code {code}' if code else ''}")
    return 1 if wrong or code else 0


if __name__ == "__main__":
    sys.exit(main())
