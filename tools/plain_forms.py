"""The work of the networks and of training in the plain form of the published programs, for comparison only.

`tools/benchmark.py` times these beside the project's own forms and checks that both give the same results.
Written from the description of the earlier Paddle and PyTorch ports: the attention goes through the batch one
sample at a time with patches cut out as convolution filters, the generator keeps a graph in critic updates that
nobody uses, the critics see real and fake in separate passes, and they collect gradients in the generator's update.

Nothing here is slower than it has to be in that form: what the ports do besides, such as painting the attention
offsets or scoring the real pictures once more in the generator's update, is left out.
"""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F

from models.contextual_attention import halve, resize_nearest
from models.generator import with_border_and_mask
from models.layers import composite, crop_boxes, hide_hole
from models.losses import (
    adversarial_loss,
    critic_loss,
    gradient_penalty,
    interpolate,
    known_fraction,
    weighted_l1,
)

# Below anything float32 can show beside a weight of 1. Paddle's softmax on the CPU gives exp(-64) = 1.6e-28 or more
# times the largest weight; elsewhere the tail runs into denormal numbers.
NEGLIGIBLE = 1e-27
ATROUS = {"conv7_atrous": 2, "conv8_atrous": 4, "conv9_atrous": 8, "conv10_atrous": 16}


def attention(foreground, background, mask, dialect: str = "tf1", flush: bool = False):
    """What `ContextualAttention` computes, one sample after the other.

    foreground, background [N, C, H, W] with the same even sides, mask [N or 1, 1, H, W]; flush: see `weights_of`.
    Returns features [N, C, H, W] and the flat number of the best patch [N, H/2 * W/2].
    """
    features, best = [], []
    for i in range(foreground.shape[0]):
        sample = slice(i, i + 1)
        own_mask = mask[sample] if mask.shape[0] > 1 else mask
        weights = weights_of(foreground[sample], background[sample], own_mask, dialect, flush)
        c, h, w = background.shape[1], *weights.shape[2:]
        patches = F.unfold(background[sample], 4, strides=2, paddings=1)  # [1, C*16, h*w]
        patches = patches.transpose([2, 0, 1]).reshape([h * w, c, 4, 4])
        features.append(F.conv2d_transpose(weights, patches, stride=2, padding=1) / 4.0)
        best.append(paddle.argmax(weights, axis=1).reshape([1, h * w]))
    return paddle.concat(features), paddle.concat(best)


def weights_of(f, b, mask, dialect: str, flush: bool):
    """Attention weights of one sample, [1, background position, h, w].

    flush: weights that count for nothing, and the gradients that they leave, become exactly 0; they can be, or make,
    denormal numbers, on which many CPUs are slow.
    """
    f, b, mask = (halve(x, dialect) for x in (f, b, mask))
    c, h, w = b.shape[1:]
    filters = F.unfold(b, 3, paddings=1).transpose([2, 0, 1]).reshape([h * w, c, 3, 3])
    squares = filters * filters
    if dialect == "pytorch":
        norms = paddle.sqrt((squares + 1e-4).sum(axis=[1, 2, 3], keepdim=True))
    else:
        norms = paddle.sqrt(paddle.clip(squares.sum(axis=[1, 2, 3], keepdim=True), min=1e-8))
    scores = F.conv2d(f, filters / norms, padding=1)  # [1, h*w, h, w]

    identity = paddle.eye(3).reshape([1, 1, 3, 3])
    by_rows = F.conv2d(scores.reshape([1, 1, h * w, h * w]), identity, padding=1)
    turned = by_rows.reshape([1, h, w, h, w]).transpose([0, 2, 1, 4, 3]).reshape([1, 1, h * w, h * w])
    by_columns = F.conv2d(turned, identity, padding=1)
    scores = by_columns.reshape([1, w, h, w, h]).transpose([0, 2, 1, 4, 3]).reshape([1, h * w, h, w])

    holes = F.unfold((mask != 0).astype("float32"), 3, paddings=1).sum(axis=1)  # [1, h*w]
    available = (holes == 0).astype("float32").reshape([1, h * w, 1, 1])
    logits = scores * available * 10.0
    if flush and not logits.stop_gradient:
        logits.register_hook(lambda gradient: F.hardshrink(gradient, 1e-30))
    weights = F.softmax(logits, axis=1) * available
    return F.thresholded_relu(weights, NEGLIGIBLE) if flush else weights


def sharpness(features, mask, dialect: str = "tf1") -> dict[str, float]:
    """How the attention weights of features [N, C, H, W] are spread, averaged over samples and positions."""
    samples = [weights_of(features[i : i + 1], features[i : i + 1], mask, dialect, flush=False).numpy()
               for i in range(features.shape[0])]
    weights = np.concatenate(samples)
    denormal = (weights > 0) & (weights < np.finfo(np.float32).tiny)
    return {
        "largest_weight": float(weights.max(axis=1).mean()),
        "negligible_fraction": float((weights < NEGLIGIBLE).mean()),  # the masked ones, which are 0, included
        "denormal_fraction": float(denormal.mean()),
    }


