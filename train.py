"""Train DeepFill v1: `python train.py [--config configs/config.yaml] [key=value ...]`; the README has more."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import platform
import sys
import time

from utils.cli import friendly_errors, prepare_paddle

with friendly_errors():
    prepare_paddle()

import numpy as np  # noqa: E402
import paddle  # noqa: E402

from data.dataset import PhotoDataset, center_crop  # noqa: E402
from data.decode import ImageError, decode_image  # noqa: E402
from data.file_list import DataError, read_file_list  # noqa: E402
from data.loader import TrainLoader  # noqa: E402
from data.masks import TrainingHoles  # noqa: E402
from models.layer_costs import network_costs, training_cost  # noqa: E402
from trainer import Architecture, NonFiniteError, Objective, Optimization, Trainer  # noqa: E402
from utils import dry_run  # noqa: E402
from utils.checkpoint import set_aside_newer  # noqa: E402
from utils.config import TrainConfig, config_digest, learning_rate, load_config, run_folder, to_yaml  # noqa: E402
from utils.device import MemoryMeter, set_device  # noqa: E402
from utils.lock import RunLock  # noqa: E402
from utils.logger import Pace, TextLog, duration, show  # noqa: E402
from utils.monitor import Board, NullLog, Previews, Validation, report_not_finite  # noqa: E402
from utils.ranks import Ranks  # noqa: E402
from utils.run_state import Progress, find_checkpoint, init_weights, list_digest, restore_run, save_run  # noqa: E402
from utils.stop_request import StopRequest  # noqa: E402
from utils.text_files import write_text  # noqa: E402

# Second words of the seeds drawn here; the data streams use 0 to 4 (data/dataset.py, data/loader.py).
PENALTY_STREAM, PREVIEW_STREAM = 10, 11

NO_IMAGES = """\
To train on Places2, download it from its authors and write lists of its images, one path a line, e.g.
    find /data/places2/train -name '*.jpg' | sort > train_list.txt
