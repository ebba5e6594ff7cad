"""What a training step changes, what it leaves alone, and when it refuses."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from tests import golden_weights, oracle
from trainer import Architecture, NonFiniteError, Objective, Optimization, Trainer, clip_by_average_norm
from utils.run_state import training_arrays

BOTH = pytest.mark.parametrize("dialect", ["tf1", "pytorch"])
BOXES = np.array([[5, 9, 16, 16], [2, 0, 16, 16], [16, 13, 16, 16]])


def build(objective=None, optimization=None, **architecture):
    architecture = {"generator_channels": 2, "critic_channels": 2, **architecture}
    paddle.seed(3)
    return Trainer(
        Architecture(image_size=(32, 32), box_size=(16, 16), **architecture),
        objective or Objective(),
        optimization or Optimization(lr=1e-3),
        np.random.default_rng(0),
    )


def example(n=3, each=True, seed=0):
    """A batch with a box and a mask a sample, the holes of one area; or one for all."""
    boxes = BOXES[: n if each else 1]
    mask = np.zeros((len(boxes), 1, 32, 32), np.float32)
    for k, (t, c, h, w) in enumerate(boxes):
        mask[k, :, t + k : t + h - 4 + k, c + 1 : c + w - 1] = 1
    image = np.random.default_rng(seed).uniform(-1, 1, (n, 3, 32, 32)).astype(np.float32)
    return SimpleNamespace(image=image, mask=mask, box=boxes)


def parameters(trainer):
    return {
        (network_name, name): parameter.numpy()
        for network_name, network in trainer.networks().items()
        for name, parameter in network.named_parameters()
    }


def changed(before, after):
    return {key for key in before if not np.array_equal(before[key], after[key], equal_nan=True)}


def named(trainer, *networks):
    return {key for key in parameters(trainer) if key[0] in networks}


def has_gradient(network):
    return any(p.grad is not None and p.grad.numpy().any() for p in network.parameters())


@BOTH
def test_an_iteration(dialect):
    """Critic updates move every critic weight and nothing else; the generator's likewise."""
    trainer = build(dialect=dialect)
    for step in range(3):
        before = parameters(trainer)
        scalars = trainer.train_critics(example(seed=step))
        assert list(scalars) == ["wgan_d", "wgan_gp", "d", "grad_norm_d"]
        assert scalars["d"] == pytest.approx(scalars["wgan_d"] + 10 * scalars["wgan_gp"], rel=1e-5)
        # the linear biases take no part: they cancel between real and fake
        still = {(name, "linear.bias") for name in ("local_critic", "global_critic")}
        moved = changed(before, parameters(trainer))
        assert moved | still == named(trainer, "local_critic", "global_critic") | still
        assert all(p.grad is None for p in trainer.generator.parameters())
    before = parameters(trainer)
    scalars = trainer.train_generator(example(seed=9))
    assert list(scalars) == ["l1", "ae", "wgan_g", "g", "grad_norm_g"]
    together = 1.2 * scalars["l1"] + 1.2 * scalars["ae"] + 0.001 * scalars["wgan_g"]
    assert scalars["g"] == pytest.approx(together, rel=1e-5)
    assert changed(before, parameters(trainer)) == named(trainer, "generator")
    assert not any(has_gradient(network) for network in trainer.networks().values())
    # three critic updates and one of the generator: Adam holds beta to the power of the next step
    arrays = training_arrays(trainer)
    powers = {key.split("/")[0]: set() for key in arrays if "beta1_pow" in key}
    for key, value in arrays.items():
        if "beta1_pow" in key:
            powers[key.split("/")[0]].add(value.item())
    assert powers == {"generator_optimizer": {0.5**2}, "critic_optimizer": {0.5**4}}


def test_generator_update_gives_the_critics_no_gradients():
    trainer = build()
    trainer.train_generator(example())
    for network in (trainer.local_critic, trainer.global_critic):
        assert all(p.grad is None and not p.stop_gradient for p in network.parameters())
    assert trainer.train_critics(example())["grad_norm_d"] > 0  # and they can still learn


def test_critics_are_unfrozen_after_an_error():
    trainer = build()
    batch = example()
    batch.box = batch.box[:2]
    with pytest.raises(ValueError, match="2 boxes for a batch of 3"):
        trainer.train_generator(batch)
    trainer.local_critic.size = (8, 8)
    with pytest.raises(ValueError, match="was built for"):
        trainer.train_generator(example())
    assert not any(p.stop_gradient for p in trainer.local_critic.parameters())