class Generator:
    """`InpaintingGenerator`'s outputs from its own parameters, by plain convolutions and `attention`."""

    def __init__(self, network, dialect: str = "tf1", flush: bool = False):
        self.parameters = dict(network.named_parameters())
        self.dialect = dialect
        self.flush = flush

    def __call__(self, image, mask):
        coarse = self.decoder(self.encoder(with_border_and_mask(image, mask), "coarse_generator"), "coarse_generator")
        x = with_border_and_mask(composite(coarse, image, mask), mask)
        branch = self.encoder(x, "fine_generator")
        a = self.run(x, "fine_generator", "pmconv1 pmconv2_downsample pmconv3 pmconv4_downsample pmconv5")
        a = F.relu(self.conv(a, "fine_generator", "pmconv6"))
        a, _ = attention(a, a, resize_nearest(mask, 4, self.dialect), self.dialect, self.flush)
        a = self.run(a, "fine_generator", "pmconv9 pmconv10")
        return coarse, self.decoder(paddle.concat([branch, a], axis=1), "fine_generator", "all")

    def encoder(self, x, stage):
        return self.run(x, stage, "conv1 conv2_downsample conv3 conv4_downsample conv5 conv6 " + " ".join(ATROUS))

    def decoder(self, x, stage, prefix=""):
        for number in range(11, 17):
            if number in (13, 15):
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = F.elu(self.conv(x, stage, f"{prefix}conv{number}"))
        return paddle.clip(self.conv(x, stage, f"{prefix}conv17"), -1.0, 1.0)

    def run(self, x, stage, names):
        for name in names.split():
            x = F.elu(self.conv(x, stage, name))
        return x

    def conv(self, x, stage, name):
        stride = 2 if "downsample" in name else 1
        return convolve(x, self.parameters, f"{stage}.{name}.conv", stride, ATROUS.get(name, 1), self.dialect)


def convolve(x, parameters, name, stride, dilation, dialect):
    weight = parameters[f"{name}.weight"]
    reach = dilation * (weight.shape[2] - 1)
    padding = reach // 2
    if stride == 2 and dialect == "tf1":  # on even sides; top, bottom, left, right
        padding = [(reach - 1) // 2, reach // 2] * 2
    return F.conv2d(x, weight, parameters[f"{name}.bias"], stride=stride, padding=padding, dilation=dilation)


def critic(network, dialect: str = "tf1"):
    """A function that scores as the critic `network` does."""
    parameters = dict(network.named_parameters())

    def score(x):
        for i in range(1, 5):
            x = convolve(x, parameters, f"dis_conv_module.conv{i}.conv", 2, 1, dialect)
            x = F.leaky_relu(x, negative_slope=0.2)
        return F.linear(x.reshape([x.shape[0], -1]), parameters["linear.weight"], parameters["linear.bias"])

    return score


class Training:
    """The updates of a `Trainer` (dialect tf1, holes without mosaic) on its own networks and optimisers."""

    def __init__(self, trainer, flush: bool = False):
        self.trainer = trainer
        self.generator = Generator(trainer.generator, flush=flush)
        self.local_critic = critic(trainer.local_critic)
        self.global_critic = critic(trainer.global_critic)

    def train_critics(self, batch) -> dict[str, float]:
        objective = self.trainer.objective
        image, mask = paddle.to_tensor(batch.image), paddle.to_tensor(batch.mask)
        _, refined = self.generator(hide_hole(image, mask), mask)
        fake = composite(refined, image, mask).detach()
        views = (  # critic, real, fake, mask, factor
            (self.local_critic, *(crop_boxes(x, batch.box) for x in (image, fake, mask)), 1.0),
            (self.global_critic, image, fake, mask, objective.global_wgan_loss_alpha),
        )
        alphas = self.trainer.rng.random((2, image.shape[0], 1, 1, 1)).astype(np.float32)
        wgan_d = wgan_gp = 0.0
        for (score, real, made, hole, factor), alpha in zip(views, alphas):
            wgan_d = wgan_d + factor * critic_loss(score(real), score(made))
            wgan_gp = wgan_gp + gradient_penalty(score, interpolate(real, made, paddle.to_tensor(alpha)), hole)
        loss = wgan_d + objective.wgan_gp_lambda * wgan_gp
        return self.update(self.trainer.critic_optimizer, loss, {"wgan_d": wgan_d, "wgan_gp": wgan_gp, "d": loss})

    def train_generator(self, batch) -> dict[str, float]:
        objective = self.trainer.objective
        image, mask = paddle.to_tensor(batch.image), paddle.to_tensor(batch.mask)
        coarse, refined = self.generator(hide_hole(image, mask), mask)
        target = crop_boxes(image, batch.box)
        l1 = ae = 0.0
        for factor, output in ((objective.coarse_l1_alpha, coarse), (1.0, refined)):
            l1 = l1 + factor * weighted_l1(crop_boxes(output, batch.box), target, self.trainer.discount)
            ae = ae + factor * weighted_l1(output, image, 1.0 - mask)
        ae = ae / known_fraction(mask)
        fake = composite(refined, image, mask)
        wgan_g = adversarial_loss(self.local_critic(crop_boxes(fake, batch.box)))
        wgan_g = wgan_g + objective.global_wgan_loss_alpha * adversarial_loss(self.global_critic(fake))
        loss = objective.l1_loss_alpha * l1 + objective.ae_loss_alpha * ae + objective.gan_loss_alpha * wgan_g
        return self.update(
            self.trainer.generator_optimizer, loss, {"l1": l1, "ae": ae, "wgan_g": wgan_g, "g": loss}
        )

    @staticmethod
    def update(optimizer, loss, scalars) -> dict[str, float]:
        optimizer.clear_grad()
        loss.backward()
        optimizer.step()
        return {name: float(value) for name, value in scalars.items()}
