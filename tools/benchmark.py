"""Times the parts of the project beside the plain forms of the published programs, on this machine, in one run.

    python tools/benchmark.py [--quick] [--rows TEXT] [--size S ...] [--batch N ...] [--json FILE] [--plot FILE]

Every row is measured in several forms, each in a process of its own: warm-up first, then the median of several
repeats, the peak memory beyond the level after imports and inputs, operations per second and their share of the
ceiling, which is what a large float32 matrix product reaches here. "ours" is what train.py and test.py run;
"published" is the plain form of tools/plain_forms.py; "flushed" says that weights which would be denormal numbers
are exactly 0, as they are in ours. "difference" is the deviation from the published form's result, relative to it, in
the Euclidean norm; the largest of outputs, gradients (of a first update) and losses, whatever the row has of these.

Without --size and --batch: batches 1, 2 and 8 at 256x256, and batch 1 at other sizes to show how the cost grows.
Figures are worth something on an idle machine only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(PROJECT))

import numpy as np  # noqa: E402

from models.costs import (  # noqa: E402
    FORMULAS,
    attention_operations,
    critic_operations,
    generator_operations,
    update_operations,
)
from utils.cli import UserError, friendly_errors, one_line  # noqa: E402
from utils.pyplot import load_pyplot  # noqa: E402

BASE, BATCHES = (256, 256), (1, 2, 8)
GROWTH = ((128, 128), (512, 512), (1024, 1024))
HIGH_DEFINITION = (1080, 1920)
PLAIN_LIMIT = 512 * 512  # pixels beyond which plain forms are not tried: they take tens of gigabytes
OURS, PUBLISHED, FLUSHED = "ours", "published", "published, flushed"
COMPILED, UNTOUCHED = "ours, compiled", "published, Paddle's own settings"
ENGINE = "ours, --engine inference"
N_CRITIC = 5
TOLERANCE = 1e-2  # forms that differ by more are not the same; one unit at the kink of a leaky ReLU can make 1e-3
SECONDS = 60  # a form that takes long is not repeated beyond this, but measured at least twice


@dataclass
class Row:
    name: str
    work: str  # the function of benchmark_row.py
    size: tuple[int, int] = BASE
    batch: int = 1
    forms: tuple[str, ...] = (OURS,)
    options: dict = field(default_factory=dict)


def operations(row: Row, form: str, channels: int, training_channels: int) -> float | None:
    """How many operations a form of a row needs by FORMULAS; None where counting them says nothing."""
    plain = form not in (OURS, COMPILED)
    if row.work == "matmul":
        return 2.0 * row.options["side"] ** 3
    if row.work == "attention":
        needed = attention_operations(row.size[0] * row.size[1] / 64, 4 * channels, plain)
        return row.batch * needed * (3 if row.options["backward"] else 1)
    if row.work in ("generator", "tester"):
        return row.batch * generator_operations(row.size, channels, plain)
    if row.work == "training":
        generator = generator_operations(row.size, training_channels, plain)
        critic = critic_operations(row.size, 2 * training_channels)
        return row.batch * update_operations(generator, critic, N_CRITIC, plain)[row.options["part"]]
    return None


def rows_at(size, batch: int) -> list[Row]:
    """All rows at one size and batch."""
    at = f"{size[0]}x{size[1]}, batch {batch}"
    small = size[0] * size[1] <= PLAIN_LIMIT
    forms = (OURS, FLUSHED, PUBLISHED, UNTOUCHED) if small else (OURS,)
    rows = [
        Row(f"attention {label}, {kind} features, {at}", "attention", size, batch, forms,
            {"features": kind, "backward": backward})
        for label, backward in (("forward", False), ("forward+backward", True))
        for kind in ("random", "real")
    ]
    compiled = (OURS, COMPILED, PUBLISHED) if small else (OURS, COMPILED)
    rows.append(Row(f"generator forward, {at}", "generator", size, batch, compiled))
    if small:
        for part, label in (("critics", "critic update"), ("generator", "generator update"),
                            ("iteration", f"iteration ({N_CRITIC} critic updates + 1 generator update)")):
            more = (UNTOUCHED,) if part == "iteration" else ()
            rows.append(Row(f"{label}, {at}", "training", size, batch, (OURS, PUBLISHED, *more), {"part": part}))
        rows += [Row(f"data loader, the batches of an iteration, {workers} workers, {at}", "loader", size, batch,
                     options={"workers": workers}) for workers in (0, 2)]
    if batch == 1:
        rows.append(one_image(size))
    return rows


def one_image(size) -> Row:
    forms = (OURS, ENGINE, PUBLISHED) if size[0] * size[1] <= PLAIN_LIMIT else (OURS,)
    return Row(f"one image through the tester, {size[0]}x{size[1]}", "tester", size, 1, forms)


def growth_rows() -> list[Row]:
    """Batch 1 at other sizes, without the forms and rows that say nothing about growth."""
    rows = []
    for size in GROWTH:
        for row in rows_at(size, 1):
            real = row.options.get("features") == "real"
            if row.work == "attention" and real and (not row.options["backward"] or max(size) <= 512):
                row.forms = (OURS, FLUSHED)
                rows.append(row)
            elif row.work == "generator":
                row.forms = (OURS,)
                rows.append(row)
            elif row.work == "tester":
                rows.append(row)
    return [*rows, one_image(HIGH_DEFINITION)]


def plan(arguments) -> list[Row]:
    if arguments.quick:
        rows = [*rows_at((64, 64), 2), one_image((64, 64))]
        for row in rows:
            row.forms = tuple(form for form in row.forms if form not in (COMPILED, UNTOUCHED, ENGINE))
    elif arguments.size or arguments.batch:
        sizes = arguments.size or [BASE]
        rows = [row for size in sizes for batch in arguments.batch or [2] for row in rows_at(size, batch)]
        rows += [one_image(size) for size in sizes if 1 not in (arguments.batch or [2])]
    else:
        rows = [row for batch in BATCHES for row in rows_at(BASE, batch)] + growth_rows()
    named = {row.name: row for row in rows}
    chosen = [row for name, row in named.items() if arguments.rows.lower() in name.lower()]
    if not chosen:
        raise UserError(f"--rows {arguments.rows}: no row has this in its name; their names are: {'; '.join(named)}")
    side = 256 if arguments.quick else 4096
    return [Row(f"the ceiling: float32 matrix product, {side}x{side}", "matmul", options={"side": side}), *chosen]


def picture_size(text: str) -> tuple[int, int]:
    """256 or 1080x1920 -> (height, width)."""
    sides = text.lower().split("x")
    try:
        height, width = (int(side) for side in (sides * 2 if len(sides) == 1 else sides))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a size such as 256 or 1080x1920") from None
    if min(height, width) < 32 or max(height, width) > 4096 or height % 8 or width % 8:
        raise argparse.ArgumentTypeError(f"{text}: sides must be divisible by 8, from 32 to 4096")
    return height, width


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def parse_arguments(argv) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", default="", metavar="TEXT", help="only rows with this in their name")
    parser.add_argument("--size", type=picture_size, nargs="+", metavar="S", help="256 or 1080x1920 (HxW)")
    parser.add_argument("--batch", type=positive, nargs="+", metavar="N")
    parser.add_argument("--repeats", type=positive, help="timed repeats of each form (default: 5; 2 with --quick)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, which show that it works and nothing else")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="default: the GPU if there is a usable one")
    parser.add_argument("--checkpoint", metavar="PATH",
                        help="weights for the real features, the generator and the tester (default: untrained ones)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them (needs matplotlib)")
    arguments = parser.parse_args(argv)
    arguments.repeats = arguments.repeats or (2 if arguments.quick else 5)
    return arguments


def run_process(folder: Path, request: dict, untouched: bool = False) -> tuple[list[dict], str]:
    """The answers of one process of benchmark_row.py, and why there are no more of them."""
    request_path, answer_path = folder / "request.json", folder / "answer.jsonl"
    request_path.write_text(json.dumps(request), encoding="utf-8")
    answer_path.write_text("", encoding="utf-8")
    command = [sys.executable, str(PROJECT / "tools" / "benchmark_row.py"), str(request_path), str(answer_path)]
    done = subprocess.run([*command, *["--untouched"][: untouched]], capture_output=True, text=True, check=False)
    lines = answer_path.read_text(encoding="utf-8").splitlines()
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return [json.loads(line) for line in lines], f"ended with code {done.returncode}: {one_line(last)[:200]}"


def compare(folder: Path, number: int, reference: int) -> float:
    """||own - plain|| / ||plain|| of two cells' results, the largest over the results."""
    with np.load(folder / f"{number}.npz") as own, np.load(folder / f"{reference}.npz") as plain:
        return max(
            float(np.linalg.norm(own[name] - plain[name]) / max(np.linalg.norm(plain[name]), 1e-30))
            for name in plain.files
        )


