"""Train DeepFill v1: `python train.py [--config configs/config.yaml] [key=value ...]`; the README has more."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
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
from models.layer_costs import network_costs, training_cost  # noqa: E402
from trainer import Architecture, NonFiniteError, Objective, Optimization, Trainer  # noqa: E402
from utils.checkpoint import latest_checkpoint, list_checkpoints, set_aside_newer  # noqa: E402
from utils.config import TrainConfig, config_digest, load_config, run_folder, to_yaml  # noqa: E402
from utils.device import MemoryMeter, set_device  # noqa: E402
from utils.logger import TextLog, format_line, show  # noqa: E402
from utils.run import dry_run as shown  # noqa: E402
from utils.run.lock import RunLock  # noqa: E402
from utils.run.options import parse_arguments  # noqa: E402
from utils.run.previews import Previews  # noqa: E402
from utils.run.ranks import Ranks  # noqa: E402
from utils.run.records import QuietLog, report_not_finite  # noqa: E402
from utils.run.state import (  # noqa: E402
    Progress,
    data_seed,
    find_checkpoint,
    list_digest,
    restore_run,
    save_run,
    weights_digest,
)
from utils.run.stop_request import StopRequest  # noqa: E402
from utils.text_files import write_text  # noqa: E402

# Second words of the seeds drawn here; the data streams use 0 to 3 (data/dataset.py, data/loader.py), and
# utils/run/state.py 12.
PENALTY_STREAM, PREVIEW_STREAM = 10, 11

NO_PHOTOGRAPHS = """\
To train on Places2, download it from its authors and write lists of its photographs, one path a line, e.g.
    find /data/places2/train -name '*.jpg' | sort > train_list.txt
and name them: python train.py train_data_path=train_list.txt val_data_path=val_list.txt
(a folder or a quoted glob does as well). To see everything work first, without any data: make demo
"""


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
            amp=config.amp,
        ),
        rng=np.random.default_rng([config.seed, PENALTY_STREAM]),
        ranks=ranks if ranks.size > 1 else None,
    )


def read_train_list(config: TrainConfig) -> list[str]:
    try:
        return read_file_list(config.train_data_path, config.data_root)
    except DataError:
        if not os.path.exists(config.train_data_path):
            print(NO_PHOTOGRAPHS, file=sys.stderr)
        raise


def build_loader(config: TrainConfig, paths: list[str], progress: Progress, ranks: Ranks, warn) -> TrainLoader:
    seed = data_seed(config.seed, progress.rollbacks)
    dataset = PhotoDataset(
        paths,
        config.image_shape[:2],
        seed=seed,
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
        seed=seed,
        num_workers=config.num_workers,
        start=progress.position,
        max_bad_images=config.max_bad_images,
        warn=warn,
        rank=ranks.rank,
        ranks=ranks.size,
    )


def fixed_photographs(config: TrainConfig, paths: list[str]) -> tuple[list, np.ndarray | None]:
    """The first photographs that can be read and a hole for each: uint8 [H,W,3] each, float32 [n,1,H,W]."""
    height, width = config.image_shape[:2]
    rng = np.random.default_rng([config.seed, PREVIEW_STREAM])
    images = []
    for path in paths:
        with contextlib.suppress(ImageError):  # evaluation and training name bad files; here the next one does
            images.append(center_crop(decode_image(path), height, width))
        if len(images) == config.viz_max_out:
            break
    holes = [
        shrink_box(random_box((height, width), config.mask_shape, config.margin, rng), config.max_delta_shape, rng)
        for _ in images
    ]
    return images, boxes_to_mask(holes, (height, width)) if images else None


def dry_run(config: TrainConfig, paths: list[str], device: str, picture: str):
    """Shows the configuration, the networks and two iterations; the picture is all that is written."""
    meter, ranks = MemoryMeter(device.startswith("gpu")), Ranks()
    trainer = build_trainer(config, ranks)
    print(to_yaml(config), end="")
    print(f"device: {device}; PaddlePaddle {paddle.__version__}")
    print(f"photographs: {len(paths)} in {config.train_data_path}")
    costs = network_costs(trainer.networks(), config.image_shape[:2], config.pretrain_coarse_network)
    for name, layers in costs.items():
        print("\n".join(shown.layer_table(name, layers)))
    print("\n".join(shown.work_lines(training_cost(costs, config.n_critic), config.batch_size, config.n_critic)))
    print("".join(f"{line}\n" for line in shown.untrained_lines(costs["generator"])), end="")
    with build_loader(config, paths, Progress(), ranks, warn=tqdm.write) as batches:
        batch = next(batches)
        shown.write_batch_picture(picture, batch.image, *trainer.views(batch), config.viz_max_out)
        print(f"first batch: {picture}")
        for label in ("first", "second"):
            started = time.perf_counter()
            scalars, count = train_iteration(config, trainer, batches)
            seconds = time.perf_counter() - started
            print(f"{label} iteration: {seconds:.2f} s, {count} batches of {config.batch_size}")
    print(shown.measured_line(meter.extra()))
    print(f"{config.niter} iterations like the second: {shown.duration(config.niter * seconds)}")
    print(format_line(2, config.niter, scalars, count / seconds))


def train_iteration(config: TrainConfig, trainer: Trainer, batches: TrainLoader) -> tuple[dict, int]:
    """The paper's iteration: critics on fresh batches, then the generator. Returns scalars and batches used."""
    scalars, before = {}, batches.position
    if trainer.objective.adversarial:
        for _ in range(config.n_critic):
            scalars.update(trainer.train_critics(next(batches)))
        # by how much the critics score real above completed; one that grows without end is a run going astray
        scalars["critic_gap"] = -scalars["wgan_d"]
    scalars.update(trainer.train_generator(next(batches)))
    return scalars, batches.position - before