and name them: python train.py train_data_path=train_list.txt val_data_path=val_list.txt
(a folder or a quoted glob does as well). To see everything work first, without any data: make demo
"""


def train(config: TrainConfig, paths: list[str], device: str, closing: contextlib.ExitStack) -> int:
    """A run from its beginning or a checkpoint to niter or a signal; the exit code. closing: for what it opens."""
    # --- build; with several ranks each has its share of every batch, and the first one logs and saves
    ranks = Ranks()
    stop = StopRequest(with_parent=ranks.size > 1)
    folder = run_folder(config)
    if ranks.first:
        closing.enter_context(RunLock(folder, warn=warn))
    trainer = build_trainer(config, ranks)

    # --- resume from a checkpoint, or start from the weights of one, or from nothing
    progress, notes = Progress(), []
    facts = {"paddle": paddle.__version__, "photographs": list_digest(paths)}
    source = ranks.agree_on_checkpoint(config, folder, find_checkpoint(config, folder, warn) if ranks.first else None)
    if source:
        progress = restore_run(config, trainer, source, facts, notes.append)
    elif config.init_from:
        init_weights(config, trainer, config.init_from, notes.append)
    if progress.iteration >= config.niter:
        show(f"{source} is at iteration {progress.iteration} and niter is {config.niter}: nothing to do", sys.stderr)
        return 2

    # --- what is written on the way
    log, board = NullLog(), Board(None)
    if ranks.first:
        notes += [f"a later checkpoint is now {path}" for path in set_aside_newer(folder, progress.iteration)]
        log = closing.enter_context(TextLog(os.path.join(folder, "train.txt"), resume_at=progress.iteration))
        log.write(f"# {'resumed from ' + source if source else 'new run'}; seed {config.seed}; {device}; "
                  f"{ranks.size} rank{'s' * (ranks.size > 1)}; PaddlePaddle {paddle.__version__}; "
                  f"NumPy {np.__version__}; Python {platform.python_version()}; "
                  f"{len(paths)} images; configuration {config_digest(config)}")
        for line in notes:
            log.write(f"# {line}")
        write_text(os.path.join(folder, "config.yaml"), to_yaml(config))
        board = closing.enter_context(Board(os.path.join(folder, "visualdl") if config.visualdl else None))
    batches = closing.enter_context(build_loader(config, paths, progress, ranks, warn=log.write))
    if ranks.first:
        watched = read_file_list(config.val_data_path, config.data_root) if config.val_data_path else paths
        previews = Previews(os.path.join(folder, "previews"), *fixed_images(config, watched, config.viz_max_out))
        if config.val_iter:
            fixed = fixed_images(config, watched, config.val_count)
            validation = Validation(os.path.join(folder, "metrics.csv"), *fixed, config.val_best, progress.iteration)

    # --- THE LOOP
    scalars, saved, pace = {}, source, Pace(batches, progress.iteration)
    for iteration in range(progress.iteration + 1, config.niter + 1):
        lr = learning_rate(config, iteration)
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
                save_run(config, trainer, folder, progress, {**facts, "validation": values}, name="best.npz")

        stopping = stop.agreed(ranks)
        if stopping or iteration % config.snapshot_save_iter == 0 or iteration == config.niter:
            ranks.check_same(trainer)
            if ranks.first:
                saved = save_run(config, trainer, folder, progress, facts)
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
    paddle.seed(config.seed)  # the initial weights
    return Trainer(
        Architecture(
            generator_channels=config.netG.ngf,
            critic_channels=config.netD.ndf,
            image_size=config.image_shape[:2],
            box_size=config.mask_shape,
            dialect=config.dialect,
            critic_sees_mask=config.gan_with_mask,
            contextual_attention=config.contextual_attention,
        ),
        Objective(
            coarse_l1_alpha=config.coarse_l1_alpha,
            l1_loss_alpha=config.l1_loss_alpha,
            ae_loss_alpha=config.ae_loss_alpha,
            gan_loss_alpha=config.gan_loss_alpha,
            global_wgan_loss_alpha=config.global_wgan_loss_alpha,
            wgan_gp_lambda=config.wgan_gp_lambda,
            discount_gamma=config.spatial_discounting_gamma if config.discounted_mask else 1.0,
            coarse_only=config.pretrain_coarse_network,
            mask_type=config.mask_type,
            mosaic_unit_size=config.mosaic_unit_size,
        ),
        Optimization(
            lr=config.lr,
            beta1=config.beta1,
            beta2=config.beta2,
            gradient_clip=config.gradient_clip_value if config.gradient_clip else None,
            precision=config.precision,
            ema_decay=config.ema_decay,
            accumulate=config.accumulate,
        ),
        rng=np.random.default_rng([config.seed, PENALTY_STREAM]),
        ranks=ranks if ranks.size > 1 else None,
    )


def training_holes(config: TrainConfig) -> TrainingHoles:
    return TrainingHoles(
        config.hole, config.image_shape[:2], config.mask_shape, config.margin, config.max_delta_shape
    )


def build_loader(config: TrainConfig, paths: list[str], progress: Progress, ranks: Ranks, warn) -> TrainLoader:
    dataset = PhotoDataset(
        paths,
        config.image_shape[:2],
        seed=config.seed,
        random_crop=config.random_crop,
        horizontal_flip=config.horizontal_flip,
        scale_range=config.scale_range,
        cache_mb=config.cache_mb,
    )
    return TrainLoader(
        dataset,
        config.batch_size * config.accumulate,
        training_holes(config),
        mask_batch_same=config.mask_batch_same,
        seed=config.seed,
        num_workers=config.num_workers,
        start=progress.position,
        max_bad_images=config.max_bad_images,
        warn=warn,
        rank=ranks.rank,
        ranks=ranks.size,
    )


def fixed_images(config: TrainConfig, paths: list[str], count: int) -> tuple[list[np.ndarray], np.ndarray]:
    """The first images that can be read and a hole for each: uint8 [H,W,3] each, float32 [n,1,H,W]."""
    images = []
    for path in paths:
        if len(images) == count:
            break
        with contextlib.suppress(ImageError):  # evaluation and training name bad files; here the next one does
            images.append(center_crop(decode_image(path), *config.image_shape[:2]))
    return images, training_holes(config).fixed(len(images), np.random.default_rng([config.seed, PREVIEW_STREAM]))


def show_dry_run(config: TrainConfig, paths: list[str], device: str) -> None:
    """Prints the configuration, the networks and two iterations; dry_run.png, the first batch, is all it writes."""
    meter, ranks = MemoryMeter(device.startswith("gpu")), Ranks()
    trainer = build_trainer(config, ranks)
    print(to_yaml(config), end="")
    print(f"device: {device}; PaddlePaddle {paddle.__version__}\nimages: {len(paths)} in {config.train_data_path}")
    costs = network_costs(trainer.networks(), config.image_shape[:2], config.pretrain_coarse_network)
    cost = training_cost(costs, config.n_critic)
    print("\n".join(dry_run.cost_lines(costs, cost, config.batch_size, config.n_critic, config.accumulate)))
    with build_loader(config, paths, Progress(), ranks, warn=warn) as batches:
        batch = next(batches)
        dry_run.write_batch_image(dry_run.IMAGE, batch.image, *trainer.dry_run_views(batch), config.viz_max_out)
        print(f"first batch: {dry_run.IMAGE}")
        for iteration in (1, 2):
            started, pace = time.perf_counter(), Pace(batches, iteration - 1)
            scalars = train_iteration(config, trainer, batches)
            seconds = time.perf_counter() - started
            print(f"iteration {iteration}: {seconds:.2f} s")
        print(dry_run.measured_line(meter.extra()))
        print(f"{config.niter} iterations like the second: {duration(config.niter * seconds)}")
        print(pace.line(2, config.niter, {**scalars, "lr": learning_rate(config, 2)}))


def warn(line: str) -> None:
    show(f"warning: {line}", sys.stderr)


def parse_arguments(argv) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train DeepFill v1.")
    parser.add_argument("--config", default="configs/config.yaml", help="YAML file (default: %(default)s)")
    parser.add_argument("--resume", nargs="?", const="latest", metavar="latest|PATH", help="resume the run")
    parser.add_argument("--seed", type=int, help="overrides the file's seed")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="default: the GPU if there is a usable one")
    parser.add_argument("--dry-run", action="store_true", help="show the networks, their FLOPs, memory and time, "
                        f"write the first batch to ./{dry_run.IMAGE}, stop")  # fmt: skip
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. batch_size=16 netG.ngf=16")
    args = parser.parse_intermixed_args(argv)
    if args.resume and "=" in args.resume and not os.path.exists(args.resume):
        args.overrides.insert(0, args.resume)  # --resume key=value: the word after it was not meant for it
        args.resume = "latest"
    for key in ("seed", "resume"):
        if getattr(args, key) is not None:
            args.overrides.append(f"{key}={getattr(args, key)}")
    return args


def main(argv=None) -> int:
    with friendly_errors(DataError, NonFiniteError), contextlib.ExitStack() as closing:
        args = parse_arguments(argv)
        config = load_config(args.config, TrainConfig, args.overrides)
        try:
            paths = read_file_list(config.train_data_path, config.data_root)
        except DataError:
            if not os.path.exists(config.train_data_path):
                print(NO_IMAGES, file=sys.stderr)
            raise
        device = set_device(args.device)
        if config.precision != "fp32" and device == "cpu":
            warn(f"precision: {config.precision} needs a GPU and is off on the CPU")
            config = dataclasses.replace(config, precision="fp32")
        if args.dry_run:
            show_dry_run(config, paths, device)
            return 0
        return train(config, paths, device, closing)


if __name__ == "__main__":
    sys.exit(main())