def complete(records: list[dict], folder: Path, ceiling: float | None):
    """Adds to the records of one row what follows from all of them together."""
    finished = {record["form"]: record for record in records if record["error"] is None}
    reference = next((finished[form] for form in (PUBLISHED, FLUSHED) if form in finished), None)
    ours = finished.get(OURS)
    for record in finished.values():
        record["ratio"] = record["seconds"] / ours["seconds"] if ours else None
        if record["gflop"] is not None:
            record["gflop_per_second"] = record["gflop"] / record["seconds"]
            record["share"] = record["gflop_per_second"] / ceiling if ceiling else None
        if reference is not None and record is not reference:
            record["difference"] = compare(folder, record["number"], reference["number"])


def measure(rows: list[Row], arguments, folder: Path) -> tuple[dict, list[dict]]:
    """Runs everything, printing each row as it is done; returns what is known in advance, and the records."""
    channels = 8 if arguments.quick else 32
    attention = [row for row in rows if row.work == "attention"]
    wanted = sorted({(row.options["features"], row.size, row.batch) for row in attention})
    request = {"device": arguments.device}
    advance = {"folder": str(folder), "checkpoint": arguments.checkpoint, "channels": channels, "wanted": wanted}
    answers, reason = run_process(folder, {**request, "prepare": advance})
    if not answers:
        raise UserError(f"the inputs cannot be made; the process {reason}")
    known = answers[0]
    print_environment(known)
    request.update(folder=str(folder), repeats=arguments.repeats, seconds=SECONDS, training_channels=channels)
    request.update(checkpoint=known["checkpoint"], dialect=known["dialect"])

    records, cells = [], []
    for row in rows:
        for form in row.forms:
            needed = operations(row, form, known["channels"], channels)
            gflop = None if needed is None else needed / 1e9
            figures = dict.fromkeys(("seconds", "ratio", "gflop_per_second", "share", "peak_mib", "base_mib",
                                     "difference", "error"))
            place = {"row": row.name, "form": form, "work": row.work, "size": row.size, "batch": row.batch}
            records.append({**place, "number": len(records), **figures, "gflop": gflop, "times": [], **row.options})
            cells.append({**place, "number": len(cells), **row.options})
    together = 14 if arguments.quick else 1  # cells in a process
    ceiling, done = None, 0
    for start in range(0, len(cells), together):
        part = cells[start : start + together]
        answers, reason = run_process(folder, {**request, "cells": part}, part[0]["form"] == UNTOUCHED)
        answers += [{"error": f"the process {reason}"}] * (len(part) - len(answers))
        for record, answer in zip(records[start:], answers):
            record.update(answer)
        while done < start + len(part):  # print every row of which all forms are there
            whole = [record for record in records if record["row"] == records[done]["row"]]
            if done + len(whole) > start + len(part):
                break
            complete(whole, folder, ceiling)
            ceiling = ceiling or whole[0].get("gflop_per_second")
            print_row(whole)
            done += len(whole)
    records[0]["share"] = 1.0 if ceiling else None
    return known, records


