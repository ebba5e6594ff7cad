"""Trains and evaluates the small comparison: with and without attention, spatial discounting, critics.

    python tools/study.py [--train LIST] [--val LIST ...] [--seeds 3] [--other-seeds 1] [key=value ...]
    python tools/study.py --dry-run          shows the commands of every row and runs none

Every row is a command of train.py, one of tools/average.py and a few of test.py, which can be run by hand as well.
What is evaluated is the mean of the weights of the last --last checkpoints, since those of a single iteration are
partly chance. Rows that are finished are passed over and one that was stopped is resumed, so that the same command
goes on after Ctrl-C. key=value changes all rows alike. The table is written after every row, over all rows that are
finished by then.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(PROJECT))

from data.file_list import DataError, read_file_list  # noqa: E402
from utils.checkpoint import checkpoint_path, list_checkpoints, load_checkpoint  # noqa: E402
from utils.cli import UserError, friendly_errors, prepare_paddle  # noqa: E402
from utils.config import TestConfig, TrainConfig, config_digest, load_config, run_folder, to_yaml  # noqa: E402
from utils.evaluation.baselines import BASELINES  # noqa: E402
from utils.evaluation.comparison import (  # noqa: E402
    Measured,
    check_same_holes,
    estimate,
    estimate_difference,
    read_measured,
)
from utils.evaluation.comparison_table import Difference, Table, Value, tables_csv, tables_text  # noqa: E402
from utils.evaluation.report import portable_command, prepare_folder  # noqa: E402
from utils.mean_weights import is_mean_of, mean_path  # noqa: E402
from utils.run_state import changed_settings, list_digest  # noqa: E402
from utils.scripts import command_line, evaluation_digest, is_evaluated, mark_evaluated, run_script  # noqa: E402
from utils.text_files import write_text  # noqa: E402

FULL = "full"
ROWS = {
    FULL: (),
    "without_attention": ("contextual_attention=false",),
    "without_discounting": ("discounted_mask=false",),
    "without_critics": ("gan_loss_alpha=0",),
}
MAIN_PAIR = (FULL, "without_attention")
PROTOCOLS = {"center": ("protocol=center",), "random_box": ("protocol=random_box", "masks_per_image=5")}
SECOND_LIST = "urban_val.txt"  # of repeated structure; taken if it lies beside the configuration's val_data_path
OWN = {"expname", "seed", *(change.partition("=")[0] for changes in ROWS.values() for change in changes)}


class Row(NamedTuple):
    """One training and its evaluations."""

    kind: str  # of ROWS
    seed: int

    @property
    def name(self) -> str:
        return f"{self.kind}_seed{self.seed}"


class Study:
    """The commands of every row, and where their files are."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.config, self.overrides, self.last = args.config, list(args.overrides), args.last
        for override in args.overrides:
            if override.partition("=")[0] in OWN:
                raise UserError(f"{override}: the rows have their own {override.partition('=')[0]}")
        values = load_config(args.config, TrainConfig, args.overrides)
        kept = min(values.keep_checkpoints, values.niter // values.snapshot_save_iter)
        if args.last > kept or (args.last > 1 and values.niter % values.snapshot_save_iter):
            raise UserError(f"--last {args.last}: with niter {values.niter}, snapshot_save_iter "
                            f"{values.snapshot_save_iter} and keep_checkpoints {values.keep_checkpoints} a run does "
                            "not end with so many checkpoints at equal intervals")
        self.train_list, self.root = args.train or values.train_data_path, values.data_root
        beside = os.path.join(os.path.dirname(values.val_data_path), SECOND_LIST)
        self.val_lists = args.val or [values.val_data_path, *([beside] if os.path.exists(beside) else [])]
        self.list_names = [os.path.splitext(os.path.basename(path.rstrip("/")))[0] for path in self.val_lists]
        if len(set(self.list_names)) != len(self.list_names):
            raise UserError(f"--val: two lists are called {' and '.join(self.list_names)}: give them other names")
        counts = {kind: args.seeds if kind in MAIN_PAIR else args.other_seeds for kind in ROWS}
        self.digests: dict[str, str] = {}  # of the evaluations by the last part of their output folders; by `check`
        # Seed by seed, so that a study that is stopped early has complete comparisons.
        self.rows = [Row(kind, seed) for seed in range(max(counts.values())) for kind in ROWS if seed < counts[kind]]

    def settings(self, row: Row) -> list[str]:
        lists = [f"train_data_path={self.train_list}", f"val_data_path={self.val_lists[0]}"]
        return [*self.overrides, *ROWS[row.kind], f"expname={row.name}", f"seed={row.seed}", *lists]

    def training(self, row: Row) -> list[str]:
        return ["train.py", "--config", self.config, *self.settings(row)]

    def resolved(self, row: Row) -> TrainConfig:
        return load_config(self.config, TrainConfig, self.settings(row))

    def checkpoint(self, row: Row) -> str:
        config = self.resolved(row)
        return checkpoint_path(run_folder(config), config.niter)

    def evaluated(self, row: Row) -> str:
        """The checkpoint that is evaluated: the mean of the last ones, or the last."""
        config = self.resolved(row)
        return mean_path(run_folder(config), self.last, config.niter) if self.last > 1 else self.checkpoint(row)

    def sources(self, row: Row) -> list[str]:
        """The checkpoints of the mean, by name: those of a stop between two of them do not count."""
        config = self.resolved(row)
        first = config.niter - (self.last - 1) * config.snapshot_save_iter
        iterations = range(first, config.niter + 1, config.snapshot_save_iter)
        return [checkpoint_path(run_folder(config), iteration) for iteration in iterations]

    def averaging(self, row: Row) -> list[str]:
        return ["tools/average.py", *self.sources(row), "--output", self.evaluated(row)]

    def output(self, row: Row, list_name: str, protocol: str) -> str:
        return os.path.join(run_folder(self.resolved(row)), f"{list_name}_{protocol}")

    def evaluations(self, row: Row) -> dict[str, list[str]]:
        """The test.py commands of a row by their output folders. The holes' seed is the configuration's."""
        commands = {}
        for list_name, path in zip(self.list_names, self.val_lists):
            for protocol in PROTOCOLS:
                output = self.output(row, list_name, protocol)
                command = ["test.py", "--config", self.config, *self.protocol(path, protocol)]
                command += ["--checkpoint", self.evaluated(row), "--output", output]
                # The classical methods do not depend on the training: once is enough.
                commands[output] = [*command, "--baselines"] if row == Row(FULL, 0) else command
        return commands

    def protocol(self, path: str, protocol: str) -> list[str]:
        return [*self.overrides, f"val_data_path={path}", *PROTOCOLS[protocol]]

    def check(self) -> None:
        """What would otherwise be found out after hours: lists that are missing, holes that do not fit."""
        trained_on = read_file_list(self.train_list, self.root)
        for row in self.rows:
            refuse_other_run(self.resolved(row), trained_on)
        for list_name, path in zip(self.list_names, self.val_lists):
            photographs = read_file_list(path, self.root)
            for protocol in PROTOCOLS:
                config = load_config(self.config, TestConfig, self.protocol(path, protocol))
                self.digests[f"{list_name}_{protocol}"] = evaluation_digest(config, photographs)

    def missing(self, row: Row) -> dict[str, list[str]]:
        """Those of `evaluations` whose results are not there; after `check`."""
        return {
            output: command
            for output, command in self.evaluations(row).items()
            if not is_evaluated(command, self.evaluated(row), output, self.digests[os.path.basename(output)])
        }


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Trains and evaluates the small comparison, row by row.")
    default = "configs/ablation64.yaml"
    parser.add_argument("--config", default=default, help="YAML file (default: %(default)s)")
    parser.add_argument("--train", metavar="LIST", help="photographs to train on (default: the configuration's)")
    parser.add_argument(
        "--val", nargs="+", metavar="LIST", help=f"to evaluate on (default: the configuration's and {SECOND_LIST})"
    )
    parser.add_argument("--seeds", type=int, default=3, help="of the pair with and without attention (%(default)s)")
    parser.add_argument("--other-seeds", type=int, default=1, help="of the other rows (%(default)s)")
    parser.add_argument(
        "--last", type=int, default=8, metavar="K", help="evaluate the mean of the last K checkpoints (%(default)s)"
    )
    parser.add_argument("--output", metavar="PATH", help="writes PATH.md and PATH.csv (default: beside the runs)")
    parser.add_argument("--dry-run", action="store_true", help="show the commands")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for all rows, e.g. niter=2000")
    args = parser.parse_intermixed_args(argv)
    if args.val:  # an option of several words takes those behind it, too
        args.overrides += [word for word in args.val if "=" in word and not os.path.exists(word)]
        args.val = [word for word in args.val if word not in args.overrides]
        if not args.val:
            raise UserError("--val names no list")
    for name, least in (("seeds", 1), ("other_seeds", 0), ("last", 1)):
        if getattr(args, name) < least:
            raise UserError(f"--{name.replace('_', '-')} must be a whole number from {least}")
    return args


def train(study: Study, row: Row) -> str:
    """Trains a row as far as is missing; what was done, in words."""
    config, checkpoint = study.resolved(row), study.checkpoint(row)
    folder = run_folder(config)
    found = list_checkpoints(folder)
    if os.path.exists(checkpoint):
        return "trained before"
    started = time.monotonic()
    run_script([*study.training(row), *(["--resume", "latest"] if found else [])])
    done = config.niter - (found[-1][0] if found else 0)
    return f"{done} iterations in {time.monotonic() - started:.0f} s"


def refuse_other_run(config: TrainConfig, photographs: Sequence[str]) -> None:
    """UserError if there is a run already, with other settings than its row has now or other photographs.

    It may be for more iterations than then, and val_data_path, which training takes for its previews alone, another.
    """
    folder = run_folder(config)
    found = list_checkpoints(folder)
    if not found:
        return
    before = load_config(os.path.join(folder, "config.yaml"), TrainConfig)
    same = {key: getattr(before, key) for key in ("niter", "resume", "val_data_path")}
    if before.amp == "none" and config.amp != "none" and not has_gpu():
        same["amp"] = before.amp  # train.py turns it off on a CPU, and keeps that in its config.yaml
    config = dataclasses.replace(config, **same)
    if config_digest(before) != config_digest(config):
        changed = changed_settings(to_yaml(before), to_yaml(config))
        raise UserError(f"{folder}: was trained with other settings than now ({changed}): remove it, or give the "
                        "study another dataset_name=NAME")
    _, meta = load_checkpoint(found[-1][1])
    if meta["photographs"] != list_digest(photographs):
        raise UserError(f"{folder}: was trained on other photographs than {config.train_data_path} lists now: remove "
                        "it, or give the study another dataset_name=NAME")


def has_gpu() -> bool:
    """Whether train.py takes a GPU here; imports paddle, which a study seldom needs to."""
    prepare_paddle()
    from utils.device import set_device

    return set_device() != "cpu"


def evaluate(study: Study, row: Row) -> str:
    if study.last > 1 and not is_mean_of(study.evaluated(row), study.sources(row)):
        run_script(study.averaging(row))
    missing = study.missing(row)
    for output, command in missing.items():
        run_script(command)
        mark_evaluated(output, study.digests[os.path.basename(output)])
    return f"{len(missing)} evaluations" if missing else "evaluated before"


def collect(study: Study) -> list[Table]:
    """A table for every list and protocol, of the rows whose results are there."""
    finished = [row for row in study.rows if not study.missing(row)]
    return [
        make_table(study, finished, list_name, protocol) for list_name in study.list_names for protocol in PROTOCOLS
    ]


def make_table(study: Study, finished: list[Row], list_name: str, protocol: str) -> Table:
    files = {row: os.path.join(study.output(row, list_name, protocol), "test.csv") for row in finished}
    results = {row: read_measured(path) for row, path in files.items()}
    models = {row: methods["model"] for row, methods in results.items()}
    check_same_holes({files[row]: measured for row, measured in models.items()})
    classical = {method: results[finished[0]][method] for method in BASELINES if method in results[finished[0]]}
    values = [Value(method, 0, estimate([measured])) for method, measured in classical.items()]
    full = {row.seed: measured for row, measured in models.items() if row.kind == FULL}
    differences = [
        Difference(method, len(full), estimate_difference(list(full.values()), [measured] * len(full)))
        for method, measured in classical.items()
        if full
    ]
    for kind in reversed(ROWS):  # the full model last, as in the tables of test.py
        runs: dict[int, Measured] = {row.seed: measured for row, measured in models.items() if row.kind == kind}
        shared = [seed for seed in runs if seed in full]
        if runs:
            values.append(Value(kind, len(runs), estimate(list(runs.values()))))
        if shared and kind != FULL:
            paired = estimate_difference([full[seed] for seed in shared], [runs[seed] for seed in shared])
            differences.append(Difference(kind, len(shared), paired))
    holes = next(iter(models.values()))
    photographs = len({index for index, _, _ in holes})
    return Table(list_name, protocol, photographs, len(holes), values, differences)


def write_tables(study: Study, output: str) -> None:
    commands = [portable_command(study.training(row)) for row in study.rows]
    tables = collect(study)
    prepare_folder(os.path.dirname(output) or ".")
    mean = f"the mean of the weights of the last {study.last} checkpoints"
    evaluated = mean if study.last > 1 else "the last checkpoint"
    write_text(f"{output}.md", tables_text(tables, FULL, commands, evaluated))
    write_text(f"{output}.csv", tables_csv(tables))


def main(argv: Sequence[str] | None = None) -> int:
    with friendly_errors(DataError):
        args = parse_arguments(argv)
        study = Study(args)
        if args.dry_run:
            for row in study.rows:
                averaging = [study.averaging(row)] if study.last > 1 else []
                commands = [study.training(row), *averaging, *study.evaluations(row).values()]
                print(f"# {row.name}", *map(command_line, commands), sep="\n")
            return 0
        study.check()
        output = args.output or os.path.join(os.path.dirname(run_folder(study.resolved(study.rows[0]))), "comparison")
        for number, row in enumerate(study.rows, start=1):
            print(f"[{number}/{len(study.rows)}] {row.name}: {command_line(study.training(row))}", flush=True)
            print(f"    {train(study, row)}; {evaluate(study, row)}", flush=True)
            write_tables(study, output)
        print(f"the tables are in {output}.md and {output}.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
