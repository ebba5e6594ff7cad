"""Train DeepFill v1: `python train.py [--config configs/config.yaml] [key=value ...]`; the README has more."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections import namedtuple

from data.image_io import read_rgb  # noqa: E402
from utils.cli import UserError, friendly_errors, prepare_paddle

with friendly_errors():
    prepare_paddle()

import numpy as np  # noqa: E402
import paddle  # noqa: E402

from data.dataset import PhotoDataset, center_crop  # noqa: E402
from data.file_list import read_file_list  # noqa: E402
from data.loader import TrainLoader  # noqa: E402
from data.masks import TrainingHoles  # noqa: E402
from models.convolution import backend  # noqa: E402
from models.layer_costs import network_costs, training_cost  # noqa: E402
from trainer import Architecture, NonFiniteError, Objective, Optimization, Trainer  # noqa: E402
from utils import dry_run, run_state  # noqa: E402
from utils.checkpoint import set_aside_newer  # noqa: E402
from utils.config import TrainConfig, load_config, run_folder, to_yaml  # noqa: E402
from utils.device import MemoryMeter, set_device  # noqa: E402
from utils.lock import RunLock  # noqa: E402
from utils.logger import Pace, TextLog, show, warn  # noqa: E402
from utils.monitor import Board, NullLog, Previews, Validation, report_not_finite  # noqa: E402
from utils.options import parse_arguments  # noqa: E402
from utils.ranks import Ranks  # noqa: E402
from utils.stop_request import StopRequest  # noqa: E402
from utils.text_files import write_text  # noqa: E402

# Second words of the seeds drawn here; the data streams use 0 to 4 (data/dataset.py, data/loader.py).
PENALTY_STREAM, PREVIEW_STREAM = 10, 11

NO_IMAGES = """\
To train on Places2, download it from its authors and write lists: python tools/make_file_list.py /data/places2
For images of your own: python train.py train_data_path=FOLDER. To see everything work without any data: make demo
"""


# What a run reads: paths of the images to train on, of those for previews and validation, and where holes come from
Lists = namedtuple("Lists", "paths watched holes")


def train(config: TrainConfig, lists: Lists, device: str, closing: contextlib.ExitStack) -> int:
    """A run from its beginning or a checkpoint to niter or a signal; the exit code. closing: for what it opens."""
    # --- build; with several ranks each has its share of every batch, and the first one logs and saves
    ranks = Ranks()
    stop = StopRequest(with_parent=ranks.size > 1)
    folder = run_folder(config)
    if ranks.first:
        closing.enter_context(RunLock(folder, warn=warn))
    trainer = build_trainer(config, ranks)

    # --- resume from a checkpoint, or start from the weights of one, or from nothing
    progress, notes = run_state.Progress(), []
    facts = {"paddle": paddle.__version__, "photographs": run_state.list_digest(lists.paths)}
    found = run_state.find_checkpoint(config, folder, warn) if ranks.first else None
    source = ranks.agree_on_checkpoint(config, folder, found)
    if source:
        progress = run_state.restore_run(config, trainer, source, facts, notes.append)
    elif config.init_from:
        run_state.init_weights(config, trainer, config.init_from, notes.append)
    if progress.iteration >= config.niter:
        raise UserError(f"{source} is at iteration {progress.iteration} and niter is {config.niter}: nothing to do")

    # --- what is written on the way
    log, board = NullLog(), Board(None)
    if ranks.first:
        notes += [f"a later checkpoint is now {path}" for path in set_aside_newer(folder, progress.iteration)]
        log = closing.enter_context(TextLog(os.path.join(folder, "train.txt"), resume_at=progress.iteration))
        header = run_state.run_header(config, source, device, ranks.size, len(lists.paths), paddle.__version__)
        for line in [header, *(f"# {note}" for note in notes)]:
            log.write(line)
        write_text(os.path.join(folder, "config.yaml"), to_yaml(config))
        board = closing.enter_context(Board(os.path.join(folder, "visualdl") if config.visualdl else None))
    batches = closing.enter_context(build_loader(config, lists, progress.position, ranks, log.write))
    if ranks.first:
        previews = Previews(os.path.join(folder, "previews"), *fixed_images(config, lists, config.viz_max_out))
        if config.val_iter:
            fixed = fixed_images(config, lists, config.val_count)
            validation = Validation(os.path.join(folder, "metrics.csv"), *fixed, config.val_best, progress.iteration)

    # --- THE LOOP
    scalars, saved, pace = {}, source, Pace(batches, progress.iteration)
    for iteration in range(progress.iteration + 1, config.niter + 1):
        lr = run_state.learning_rate(config, iteration)
        trainer.set_learning_rate(lr)
        try:
            scalars = train_iteration(config, trainer, batches)
        except NonFiniteError as error:
            text = f"iteration {iteration}, batch {batches.position - 1}: {error}"
            if ranks.first:
                text = report_not_finite(folder, iteration, text, scalars, batches, saved)
            raise NonFiniteError(text) from None
        progress.iteration, progress.position = iteration, batches.position

        if iteration % config.print_iter == 0:
            values = {**scalars, "lr": lr}
            log.write(pace.line(iteration, config.niter, values))
            board.scalars(iteration, values)
        if ranks.first and iteration % config.viz_iter == 0:
            board.image(iteration, previews.write(trainer, iteration))
        if ranks.first and config.val_iter and iteration % config.val_iter == 0:
            values, line, best = validation.measure(trainer, iteration, config.niter)
            log.write(line)
            board.scalars(iteration, values)
            if best:
                run_state.save_run(config, trainer, folder, progress, {**facts, "validation": values}, "best.npz")
        stopping = stop.agreed(ranks)
        if stopping or iteration % config.snapshot_save_iter == 0 or iteration == config.niter:
            ranks.check_same(trainer)
            if ranks.first:
                saved = run_state.save_run(config, trainer, folder, progress, facts)
        if stopping and iteration < config.niter:
            if ranks.first:
                show(f"stopped after iteration {iteration}; resume with --resume", sys.stderr)
            return stop.exit_code
    if ranks.first:
        show(f"finished; the last checkpoint is {saved}", sys.stdout)
    return 0


def train_iteration(config: TrainConfig, trainer: Trainer, batches: TrainLoader) -> dict[str, float]:
    """The paper's iteration: n_critic critic updates on fresh batches, then a generator update. Returns scalars."""
    scalars = {}
    if trainer.objective.adversarial:
        for _ in range(config.n_critic):
            scalars.update(trainer.train_critics(next(batches)))
    scalars.update(trainer.train_generator(next(batches)))
    return scalars


