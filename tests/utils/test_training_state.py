"""A training state comes back the same to the last bit, also where layers have other automatic names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from trainer import Architecture, Objective, Optimization, Trainer
from utils.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from utils.run_state import restore_training, training_arrays

PROJECT = Path(__file__).resolve().parents[2]


def build(seed=0, objective=None):
    paddle.seed(seed)
    architecture = Architecture(2, 2, (32, 32), (16, 16))
    return Trainer(architecture, objective or Objective(), Optimization(lr=1e-3), np.random.default_rng(0))


def train(trainer, steps):
    """Some iterations on batches given by their numbers; the scalars."""
    found = []
    for step in steps:
        mask = np.zeros((1, 1, 32, 32), np.float32)
        mask[:, :, 6:15, 4:14] = 1
        image = np.random.default_rng(step).uniform(-1, 1, (2, 3, 32, 32)).astype(np.float32)
        batch = SimpleNamespace(image=image, mask=mask, box=np.array([[2, 2, 16, 16]]))
        trainer.rng = np.random.default_rng([step, 1])
        if trainer.critic_optimizer is not None:
            found.append(trainer.train_critics(batch))
        found.append(trainer.train_generator(batch))
    return found


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert [name for name in found if not np.array_equal(found[name], expected[name])] == []


def test_what_is_held():
    trainer = build()
    train(trainer, [0])
    arrays = training_arrays(trainer)
    generator = [name for name, _ in trainer.generator.named_parameters()]
    critics = [
        f"{critic}.{name}"
        for critic in ("local_critic", "global_critic")
        for name, _ in trainer.networks()[critic].named_parameters()
    ]
    expected = {f"generator/{name}" for name in generator} | {name.replace(".", "/", 1) for name in critics}
    for kind in ("moment1", "moment2", "beta1_pow_acc", "beta2_pow_acc"):
        expected |= {f"generator_optimizer/{kind}/{name}" for name in generator}
        expected |= {f"critic_optimizer/{kind}/{name}" for name in critics}
    assert expected == set(arrays)
    assert all(array.dtype == np.float32 for array in arrays.values())


def test_round_trip_in_one_process():
    """The second trainer's layers have other automatic names, and other weights until then."""
    trainer, other = build(), build(seed=1)
    assert trainer.generator.parameters()[0].name != other.generator.parameters()[0].name
    train(trainer, [0, 1])
    arrays = training_arrays(trainer)
    assert restore_training(other, arrays, "there") == []
    assert train(other, [2, 3]) == train(trainer, [2, 3])
    assert_same(training_arrays(other), training_arrays(trainer))


def test_back_to_an_earlier_state():
    trainer = build()
    train(trainer, [0])
    arrays = {name: array.copy() for name, array in training_arrays(trainer).items()}
    straight = train(trainer, [1, 2])
    assert restore_training(trainer, arrays, "there") == []
    assert_same(training_arrays(trainer), arrays)
    assert train(trainer, [1, 2]) == straight


def test_a_state_from_before_the_first_update_is_refused():
    """It holds no moments yet; runs save after updates only."""
    trainer = build()
    arrays = training_arrays(trainer)
    assert not any("optimizer" in name for name in arrays)
    with pytest.raises(CheckpointError, match="there: generator_optimizer: .* missing: moment1/.* more$"):
        restore_training(build(), arrays, "there")


def test_arrays_are_copies():
    trainer = build()
    train(trainer, [0])
    arrays = training_arrays(trainer)
    kept = {name: array.copy() for name, array in arrays.items()}
    train(trainer, [1])
    assert_same(arrays, kept)


CHILD = """
import sys
sys.path[:0] = sys.argv[1:3]
from utils.cli import set_thread_count
set_thread_count()
import paddle
if sys.argv[5] == "others":
    # automatic names now count from elsewhere: those of the first process mean other layers here
    others = [paddle.nn.Conv2D(3, 4, 3) for _ in range(2)], paddle.nn.Linear(2, 2)
from test_training_state import build, train
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.run_state import restore_training, training_arrays
trainer = build(seed=7)
names = [p.name for p in trainer.generator.parameters()]
print(names[0])
restore_training(trainer, load_checkpoint(sys.argv[3])[0], sys.argv[3])
scalars = train(trainer, [2, 3])
save_checkpoint(sys.argv[4], training_arrays(trainer), {"scalars": scalars})
"""


def test_round_trip_in_a_fresh_process_with_another_build_order(tmp_path):
    """Moments must not go by automatic names, which here belong to other layers of the same shapes."""
    trainer = build()
    train(trainer, [0, 1])
    arrays = training_arrays(trainer)
    first, second = str(tmp_path / "first.npz"), str(tmp_path / "second.npz")
    save_checkpoint(first, arrays, {})
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", CHILD, str(PROJECT), here, first, second, "others"]
    child = subprocess.run(command, capture_output=True, text=True, timeout=120, env=dict(os.environ))
    assert child.returncode == 0, child.stderr
    assert child.stdout.split()[-1] == "conv2d_2.w_0"  # would be conv2d_0.w_0 of its own
    found, meta = load_checkpoint(second)
    assert meta["scalars"] == train(trainer, [2, 3])
    assert_same(found, training_arrays(trainer))


