"""A new run from the weights of a checkpoint: what is taken, what starts fresh and is named, what is refused."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from trainer import Architecture, Objective, Optimization, Trainer
from utils.checkpoint import CheckpointError, save_checkpoint
from utils.config import TrainConfig
from utils.run_state import Progress, init_weights, save_run, training_arrays


def made(seed=0, box=16, ngf=2, ndf=2, dialect="tf1", attention=True, ema=0.0, gan=0.001, coarse=False):
    config = TrainConfig(
        train_data_path="list.txt", image_shape=(32, 32, 3), mask_shape=(box, box), max_delta_shape=(0, 0),
        dialect=dialect, contextual_attention=attention, ema_decay=ema, gan_loss_alpha=gan, netG={"ngf": ngf},
        netD={"ndf": ndf}, pretrain_coarse_network=coarse,
    )  # fmt: skip
    paddle.seed(seed)
    architecture = Architecture(ngf, ndf, (32, 32), (box, box), dialect, contextual_attention=attention)
    objective = Objective(gan_loss_alpha=gan, pretrain_coarse_network=coarse)
    optimization = Optimization(ema_decay=ema)
    return config, Trainer(architecture, objective, optimization, np.random.default_rng(0))


def started(source, **options):
    """The arrays of a new run, as it would be without, and the notes."""
    plain = training_arrays(made(seed=1, **options)[1])
    config, trainer = made(seed=1, **options)
    notes = []
    init_weights(config, trainer, source, notes.append)
    assert trainer.rng.bit_generator.state == np.random.default_rng(0).bit_generator.state
    return training_arrays(trainer), plain, notes


def differing(one, other):
    return {name.split("/")[0] for name in one if name in other and not np.array_equal(one[name], other[name])}


def saved(folder, **options):
    config, trainer = made(**options)
    return save_run(config, trainer, str(folder), Progress(9, 9), {}), training_arrays(trainer)


def test_everything_is_taken(tmp_path):
    path, arrays = saved(tmp_path)
    found, _, notes = started(path)
    assert differing(found, arrays) == set() and found.keys() == arrays.keys()
    assert notes == [f"weights of {path}, iteration 9"]


def test_a_generator_alone(tmp_path):
    path, arrays = saved(tmp_path, gan=0.0)
    found, plain, notes = started(path)
    assert differing(found, arrays) == set() and differing(found, plain) == {"generator"}
    assert notes[1:] == ["local_critic starts fresh", "global_critic starts fresh"]


def test_the_average_is_taken_where_there_is_one(tmp_path):
    config, trainer = made(ema=0.9)
    for weight in trainer.ema_generator.parameters():
        weight.set_value(weight + 1)
    path, average = save_run(config, trainer, str(tmp_path), Progress(9, 9), {}), training_arrays(trainer)
    for ema in (0.0, 0.5):
        found, _, notes = started(path, ema=ema)
        assert "of the generator its average (ema)" in notes
        for name, array in found.items():
            if name.startswith(("generator/", "ema/")):
                assert np.array_equal(array, average[f"ema/{name.split('/')[1]}"])


def test_a_critic_of_another_size_starts_fresh(tmp_path):
    path, arrays = saved(tmp_path, box=24)
    found, plain, notes = started(path)
    assert differing(found, plain) == {"generator", "global_critic"}
    why = f"local_critic of {path} was built for another size of its input"
    assert notes[1:] == [why, "local_critic starts fresh"]


def test_a_coarse_stage_alone_is_named(tmp_path):
    path, _ = saved(tmp_path, coarse=True)
    assert f"the refinement stage of {path} was not trained" in started(path, attention=False)[2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dialect": "pytorch"}, "is of dialect tf1, not pytorch: set dialect to it"),
        ({"ngf": 4}, "generator: weights of another width (2 channels, here 4; see ngf and ndf)"),
        ({"ndf": 4}, "local_critic: weights of another width"),
        ({"attention": False}, "contextual_attention: true and is another network"),
    ],
)
def test_another_network_is_refused(tmp_path, options, words):
    path, _ = saved(tmp_path)
    with pytest.raises(CheckpointError) as error:
        started(path, **options)
    assert words in str(error.value) and str(error.value).startswith(path)


def test_no_network_at_all(tmp_path):
    path = str(tmp_path / "x.npz")
    save_checkpoint(path, {"w": np.zeros(2)}, {})
    with pytest.raises(CheckpointError, match="is of dialect None, not tf1"):
        started(path)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        started(str(tmp_path / "gone.npz"))


def test_the_released_generator():
    found, plain, notes = started("released", ngf=32)
    assert "generator.npz, iteration " in notes[0] and differing(found, plain) == {"generator"}
