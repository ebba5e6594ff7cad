"""Times attention, networks, updates and inference on the CPU: ours, a reference form, the PyTorch port.

Forms:  ours       what train.py and test.py run; with --peer in the port's dialect: the same networks
        port       --peer: a checkout of github.com/daa233/generative-inpainting-pytorch, by its own trainer
        reference  ours with Paddle's own convolutions and the attention in its readable, batched form
        loop       attention only, as the ports publish it: sample after sample, patches as convolution filters

Each form of a row is built in a process of its own; then they run in turn, --pairs times: ours, port, ours, port, ...
The table has medians of seconds, in brackets the median over the pairs of ours / other (below 1 ours is faster), for
ours the share of the peak GEMM throughput, which a 2048x2048 float32 matrix product reaches, and the peak resident
memory of the process. Above 512x512 pixels ours alone is measured. Use an idle machine.
A cycle is 5 critic updates and 1 generator update. The port makes its last critic update and its generator update
from one forward pass, so it has no generator update by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import time
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, run
from types import SimpleNamespace

# No import of ours or of Paddle up here: Paddle has to be prepared first, and the port has a `utils` of its own.
PROJECT = Path(__file__).resolve().parents[1]
PEAK = "matrix product"
FORMS = ("ours", "port", "reference", "loop")
ROWS = {  # and the forms that each has
    "attention": FORMS,
    "attention-backward": FORMS,
    "generator": FORMS[:3],
    "critic-update": FORMS[:3],
    "generator-update": ("ours", "reference"),
    "cycle": FORMS[:3],
    "image": FORMS[:3],
}
N_CRITIC = 5
CHANNELS = 128  # of the features that attention gets: 4c with the paper's c = 32
FEATURE_SCALE = 0.02  # for a soft softmax; a sharp one leaves denormal numbers, on which a CPU is slow
KILLED = '{"error": "its process was killed; out of memory?"}'
TURN = 0.5  # seconds: a turn repeats short work for so long and takes the median


def our_steps(row: str, form: str, size: int, batch: int, dialect: str):
    """A row's steps, functions that are called one after another and timed together, and their FLOPs in our form."""
    import numpy as np
    import paddle

    from data.loader import Batch
    from models.contextual_attention import ContextualAttention
    from models.costs import attention_operations
    from models.layer_costs import generator_costs, network_costs, training_cost
    from tester import RELEASED, Tester
    from trainer import Architecture, Objective, Optimization, Trainer

    paddle.set_device("cpu")
    rng = np.random.default_rng(0)
    if row == PEAK:
        a = paddle.to_tensor(rng.standard_normal([2048, 2048], np.float32))
        return [lambda: paddle.matmul(a, a)], 2 * 2048**3
    q = size // 4
    hole = np.pad(np.ones([1, 1, 2 * q, 2 * q], np.float32), [(0, 0), (0, 0), (q, q), (q, q)])  # central
    image = rng.uniform(-1, 1, [batch, 3, size, size]).astype(np.float32)
    if row.startswith("attention"):
        shape = [batch, CHANNELS, q, q]
        x, upstream = (paddle.to_tensor(rng.standard_normal(shape, np.float32)) for _ in range(2))
        x, mask = x * FEATURE_SCALE, paddle.to_tensor(hole[:, :, ::4, ::4])
        layer = ContextualAttention(dialect=dialect)
        attend = (lambda: loop_attention(x, mask)) if form == "loop" else lambda: layer(x, x, mask)[0]
        flops = batch * attention_operations(q * q / 4, CHANNELS)
        if row == "attention":
            return [paddle.no_grad()(attend)], flops
        x.stop_gradient = False
        return [x.clear_gradient, lambda: attend().backward(upstream)], 3 * flops
    if row in ("generator", "image"):
        tester = Tester(RELEASED)
        flops = sum(layer.operations for layer in generator_costs(tester.network, (size, size)))
        if row == "image":
            image = rng.integers(0, 256, [1, size, size, 3], np.uint8)
            return [lambda: tester.inpaint_stages(image, hole[:, 0])], flops
        hidden, mask = paddle.to_tensor(image * (1 - hole)), paddle.to_tensor(hole)
        return [paddle.no_grad()(lambda: tester.network(hidden, mask))], batch * flops
    architecture = Architecture(image_size=(size, size), box_size=(2 * q, 2 * q), dialect=dialect)
    trainer = Trainer(architecture, Objective(), Optimization(), rng)
    inputs = Batch(image, hole, np.array([[q, q, 2 * q, 2 * q]]))
    flops = training_cost(network_costs(trainer.networks(), (size, size)), N_CRITIC).operations
    critics, generator = (lambda: trainer.train_critics(inputs)), (lambda: trainer.train_generator(inputs))
    steps = {"critic-update": [critics], "generator-update": [generator]}.get(row, [critics] * N_CRITIC + [generator])
    return steps, batch * sum(flops["critics" if step is critics else "generator"] for step in steps)