def test_critics_start_fresh_where_there_are_none():
    alone, both = build(objective=Objective(gan_loss_alpha=0.0)), build(seed=1)
    train(alone, [0])
    critics = {
        name: array for name, array in training_arrays(both).items() if name.split("/")[0].endswith("critic")
    }
    assert restore_training(both, training_arrays(alone), "there") == ["local_critic", "global_critic"]
    arrays = training_arrays(both)
    assert {name: array for name, array in arrays.items() if name in critics}.keys() == critics.keys()
    assert all(np.array_equal(arrays[name], critics[name]) for name in critics)
    assert np.isfinite(list(train(both, [1])[1].values())).all()


def test_after_pretraining_the_coarse_stage_alone():
    """The refinement network has no moments then: it was never moved."""
    coarse, both = build(objective=Objective(pretrain_coarse_network=True)), build(seed=1)
    train(coarse, [0])
    arrays = training_arrays(coarse)
    assert not any(array.any() for name, array in arrays.items() if "/moment1/fine_generator" in name)
    assert restore_training(both, arrays, "there") == ["local_critic", "global_critic"]
    train(both, [1])
    after = training_arrays(both)
    powers = {stage: set() for stage in ("coarse_generator", "fine_generator")}
    for name, value in after.items():
        if name.startswith("generator_optimizer/beta1_pow_acc/"):
            powers[name.split("/")[2].split(".")[0]].add(value.item())
    assert powers == {"coarse_generator": {0.5**3}, "fine_generator": {0.5**2}}  # one update more or less
    assert all(np.isfinite(value).all() for value in after.values())


@pytest.fixture(scope="module")
def trained():
    trainer = build()
    train(trainer, [0])
    return training_arrays(trainer)


WEIGHT = "fine_generator.pmconv1.conv.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.pop(f"generator/{WEIGHT}"), ["generator", "missing", WEIGHT]),
        (
            lambda a: a.update({"generator/extra": np.zeros(1, np.float32)}),
            ["generator", "left over", "extra"],
        ),
        (lambda a: a.update({f"generator/{WEIGHT}": np.zeros((2, 5, 3, 3), np.float32)}), ["shape", WEIGHT]),
        (lambda a: a.pop("local_critic/linear.bias"), ["local_critic", "missing", "linear.bias"]),
        (
            lambda a: a.pop(f"generator_optimizer/moment2/{WEIGHT}"),
            ["generator_optimizer", f"1 missing: moment2/{WEIGHT}"],
        ),
        (
            lambda a: a.pop("critic_optimizer/beta1_pow_acc/local_critic.linear.weight"),
            ["critic_optimizer", "1 missing: beta1_pow_acc/local_critic.linear.weight"],
        ),
        (
            lambda a: a.update({f"generator_optimizer/moment1/{WEIGHT}": np.zeros((2, 5), np.float32)}),
            ["generator_optimizer", f"moment1/{WEIGHT} has shape [2, 5], not [2, 5, 5, 5]"],
        ),
        (
            lambda a: a.update({f"generator_optimizer/beta1_pow_acc/{WEIGHT}": np.zeros(2, np.float32)}),
            ["generator_optimizer", "beta1_pow_acc", "shape [2], not [1]"],
        ),
        (
            lambda a: a.update({"generator_optimizer/moment1/unknown": np.zeros(1, np.float32)}),
            ["generator_optimizer", "1 left over: moment1/unknown"],
        ),
    ],
)
def test_a_state_that_does_not_fit_is_refused(trained, change, words):
    arrays = dict(trained)
    change(arrays)
    with pytest.raises(CheckpointError) as error:
        restore_training(build(seed=1), arrays, "run/checkpoint.npz")
    text = str(error.value)
    assert text.startswith("run/checkpoint.npz: ") and "\n" not in text
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize("optimizer", ["generator_optimizer", "critic_optimizer"])
def test_a_lost_optimizer_state_is_refused(trained, optimizer):
    """Moments lost for some parameters, or all, would restart Adam in silence in the middle of a run."""
    lost = f"{optimizer}/"
    with pytest.raises(CheckpointError, match=optimizer):
        restore_training(build(seed=1), {k: v for k, v in trained.items() if not k.startswith(lost)}, "there")


def test_the_lost_state_of_one_parameter_is_refused(trained):
    arrays = {name: v for name, v in trained.items() if "optimizer" not in name or not name.endswith(WEIGHT)}
    with pytest.raises(CheckpointError, match=WEIGHT):
        restore_training(build(seed=1), arrays, "there")


def test_a_nan_that_the_losses_cannot_show_is_not_saved(tmp_path):
    """In the bias before the ReLU: zeros after it, no gradient through it."""
    trainer = build()
    bias = trainer.generator.fine_generator.pmconv6.conv.bias
    bias.set_value(np.full(bias.shape, np.nan, np.float32))
    with pytest.raises(CheckpointError, match="pmconv6.conv.bias"):
        save_checkpoint(str(tmp_path / "x.npz"), training_arrays(trainer), {})
    assert not list(tmp_path.iterdir())
