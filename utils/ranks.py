"""Several processes, one a device, that train together: `python -m paddle.distributed.launch train.py ...`.

Each computes the gradients of its share of every batch; they are averaged before the update, so that all
hold the same weights at any time.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import paddle

from utils.checkpoint import checkpoint_iteration, checkpoint_path
from utils.cli import UserError, one_line
from utils.config import TrainConfig
from utils.run_state import weights_digest


class Ranks:
    """The processes that train together: this one's number and how many there are.

    Made by the launcher's environment; one rank alone without it. All methods have to be called by all ranks,
    in the same order; with one rank they do nothing. Raises UserError where another rank has ended.
    """

    def __init__(self) -> None:
        self.size = int(os.environ.get("PADDLE_TRAINERS_NUM") or 1)
        self.rank = int(os.environ.get("PADDLE_TRAINER_ID") or 0) if self.size > 1 else 0
        if self.size > 1:
            with self._others_there():
                paddle.distributed.init_parallel_env()

    @property
    def first(self) -> bool:
        """Whether this rank is the one that logs and saves."""
        return self.rank == 0

    def average(self, tensors: list[paddle.Tensor]) -> None:
        """Sets float32 tensors to their means over all ranks, in one transfer."""
        if self.size == 1:
            return
        with self._others_there(), paddle.no_grad():
            together = paddle.concat([tensor.detach().reshape([-1]) for tensor in tensors])
            paddle.distributed.all_reduce(together)
            together = together / self.size
            pieces = paddle.split(together, [tensor.size for tensor in tensors])
            for tensor, piece in zip(tensors, pieces):
                paddle.assign(piece.reshape(tensor.shape), output=tensor)

    def largest(self, value: int) -> int:
        """The largest of the ranks' whole numbers."""
        if self.size == 1:
            return value
        with self._others_there():
            shared = paddle.to_tensor(np.array([value], np.int64))
            paddle.distributed.all_reduce(shared, op=paddle.distributed.ReduceOp.MAX)
            return int(shared.numpy()[0])

    def batch_size(self, config: TrainConfig) -> int:
        """Of a whole batch, over all ranks and parts. Raises UserError where the ranks cannot share it evenly."""
        if config.batch_size % self.size:
            raise UserError(f"batch_size {config.batch_size} cannot be shared evenly by {self.size} ranks; "
                            f"make it a multiple of {self.size}")  # fmt: skip
        return config.batch_size * config.accumulate

    def agree_on_checkpoint(self, config: TrainConfig, folder: str, found: str | None) -> str | None:
        """What rank 0 found to resume from, for all ranks: the others would see a folder that is changing."""
        if self.size == 1 or config.resume != "latest":
            return found if self.first else config.resume or None
        return checkpoint_path(folder, self.largest(checkpoint_iteration(found) if self.first else 0))

    def check_same(self, trainer: Any) -> None:
        """Raises UserError unless all ranks hold the same weights."""
        if self.size == 1:
            return
        value = weights_digest(trainer)
        highest, lowest = self.largest(value), -self.largest(-value)
        if highest != lowest:
            raise UserError(f"rank {self.rank}: the weights of the ranks have drifted apart; nothing was saved")

    @contextlib.contextmanager
    def _others_there(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, OSError) as error:  # Paddle's own are RuntimeErrors; gloo's and NCCL's come as such
            reason = one_line(error)[-200:]
            raise UserError(
                f"rank {self.rank} of {self.size}: another rank has ended or cannot be reached; its own message "
                f"says why ({reason})"
            ) from None
