"""What can be switched on beside the paper's training: accumulation, averaging, schedules, other holes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from data.masks import box_distance
from tests.test_trainer import build, example, parameters
from trainer import Objective, Optimization
from utils.run_state import restore_training, training_arrays

BOTH = pytest.mark.parametrize("dialect", ["tf1", "pytorch"])


def six(each, distance=False):
    """A batch of six with holes of different sizes, or one hole for all."""
    first, second = example(each=each, seed=1), example(each=each, seed=2)
    second.mask[..., :10, :] = 0 if each else second.mask[..., :10, :]
    join = np.concatenate if each else (lambda pair: pair[0])
    batch = SimpleNamespace(image=np.concatenate([first.image, second.image]), mask=join([first.mask, second.mask]),
                            box=join([first.box, second.box]))  # fmt: skip
    if distance:
        shape = (len(batch.mask), 1, 16, 16)
        batch.distance = np.random.default_rng(0).uniform(0, 8, shape).astype(np.float32)
    return batch


@pytest.mark.parametrize("each", [False, True])
@BOTH
def test_parts_of_a_batch_give_the_update_of_the_whole(each, dialect):
    """Gradients (Adam's first moments after one step), scalars, random state; penalty and known pixels included."""
    batch, found = six(each, distance=each), []
    for count in (1, 2, 3):
        # one for each update: Adam's first step turns the last bits of a tiny gradient into a whole step
        first, second = (
            build(optimization=Optimization(lr=1e-3, accumulate=count), dialect=dialect) for _ in range(2)
        )
        scalars = {**first.train_critics(batch), **second.train_generator(batch)}
        arrays = {**training_arrays(first), **training_arrays(second)}
        found.append((arrays, scalars, first.rng.bit_generator.state))
    whole, scalars, state = found[0]
    for arrays, others, other_state in found[1:]:
        assert others == pytest.approx(scalars, rel=1e-5, abs=1e-5) and other_state == state
        for name in whole:
            if "/moment1/" in name:
                size = max(1.0, np.abs(whole[name]).max())
                assert np.abs(arrays[name] - whole[name]).max() <= 1e-5 * size, name


def test_a_batch_that_cannot_be_split():
    trainer = build(optimization=Optimization(accumulate=4))
    with pytest.raises(ValueError, match="a batch of 6 cannot be split into 4 equal parts"):
        trainer.train_generator(six(False))


def test_average_in_closed_form():
    trainer = build(optimization=Optimization(lr=1e-2, ema_decay=0.75))
    expected = {name: value.numpy().astype(np.float64) for name, value in trainer.generator.named_parameters()}
    for step in range(4):
        trainer.train_generator(example(seed=step))
        for (network, name), value in parameters(trainer).items():
            if network == "generator":
                expected[name] = 0.75 * expected[name] + 0.25 * value
    average = {name: value.numpy() for name, value in trainer.ema_generator.named_parameters()}
    assert average.keys() == expected.keys()
    assert max(np.abs(average[name] - expected[name]).max() for name in expected) < 1e-6
    assert any(np.abs(average[name] - trainer.generator.state_dict()[name].numpy()).max() > 1e-3 for name in expected)


def test_the_average_shows_the_previews_and_changes_no_training():
    plain, averaged = build(), build(optimization=Optimization(lr=1e-3, ema_decay=0.9))
    for step in range(3):
        for trainer in (plain, averaged):
            trainer.train_critics(example(seed=step))
            trainer.train_generator(example(seed=step))
    ours, theirs = training_arrays(averaged), training_arrays(plain)
    assert [name for name in theirs if not np.array_equal(ours[name], theirs[name])] == []
    assert {name for name in ours if name not in theirs} == {
        name.replace("generator/", "ema/", 1) for name in theirs if name.startswith("generator/")
    }
    batch = example()
    shown = averaged.inpaint(batch.image, batch.mask)[2]
    plain.generator.set_state_dict(averaged.ema_generator.state_dict())
    assert np.array_equal(shown, plain.inpaint(batch.image, batch.mask)[2])


def test_the_average_resumes():
    optimization = Optimization(lr=1e-3, ema_decay=0.9)
    straight, first, second = (build(Objective(gan_loss_alpha=0.0), optimization) for _ in range(3))
    for step in range(4):
        straight.train_generator(example(seed=step))
    for step in range(2):
        first.train_generator(example(seed=step))
    assert restore_training(second, training_arrays(first), "there") == []
    for step in (2, 3):
        second.train_generator(example(seed=step))
    ours, theirs = training_arrays(second), training_arrays(straight)
    assert [name for name in theirs if not np.array_equal(ours[name], theirs[name])] == []


def test_an_average_that_is_not_there_starts_from_the_weights():
    plain, averaged = build(), build(optimization=Optimization(ema_decay=0.9))
    plain.train_critics(example())
    plain.train_generator(example())
    assert restore_training(averaged, training_arrays(plain), "there") == ["ema"]
    arrays = training_arrays(averaged)
    for name in arrays:
        if name.startswith("ema/"):
            assert np.array_equal(arrays[name], arrays[name.replace("ema/", "generator/", 1)])


def test_the_learning_rate_reaches_every_network():
    """Adam's first step is lr in size; the default lr changes no bit when it is set."""
    trainer, half, same = build(), build(), build()
    half.set_learning_rate(5e-4)
    same.set_learning_rate(1e-3)
    before = parameters(trainer)
    for one in (trainer, half, same):
        one.train_critics(example())
        one.train_generator(example())
    full, halved, again = parameters(trainer), parameters(half), parameters(same)
    assert all(np.array_equal(full[key], again[key]) for key in full)
    for key in full:
        if key[0] != "generator":  # whose update depends on the critics' step
            assert halved[key] - before[key] == pytest.approx((full[key] - before[key]) / 2, abs=1e-7)


def test_the_discount_goes_by_the_distance():
    """l1 of the refined stage alone, of a batch with distances, by NumPy."""
    objective = Objective(coarse_l1_alpha=0.0, gan_loss_alpha=0.0, spatial_discounting_gamma=0.8)
    trainer, batch = build(objective), example()
    batch.distance = np.random.default_rng(4).uniform(0, 9, (3, 1, 16, 16)).astype(np.float32)
    _, scalars = trainer.generator_losses(batch)
    _, refined, _ = trainer.generator(
        *(paddle.to_tensor(x) for x in (batch.image * (1 - batch.mask), batch.mask))
    )
    error = np.abs(refined.numpy() - batch.image)
    crops = np.stack([e[:, t : t + h, c : c + w] for e, (t, c, h, w) in zip(error, batch.box)])
    assert float(scalars["l1"]) == pytest.approx((crops * 0.8**batch.distance).mean(), rel=1e-5)


def test_boxes_among_other_holes_keep_the_bits_of_their_discount():
    trainer, batch = build(), example()
    batch.distance = np.stack([box_distance(16, 16)] * 3)[:, None]
    assert np.array_equal(trainer._discount(batch).numpy(), np.stack([trainer.discount.numpy()[0]] * 3))
