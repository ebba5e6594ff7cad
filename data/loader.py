"""An endless stream of training batches whose content and order depend on the seed alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import cv2
import numpy as np

from data.dataset import PhotoDataset
from data.masks import TrainingHoles
from utils.cli import UserError

BOX_STREAM, HOLE_STREAM = 3, 4  # second word of the seed; the data set uses 0..2
WORKER_ENDED = ("a data worker ended unexpectedly (killed, or out of memory?); "
                "fewer workers (num_workers) need less memory")
Hole = tuple[tuple[int, int, int, int], np.ndarray, np.ndarray]  # see TrainingHoles.draw


class Sample(NamedTuple):
    """uint8 [H,W,3], [(path, reason) of files that failed on the way], and a hole where each sample draws its own."""

    pixels: np.ndarray
    bad: list[tuple[str, str]]
    hole: Hole | None = None


class Batch(NamedTuple):
    """image float32 [N,3,H,W] RGB in [-1, 1]; mask float32 [M,1,H,W], 1 = hole; box int64 [M,4].

    box is (top, left, height, width) of the box that the local critic sees; the hole lies inside. distance: None
    where every hole is that box shrunk, else float32 [M,1,height,width], pixels to the nearest known one.
    M is 1 where all samples share one mask, N otherwise.
    """

    image: np.ndarray
    mask: np.ndarray
    box: np.ndarray
    distance: np.ndarray | None = None


def _print_warning(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


class TrainLoader:
    """Endless iterator of Batch. Batch b holds the samples b * batch_size ... of the data set.

    dataset: where the samples come from.
    batch_size: samples in a batch, over all ranks.
    holes: where boxes and holes come from.
    mask_batch_same: one box and one hole for the whole batch, as in TF1, or one for each sample.
    seed: of the holes; batch b has the same ones wherever the stream starts.
    num_workers: processes that load samples; 0: load in this process. Batches are the same for any number.
        Workers are forked when the loader is made: build it before large work starts threads.
    start: number of the first batch, for a run that is resumed.
    max_bad_images: more different files than this that cannot be used end the stream.
    prefetch: batches loaded ahead by the workers.
    warn: called with one line for each bad file, once.
    rank, ranks: this process's number and how many share every batch: rank r of R gives the samples
        r * batch_size / R ... of it, with their boxes, so that all ranks together give the same batches as
        one process alone.

    waited: seconds spent in next() so far.
    position: number of the next batch, which is how many were handed out since batch 0.
    bad_images: path -> reason of each file that could not be used so far.
    Raises UserError from the constructor (the box does not fit) and from next().
    """

    def __init__(
        self,
        dataset: PhotoDataset,
        batch_size: int,
        holes: TrainingHoles,
        mask_batch_same: bool = True,
        seed: int = 0,
        num_workers: int = 0,
        start: int = 0,
        max_bad_images: int = 100,
        prefetch: int = 2,
        warn: Callable[[str], None] = _print_warning,
        rank: int = 0,
        ranks: int = 1,
    ):
        if batch_size % ranks:
            raise UserError(f"batch_size {batch_size} cannot be shared evenly by {ranks} ranks; "
                            f"make it a multiple of {ranks}")
        self.position = start
        self.bad_images: dict[str, str] = {}
        self._dataset = dataset
        self._batch_size = batch_size
        self._share = batch_size // ranks
        self._first = rank * self._share
        self._holes = holes
        # Boxes are drawn one after the other for a whole batch, other holes each by its own number, so by the workers
        self._hole_a_sample = holes.kind != "box" and not mask_batch_same
        self._mask_batch_same = mask_batch_same
        self._seed = seed
        self._max_bad_images = max_bad_images
        self._warn = warn
        self._closed = False
        self._executor = None
        self.waited = 0.0
        if num_workers > 0:
            self._executor = ProcessPoolExecutor(
                num_workers, multiprocessing.get_context("fork"), _start_worker,
                (dataset, holes if self._hole_a_sample else None, seed, os.getpid()))
            self._submitted = start * self._share
            self._pending = deque()
            # The first submissions fork the workers, which have to be born deaf to SIGTERM: see _end_with_parent.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            try:
                for _ in range(max(1, prefetch) * self._share):
                    self._submit()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._closed:
            raise UserError("the loader is closed; no more batches can be read")
        started = time.perf_counter()
        height, width = self._dataset.image_size
        image = np.empty((self._share, 3, height, width), np.float32)
        drawn = []
        try:
            for place in range(self._share):
                sample = self._sample(self._number(self.position, place))
                self._note(sample.bad)
                # dtype: NumPy 1 would divide in float16.
                np.divide(sample.pixels.transpose(2, 0, 1), 127.5, out=image[place], dtype=np.float32)
                drawn.append(sample.hole)
            image -= 1.0
            boxes, masks, distances = zip(*(drawn if self._hole_a_sample else self._draw_holes(self.position)))
        except UserError:
            self.close()
            raise
        self.position += 1
        self.waited += time.perf_counter() - started
        distance = None if self._holes.kind == "box" else np.stack(distances)[:, None]
        return Batch(image, np.stack(masks)[:, None].astype(np.float32), np.array(boxes, np.int64), distance)

    def source_paths(self, batch: int) -> list[str]:
        """Paths of the images of a batch that was handed out, of all ranks, in the batch's order.

        An image that another rank alone found unusable is named instead of its replacement.
        """
        numbers = range(batch * self._batch_size, (batch + 1) * self._batch_size)
        return [self._dataset.source_path(number, self.bad_images) for number in numbers]

    def close(self) -> None:
        """End the workers; the stream gives no more batches. Closing twice does no harm."""
        self._closed = True
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None

    def __enter__(self) -> TrainLoader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _draw_holes(self, batch: int) -> list[Hole]:
        """The holes of a batch, or this rank's part of them, where they are not drawn with the samples."""
        stream = BOX_STREAM if self._holes.kind == "box" else HOLE_STREAM
        rng = np.random.default_rng([self._seed, stream, batch])
        drawn = [self._holes.draw(rng) for _ in range(1 if self._mask_batch_same else self._batch_size)]
        self._note(self._holes.take_bad())
        return drawn if self._mask_batch_same else drawn[self._first : self._first + self._share]

    def _number(self, batch: int, place: int) -> int:
        """The data set's number of this rank's sample at a place of a batch."""
        return batch * self._batch_size + self._first + place

    def _submit(self) -> None:
        number = self._number(*divmod(self._submitted, self._share))
        try:
            self._pending.append(self._executor.submit(_load_in_worker, number))
        except BrokenProcessPool:
            raise UserError(WORKER_ENDED) from None
        self._submitted += 1

    def _sample(self, number: int) -> Sample:
        if self._executor is None:
            return load_sample(self._dataset, self._holes if self._hole_a_sample else None, self._seed, number)
        try:
            sample = self._pending.popleft().result()
        except BrokenProcessPool:
            raise UserError(WORKER_ENDED) from None
        self._submit()
        return sample

    def _note(self, bad: list[tuple[str, str]]) -> None:
        for path, reason in bad:
            if path in self.bad_images:
                continue
            self.bad_images[path] = reason
            self._warn(f"{UserError(path, reason)}; another one takes its place")
            if len(self.bad_images) > self._max_bad_images:
                first = "; ".join(str(UserError(*item)) for item in list(self.bad_images.items())[:3])
                raise UserError(f"{len(self.bad_images)} images cannot be used, more than max_bad_images "
                                f"({self._max_bad_images}) allows, e.g. {first}")


