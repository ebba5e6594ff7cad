"""One training step at a time: networks, losses, optimisers. Reads no files, prints nothing, draws no masks.

Paper: section 3; TF1: `build_graph_with_losses`. A batch (see `data.loader.Batch`) has image [N, 3, H, W] in
[-1, 1], mask [M, 1, H, W] with 1 = hole and box [M, 4] = (top, left, height, width); M is 1 or N. Where holes are no
boxes it has distance [M, 1, height, width], pixels from each place of the box to the nearest known one.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import paddle

from models.critics import GlobalCritic, LocalCritic
from models.generator import InpaintingGenerator, hole_region
from models.layers import check_dialect, composite, crop_boxes, hide_hole
from models.losses import (
    adversarial_loss,
    critic_loss,
    discount_mask,
    gradient_penalty,
    interpolate,
    known_fraction,
    weighted_l1,
)
from models.mixed_precision import LossScale, MixedPrecision
from models.settings import Architecture, Objective, Optimization


class NonFiniteError(FloatingPointError):
    """A loss or a gradient norm is NaN or infinite; raised before the update, so the weights are still good."""


def clip_by_average_norm(gradients: list, limit: float):
    """Scales, in place, each gradient whose norm / number of elements exceeds the limit (TF1's rule)."""
    with paddle.no_grad():
        for gradient in gradients:
            average = float(gradient.norm()) / math.prod(gradient.shape)
            if average > limit:
                gradient.scale_(limit / average)


class Trainer:
    """Generator, critics and their optimisers.

    Args:
        architecture, objective, optimization: see there.
        rng: draws the interpolation points of the gradient penalty; nothing else here is random. The initial
            weights come from Paddle's generator (`paddle.seed`).
        ranks: None, or the processes that share every batch (see `utils.ranks.Ranks`: rank, size and
            average(tensors)), all with the same `rng` and weights. Every process gets its share of a batch and
            makes the same update as one process would with the whole batch.

    An iteration of the paper is `n_critic` calls of `train_critics` on fresh batches and one of
    `train_generator`. With `accumulate` each batch is computed in that many equal parts, in less memory and with the
    same result. Both raise NonFiniteError before anything is changed. In float16 the scalars hold the loss
    scale, too, and where gradients alone are not finite, the update is tried again with lower scales first.
    """

    def __init__(
        self,
        architecture: Architecture,
        objective: Objective,
        optimization: Optimization,
        rng: np.random.Generator,
        ranks=None,
    ):
        check_dialect(architecture.dialect)
        self.architecture = architecture
        self.objective = objective
        self.rng = rng
        self.ranks = ranks
        self.generator = InpaintingGenerator(
            architecture.generator_channels, architecture.dialect, architecture.contextual_attention
        )
        adam = {"learning_rate": optimization.lr, "beta1": optimization.beta1, "beta2": optimization.beta2}
        self.generator_optimizer = paddle.optimizer.Adam(parameters=self.generator.parameters(), epsilon=1e-8, **adam)
        self.generator_clip = optimization.gradient_clip_value if optimization.gradient_clip else None
        self.local_critic = self.global_critic = self.critic_optimizer = None
        if objective.adversarial:
            self.local_critic = LocalCritic(architecture.critic_channels, architecture.box_size, architecture.dialect)
            self.global_critic = GlobalCritic(
                architecture.critic_channels,
                architecture.image_size,
                architecture.dialect,
                in_channels=4 if architecture.critic_sees_mask else 3,
            )
            parameters = self.local_critic.parameters() + self.global_critic.parameters()
            self.critic_optimizer = paddle.optimizer.Adam(parameters=parameters, epsilon=1e-8, **adam)
        attention = self.generator.fine_generator.contextual_attention
        self.mixed = MixedPrecision(optimization.precision, [attention] if attention is not None else [])
        self.loss_scales = {}  # by optimiser
        if optimization.precision == "fp16":
            self.loss_scales = {name: LossScale() for name in self.optimizers()}
        self.accumulate, self.ema_decay = optimization.accumulate, optimization.ema_decay
        self.ema_generator = None  # built last: it must not change the others' random beginnings
        if self.ema_decay:
            self.ema_generator = InpaintingGenerator(
                architecture.generator_channels, architecture.dialect, architecture.contextual_attention
            )
            self.ema_generator.set_state_dict(self.generator.state_dict())
        self.discount = paddle.to_tensor(discount_mask(*architecture.box_size, gamma=objective.gamma))

    def train_critics(self, batch) -> dict[str, float]:
        """One update of both critics; returns wgan_d, wgan_gp, d and grad_norm_d."""
        alphas = self._draw_alphas(len(batch.image))
        parameters = self.local_critic.parameters() + self.global_critic.parameters()
        parts = [
            lambda part=part, alphas=alphas: self.critic_losses(part, alphas)
            for part, alphas in zip(self._parts(batch), np.split(alphas, self.accumulate, axis=1))
        ]
        return self._update(parts, "critic_optimizer", parameters, "d")

    def train_generator(self, batch) -> dict[str, float]:
        """One update of the generator, and of its average; returns l1, ae, wgan_g, g and grad_norm_g."""
        known = known_fraction(paddle.to_tensor(batch.mask))
        if self.ranks is not None:
            self.ranks.average([known])  # the other ranks' holes may have another size
        parts = [lambda part=part: self.generator_losses(part, known) for part in self._parts(batch)]
        scalars = self._update(parts, "generator_optimizer", self.generator.parameters(), "g", self.generator_clip)
        if self.ema_generator is not None:
            with paddle.no_grad():
                for average, weight in zip(self.ema_generator.parameters(), self.generator.parameters()):
                    average.set_value(average + (1.0 - self.ema_decay) * (weight - average))
        return scalars

    def set_learning_rate(self, lr: float):
        """For the updates from here on, of all networks."""
        for optimizer, _ in self.optimizers().values():
            optimizer.set_lr(lr)

    def critic_losses(self, batch, alphas=None):
        """The loss of both critics and its parts, as tensors.

        alphas: interpolation points of the local and the global penalty, [N, 1, 1, 1] each; drawn if None.
        """
        objective = self.objective
        image, mask, boxes = self._tensors(batch)
        n = image.shape[0]
        if alphas is None:
            alphas = self._draw_alphas(n)
        alpha_local, alpha_global = (paddle.to_tensor(alpha) for alpha in alphas)
        with paddle.no_grad():
            # The critics see nothing of it but the hole
            region = hole_region(batch.mask)
            _, refined, _ = self.mixed(self.generator, self._masked_input(image, mask), mask, region)
            fake = composite(refined, image, mask)
            real_box, fake_box = crop_boxes(image, boxes), crop_boxes(fake, boxes)
            box_mask = crop_boxes(mask, boxes)

        # One pass over real and fake together
        seen = paddle.concat([self._critic_input(image, mask), self._critic_input(fake, mask)])
        local_scores = self.mixed(self.local_critic, paddle.concat([real_box, fake_box]))
        global_scores = self.mixed(self.global_critic, seen)
        wgan_d = critic_loss(local_scores[:n], local_scores[n:])
        wgan_d = wgan_d + objective.global_wgan_loss_alpha * critic_loss(global_scores[:n], global_scores[n:])

        if self.architecture.dialect == "tf1":
            between = interpolate(image, fake, alpha_global)
            between_box = interpolate(real_box, fake_box, alpha_local)
            counted, counted_box = mask, box_mask
        else:
            between = interpolate(fake, image, alpha_global)
            between_box = interpolate(fake_box, real_box, alpha_local)
            counted = counted_box = None
        # Never in mixed precision: its gradients' gradients are the most delicate numbers here.
        wgan_gp = gradient_penalty(self.local_critic, between_box, counted_box)
        wgan_gp = wgan_gp + gradient_penalty(self.global_critic, self._critic_input(between, mask), counted)
        loss = wgan_d + objective.wgan_gp_lambda * wgan_gp
        return loss, {"wgan_d": wgan_d, "wgan_gp": wgan_gp, "d": loss}

    def generator_losses(self, batch, known=None):
        """The generator's loss and its parts, as tensors; the critics get no gradients.

        known: share of known pixels, of the whole batch where this is a part of one; None: of this one.
        """
        objective = self.objective
        image, mask, boxes = self._tensors(batch)
        masked_input = self._masked_input(image, mask)
        if objective.pretrain_coarse_network:
            stages = [(objective.coarse_l1_alpha, self.mixed(self.generator.coarse, masked_input, mask))]
        else:
            coarse, refined, _ = self.mixed(self.generator, masked_input, mask)
            stages = [(objective.coarse_l1_alpha, coarse), (1.0, refined)]

        target_box = crop_boxes(image, boxes)
        discount = self._discount(batch)
        l1 = ae = 0.0
        for alpha, output in stages:
            compared = output if self.architecture.dialect == "tf1" else composite(output, image, mask)
            l1 = l1 + alpha * weighted_l1(crop_boxes(compared, boxes), target_box, discount)
            ae = ae + alpha * weighted_l1(output, image, 1.0 - mask)
        if self.architecture.dialect == "tf1":
            ae = ae / (known_fraction(mask) if known is None else known)
        loss = objective.l1_loss_alpha * l1 + objective.ae_loss_alpha * ae
        scalars = {"l1": l1, "ae": ae}
        if objective.adversarial:
            fake = composite(refined, image, mask)
            with frozen(self.local_critic, self.global_critic):
                local_scores = self.mixed(self.local_critic, crop_boxes(fake, boxes))
                global_scores = self.mixed(self.global_critic, self._critic_input(fake, mask))
            wgan_g = adversarial_loss(local_scores)
            wgan_g = wgan_g + objective.global_wgan_loss_alpha * adversarial_loss(global_scores)
            loss = loss + objective.gan_loss_alpha * wgan_g
            scalars["wgan_g"] = wgan_g
        return loss, {**scalars, "g": loss}

    @paddle.no_grad()
    def dry_run_views(self, batch):
        """Generator input and local-critic crops of a batch, as NumPy arrays."""
        image, mask, boxes = self._tensors(batch)
        return self._masked_input(image, mask).numpy(), crop_boxes(image, boxes).numpy()

    @paddle.no_grad()
    def inpaint(self, image: np.ndarray, mask: np.ndarray):
        """For previews: generator input, coarse output, inpainted image, offsets (or None), as arrays.

        image float32 [N, 3, H, W], mask [N or 1, 1, H, W]. By the averaged generator where there is one.
        """
        generator = self.generator if self.ema_generator is None else self.ema_generator
        image, mask = paddle.to_tensor(image), paddle.to_tensor(mask)
        masked_input = self._masked_input(image, mask)
        if self.objective.pretrain_coarse_network:
            coarse = generator.coarse(masked_input, mask)
            inpainted, offsets = composite(coarse, image, mask), None
        else:
            coarse, refined, offsets = generator(masked_input, mask)
            inpainted, offsets = composite(refined, image, mask), None if offsets is None else offsets.numpy()
        return masked_input.numpy(), coarse.numpy(), inpainted.numpy(), offsets

    def _parts(self, batch) -> list:
        """The batch in `accumulate` parts of equal size."""
        if (count := self.accumulate) == 1:
            return [batch]
        fields = {name: getattr(batch, name, None) for name in ("image", "mask", "box", "distance")}
        if len(fields["image"]) % count:
            raise ValueError(f"a batch of {len(fields['image'])} cannot be split into {count} equal parts")
        split = {  # what there is one of is for all samples
            name: [value] * count if value is None or len(value) == 1 else np.split(value, count)
            for name, value in fields.items()
        }
        return [SimpleNamespace(**{name: values[k] for name, values in split.items()}) for k in range(count)]

    def _discount(self, batch):
        """Weight of each pixel of the box in l1, [1 or N, 1, height, width]: gamma to the power of the distance."""
        distance = getattr(batch, "distance", None)
        if distance is None:
            return self.discount
        return paddle.to_tensor(np.float32(self.objective.gamma ** distance.astype(np.float64)))

    def _draw_alphas(self, n: int) -> np.ndarray:
        """Interpolation points for n samples, float32 [2, n, 1, 1, 1]: this rank's part of the whole batch's."""
        rank, size = (0, 1) if self.ranks is None else (self.ranks.rank, self.ranks.size)
        drawn = self.rng.random((2, n * size, 1, 1, 1)).astype(np.float32)
        return drawn[:, rank * n : (rank + 1) * n]

    def _tensors(self, batch):
        return paddle.to_tensor(batch.image), paddle.to_tensor(batch.mask), batch.box

    def _masked_input(self, image, mask):
        return hide_hole(image, mask, self.objective.mask_type, self.objective.mosaic_unit_size)

    def _critic_input(self, x, mask):
        """What the global critic sees: [N, 3, H, W], or [N, 4, H, W] with the mask."""
        if not self.architecture.critic_sees_mask:
            return x
        return paddle.concat([x, mask.expand([x.shape[0], 1, *x.shape[2:]])], axis=1)

    def _update(self, parts: Sequence[Callable], optimizer_name, parameters, suffix, clip=None) -> dict[str, float]:
        """One step of an optimiser. parts: each gives loss and scalars of its part of the batch, equal in size."""
        optimizer, loss_scale = getattr(self, optimizer_name), self.loss_scales.get(optimizer_name)
        scalars = {}
        for part in parts:  # one after the other, each freed by its backward pass; their gradients add up
            loss, values = part()
            if len(parts) > 1:
                loss = loss / len(parts)
            (loss if loss_scale is None else loss * loss_scale.scale).backward()
            for name, value in values.items():
                value = value.detach().reshape([1])
                scalars[name] = scalars[name] + value if name in scalars else value
        if len(parts) > 1:
            scalars = {name: value / len(parts) for name, value in scalars.items()}
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.ranks is not None:
            # After the backward pass and not during it, as DataParallel would: the penalty runs backward twice.
            self.ranks.average([*gradients, *scalars.values()])
        if loss_scale is not None:
            loss_scale.remove_from(gradients)
        norm = paddle.sqrt(paddle.add_n([(g * g).sum() for g in gradients]))
        names = [*scalars, f"grad_norm_{suffix}"]
        # One transfer from the device for all of them
        values = paddle.concat([*scalars.values(), norm.reshape([1])]).numpy()
        result = {name: float(value) for name, value in zip(names, values)}
        if loss_scale is not None:
            result[f"loss_scale_{suffix}"] = loss_scale.scale
        finite = np.isfinite(values)
        if not finite.all():
            optimizer.clear_grad()
            if loss_scale is not None and finite[:-1].all() and loss_scale.lower():
                # Probably the scaled gradients passed float16's largest number: once more with half the scale
                return self._update(parts, optimizer_name, parameters, suffix, clip)
            listed = ", ".join(f"{name} {value:g}" for name, value in result.items())
            raise NonFiniteError(f"not finite, update not applied: {listed}")
        if clip is not None:
            clip_by_average_norm(gradients, clip)
        optimizer.step()
        optimizer.clear_grad()
        if loss_scale is not None:
            loss_scale.update_done()
        return result

    def networks(self) -> dict[str, paddle.nn.Layer]:
        """The networks there are, by name."""
        named = {
            "generator": self.generator,
            "local_critic": self.local_critic,
            "global_critic": self.global_critic,
        }
        return {name: network for name, network in named.items() if network is not None}

    def optimizers(self) -> dict[str, tuple[paddle.optimizer.Optimizer, dict[str, paddle.Tensor]]]:
        """Each optimiser with the parameters that it moves, by structured name."""
        named = {"generator_optimizer": (self.generator_optimizer, dict(self.generator.named_parameters()))}
        if self.critic_optimizer is not None:
            parameters = {
                f"{critic}.{name}": parameter
                for critic in ("local_critic", "global_critic")
                for name, parameter in getattr(self, critic).named_parameters()
            }
            named["critic_optimizer"] = (self.critic_optimizer, parameters)
        return named


@contextlib.contextmanager
def frozen(*networks: paddle.nn.Layer):
    """Inside, the networks' parameters take no gradients; what is computed from them still does."""
    parameters = [p for network in networks for p in network.parameters()]
    before = [p.stop_gradient for p in parameters]
    for parameter in parameters:
        parameter.stop_gradient = True
    try:
        yield
    finally:
        for parameter, value in zip(parameters, before):
            parameter.stop_gradient = value