def use_reference_forms():
    """From here on this process runs Paddle's own convolutions and the readable attention."""
    import paddle.nn.functional as F

    from models.contextual_attention import ContextualAttention
    from models.layers import ConvBlock
    from models.static_attention import attend_statically

    activations = {"elu": F.elu, "relu": F.relu, "leaky_relu": lambda x: F.leaky_relu(x, 0.2), None: lambda x: x}
    ConvBlock.forward = lambda self, x: activations[self.activation](self.conv(x))
    ContextualAttention.forward = lambda self, x, _, mask: attend_statically(
        x, mask, self.softmax_scale, self.fuse, self.dialect)


def loop_attention(features, mask):
    """`attend_statically` in dialect "pytorch" as the ports publish it; features [N, C, H, W], mask [1, 1, H, W]."""
    import paddle
    import paddle.nn.functional as F

    small, small_mask = (F.interpolate(x, scale_factor=0.5, mode="nearest") for x in (features, mask))
    c, h, w = small.shape[1:]
    holes = F.unfold(small_mask, 3, paddings=1).sum(axis=1)
    available = (holes == 0).astype("float32").reshape([1, h * w, 1, 1])
    identity = paddle.eye(3).reshape([1, 1, 3, 3])
    results = []
    for x, full in zip(small.split(small.shape[0]), features.split(small.shape[0])):  # [1, C, h, w], [1, C, H, W]
        filters = F.unfold(x, 3, paddings=1).transpose([2, 0, 1]).reshape([h * w, c, 3, 3])
        norms = paddle.sqrt((filters * filters + 1e-4).sum(axis=[1, 2, 3], keepdim=True))
        scores = F.conv2d(x, filters / norms, padding=1)  # [1, h*w, h, w]
        for sides in ([h, w, h, w], [w, h, w, h]):  # fusion with positions numbered by rows, then by columns
            scores = F.conv2d(scores.reshape([1, 1, h * w, h * w]), identity, padding=1)
            scores = scores.reshape([1, *sides]).transpose([0, 2, 1, 4, 3])
        weights = F.softmax(scores.reshape([1, h * w, h, w]) * available * 10.0, axis=1) * available
        patches = F.unfold(full, 4, strides=2, paddings=1).transpose([2, 0, 1]).reshape([h * w, c, 4, 4])
        results.append(F.conv2d_transpose(weights, patches, stride=2, padding=1) / 4.0)
    return paddle.concat(results)