def test_grad_norm_and_first_adam_step():
    """The first Adam step is lr * g / (|g| + eps'), whatever the betas."""
    trainer = build()
    loss, _ = trainer.generator_losses(example())
    loss.backward()
    gradients = {name: p.grad.numpy().astype(np.float64) for name, p in trainer.generator.named_parameters()}
    trainer.generator_optimizer.clear_grad()
    before = parameters(trainer)
    scalars = trainer.train_generator(example())
    norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
    assert scalars["grad_norm_g"] == pytest.approx(norm, rel=1e-5)
    for key, after in parameters(trainer).items():
        if key[0] == "generator":
            g = gradients[key[1]]
            # Adam's epsilon counts against the gradient as it is, after the bias correction
            expected = before[key] - 1e-3 * g / (np.abs(g) + 1e-8)
            assert np.abs(after - expected).max() <= 2e-6, key


def test_the_loss_falls_on_one_batch():
    trainer, batch = build(optimization=Optimization(lr=3e-3)), example()
    batch.image[:] = 0.5
    losses = [trainer.train_generator(batch)["l1"] for _ in range(25)]
    assert losses[-1] < 0.5 * losses[0]


def test_interpolation_points_come_from_the_given_generator():
    one, two, other = build(), build(), build()
    other.rng = np.random.default_rng(1)
    penalties = [trainer.train_critics(example())["wgan_gp"] for trainer in (one, two, other)]
    assert penalties[0] == penalties[1] != penalties[2]
    alphas = np.random.default_rng(0).random((2, 3, 1, 1, 1)).astype(np.float32)
    assert float(build().critic_losses(example(), alphas)[1]["wgan_gp"]) == penalties[0]


# What is not finite


def poison(trainer, network, layer, value=np.nan):
    parameter = dict(trainer.networks()[network].named_parameters())[layer]
    bad = parameter.numpy()
    bad.flat[0] = value
    parameter.set_value(bad)


def assert_refused(trainer, step, batch):
    """The step raises, and no parameter and no optimiser state is another."""
    before = training_arrays(trainer)
    with pytest.raises(NonFiniteError, match="not finite, update not applied: .*nan") as error:
        step(batch)
    assert "\n" not in str(error.value)
    after = training_arrays(trainer)
    assert before.keys() == after.keys() and not changed(before, after)
    assert not any(has_gradient(network) for network in trainer.networks().values())


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("where", ["hole", "known"])
def test_nan_in_an_image(where, warm):
    trainer = build()
    if warm:
        trainer.train_critics(example())
        trainer.train_generator(example())
    batch = example(seed=1)
    inside = np.argwhere(batch.mask[1, 0] == (where == "hole"))[0]
    batch.image[1, 0, inside[0], inside[1]] = np.nan
    assert_refused(trainer, trainer.train_critics, batch)
    assert_refused(trainer, trainer.train_generator, batch)

    # and a good batch afterwards is as if nothing had been
    other = build()
    if warm:
        other.train_critics(example())
        other.train_generator(example())
    assert trainer.train_generator(example(seed=2)) == other.train_generator(example(seed=2))
    assert not changed(parameters(trainer), parameters(other))


@pytest.mark.parametrize(
    ("network", "layer"),
    [
        ("generator", "coarse_generator.conv1.conv.weight"),
        ("generator", "coarse_generator.conv17.conv.bias"),  # before a clip
        ("generator", "fine_generator.conv5.conv.bias"),
        ("generator", "fine_generator.pmconv5.conv.weight"),  # before a ReLU, which hides it from the losses
        ("generator", "fine_generator.pmconv6.conv.weight"),  # the same
        ("generator", "fine_generator.pmconv10.conv.weight"),
        ("generator", "fine_generator.allconv17.conv.weight"),
        ("local_critic", "dis_conv_module.conv1.conv.weight"),
        ("global_critic", "dis_conv_module.conv4.conv.bias"),
        ("global_critic", "linear.weight"),
    ],
)
def test_nan_in_a_weight(network, layer):
    trainer = build()
    trainer.train_critics(example())
    poison(trainer, network, layer)
    assert_refused(trainer, trainer.train_generator, example())
    if not layer.startswith(
        ("fine_generator.pmconv5", "fine_generator.pmconv6")
    ):  # those do not reach the critics
        assert_refused(trainer, trainer.train_critics, example())


def test_the_hidden_nan_is_hidden_from_the_losses():
    trainer = build()
    poison(trainer, "generator", "fine_generator.pmconv5.conv.weight")
    with pytest.raises(NonFiniteError) as error:
        trainer.train_generator(example())
    text = str(error.value)
    assert "grad_norm_g nan" in text and text.count("nan") == 1


