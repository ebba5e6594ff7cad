"""Training in mixed precision: which passes are in it, and what the loss scale does. See tests/half.py."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from tests.half import Half
from trainer import Architecture, NonFiniteError, Objective, Optimization, Trainer
from utils.checkpoint import CheckpointError
from utils.run_state import restore_training, training_arrays


@pytest.fixture
def half(monkeypatch):
    return Half(monkeypatch)


def build(precision="fp16", **objective):
    paddle.seed(3)
    architecture = Architecture(4, 4, image_size=(32, 32), box_size=(16, 16))
    optimization = Optimization(lr=1e-3, precision=precision)
    return Trainer(architecture, Objective(**objective), optimization, np.random.default_rng(0))


def example(seed=0):
    mask = np.zeros((1, 1, 32, 32), np.float32)
    mask[:, :, 6:15, 4:14] = 1
    image = np.random.default_rng(seed).uniform(-1, 1, (2, 3, 32, 32)).astype(np.float32)
    return SimpleNamespace(image=image, mask=mask, box=np.array([[2, 2, 16, 16]]))


def step(trainer, seed=0):
    return {**trainer.train_critics(example(seed)), **trainer.train_generator(example(seed + 1))}


def weights(trainer):
    return {key: value for key, value in training_arrays(trainer).items() if not key.startswith("loss_scale/")}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert [key for key in found if not np.array_equal(found[key], expected[key])] == []


@pytest.mark.parametrize(("precision", "kind"), [("fp32", ""), ("fp16", "float16"), ("bf16", "bfloat16")])
def test_which_passes_are_in_mixed_precision(half, precision, kind):
    trainer, on = half.watch(build(precision), rounding=False), precision != "fp32"
    trainer.train_critics(example())
    networks = [("generator", on), ("local_critic", on), ("global_critic", on)]
    assert half.seen == [*networks, ("local_critic", False), ("global_critic", False)]  # the last two: the penalty
    del half.seen[:]
    trainer.train_generator(example())
    assert half.seen == networks
    del half.seen[:]
    trainer.inpaint(example().image, example().mask)
    assert half.seen == [("generator", False)]
    assert {call["dtype"] for call in half.calls} == ({kind} if on else set())


def test_the_attention_gets_float32(half):
    """Also where the layer before it makes float16."""
    trainer, dtypes = build(), []
    refinement = trainer.generator.fine_generator
    refinement.pmconv6.register_forward_post_hook(lambda *x: x[2].astype("float16"))
    refinement.contextual_attention.register_forward_pre_hook(lambda _, x: dtypes.extend(value.dtype for value in x))
    expected = build("fp32").train_generator(example())
    assert trainer.train_generator(example())["l1"] == pytest.approx(expected["l1"], rel=1e-3)
    assert dtypes == [paddle.float32] * 3


def test_the_coarse_stage_alone(half):
    trainer = half.watch(build(pretrain_coarse_network=True), rounding=False)
    scalars = trainer.train_generator(example())
    assert half.seen == [("generator", True)] and half.calls[0]["dtype"] == "float16"
    assert list(trainer.loss_scales) == ["generator_optimizer"] and scalars["loss_scale_g"] == 2**15


def test_a_scale_changes_nothing_in_float32(half):
    """It is a power of two: losses, norms, weights and moments are the same bits."""
    plain, scaled, unscaled = build("fp32"), build("fp16"), build("bf16")
    for seed in (0, 2):
        expected = step(plain, seed)
        found = step(scaled, seed)
        assert found.pop("loss_scale_d") == found.pop("loss_scale_g") == 2**15
        assert found == expected == step(unscaled, seed)
    for trainer in (scaled, unscaled):
        assert_same(weights(trainer), weights(plain))
    assert scaled.loss_scales["critic_optimizer"].state == [2**15, 2] and not unscaled.loss_scales


def test_float16_is_near_float32(half):
    plain, low = build("fp32"), half.watch(build())
    expected, found = step(plain), step(low)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=0.05, abs=2e-3), name
    assert found != {**expected, **{name: found[name] for name in ("loss_scale_d", "loss_scale_g")}}


def test_the_scale_saves_small_gradients(half):
    tiny = {"l1_loss_alpha": 1e-5, "ae_loss_alpha": 1e-5, "gan_loss_alpha": 1e-8}
    norms = []
    for scale in (2.0**15, 1.0):
        trainer = half.watch(build(**tiny))
        trainer.loss_scales["generator_optimizer"].scale = scale
        norms.append(trainer.train_generator(example())["grad_norm_g"])
    exact = build("fp32", **tiny).train_generator(example())["grad_norm_g"]
    assert norms[0] == pytest.approx(exact, rel=0.05)
    assert norms[1] < 0.8 * exact  # rounded to 0 on their way


def test_overflow_lowers_the_scale_until_the_update_is_good(half):
    trainer, other = half.watch(build()), half.watch(build())
    for one in (trainer, other):
        step(one)
    scale = trainer.loss_scales["generator_optimizer"]
    scale.state = [2.0**40, 5]
    found = trainer.train_generator(example(5))
    assert 2**5 < scale.scale < 2**39 and scale.good == 1
    assert found["loss_scale_g"] == scale.scale and np.isfinite(list(found.values())).all()
    other.loss_scales["generator_optimizer"].state = [scale.scale, 0]
    assert other.train_generator(example(5)) == found  # nothing is left of the attempts
    assert_same(training_arrays(trainer), training_arrays(other))


def test_the_attempts_of_the_critics_share_their_interpolation_points(half):
    trainer, other = half.watch(build()), half.watch(build())
    trainer.loss_scales["critic_optimizer"].scale = 2.0**60
    found = trainer.train_critics(example())
    assert found["loss_scale_d"] < 2**59
    other.loss_scales["critic_optimizer"].scale = found["loss_scale_d"]
    assert other.train_critics(example()) == found
    assert trainer.rng.bit_generator.state == other.rng.bit_generator.state


def test_a_gradient_that_no_scale_repairs_stops_the_run(half):
    """A NaN that the losses do not show: the scale goes down to 1, and then it is an error."""
    trainer = build()
    weight = trainer.generator.fine_generator.pmconv5.conv.weight  # before a ReLU, which hides it from the losses
    bad = weight.numpy()
    bad.flat[0] = np.nan
    weight.set_value(bad)
    before = weights(trainer)
    with pytest.raises(NonFiniteError, match="grad_norm_g nan, loss_scale_g 1$"):
        trainer.train_generator(example())
    after = weights(trainer)
    assert [key for key in after if not np.array_equal(after[key], before[key], equal_nan=True)] == []
    assert all(p.grad is None or not p.grad.numpy().any() for p in trainer.generator.parameters())


def test_a_loss_that_is_not_finite_stops_the_run_at_once(half):
    trainer, batch = build(), example()
    batch.image[0, 0, 0, 0] = np.nan
    for train in (trainer.train_critics, trainer.train_generator):
        with pytest.raises(NonFiniteError, match="nan"):
            train(batch)
    assert all(scale.state == [2**15, 0] for scale in trainer.loss_scales.values())


def test_going_on_is_exact(half):
    """With one scale about to grow and the other one falling."""
    straight, stopped = half.watch(build()), half.watch(build())
    for trainer in (straight, stopped):
        step(trainer)
        trainer.loss_scales["critic_optimizer"].state = [2.0**14, 1998]
        step(trainer, 2)
        trainer.loss_scales["generator_optimizer"].state = [2.0**40, 1]
    resumed = half.watch(build())
    resumed.rng = stopped.rng
    assert restore_training(resumed, training_arrays(stopped), "there") == []
    for seed in (4, 6, 8):
        found, expected = step(resumed, seed), step(straight, seed)
        assert found == expected
    assert_same(training_arrays(resumed), training_arrays(straight))
    assert straight.loss_scales["critic_optimizer"].state == [2**15, 2]
    assert straight.loss_scales["generator_optimizer"].scale < 2**39


def test_checkpoints_of_runs_with_and_without_a_scale(half):
    plain, scaled = build("fp32"), build()
    for trainer in (plain, scaled):
        step(trainer)
    scaled.loss_scales["critic_optimizer"].state = [8.0, 3]
    arrays = training_arrays(scaled)
    assert arrays["loss_scale/critic_optimizer"].tolist() == [8.0, 3.0]
    assert restore_training(build("fp32"), arrays, "there") == []
    other = build()
    fresh = ["loss_scale/generator_optimizer", "loss_scale/critic_optimizer"]
    assert restore_training(other, training_arrays(plain), "there") == fresh
    assert all(scale.state == [2**15, 0] for scale in other.loss_scales.values())
    for bad in ([0.0, 0.0], [8.0], [[8.0, 0.0], [8.0, 0.0]]):
        with pytest.raises(CheckpointError, match="^there: loss_scale/critic_optimizer holds no loss scale: "):
            restore_training(other, {**arrays, "loss_scale/critic_optimizer": np.array(bad)}, "there")