class Run:
    """A run's folder and what this process does in it: rank 0 logs and saves, the others only train."""

    def __init__(self, config: TrainConfig, paths: list[str], device: str, ranks: Ranks):
        self.config, self.paths, self.device, self.ranks = config, paths, device, ranks
        self.folder = run_folder(config)
        self.facts = {"paddle": paddle.__version__, "photographs": list_digest(paths)}
        self.trainer = build_trainer(config, ranks)
        self.stop = StopRequest(with_parent=ranks.size > 1)
        self.notes = []
        self.scalars = {}  # of the last iteration

    def train(self) -> int:
        """Trains until the last iteration or a signal, with as many rollbacks as allowed; the exit code."""
        with RunLock(self.folder) if self.ranks.first else contextlib.nullcontext():
            source, rollbacks = self.choose(find_checkpoint), None
            while True:
                try:
                    return self.train_from(source, rollbacks)
                except NonFiniteError as error:
                    rollbacks = self.progress.rollbacks + 1
                    saved = self.ranks.largest(len(list_checkpoints(self.folder)) if self.ranks.first else 0)
                    if rollbacks > self.config.max_rollbacks or not saved:
                        raise
                    limit = f"{rollbacks} of {self.config.max_rollbacks}"
                    seed = data_seed(self.config.seed, rollbacks)
                    self.notes.append(f"rollback {limit}, on with data seed {seed}, because of {error}")
                    source = self.choose(lambda _config, folder, warn: latest_checkpoint(folder, warn))

    def choose(self, find) -> str | None:
        """What rank 0 finds, for all of them: the others would see a folder that is changing."""
        source = None
        if self.ranks.first:
            source = find(self.config, self.folder, warn=lambda line: show(f"warning: {line}", sys.stderr))
        return self.ranks.text_of_first(source)

    def restore(self, source: str | None, rollbacks: int | None):
        self.progress, self.scalars = Progress(), {}
        if source:
            self.progress = restore_run(self.config, self.trainer, source, self.notes.append, **self.facts)
        if rollbacks is not None:
            self.progress.rollbacks = rollbacks
        if self.progress.iteration >= self.config.niter:
            raise UserError(f"{source} is at iteration {self.progress.iteration} and niter is {self.config.niter}: "
                            "nothing to do")

    def open_log(self, source: str | None) -> TextLog:
        for path in set_aside_newer(self.folder, self.progress.iteration):
            self.notes.append(f"a checkpoint later than {source} is now {path}")
        log = TextLog(os.path.join(self.folder, "train.txt"), resume_at=self.progress.iteration)
        log.write(f"# {'resumed from ' + source if source else 'new run'}; seed {self.config.seed}; {self.device}; "
                  f"{self.ranks.size} rank{'s' * (self.ranks.size > 1)}; PaddlePaddle {paddle.__version__}; "
                  f"NumPy {np.__version__}; Python {platform.python_version()}; "
                  f"{len(self.paths)} photographs; configuration {config_digest(self.config)}")
        for line in self.notes:
            log.write(f"# {line}")
        self.notes.clear()
        write_text(os.path.join(self.folder, "config.yaml"), to_yaml(self.config))
        return log

    def train_from(self, source: str | None, rollbacks: int | None) -> int:
        """Trains from a checkpoint, or from the beginning; NonFiniteError where a value is not finite."""
        self.restore(source, rollbacks)
        config, progress, first = self.config, self.progress, self.ranks.first
        log = self.open_log(source) if first else QuietLog()
        with log, build_loader(config, self.paths, progress, self.ranks, warn=log.write) as batches:
            if first:
                shown = read_file_list(config.val_data_path, config.data_root) if config.val_data_path else self.paths
                previews = Previews(os.path.join(self.folder, "previews"), *fixed_photographs(config, shown))
            saved, used, since = source, 0, time.perf_counter()
            bar = tqdm(initial=progress.iteration, total=config.niter, unit="iteration",
                       disable=not first or not sys.stderr.isatty())
            with bar:
                for iteration in range(progress.iteration + 1, config.niter + 1):
                    try:
                        self.scalars, count = train_iteration(config, self.trainer, batches)
                    except NonFiniteError as error:
                        raise NonFiniteError(self.report(error, iteration, batches, saved)) from None
                    progress.iteration, progress.position = iteration, batches.position
                    used += count
                    if iteration % config.print_iter == 0:
                        log.write(format_line(iteration, config.niter, self.scalars,
                                              used / (time.perf_counter() - since)))
                        bar.set_postfix(l1=f"{self.scalars['l1']:.4f}", refresh=False)
                        used, since = 0, time.perf_counter()
                    if first and iteration % config.viz_iter == 0:
                        previews.write(self.trainer, iteration)
                    stopping = self.is_stopping()
                    if stopping or iteration % config.snapshot_save_iter == 0 or iteration == config.niter:
                        saved = self.save()
                    bar.update()
                    if stopping and iteration < config.niter:
                        self.tell(f"stopped after iteration {iteration}; go on with --resume", sys.stderr)
                        return self.stop.exit_code
        self.tell(f"finished; the last checkpoint is {saved}", sys.stdout)
        return 0

    def is_stopping(self) -> bool:
        """Whether any rank was asked to stop: all of them stop after the same iteration."""
        self.stop.stop_with_parent()
        agreed = self.ranks.largest(self.stop.signal or 0)
        self.stop.signal = agreed or self.stop.signal  # one that came since is for the next iteration
        return agreed > 0

    def save(self) -> str | None:
        if self.ranks.size > 1:
            self.ranks.check_same(weights_digest(self.trainer))
        if self.ranks.first:
            return save_run(self.config, self.trainer, self.folder, self.progress, **self.facts)
        return None

    def report(self, error: NonFiniteError, iteration: int, batches: TrainLoader, saved: str | None) -> str:
        """The message of an iteration that went wrong; rank 0 also lists the batch's photographs in a file."""
        batch = batches.position - 1
        text = f"iteration {iteration}, batch {batch}: {error}"
        if not self.ranks.first:
            return text
        path = os.path.join(self.folder, f"not_finite_{iteration:08d}.txt")
        return report_not_finite(path, text, self.scalars, batch, batches.photographs(batch), saved)

    def tell(self, line: str, stream):
        if self.ranks.first:
            show(line, stream)


def main(argv=None) -> int:
    with friendly_errors(DataError, NonFiniteError):
        args = parse_arguments(argv)
        config = load_config(args.config, TrainConfig, args.overrides)
        paths = read_train_list(config)
        device = set_device(args.device)
        if config.amp != "none" and device == "cpu":
            show(f"warning: amp: {config.amp} needs a GPU and is off on the CPU", sys.stderr)
            config = dataclasses.replace(config, amp="none")
        if args.dry_run is not None:
            dry_run(config, paths, device, args.dry_run)
            return 0
        return Run(config, paths, device, Ranks()).train()


if __name__ == "__main__":
    sys.exit(main())