def load_sample(dataset: PhotoDataset, holes: TrainingHoles | None, seed: int, number: int) -> Sample:
    """Sample `number` with a hole of its own, a function of both seeds and the number alone; None: without a hole."""
    pixels, bad = dataset.load(number)
    if holes is None:
        return Sample(pixels, bad)
    hole = holes.draw(np.random.default_rng([seed, HOLE_STREAM, number]))
    return Sample(pixels, bad + holes.take_bad(), hole)


# Set in worker processes only: sending the data set with every task would send all its paths each time.
_worker_source: tuple[PhotoDataset, TrainingHoles | None, int] | None = None


def _start_worker(dataset: PhotoDataset, holes: TrainingHoles | None, seed: int, parent: int) -> None:
    global _worker_source
    _worker_source = dataset, holes, seed
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not the parent's handler
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if not hasattr(signal, "sigtimedwait"):  # macOS
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    cv2.setNumThreads(0)  # one core for each worker, and OpenCV's threads do not survive a fork
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    """Ends this worker when its parent has ended or asks for it.

    A killed parent cannot end its workers, and they would wait for it for ever. Where a whole process group
    gets SIGTERM (service managers, batch systems), the parent still needs its workers to finish and save.
    """
    while os.getppid() == parent:
        if hasattr(signal, "sigtimedwait"):
            received = signal.sigtimedwait([signal.SIGTERM], 1.0)
            if received is not None and received.si_pid == parent:
                break
        else:
            time.sleep(1.0)
    os._exit(1)


def _load_in_worker(number: int) -> Sample:
    return load_sample(*_worker_source, number)