def test_infinite_gradient_norm():
    trainer = build(Objective(l1_loss_alpha=1e38, ae_loss_alpha=1e38))
    before = parameters(trainer)
    with pytest.raises(NonFiniteError, match="inf"):
        trainer.train_generator(example())
    assert not changed(before, parameters(trainer))


@BOTH
@pytest.mark.parametrize("hole", [0.0, 1.0])
def test_empty_and_full_masks_train(hole, dialect):
    trainer = build(dialect=dialect)
    batch = example(each=False)
    batch.mask = np.full((1, 1, 32, 32), hole, np.float32)
    critic = trainer.train_critics(batch)
    scalars = {**critic, **trainer.train_generator(batch)}
    assert np.isfinite(list(scalars.values())).all()
    assert all(np.isfinite(value).all() for value in parameters(trainer).values())
    if hole == 0 and dialect == "tf1":
        assert critic["wgan_gp"] == pytest.approx(2.0)  # no slope counts, in either critic
        assert critic["wgan_d"] == pytest.approx(0.0, abs=1e-6)
    if hole == 1:
        assert scalars["ae"] == 0.0


@BOTH
def test_all_zero_weights_train(dialect):
    trainer = build(dialect=dialect)
    for network in trainer.networks().values():
        golden_weights.fill(
            network, {n: np.zeros(p.shape, np.float32) for n, p in network.named_parameters()}
        )
    scalars = {**trainer.train_critics(example()), **trainer.train_generator(example())}
    assert np.isfinite(list(scalars.values())).all()


@BOTH
def test_losses_of_a_batch_are_means_of_singles(dialect):
    """With a mask and a box a sample; the holes have one area, so that TF1's ae is a mean, too."""
    trainer, batch = build(dialect=dialect), example()
    alphas = np.random.default_rng(5).random((2, 3, 1, 1, 1)).astype(np.float32)

    def losses(batch, alphas):
        scalars = {**trainer.critic_losses(batch, alphas)[1], **trainer.generator_losses(batch)[1]}
        return {name: float(value) for name, value in scalars.items()}

    singles = []
    for n in range(3):
        one = slice(n, n + 1)
        alone = SimpleNamespace(image=batch.image[one], mask=batch.mask[one], box=batch.box[one])
        singles.append(losses(alone, alphas[:, one]))
    means = {name: np.mean([single[name] for single in singles]) for name in singles[0]}
    assert losses(batch, alphas) == pytest.approx(means, rel=1e-5, abs=1e-5)


def test_one_mask_for_all_is_the_same_mask_for_each():
    trainer, one = build(), example(each=False)
    each = SimpleNamespace(image=one.image, mask=one.mask.repeat(3, 0), box=one.box.repeat(3, 0))
    alphas = np.random.default_rng(5).random((2, 3, 1, 1, 1)).astype(np.float32)
    for losses in (lambda batch: trainer.critic_losses(batch, alphas), trainer.generator_losses):
        found = [{k: float(v) for k, v in losses(batch)[1].items()} for batch in (one, each)]
        assert found[0] == pytest.approx(found[1], rel=1e-5, abs=1e-6)


# Options


def test_clip_by_average_norm_by_hand():
    """Norm 5 over 4 elements is 1.25 on average: scaled to 0.5 by 0.4; the other one stays."""
    above, below = paddle.to_tensor([[3.0, 4.0], [0.0, 0.0]]), paddle.to_tensor([0.3, 0.4])
    clip_by_average_norm([above, below], 0.5)
    assert above.numpy() == pytest.approx(np.array([[1.2, 1.6], [0, 0]]))
    assert below.numpy() == pytest.approx(np.array([0.3, 0.4]))


def test_gradient_clip_reaches_the_optimizer():
    """Adam's first moment after one step is half the gradient it was given (beta1 0.5)."""
    limit = 1e-3
    free, clipped = build(), build(optimization=Optimization(lr=1e-3, gradient_clip=True, gradient_clip_value=limit))
    norms = [trainer.train_generator(example())["grad_norm_g"] for trainer in (free, clipped)]
    assert norms[0] == norms[1]  # reported as it was before
    halves = [training_arrays(trainer) for trainer in (free, clipped)]
    keys = [key for key in halves[0] if key.startswith("generator_optimizer/moment1/")]
    scaled = 0
    for key in keys:
        gradient = 2 * halves[0][key]
        average = np.sqrt((gradient.astype(np.float64) ** 2).sum()) / gradient.size
        expected = gradient * min(1, limit / max(average, 1e-30))
        assert 2 * halves[1][key] == pytest.approx(expected, rel=1e-4, abs=1e-9), key
        scaled += average > limit
    assert 0 < scaled < len(keys)
    # the critics are not clipped
    free.train_critics(example())
    clipped.train_critics(example())
    key = "critic_optimizer/moment1/local_critic.linear.weight"
    assert training_arrays(free)[key].any()
    assert training_arrays(clipped)[key] == pytest.approx(training_arrays(free)[key], rel=1e-2)


