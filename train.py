"""Train DeepFill v1: `python train.py [--config configs/config.yaml] [key=value ...]`; the README has more."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import signal
import sys
import time

from utils.cli import UserError, friendly_errors, prepare_paddle

with friendly_errors():
    prepare_paddle()

import numpy as np  # noqa: E402
import paddle  # noqa: E402
from tqdm import tqdm  # noqa: E402

from data.dataset import PhotoDataset, center_crop  # noqa: E402
from data.decode import ImageError, decode_image  # noqa: E402
from data.file_list import DataError, read_file_list  # noqa: E402
from data.loader import TrainLoader  # noqa: E402
from data.masks import boxes_to_mask, random_box, shrink_box  # noqa: E402
from trainer import Architecture, NonFiniteError, Objective, Optimization, Trainer  # noqa: E402
from utils.checkpoint import (  # noqa: E402
    CheckpointError,
    checkpoint_path,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    rotate_checkpoints,
    save_checkpoint,
)
from utils.config import TrainConfig, config_digest, load_config, run_folder, to_yaml  # noqa: E402
from utils.device import set_device  # noqa: E402
from utils.logger import TextLog, format_line  # noqa: E402
from utils.training_state import restore_training, training_arrays  # noqa: E402
from utils.visualization import image_grid, offsets_to_color, to_uint8, write_image  # noqa: E402

# Second words of the seeds drawn here; the data streams use 0 to 3 (data/dataset.py, data/loader.py).
PENALTY_STREAM, PREVIEW_STREAM = 10, 11

NO_PHOTOGRAPHS = """\
To train on Places2, download it from its authors and write lists of its photographs, one path a line, e.g.
    find /data/places2/train -name '*.jpg' | sort > train_list.txt
