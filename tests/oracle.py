"""DeepFill v1 once more, slow and literal, in float64 NumPy: what the networks and losses are compared with.

Written from the description of the original programs, not from `models`. Images and features are
[N, C, H, W], masks [N or 1, 1, H, W] with 1 = hole, convolution weights [out, in, k, k].
"""

from __future__ import annotations

import math

import numpy as np

ATROUS = {"conv7_atrous": 2, "conv8_atrous": 4, "conv9_atrous": 8, "conv10_atrous": 16}


def padding(size: int, kernel: int, stride: int, dilation: int, dialect: str) -> tuple[int, int]:
    """Zeros before and after: TensorFlow's SAME (the odd one goes after), or the same on both sides."""
    reach = dilation * (kernel - 1) + 1
    if dialect == "pytorch":
        return reach // 2, reach // 2
    total = max((math.ceil(size / stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def _padded(x, kernel, stride, dilation, dialect):
    rows, columns = (padding(size, kernel, stride, dilation, dialect) for size in x.shape[2:])
    return np.pad(x, ((0, 0), (0, 0), rows, columns)), rows, columns


def _taps(kernel, stride, dilation, out_h, out_w):
    """For each kernel position the slices of the padded input that it sees."""
    for ky in range(kernel):
        for kx in range(kernel):
            top, left = ky * dilation, kx * dilation
            yield (
                ky,
                kx,
                (
                    slice(None),
                    slice(None),
                    slice(top, top + stride * (out_h - 1) + 1, stride),
                    slice(left, left + stride * (out_w - 1) + 1, stride),
                ),
            )


def conv(x, weight, bias, stride=1, dilation=1, dialect="tf1"):
    x, kernel = np.asarray(x, np.float64), weight.shape[2]
    padded, _, _ = _padded(x, kernel, stride, dilation, dialect)
    reach = dilation * (kernel - 1) + 1
    out_h, out_w = ((size - reach) // stride + 1 for size in padded.shape[2:])
    out = np.zeros((x.shape[0], weight.shape[0], out_h, out_w)) + np.reshape(bias, (1, -1, 1, 1))
    for ky, kx, window in _taps(kernel, stride, dilation, out_h, out_w):
        out += np.einsum("oc,nchw->nohw", weight[:, :, ky, kx], padded[window], optimize=True)
    return out


def conv_input_gradient(grad, x_shape, weight, stride, dialect):
    """What d(loss)/d(output) becomes at the input of an undilated convolution."""
    kernel = weight.shape[2]
    padded, rows, columns = _padded(np.zeros(x_shape), kernel, stride, 1, dialect)
    for ky, kx, window in _taps(kernel, stride, 1, *grad.shape[2:]):
        padded[window] += np.einsum("oc,nohw->nchw", weight[:, :, ky, kx], grad, optimize=True)
    return padded[:, :, rows[0] : rows[0] + x_shape[2], columns[0] : columns[0] + x_shape[3]]


def elu(x):
    return np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1)


def repeat_x2(x):
    return x.repeat(2, axis=2).repeat(2, axis=3)


def nearest_source(i: int, size: int, out_size: int, dialect: str) -> int:
    """Where output i comes from: corners aligned, in float32 and rounded (tf1); or the floor."""
    if dialect == "pytorch":
        return math.floor(i * size / out_size)
    if out_size == 1:
        return 0
    step = np.float32(size - 1) / np.float32(out_size - 1)
    return min(math.floor(np.float32(i) * step + np.float32(0.5)), size - 1)


def shrink(x, factor: int, dialect: str):
    h, w = (size // factor for size in x.shape[2:])
    out = np.empty((*x.shape[:2], h, w))
    for i in range(h):
        for j in range(w):
            row = nearest_source(i, x.shape[2], h, dialect)
            column = nearest_source(j, x.shape[3], w, dialect)
            out[:, :, i, j] = x[:, :, row, column]
    return out


def patches(x, size: int, stride: int):
    """All patches of one sample [C, H, W] around its positions, zeros outside: [positions, C, size, size]."""
    before, after = padding(x.shape[1], size, stride, 1, "tf1")
    left, right = padding(x.shape[2], size, stride, 1, "tf1")
    padded = np.pad(x, ((0, 0), (before, after), (left, right)))
    found = []
    for i in range(0, x.shape[1], stride):
        for j in range(0, x.shape[2], stride):
            found.append(padded[:, i : i + size, j : j + size])
    return np.array(found)


def sum_diagonal(scores):
    """Convolution of a matrix with the 3x3 identity."""
    rows, columns = scores.shape
    out = np.zeros_like(scores)
    for d in (-1, 0, 1):
        for i in range(max(0, -d), min(rows, rows - d)):
            start, stop = max(0, -d), min(columns, columns - d)
            out[i, start:stop] += scores[i + d, start + d : stop + d]
    return out


def fuse_scores(scores, grid_f, grid_b):
    """Row by row, then column by column; [P, Q]."""
    scores = sum_diagonal(scores)
    turned = scores.reshape(*grid_f, *grid_b).transpose(1, 0, 3, 2).reshape(scores.shape)
    turned = sum_diagonal(turned)
    grids = (*grid_f[::-1], *grid_b[::-1])
    return turned.reshape(grids).transpose(1, 0, 3, 2).reshape(scores.shape)


def attention_weights(f, b, mask, fuse, dialect, softmax_scale):
    """One sample: foreground [C, H, W], background [C, H', W'], mask [1, H', W'] or None -> [P, Q]."""
    small_f, small_b = (shrink(x[None], 2, dialect)[0] for x in (f, b))
    filters = patches(small_b, 3, 1)
    for q in range(len(filters)):
        energy = (filters[q] ** 2).sum()
        floored = {"tf1": max(energy, 1e-4**2), "pytorch": energy + 1e-4 * filters[q].size}
        filters[q] = filters[q] / math.sqrt(floored[dialect])
    looks = patches(small_f, 3, 1)
    scores = np.array([[(look * each).sum() for each in filters] for look in looks])
    if fuse:
        scores = fuse_scores(scores, small_f.shape[1:], small_b.shape[1:])
    available = np.ones(len(filters))
    if mask is not None:
        holes = patches(shrink(mask[None], 2, dialect)[0], 3, 1)
        available = np.array([float((hole == 0).all()) for hole in holes])
    logits = scores * available * softmax_scale
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True) * available


def contextual_attention(f, b, mask=None, fuse=True, dialect="tf1", softmax_scale=10.0):
    """Features [N, C, H, W], offsets [N, 2, H/2, W/2] and the margin of the best weight over the second."""
    f, b = np.asarray(f, np.float64), np.asarray(b, np.float64)
    h, w, w_b = f.shape[2] // 2, f.shape[3] // 2, b.shape[3] // 2
    features, offsets, gaps = [], [], []
    for n in range(f.shape[0]):
        own_mask = None if mask is None else np.asarray(mask)[n if len(mask) > 1 else 0]
        weights = attention_weights(f[n], b[n], own_mask, fuse, dialect, softmax_scale)
        raw = patches(b[n], 4, 2)
        canvas = np.zeros((f.shape[1], 2 * h + 2, 2 * w + 2))  # with the border that is cut off
        offset, gap = np.zeros((2, h, w), np.int64), np.zeros((h, w))
        for i in range(h):
            for j in range(w):
                row = weights[i * w + j]
                canvas[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += np.tensordot(row, raw, 1)
                best = int(row.argmax())
                offset[:, i, j] = best // w_b - i, best % w_b - j
                gap[i, j] = row[best] - np.delete(row, best).max(initial=0.0)
        features.append(canvas[:, 1:-1, 1:-1] / 4)
        offsets.append(offset)
        gaps.append(gap)
    return np.array(features), np.array(offsets), np.array(gaps)


def generator(weights, image, mask, dialect="tf1"):
    """coarse, refined, offsets; `weights` by our parameter names, image with its hole already hidden."""
    n, _, h, w = image.shape
    mask = np.broadcast_to(np.asarray(mask, np.float64), (n, 1, h, w))

    def layer(x, stage, name, activation=elu):
        return activation(
            conv(
                x,
                weights[f"{stage}.{name}.conv.weight"],
                weights[f"{stage}.{name}.conv.bias"],
                stride=2 if "downsample" in name else 1,
                dilation=ATROUS.get(name, 1),
                dialect=dialect,
            )
        )

    def run(x, stage, names):
        for name in names.split():
            x = layer(x, stage, name)
        return x

    def seen(picture):
        return np.concatenate([picture, np.ones((n, 1, h, w)), mask], axis=1)

    def same(x):
        return x

    encoder = "conv1 conv2_downsample conv3 conv4_downsample conv5 conv6 " + " ".join(ATROUS)
    stage = "coarse_generator"
    x = run(seen(image), stage, encoder + " conv11 conv12")
    x = run(repeat_x2(x), stage, "conv13 conv14")
    x = run(repeat_x2(x), stage, "conv15 conv16")
    coarse = np.clip(layer(x, stage, "conv17", same), -1, 1)

    stage = "fine_generator"
    x = seen(coarse * mask + image * (1 - mask))
    hallucinated = run(x, stage, encoder)
    a = run(x, stage, "pmconv1 pmconv2_downsample pmconv3 pmconv4_downsample pmconv5")
    a = np.maximum(layer(a, stage, "pmconv6", same), 0)
    a, offsets, _ = contextual_attention(a, a, shrink(mask, 4, dialect), dialect=dialect)
    a = run(a, stage, "pmconv9 pmconv10")
    x = run(np.concatenate([hallucinated, a], axis=1), stage, "allconv11 allconv12")
    x = run(repeat_x2(x), stage, "allconv13 allconv14")
    x = run(repeat_x2(x), stage, "allconv15 allconv16")
    return coarse, np.clip(layer(x, stage, "allconv17", same), -1, 1), offsets


def critic(weights, x, dialect="tf1"):
    """Scores [N, 1] and, for the gradient, what each layer saw and gave before its activation."""
    seen = []
    for i in range(1, 5):
        name = f"dis_conv_module.conv{i}.conv"
        before = conv(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride=2, dialect=dialect)
        seen.append((x.shape, before, weights[f"{name}.weight"]))
        x = np.where(before > 0, before, 0.2 * before)
    return x.reshape(len(x), -1) @ weights["linear.weight"] + weights["linear.bias"], seen


def critic_slope(weights, x, dialect="tf1"):
    """d critic(x) / dx."""
    _, seen = critic(weights, x, dialect)
    grad = np.broadcast_to(weights["linear.weight"][:, 0], (len(x), len(weights["linear.weight"])))
    for x_shape, before, weight in reversed(seen):
        grad = grad.reshape(before.shape) * np.where(before > 0, 1.0, 0.2)
        grad = conv_input_gradient(grad, x_shape, weight, 2, dialect)
    return grad


def gradient_penalty(weights, x, mask=None, dialect="tf1"):
    slope = critic_slope(weights, x, dialect)
    counted = slope**2 if mask is None else slope**2 * mask
    return np.mean([(math.sqrt(sample.sum()) - 1) ** 2 for sample in counted])


def discount(height: int, width: int, gamma: float):
    weights = np.empty((height, width))
    for i in range(height):
        for j in range(width):
            weights[i, j] = max(gamma ** min(i, height - i), gamma ** min(j, width - j))
    return weights


def crop(x, boxes):
    """One box for all samples, or one a sample."""
    boxes = np.broadcast_to(boxes, (len(x), 4)) if len(x) > 1 else boxes
    return np.array([each[:, t : t + h, k : k + w] for each, (t, k, h, w) in zip(x, boxes)])


def mosaic(image, mask, unit: int):
    """Blocks of about `unit` pixels in the hole: nearest down by it, nearest up to the old size."""
    _, _, h, w = image.shape
    rows, columns = max(h // unit, 1), max(w // unit, 1)
    out = np.array(image, np.float64)
    for i in range(h):
        for j in range(w):
            block = image[:, :, unit * math.floor(i * rows / h), unit * math.floor(j * columns / w)]
            hole = mask[:, 0, i, j][:, None]
            out[:, :, i, j] = block * hole + image[:, :, i, j] * (1 - hole)
    return out


def losses(weights, image, mask, boxes, alphas, dialect, gamma, shown=None, gp_lambda=10.0):
    """All losses of a step with the default factors. weights: {"generator": ..., "local_critic": ..., ...};
    alphas: (local, global) interpolation points; shown: what the generator sees, if not zeros in the hole."""
    image = np.asarray(image, np.float64)
    n = len(image)
    mask = np.broadcast_to(np.asarray(mask, np.float64), (n, 1, *image.shape[2:]))
    shown = image * (1 - mask) if shown is None else shown
    coarse, refined, _ = generator(weights["generator"], shown, mask, dialect)
    fake = refined * mask + image * (1 - mask)

    l1 = ae = 0.0
    for alpha, output in ((1.2, coarse), (1.0, refined)):
        compared = output if dialect == "tf1" else output * mask + image * (1 - mask)
        difference = np.abs(crop(compared, boxes) - crop(image, boxes))
        l1 += alpha * np.mean(difference * discount(*difference.shape[2:], gamma))
        ae += alpha * np.mean(np.abs(output - image) * (1 - mask))
    if dialect == "tf1":
        ae /= max(np.mean(1 - mask), 1e-8)

    wgan_g = wgan_d = wgan_gp = 0.0
    views = (
        ("local_critic", crop(image, boxes), crop(fake, boxes), crop(mask, boxes)),
        ("global_critic", image, fake, mask),
    )
    for (name, real, made, hole), alpha in zip(views, alphas):
        scores_real, scores_made = (critic(weights[name], x, dialect)[0] for x in (real, made))
        wgan_g -= np.mean(scores_made)
        wgan_d += np.mean(scores_made) - np.mean(scores_real)
        if dialect == "tf1":
            between, counted = real + alpha * (made - real), hole
        else:
            between, counted = alpha * real + (1 - alpha) * made, None
        wgan_gp += gradient_penalty(weights[name], between, counted, dialect)
    return {
        "l1": l1,
        "ae": ae,
        "wgan_g": wgan_g,
        "g": 1.2 * l1 + 1.2 * ae + 0.001 * wgan_g,
        "wgan_d": wgan_d,
        "wgan_gp": wgan_gp,
        "d": wgan_d + gp_lambda * wgan_gp,
    }


def slope_along(function, arrays, directions, step):
    """Central difference of a scalar function of several arrays, along directions."""
    ahead = function(*(np.asarray(a, np.float64) + step * d for a, d in zip(arrays, directions)))
    behind = function(*(np.asarray(a, np.float64) - step * d for a, d in zip(arrays, directions)))
    return (ahead - behind) / (2 * step)