def test_coarse_only():
    trainer, batch = build(Objective(pretrain_coarse_network=True, spatial_discounting_gamma=0.9)), example()
    assert list(trainer.networks()) == ["generator"] and list(trainer.optimizers()) == ["generator_optimizer"]
    before = parameters(trainer)
    weights = {name: value for (_, name), value in before.items()}
    scalars = trainer.train_generator(batch)
    assert list(scalars) == ["l1", "ae", "g", "grad_norm_g"]
    moved = {name for _, name in changed(before, parameters(trainer))}
    assert moved == {name for name in weights if name.startswith("coarse_generator.")}

    coarse, _, _ = oracle.generator(weights, batch.image * (1.0 - batch.mask), batch.mask)
    difference = np.abs(oracle.crop(coarse - batch.image, batch.box))
    assert scalars["l1"] == pytest.approx(1.2 * np.mean(difference * oracle.discount(16, 16, 0.9)), rel=1e-4)
    known = np.mean(np.abs(coarse - batch.image) * (1 - batch.mask)) / np.mean(1 - batch.mask)
    assert scalars["ae"] == pytest.approx(1.2 * known, rel=1e-4)

    hidden, shown_coarse, completed, offsets = trainer.inpaint(batch.image, batch.mask)
    assert offsets is None and hidden.shape == shown_coarse.shape == completed.shape


@BOTH
def test_without_contextual_attention(dialect):
    trainer = build(contextual_attention=False, dialect=dialect)
    start, usual = parameters(trainer), parameters(build(dialect=dialect))
    assert start.keys() == usual.keys() and not changed(start, usual)  # one seed, one beginning
    trainer.train_critics(example())
    scalars = trainer.train_generator(example())
    assert list(scalars) == ["l1", "ae", "wgan_g", "g", "grad_norm_g"]
    assert changed(start, parameters(trainer)) >= named(trainer, "generator")
    hidden, coarse, completed, offsets = trainer.inpaint(example().image, example().mask)
    assert offsets is None and hidden.shape == coarse.shape == completed.shape


def test_without_critics():
    trainer = build(Objective(gan_loss_alpha=0.0))
    assert list(trainer.networks()) == ["generator"]
    before = parameters(trainer)
    scalars = trainer.train_generator(example())
    assert list(scalars) == ["l1", "ae", "g", "grad_norm_g"]
    assert changed(before, parameters(trainer)) == named(trainer, "generator")
    # the reconstruction is the same as with critics
    with_critics = build().generator_losses(example())[1]
    assert scalars["l1"] == pytest.approx(float(with_critics["l1"]), rel=1e-6)


@pytest.mark.parametrize("each", [False, True])
@BOTH
def test_critic_sees_the_mask(each, dialect):
    """The mask is the global critic's fourth channel; the penalty's slope is taken in the picture alone."""
    trainer, batch = build(critic_sees_mask=True, dialect=dialect), example(each=each)
    alphas = np.random.default_rng(5).random((2, 3, 1, 1, 1)).astype(np.float32)
    weights = {name: value.numpy() for name, value in trainer.global_critic.state_dict().items()}
    assert weights["dis_conv_module.conv1.conv.weight"].shape[1] == 4
    assert trainer.local_critic.dis_conv_module.conv1.conv.weight.shape[1] == 3
    scalars = {**trainer.critic_losses(batch, alphas)[1], **trainer.generator_losses(batch)[1]}

    _, _, fake, _ = trainer.inpaint(batch.image, batch.mask)
    mask = np.broadcast_to(batch.mask, (3, 1, 32, 32))

    def seen(x):
        return np.concatenate([x, mask], axis=1)

    scores = [oracle.critic(weights, seen(x), dialect)[0].mean() for x in (batch.image, fake)]
    local = {name: value.numpy() for name, value in trainer.local_critic.state_dict().items()}
    crops = [oracle.crop(x, batch.box) for x in (batch.image, fake, mask)]
    local_scores = [oracle.critic(local, x, dialect)[0].mean() for x in crops[:2]]
    assert float(scalars["wgan_d"]) == pytest.approx(
        scores[1] - scores[0] + local_scores[1] - local_scores[0], rel=1e-4, abs=1e-5
    )
    assert float(scalars["wgan_g"]) == pytest.approx(-scores[1] - local_scores[1], rel=1e-4, abs=1e-5)

    penalty = 0.0
    for name, (real, made, hole) in (("local", crops), ("global", (batch.image, fake, mask))):
        alpha = alphas[0 if name == "local" else 1]
        between = real + alpha * (made - real) if dialect == "tf1" else made + alpha * (real - made)
        own = local if name == "local" else weights
        x = between if name == "local" else seen(between)
        slope = oracle.critic_slope(own, x, dialect)[:, :3]
        squares = (slope**2 * (hole if dialect == "tf1" else 1)).sum(axis=(1, 2, 3))
        penalty += np.mean((np.sqrt(squares) - 1) ** 2)
    assert float(scalars["wgan_gp"]) == pytest.approx(penalty, rel=1e-4)
    assert np.isfinite(
        list({**trainer.train_critics(batch), **trainer.train_generator(batch)}.values())
    ).all()