and name them: python train.py train_data_path=train_list.txt val_data_path=val_list.txt
(a folder or a quoted glob does as well). To see everything work first, without any data: make demo
"""


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description="Train DeepFill v1.")
    parser.add_argument("--config", default="configs/config.yaml", help="YAML file (default: %(default)s)")
    parser.add_argument(
        "--resume", nargs="?", const="latest", metavar="latest|PATH", help="go on from a checkpoint of the run"
    )
    parser.add_argument("--seed", type=int, help="overrides the file's seed")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="default: the GPU if there is a usable one")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, time one iteration, stop")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. batch_size=16 netG.ngf=16")
    args = parser.parse_args(argv)
    if args.resume and "=" in args.resume and not os.path.exists(args.resume):
        args.overrides.insert(0, args.resume)  # --resume key=value: the word after it was not meant for it
        args.resume = "latest"
    if args.seed is not None:
        args.overrides.append(f"seed={args.seed}")
    if args.resume is not None:
        args.overrides.append(f"resume={args.resume}")
    return args


def build_trainer(config: TrainConfig) -> Trainer:
    paddle.seed(config.seed)  # the initial weights
    return Trainer(
        Architecture(
            generator_channels=config.netG.ngf,
            critic_channels=config.netD.ndf,
            image_size=config.image_shape[:2],
            box_size=config.mask_shape,
            dialect=config.dialect,
            critic_sees_mask=config.gan_with_mask,
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
        ),
        rng=np.random.default_rng([config.seed, PENALTY_STREAM]),
    )


def read_train_list(config: TrainConfig) -> list[str]:
    try:
        return read_file_list(config.train_data_path, config.data_root)
    except DataError:
        if not os.path.exists(config.train_data_path):
            print(NO_PHOTOGRAPHS, file=sys.stderr)
        raise


def build_loader(config: TrainConfig, paths: list[str], start: int, warn) -> TrainLoader:
    dataset = PhotoDataset(
        paths,
        config.image_shape[:2],
        seed=config.seed,
        random_crop=config.random_crop,
        horizontal_flip=config.horizontal_flip,
        scale_range=config.scale_range,
        cache_megabytes=config.cache_megabytes,
    )
    return TrainLoader(
        dataset,
        config.batch_size,
        config.mask_shape,
        margin=config.margin,
        max_delta=config.max_delta_shape,
        mask_batch_same=config.mask_batch_same,
        seed=config.seed,
        num_workers=config.num_workers,
        start=start,
        max_bad_images=config.max_bad_images,
        warn=warn,
    )


def find_checkpoint(config: TrainConfig, folder: str, warn) -> str | None:
    """The checkpoint to go on from, or None for a new run, which must not run over an old one."""
    if config.resume == "latest":
        return latest_checkpoint(folder, warn)
    if config.resume:
        return config.resume
    if list_checkpoints(folder):
        raise CheckpointError(
            f"{folder}: already holds a run; go on with --resume, or give the new one a name with expname=NAME"
        )
    return None


def describe(config: TrainConfig, trainer: Trainer, meta: dict) -> dict:
    """What a checkpoint says about itself; enough to build its networks without a configuration."""
    architecture = trainer.architecture
    return {
        **meta,
        "architecture": {**vars(architecture)},
        "mask_type": config.mask_type,
        "mosaic_unit_size": config.mosaic_unit_size,
        "coarse_only": config.pretrain_coarse_network,
        "config": to_yaml(config),
        "config_digest": config_digest(config),
        "paddle": paddle.__version__,
    }


def save(config: TrainConfig, trainer: Trainer, folder: str, iteration: int, position: int) -> str:
    path = checkpoint_path(folder, iteration)
    meta = {"iteration": iteration, "position": position, "rng": trainer.rng.bit_generator.state}
    save_checkpoint(path, training_arrays(trainer), describe(config, trainer, meta))
    rotate_checkpoints(folder, config.keep_checkpoints)
    return path


def restore(config: TrainConfig, trainer: Trainer, path: str, note) -> tuple[int, int]:
    """Sets the trainer to a checkpoint; returns its iteration and the position of the data stream."""
    arrays, meta = load_checkpoint(path)
    try:
        iteration, position, rng_state = int(meta["iteration"]), int(meta["position"]), meta["rng"]
        trainer.rng.bit_generator.state = rng_state
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: holds no state of a training run: {error}") from None
    for name in restore_training(trainer, arrays, path):
        note(f"{name} is not in {path} and starts fresh")
    if meta.get("config_digest") != config_digest(config):
        note(f"the configuration differs from that of {path}: {changed_keys(meta.get('config'), to_yaml(config))}")
    return iteration, position


def changed_keys(before: str | None, now: str) -> str:
    """The lines of a resolved configuration that are not in an earlier one."""
    old = set((before or "").splitlines())
    return "; ".join(line for line in now.splitlines() if line not in old) or "(unknown)"


class Previews:
    """Grids of fixed photographs with fixed holes: input, coarse, completed, original, attention."""

    def __init__(self, config: TrainConfig, paths: list[str], folder: str):
        height, width = config.image_shape[:2]
        rng = np.random.default_rng([config.seed, PREVIEW_STREAM])
        images = []
        for path in paths:
            with contextlib.suppress(ImageError):  # evaluation and training name bad files; here the next one does
                images.append(center_crop(decode_image(path), height, width))
            if len(images) == config.viz_max_out:
                break
        holes = [
            shrink_box(
                random_box((height, width), config.mask_shape, config.margin, rng), config.max_delta_shape, rng
            )
            for _ in images
        ]
        self.folder = folder
        os.makedirs(folder, exist_ok=True)
        self.images = images
        self.masks = boxes_to_mask(holes, (height, width)) if images else None

    def write(self, trainer: Trainer, iteration: int):
        rows = []
        for i, original in enumerate(self.images):
            image = np.float32(original.transpose(2, 0, 1)[None]) / 127.5 - 1
            hidden, coarse, completed, offsets = trainer.complete(image, self.masks[i : i + 1])
            row = [to_uint8(x[0].transpose(1, 2, 0)) for x in (hidden, coarse, completed)] + [original]
            if offsets is not None:
                row.append(np.kron(offsets_to_color(offsets[0]), np.ones((8, 8, 1), np.uint8)))
            rows.append(row)
        if rows:
            labels = ("input", "coarse", "completed", "original", "attention")[: len(rows[0])]
            write_image(os.path.join(self.folder, f"preview_{iteration:08d}.png"), image_grid(rows, labels))


class StopRequest:
    """Ctrl-C and SIGTERM ask for a stop after the iteration under way; a second Ctrl-C stops at once."""

    def __init__(self):
        self.signal = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number, _frame):
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number

    @property
    def exit_code(self):
        return 128 + self.signal


def dry_run(config: TrainConfig, paths: list[str], device: str):
    """Shows the resolved configuration, the networks' sizes and the time of an iteration; writes nothing."""
    trainer = build_trainer(config)
    print(to_yaml(config), end="")
    print(f"device: {device}; PaddlePaddle {paddle.__version__}")
    print(f"photographs: {len(paths)} in {config.train_data_path}")
    for name, network in trainer.networks().items():
        print(f"{name}: {sum(p.size for p in network.parameters()):,} parameters")
    with build_loader(config, paths, start=0, warn=tqdm.write) as batches:
        for label in ("first", "second"):
            started = time.perf_counter()
            scalars, count = train_iteration(config, trainer, batches)
            seconds = time.perf_counter() - started
            print(f"{label} iteration: {seconds:.2f} s, {count} batches of {config.batch_size}")
    print(format_line(2, config.niter, scalars, count / seconds))