def load_average() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def print_environment(known: dict):
    about = known["environment"]
    print(f"device: {about['device']}; CPU: {cpu_model()}, {os.cpu_count()} cores; threads: {about['threads']}; "
          f"PaddlePaddle {about['paddle']}; Python {about['python']}")
    for item in known["sharpness"]:
        size = f"{item['size'][0]}x{item['size'][1]}, batch {item['batch']}"
        print(f"{item['features']} features, {size}: mean largest attention weight {item['largest_weight']:.3f}; "
              f"{item['negligible_fraction']:.1%} of the weights are negligible, "
              f"{item['denormal_fraction']:.1%} denormal")
    print("form                                 median s  x ours   GFLOP  GFLOP/s  of ceiling  extra MiB  difference")


def print_row(records: list[dict]):
    def cell(value, text, width):
        return f"{'-' if value is None else format(value, text):>{width}}"

    print(records[0]["row"])
    for r in records:
        if r["error"] is not None:
            print(f"  {r['form']:33} failed: {r['error']}")
            continue
        print(f"  {r['form']:33}{cell(r['seconds'], '.4f', 10)}{cell(r['ratio'], '.2f', 8)}"
              f"{cell(r['gflop'], '.2f', 8)}{cell(r['gflop_per_second'], '.1f', 9)}{cell(r['share'], '.0%', 12)}"
              f"{cell(r['peak_mib'], '.0f', 11)}{cell(r['difference'], '.1e', 12)}")
    sys.stdout.flush()