def test_weights_of_the_losses():
    factors = {"coarse_l1_alpha": 0.7, "l1_loss_alpha": 2.0, "ae_loss_alpha": 3.0, "gan_loss_alpha": 0.5}
    more = {"global_wgan_loss_alpha": 4.0, "wgan_gp_lambda": 7.0}
    plain, batch = build(), example()
    alphas = np.random.default_rng(5).random((2, 3, 1, 1, 1)).astype(np.float32)
    trainer = build(Objective(**factors, **more))
    found = {**trainer.critic_losses(batch, alphas)[1], **trainer.generator_losses(batch)[1]}
    found = {name: float(value) for name, value in found.items()}
    assert found["g"] == pytest.approx(2 * found["l1"] + 3 * found["ae"] + 0.5 * found["wgan_g"], rel=1e-5)
    assert found["d"] == pytest.approx(found["wgan_d"] + 7 * found["wgan_gp"], rel=1e-5)
    # the global critic's part counts four times: seen by how much more than once
    _, _, fake, _ = plain.inpaint(batch.image, batch.mask)
    weights = {name: value.numpy() for name, value in plain.global_critic.state_dict().items()}
    made = oracle.critic(weights, fake)[0].mean()
    real = oracle.critic(weights, batch.image)[0].mean()
    once = plain.critic_losses(batch, alphas)[1]["wgan_d"], plain.generator_losses(batch)[1]["wgan_g"]
    assert found["wgan_d"] - float(once[0]) == pytest.approx(3 * (made - real), rel=1e-3, abs=1e-5)
    assert found["wgan_g"] - float(once[1]) == pytest.approx(-3 * made, rel=1e-3, abs=1e-5)


def test_mosaic():
    objective = Objective(mask_type="mosaic", mosaic_unit_size=5)
    trainer, batch = build(objective), example()
    hidden, coarse, completed, offsets = trainer.inpaint(batch.image, batch.mask)
    shown = oracle.mosaic(batch.image, batch.mask, 5)
    assert np.abs(hidden - shown).max() <= 1e-6
    weights = {name: value.numpy() for name, value in trainer.generator.state_dict().items()}
    expected = oracle.generator(weights, shown, batch.mask)
    assert np.abs(coarse - expected[0]).max() <= 1e-5
    filled = expected[1] * batch.mask + batch.image * (1 - batch.mask)
    assert np.abs(completed - filled).max() <= 1e-5
    assert offsets.shape == (3, 2, 4, 4)
    # losses see the same picture
    all_weights = {
        name: {k: v.numpy() for k, v in n.state_dict().items()} for name, n in trainer.networks().items()
    }
    alphas = np.random.default_rng(5).random((2, 3, 1, 1, 1)).astype(np.float32)
    found = {**trainer.critic_losses(batch, alphas)[1], **trainer.generator_losses(batch)[1]}
    expected = oracle.losses(all_weights, batch.image, batch.mask, batch.box, alphas, "tf1", 0.99, shown)
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        expected, rel=1e-4, abs=1e-5
    )


def test_complete_keeps_known_pixels_and_needs_no_gradients():
    trainer, batch = build(), example()
    hidden, _, completed, _ = trainer.inpaint(batch.image, batch.mask)
    known = np.broadcast_to(batch.mask == 0, batch.image.shape)
    assert np.array_equal(completed[known], batch.image[known])
    assert not hidden[~known].any()
    assert all(p.grad is None for p in trainer.generator.parameters())


def test_unknown_options():
    with pytest.raises(ValueError, match="dialect must be one of"):
        build(dialect="caffe")
    with pytest.raises(ValueError, match="mask_type must be"):
        build(Objective(mask_type="blur")).generator_losses(example())