def train_iteration(config: TrainConfig, trainer: Trainer, batches: TrainLoader) -> tuple[dict, int]:
    """The paper's iteration: critics on fresh batches, then the generator. Returns scalars and batches used."""
    scalars, before = {}, batches.position
    if trainer.objective.adversarial:
        for _ in range(config.n_critic):
            scalars.update(trainer.train_critics(next(batches)))
    scalars.update(trainer.train_generator(next(batches)))
    return scalars, batches.position - before


def train(config: TrainConfig, paths: list[str], device: str) -> int:
    folder = run_folder(config)
    source = find_checkpoint(config, folder, warn=lambda line: print(f"warning: {line}", file=sys.stderr))
    trainer = build_trainer(config)
    notes = []
    start, position = restore(config, trainer, source, notes.append) if source else (0, 0)
    if start >= config.niter:
        raise UserError(f"{source} is at iteration {start} and niter is {config.niter}: nothing to do")

    log = TextLog(os.path.join(folder, "train.txt"), resume_at=start)
    with log, build_loader(config, paths, position, warn=log.write) as batches:
        stop = StopRequest()
        log.write(f"# {'resumed from ' + source if source else 'new run'}; seed {config.seed}; {device}; "
                  f"PaddlePaddle {paddle.__version__}; NumPy {np.__version__}; Python {platform.python_version()}; "
                  f"{len(paths)} photographs; configuration {config_digest(config)}")
        for line in notes:
            log.write(f"# {line}")
        write_text(os.path.join(folder, "config.yaml"), to_yaml(config))
        preview_paths = read_file_list(config.val_data_path, config.data_root) if config.val_data_path else paths
        previews = Previews(config, preview_paths, os.path.join(folder, "previews"))

        saved, used, since = source, 0, time.perf_counter()
        progress = tqdm(initial=start, total=config.niter, disable=not sys.stderr.isatty(), unit="iteration")
        with progress:
            for iteration in range(start + 1, config.niter + 1):
                try:
                    scalars, count = train_iteration(config, trainer, batches)
                except NonFiniteError as error:
                    kept = f"the last checkpoint is {saved}" if saved else "there is no checkpoint yet"
                    raise NonFiniteError(f"iteration {iteration}: {error}; {kept}") from None
                used += count
                last = iteration == config.niter or stop.signal is not None
                if iteration % config.print_iter == 0:
                    speed = used / (time.perf_counter() - since)
                    log.write(format_line(iteration, config.niter, scalars, speed))
                    progress.set_postfix(l1=f"{scalars['l1']:.4f}", refresh=False)
                    used, since = 0, time.perf_counter()
                if iteration % config.viz_iter == 0:
                    previews.write(trainer, iteration)
                if last or iteration % config.snapshot_save_iter == 0:
                    saved = save(config, trainer, folder, iteration, batches.position)
                progress.update()
                if stop.signal is not None:
                    print(f"stopped after iteration {iteration}; go on with --resume", file=sys.stderr)
                    return stop.exit_code
    print(f"finished; the last checkpoint is {saved}")
    return 0


def write_text(path: str, text: str):
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def main(argv=None) -> int:
    args = parse_arguments(argv)
    with friendly_errors(DataError, NonFiniteError):
        config = load_config(args.config, TrainConfig, args.overrides)
        paths = read_train_list(config)
        device = set_device(args.device)
        if args.dry_run:
            dry_run(config, paths, device)
            return 0
        return train(config, paths, device)


if __name__ == "__main__":
    sys.exit(main())
