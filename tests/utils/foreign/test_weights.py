"""Names, shapes and layouts of other programs' weights, on small networks whose shapes are written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests import golden_weights
from utils.foreign.arrays import ForeignArray, WeightsError
from utils.foreign.weights import (
    Source,
    convert,
    describe,
    foreign_name,
    foreign_shape,
    our_shape,
    to_ours,
)

FIRST = "generator/coarse_generator.conv1.conv"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("generator/coarse_generator.conv1.conv.weight", "inpaint_net/conv1/kernel"),
        ("generator/coarse_generator.conv13.conv.bias", "inpaint_net/conv13_upsample/conv13_upsample_conv/bias"),
        ("generator/fine_generator.conv2_downsample.conv.weight", "inpaint_net/xconv2_downsample/kernel"),
        ("generator/fine_generator.pmconv6.conv.bias", "inpaint_net/pmconv6/bias"),
        (
            "generator/fine_generator.allconv15.conv.weight",
            "inpaint_net/allconv15_upsample/allconv15_upsample_conv/kernel",
        ),
        ("local_critic/dis_conv_module.conv4.conv.weight", "discriminator/discriminator_local/conv4/kernel"),
        ("global_critic/linear.bias", "discriminator/dout_global_fc/bias"),
    ],
)
def test_tf1_names(name: str, expected: str) -> None:
    assert foreign_name("tf1", name) == expected


@pytest.mark.parametrize("program", ["pytorch", "predecessor"])
def test_names_of_the_ports(program: str) -> None:
    assert foreign_name(program, f"{FIRST}.bias") == "coarse_generator.conv1.conv.bias"
    assert foreign_name(program, "local_critic/linear.weight") == "localD.linear.weight"
    assert foreign_name(program, "global_critic/linear.weight") == "globalD.linear.weight"


def test_shapes() -> None:
    assert foreign_shape("tf1", (8, 5, 3, 2)) == (3, 2, 5, 8)
    assert foreign_shape("tf1", (12, 1)) == (12, 1)
    assert foreign_shape("pytorch", (12, 1)) == (1, 12)
    assert foreign_shape("predecessor", (12, 1)) == (12, 1)
    for program in ("tf1", "pytorch", "predecessor"):
        for shape in ((8, 5, 3, 2), (12, 1), (4,)):
            assert our_shape(program, foreign_shape(program, shape)) == shape


def test_tf1_kernels_and_colours() -> None:
    kernel = np.arange(2 * 3 * 5 * 4, dtype=np.float32).reshape(2, 3, 5, 4)  # H, W, in, out
    plain = to_ours("tf1", "generator/fine_generator.conv2_downsample.conv.weight", kernel)
    assert plain.shape == (4, 5, 2, 3) and plain.flags.c_contiguous
    assert plain[3, 1, 0, 2] == kernel[0, 2, 1, 3]
    for layer in ("coarse_generator.conv1", "fine_generator.conv1", "fine_generator.pmconv1"):
        first = to_ours("tf1", f"generator/{layer}.conv.weight", kernel)
        assert np.array_equal(first, plain[:, [2, 1, 0, 3, 4]])  # B, G, R, ones, mask -> R, G, B, ones, mask
        bias = np.arange(4, dtype=np.float32)
        assert np.array_equal(to_ours("tf1", f"generator/{layer}.conv.bias", bias), bias)
    seen = to_ours("tf1", "local_critic/dis_conv_module.conv1.conv.weight", kernel[:, :, :3])
    assert np.array_equal(seen, plain[:, [2, 1, 0]])
    made = kernel[:, :, :, :3]
    for layer in ("coarse_generator.conv17", "fine_generator.allconv17"):
        assert np.array_equal(to_ours("tf1", f"generator/{layer}.conv.weight", made), plain[[2, 1, 0]])
        assert to_ours("tf1", f"generator/{layer}.conv.bias", np.array([1, 2, 3])).tolist() == [3, 2, 1]


def test_dense_weights() -> None:
    rows = np.arange(2 * 2 * 3, dtype=np.float32)[:, None]  # H, W, C = 2, 2, 3
    # channel 0 at the four places, then channel 1, then channel 2
    expected = [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]
    assert to_ours("tf1", "local_critic/linear.weight", rows, grid=2)[:, 0].tolist() == expected
    assert np.array_equal(to_ours("pytorch", "local_critic/linear.weight", rows.T), rows)
    assert np.array_equal(to_ours("predecessor", "local_critic/linear.weight", rows), rows)


def test_the_ports_keep_their_colours() -> None:
    kernel = np.random.default_rng(0).normal(size=(4, 5, 2, 3))
    for program in ("pytorch", "predecessor"):
        found = to_ours(program, f"{FIRST}.weight", kernel)
        assert found.dtype == np.float32 and np.array_equal(found, kernel.astype(np.float32))


WANTED = {  # a piece of a generator and of two critics
    f"{FIRST}.weight": (4, 5, 5, 5),
    f"{FIRST}.bias": (4,),
    "local_critic/dis_conv_module.conv1.conv.weight": (6, 3, 5, 5),
    "local_critic/dis_conv_module.conv1.conv.bias": (6,),
    "local_critic/dis_conv_module.conv4.conv.bias": (48,),
    "local_critic/dis_conv_module.conv4.conv.weight": (48, 24, 5, 5),
    "local_critic/linear.weight": (48 * 9, 1),
    "global_critic/dis_conv_module.conv1.conv.weight": (6, 3, 5, 5),
    "global_critic/dis_conv_module.conv4.conv.weight": (24, 24, 5, 5),
    "global_critic/linear.weight": (24 * 25, 1),
}


def constant(shape: tuple[int, ...], value: float = 0.5) -> ForeignArray:
    return ForeignArray(shape, "float32", lambda: np.full(shape, value, np.float32))


def source(program: str = "tf1", wanted: dict = WANTED) -> Source:
    variables = {foreign_name(program, name): constant(foreign_shape(program, s)) for name, s in wanted.items()}
    return Source(program, variables, ("there/snap-1.index",))


def test_description() -> None:
    expected = {
        "generator_channels": 4,
        "critic_channels": 6,
        "image_size": [80, 80],
        "box_size": [48, 48],
        "dialect": "tf1",
        "critic_sees_mask": False,
    }
    assert describe(source()) == expected
    narrow = {**WANTED, "local_critic/linear.weight": (24 * 9, 1)}
    for program in ("pytorch", "predecessor"):
        assert describe(source(program, narrow)) == {**expected, "dialect": "pytorch"}
    masked = {**WANTED, "global_critic/dis_conv_module.conv1.conv.weight": (6, 4, 5, 5)}
    assert describe(source(wanted=masked))["critic_sees_mask"] is True
    alone = {name: shape for name, shape in WANTED.items() if name.startswith("generator")}
    expected.update(critic_channels=8, image_size=[256, 256], box_size=[128, 128])
    assert describe(source(wanted=alone)) == expected


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({f"{FIRST}.bias": (5,)}, "5 channels, which is not an even number up to 512"),
        ({f"{FIRST}.bias": (2**20,)}, "not an even number up to 512"),
        ({"local_critic/dis_conv_module.conv1.conv.bias": (2**20,)}, "critics have 1048576 channels"),
        ({"local_critic/linear.weight": (48 * 8, 1)}, "384 inputs, which is no square grid of 48 features"),
        ({"local_critic/linear.weight": (24 * 9, 1)}, "tf1's local critic ends in 8 x ndf"),
        ({"global_critic/linear.weight": (24 * 300**2, 1)}, "no square grid of 24"),
    ],
)
def test_impossible_networks(changes: dict, reason: str) -> None:
    with pytest.raises(WeightsError, match=f"^there/snap-1.index: .*{reason}"):
        describe(source(wanted={**WANTED, **changes}))


def test_no_generator() -> None:
    critics = {name: shape for name, shape in WANTED.items() if not name.startswith("generator")}
    with pytest.raises(WeightsError, match="critics without a generator: .*--critics"):
        describe(source("pytorch", critics))
    other = Source("tf1", {"conv/kernel": constant((1,))}, ("a.npz",))
    with pytest.raises(WeightsError, match="of the kind tf1: it has no inpaint_net/conv1/kernel, but conv/kernel"):
        describe(other)


def test_all_arrays_come_out() -> None:
    arrays, ignored = convert(source(), WANTED)
    assert {name: array.shape for name, array in arrays.items()} == WANTED and not ignored
    assert all(array.dtype == np.float32 and (array == 0.5).all() for array in arrays.values())


def test_what_training_leaves_is_ignored_and_counted() -> None:
    given = source()
    extra = {
        "inpaint_net/conv1/kernel/Adam": (5, 5, 5, 4),
        "inpaint_net/conv1/kernel/Adam_1": (5, 5, 5, 4),
        "beta1_power": (),
        "training/beta2_power_1": (),
        "global_step": (),
        "lr": (),
    }
    given = Source("tf1", {**given.variables, **{name: ForeignArray(s) for name, s in extra.items()}}, given.files)
    _, ignored = convert(given, WANTED)
    assert ignored == {
        "Adam moments": 2,
        "powers of Adam's betas": 2,
        "step counters and learning rates": 2,
    }


@pytest.mark.parametrize("name", ["other/kernel/Adam", "inpaint_net/conv1/kernel/Adamant", "inpaint_net/conv99/bias"])
def test_left_over(name: str) -> None:
    given = source()
    given = Source("tf1", {**given.variables, name: constant((1,))}, given.files)
    with pytest.raises(WeightsError, match=f"1 left over: {name}"):
        convert(given, WANTED)


def test_everything_that_does_not_fit_is_listed() -> None:
    given = dict(source().variables)
    del given["inpaint_net/conv1/bias"]
    given["extra"] = constant((1,))
    given["discriminator/dout_local_fc/kernel"] = constant((7, 1))
    given["discriminator/discriminator_local/conv4/bias"] = ForeignArray((48,), "int32")
    with pytest.raises(WeightsError) as caught:
        convert(Source("tf1", given, ("there/snap-1.index",)), WANTED)
    assert str(caught.value) == (
        "there/snap-1.index: does not fit the networks of the dialect tf1: 1 missing: inpaint_net/conv1/bias; "
        "1 left over: extra; 2 of another shape or type: "
        "discriminator/discriminator_local/conv4/bias is int32 [48], not float32 [48], "
        "discriminator/dout_local_fc/kernel is float32 [7, 1], not float32 [432, 1]"
    )


def test_names_cannot_break_the_line() -> None:
    given = source()
    with pytest.raises(WeightsError, match=r"left over: a b\\x1b\[31m$"):
        convert(Source("tf1", {**given.variables, "a\nb\x1b[31m": constant((1,))}, given.files), WANTED)


def test_a_long_list_is_cut() -> None:
    given = source()
    more = {f"extra{i}": constant((1,)) for i in range(8)}
    with pytest.raises(WeightsError, match="8 left over: extra0, extra1, extra2, extra3, extra4 and 3 more$"):
        convert(Source("tf1", {**given.variables, **more}, given.files), WANTED)


def test_nothing_is_read_before_all_fits() -> None:
    given = dict(source().variables)
    given["extra"] = constant((1,))
    given["inpaint_net/conv1/kernel"].read = lambda: pytest.fail("was read")
    with pytest.raises(WeightsError, match="left over"):
        convert(Source("tf1", given, ("a",)), WANTED)


def test_names_and_shapes_of_the_full_width_release(golden) -> None:
    """All variables that the authors' program makes are named and shaped as listed; nothing else is."""
    from models.critics import GlobalCritic, LocalCritic
    from models.generator import InpaintingGenerator

    networks = {"generator": InpaintingGenerator(), "local_critic": LocalCritic(), "global_critic": GlobalCritic()}
    found = {
        foreign_name("tf1", f"{key}/{name}"): list(foreign_shape("tf1", tuple(value.shape)))
        for key, network in networks.items()
        for name, value in network.state_dict().items()
    }
    assert found == golden_weights.full_width_shapes(golden / "tf1_fullwidth_variables.txt")