def port_steps(row: str, folder: str, size: int, batch: int):
    """A row's steps by the port's own networks, trainer and configuration, as they are, on the CPU."""
    sys.path[0] = folder  # in place of tools/
    sys.modules["torchvision"] = SimpleNamespace(transforms=None, utils=None)  # for image files: not read here
    import torch
    import yaml
    from model.networks import ContextualAttention
    from utils.tools import mask_image, random_bbox

    from trainer import Trainer

    config = yaml.safe_load(Path(folder, "configs", "config.yaml").read_text(encoding="utf-8"))
    config.update(cuda=False, gpu_ids=[], image_shape=[size, size, 3], mask_shape=[size // 2, size // 2])
    image = torch.rand(batch, 3, size, size) * 2 - 1
    hidden, mask = mask_image(image, random_bbox(config, batch), config)
    if row.startswith("attention"):
        shape = batch, CHANNELS, size // 4, size // 4
        x = (torch.randn(shape) * FEATURE_SCALE).requires_grad_(row == "attention-backward")
        layer = ContextualAttention(rate=2, fuse=True)  # its other defaults are what its generator uses
        attend, upstream = (lambda: layer(x, x, mask)[0]), torch.randn(shape)
        return [attend if row == "attention" else lambda: torch.autograd.grad(attend(), x, upstream)]
    trainer = Trainer(config)
    if row in ("generator", "image"):
        n, network = (batch, trainer.netG) if row == "generator" else (1, trainer.inference)
        return [torch.no_grad()(lambda: network(hidden[:n], mask[:n]))]

    def update(with_generator: bool):
        boxes = random_bbox(config, batch)
        hidden, mask = mask_image(image, boxes, config)
        losses = trainer(hidden, boxes, mask, image, with_generator)[0]
        # The generator's gradients first: the port takes them after the critics' step, which torch refuses since 1.5.
        if with_generator:
            trainer.optimizer_g.zero_grad()
            loss = losses["l1"] * config["l1_loss_alpha"] + losses["ae"] * config["ae_loss_alpha"]
            (loss + losses["wgan_g"] * config["gan_loss_alpha"]).backward()
        trainer.optimizer_d.zero_grad()
        (losses["wgan_d"] + losses["wgan_gp"] * config["wgan_gp_lambda"]).backward()
        trainer.optimizer_d.step()
        if with_generator:
            trainer.optimizer_g.step()

    critics, both = (lambda: update(False)), (lambda: update(True))
    return [critics] if row == "critic-update" else [critics] * (N_CRITIC - 1) + [both]


def serve(row: str, form: str, size: int, batch: int, peer: str | None):
    """In a process of its own: builds a row's form, says so, and times a turn for every line of standard input."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the port and Paddle print must not meet the answers
    try:
        if form == "port":
            steps, flops = port_steps(row, peer, size, batch), None
        else:
            sys.path.insert(1, str(PROJECT))
            from utils.cli import prepare_paddle

            prepare_paddle()
            if form == "reference":
                use_reference_forms()
            steps, flops = our_steps(row, form, size, batch, "pytorch" if peer else "tf1")
        for step in dict.fromkeys(steps):  # warm-up: each once
            step()
        version = sys.modules["torch" if form == "port" else "paddle"].__version__
        print(json.dumps({"version": version, "flops": flops}), file=answers, flush=True)
        for _ in sys.stdin:
            times = []
            while sum(times) < TURN:
                started = time.perf_counter()
                for step in steps:
                    step()
                times.append(time.perf_counter() - started)
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts KiB
            print(json.dumps({"seconds": statistics.median(times), "peak_mib": memory}), file=answers, flush=True)
    except Exception as error:  # not enough memory, packages that do not fit the port, ...
        answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
        print(json.dumps(answer), file=answers, flush=True)


def measure(row: str, forms: list[str], arguments) -> list[dict]:
    """Runs the forms of a row in turn, ours first; a record each."""
    records, workers = [{"row": row, "form": form, "turns": [], "error": None} for form in forms], []
    try:
        for form, record in zip(forms, records):
            print(f"{row}: building {form}", file=sys.stderr)
            request = json.dumps([row, form, arguments.size, arguments.batch, arguments.peer])
            command = [arguments.peer_python if form == "port" else sys.executable, __file__, "--serve", request]
            workers.append(Popen(command, text=True, stdin=PIPE, stdout=PIPE, stderr=DEVNULL))
            record.update(json.loads(workers[-1].stdout.readline() or KILLED))
        for turn in range(arguments.pairs):
            for record, worker in zip(records, workers):
                if record["error"] is None:
                    print("turn", file=worker.stdin, flush=True)
                    record.update(json.loads(worker.stdout.readline() or KILLED))
                    record["turns"].append(record.pop("seconds", None))
            shown = ", ".join(f"{r['form']} {r['turns'][-1]:.4g} s" for r in records if r["error"] is None)
            print(f"{row}, turn {turn + 1} of {arguments.pairs}: {shown}", file=sys.stderr)
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    for record in records:
        if record["error"]:
            print(f"error: {row}, {record['form']}: {record['error']}", file=sys.stderr)
        else:
            record["seconds"] = statistics.median(record["turns"])
            record["ratios"] = [ours / other for ours, other in zip(records[0]["turns"], record["turns"]) if ours]
    return records


def table(title: str, records: list[dict], peak: float) -> list[str]:
    """The lines of a Markdown table; peak: FLOPs per second."""
    cells = {}
    for r in records:
        ratio = f" ({statistics.median(r['ratios']):.2f})" if r["form"] != "ours" and r.get("ratios") else ""
        share = f", {r['flops'] / r['seconds'] / peak:.0%}" if r["form"] == "ours" and not r["error"] else ""
        text = "failed" if r["error"] else f"{r['seconds']:.3g} s{ratio}{share}, {r['peak_mib']:.0f} MiB"
        cells.setdefault(r["row"], {})[r["form"]] = text
    forms = [form for form in FORMS if any(form in own for own in cells.values())]
    lines = [[row, *(own.get(form, "") for form in forms)] for row, own in cells.items()]
    return [f"| {' | '.join(line)} |" for line in ([title, *forms], ["---"] * (len(forms) + 1), *lines)]


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=[*ROWS], metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS, metavar="FORM", help=", ".join(FORMS))
    parser.add_argument("--size", type=int, default=256, help="side of the images in pixels (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=2, help="default: %(default)s; 1 for the row image")
    parser.add_argument("--pairs", type=int, default=3, help="turns of every form (default: %(default)s)")
    parser.add_argument("--peer", metavar="FOLDER", help="a checkout of the PyTorch port")
    parser.add_argument("--peer-python", metavar="PYTHON", default=sys.executable, help="one with torch and PyYAML")
    parser.add_argument("--json", metavar="FILE", help="write all figures")
    arguments = parser.parse_args(argv)
    if arguments.size % 8 or not 32 <= arguments.size <= 4096 or min(arguments.batch, arguments.pairs) < 1:
        parser.error("--size must be divisible by 8, from 32 to 4096; --batch and --pairs at least 1")
    if arguments.peer and arguments.size != 256:
        parser.error("--peer: the port's critics are built for --size 256")
    others = [] if arguments.size > 512 else [x for x in arguments.forms if x != "port" or arguments.peer]
    arguments.forms = ["ours", *others]
    sys.path.insert(1, str(PROJECT))
    from utils.cli import UserError, friendly_errors

    with friendly_errors(OSError):
        if arguments.peer and not Path(arguments.peer, "model", "networks.py").is_file():
            raise UserError(f"--peer {arguments.peer}: no checkout of the PyTorch port: no model/networks.py")
        check = [arguments.peer_python, "-c", "import torch, yaml"]
        if arguments.peer and run(check, capture_output=True, check=False).returncode:
            raise UserError(f"--peer-python {arguments.peer_python}: cannot import torch and yaml")
        load = os.getloadavg()[0]
        if load > 0.5:
            print(f"warning: this machine is busy (load {load:.1f}): the figures are worth little", file=sys.stderr)
        records = measure(PEAK, ["ours"], arguments)
        if records[0]["error"]:
            raise UserError(records[0]["error"])
        for row in arguments.rows:
            records += measure(row, [form for form in ROWS[row] if form in arguments.forms], arguments)
        title = f"{arguments.size}x{arguments.size}, batch {arguments.batch}"
        print("\n".join(table(title, records, records[0]["flops"] / records[0]["seconds"])))
        if arguments.json:
            figures = {"load": load, "arguments": vars(arguments), "records": records}
            Path(arguments.json).write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return int(any(record["error"] for record in records))


if __name__ == "__main__":
    sys.exit(serve(*json.loads(sys.argv[2])) if sys.argv[1:2] == ["--serve"] else main())