def build_trainer(config: TrainConfig, ranks: Ranks) -> Trainer:
    def pick(kind):
        return kind(**{field.name: getattr(config, field.name) for field in dataclasses.fields(kind)})

    paddle.seed(config.seed)  # the initial weights
    architecture = Architecture(
        generator_channels=config.netG.ngf,
        critic_channels=config.netD.ndf,
        image_size=config.image_shape[:2],
        box_size=config.mask_shape,
        dialect=config.dialect,
        critic_sees_mask=config.gan_with_mask,
        contextual_attention=config.contextual_attention,
    )
    rng = np.random.default_rng([config.seed, PENALTY_STREAM])
    return Trainer(architecture, pick(Objective), pick(Optimization), rng, ranks if ranks.size > 1 else None)


def read_lists(config: TrainConfig) -> Lists:
    try:
        paths = read_file_list(config.train_data_path, config.data_root)
    except UserError:
        if not os.path.exists(config.train_data_path):
            print(NO_IMAGES, file=sys.stderr)
        raise
    watched = read_file_list(config.val_data_path, config.data_root) if config.val_data_path else paths
    size = config.image_shape[:2]
    holes = TrainingHoles(config.hole, size, config.mask_shape, config.margin, config.max_delta_shape)
    return Lists(paths, watched, holes)


def build_loader(config: TrainConfig, lists: Lists, start: int, ranks: Ranks, report) -> TrainLoader:
    dataset = PhotoDataset(lists.paths, config.image_shape[:2], config.seed, config.random_crop,
                           config.horizontal_flip, config.scale_range, config.cache_mb)  # fmt: skip
    return TrainLoader(
        dataset, ranks.batch_size(config), lists.holes, config.mask_batch_same, config.seed,
        config.num_workers, start, config.max_bad_images, warn=report, rank=ranks.rank, ranks=ranks.size,
    )  # fmt: skip


def fixed_images(config: TrainConfig, lists: Lists, count: int) -> tuple[list[np.ndarray], np.ndarray]:
    """The first images that can be read and a hole for each: uint8 [H,W,3] each, float32 [n,1,H,W]."""
    images = []
    for path in lists.watched:
        if len(images) == count:
            break
        with contextlib.suppress(UserError):  # evaluation and training name bad files; here the next one does
            images.append(center_crop(read_rgb(path), *config.image_shape[:2]))
    return images, lists.holes.fixed(len(images), np.random.default_rng([config.seed, PREVIEW_STREAM]))


def show_dry_run(config: TrainConfig, lists: Lists, device: str) -> int:
    """Prints the configuration, the networks and two iterations; dry_run.png, the first batch, is all it writes."""
    meter, ranks = MemoryMeter(device.startswith("gpu")), Ranks()
    trainer = build_trainer(config, ranks)
    costs = network_costs(trainer.networks(), config.image_shape[:2], config.pretrain_coarse_network)
    dry_run.show_settings(config, device, lists.paths, costs, training_cost(costs, config.n_critic))
    with build_loader(config, lists, 0, ranks, warn) as batches:
        dry_run.show_batch(config, trainer, next(batches))
        dry_run.show_iterations(config, batches, lambda: train_iteration(config, trainer, batches))
    print(dry_run.measured_line(meter.extra()))
    return 0


def main(argv=None) -> int:
    with friendly_errors(NonFiniteError), contextlib.ExitStack() as closing:
        args = parse_arguments(argv)
        config = load_config(args.config, TrainConfig, args.overrides)
        lists = read_lists(config)
        device = set_device(args.device)
        if config.precision != "fp32" and device == "cpu":
            warn(f"precision: {config.precision} needs a GPU and is off on the CPU")
            config = dataclasses.replace(config, precision="fp32")
        place = f"{device}; convolutions by {backend()}"
        return show_dry_run(config, lists, place) if args.dry_run else train(config, lists, place, closing)


if __name__ == "__main__":
    sys.exit(main())