def draw(records: list[dict], path: Path):
    """Seconds of every form of every row, and beside them the growth of the attention with the picture's area."""
    pyplot = load_pyplot()
    done = [record for record in records if record["error"] is None]
    growth: dict[str, list] = {}
    for r in done:
        if r["work"] == "attention" and r["batch"] == 1 and r["features"] == "real" and not r["backward"]:
            growth.setdefault(r["form"], []).append((r["size"][0] * r["size"][1], r["seconds"]))
    growth = {form: sorted(points) for form, points in growth.items() if len(points) > 1}
    figure, axes = pyplot.subplots(1, 1 + bool(growth), figsize=(12 + 6 * bool(growth), 2 + 0.25 * len(done)),
                                   squeeze=False, layout="constrained")
    colors = {form: f"C{i}" for i, form in enumerate(dict.fromkeys(r["form"] for r in done))}
    bars = axes[0, 0]
    for place, r in enumerate(done):
        bars.barh(place, r["seconds"], color=colors[r["form"]])
    bars.set_yticks(range(len(done)), [f"{r['row']}: {r['form']}" for r in done], fontsize=7)
    bars.invert_yaxis()
    bars.set_xscale("log")
    bars.set_xlabel("median seconds")
    if growth:
        lines = axes[0, 1]
        for form, points in growth.items():
            lines.loglog(*zip(*points), marker="o", label=form, color=colors[form])
        lines.set_title("attention forward, real features, batch 1", fontsize=9)
        lines.set_xlabel("picture pixels")
        lines.set_ylabel("median seconds")
        lines.legend()
    figure.savefig(path, dpi=110)


def main(argv=None) -> int:
    arguments = parse_arguments(argv)
    with friendly_errors(OSError):
        rows = plan(arguments)
        load = load_average()
        if load is not None:
            print(f"load average at the start: {load:.2f}")
        if load is not None and load > 0.5:
            print("warning: this machine is busy with other work, so these figures are worth little", file=sys.stderr)
        if arguments.plot:
            try:
                load_pyplot()
            except UserError as error:  # the figures are worth having without it
                print(f"warning: no plot will be drawn: {error}", file=sys.stderr)
                arguments.plot = None
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            known, records = measure(rows, arguments, Path(folder))
        environment = {**known["environment"], "cpu": cpu_model(), "cores": os.cpu_count(), "load_average": load}
        if arguments.json:
            settings = {name: value for name, value in vars(arguments).items() if name not in ("json", "plot")}
            result = {"environment": environment, "settings": settings, "formulas": FORMULAS,
                      "sharpness": known["sharpness"], "plan": [asdict(row) for row in rows], "records": records}
            arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        if arguments.plot:
            draw(records, arguments.plot)
    return report_problems(records)


def report_problems(records: list[dict]) -> int:
    """1 if a form disagrees with the published one or a form of ours failed."""
    bad = [r for r in records if r["difference"] is not None and not r["difference"] <= TOLERANCE]
    for r in bad:
        print(f"error: {r['row']}: {r['form']} differs from the published form", file=sys.stderr)
    failed = [r for r in records if r["error"] is not None and r["form"] == OURS]
    return int(bool(bad or failed))


if __name__ == "__main__":
    sys.exit(main())
