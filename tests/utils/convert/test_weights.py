"""Names, shapes and layouts of other programs' weights, on small networks whose shapes are written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests import golden_weights
from utils.cli import UserError
from utils.convert.weights import (
    Source,
    convert,
    describe,
    foreign_name,
    from_tf1,
    networks,
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


def foreign_shape(program: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which the implementation keeps an array that has this shape here."""
    if program == "tf1" and len(shape) == 4:
        return (*shape[2:], shape[1], shape[0])
    return shape[::-1] if program == "pytorch" and len(shape) == 2 else shape


def to_ours(program: str, name: str, array: np.ndarray) -> np.ndarray:
    """One array through the whole conversion."""
    source = Source(program, {foreign_name(program, name): array}, ("a",))
    return convert(source, {name: source.find(name).shape})[0][name]


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
        assert to_ours("tf1", f"generator/{layer}.conv.bias", np.array([1.0, 2.0, 3.0])).tolist() == [3, 2, 1]


def test_dense_weights() -> None:
    rows = np.arange(2 * 2 * 3, dtype=np.float32)[:, None]  # H, W, C = 2, 2, 3
    # channel 0 at the four places, then channel 1, then channel 2
    expected = [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]
    assert from_tf1("local_critic/linear.weight", rows, grid=2)[:, 0].tolist() == expected
    for program, weight in (("pytorch", rows.T), ("predecessor", rows)):
        source = Source(program, {"localD.linear.weight": weight}, ("a",))
        assert np.array_equal(source.find("local_critic/linear.weight"), rows)


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


def constant(shape: tuple[int, ...], value: float = 0.5) -> np.ndarray:
    return np.broadcast_to(np.float32(value), shape)


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
    with pytest.raises(UserError, match=f"^there/snap-1.index: .*{reason}"):
        describe(source(wanted={**WANTED, **changes}))


def test_no_generator() -> None:
    critics = {name: shape for name, shape in WANTED.items() if not name.startswith("generator")}
    with pytest.raises(UserError, match="critics without a generator: .*--critics"):
        describe(source("pytorch", critics))
    other = Source("tf1", {"conv/kernel": constant((1,))}, ("a.npz",))
    with pytest.raises(UserError, match="of the kind tf1: it has no inpaint_net/conv1/kernel, but conv/kernel"):
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
    given = Source("tf1", {**given.variables, **{name: constant(s) for name, s in extra.items()}}, given.files)
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
    with pytest.raises(UserError, match=f"1 left over: {name}"):
        convert(given, WANTED)


def test_everything_that_does_not_fit_is_listed() -> None:
    given = dict(source().variables)
    del given["inpaint_net/conv1/bias"]
    given["extra"] = constant((1,))
    given["discriminator/dout_local_fc/kernel"] = constant((7, 1))
    given["discriminator/discriminator_local/conv4/bias"] = np.zeros(48, np.int32)
    with pytest.raises(UserError) as caught:
        convert(Source("tf1", given, ("there/snap-1.index",)), WANTED)
    assert str(caught.value) == (
        "there/snap-1.index: does not fit the networks of the dialect tf1: 1 missing: inpaint_net/conv1/bias; "
        "1 left over: extra; 2 of another shape or type: "
        "discriminator/discriminator_local/conv4/bias is int32 [48], not float32 [48], "
        "discriminator/dout_local_fc/kernel is float32 [7, 1], not float32 [432, 1]"
    )


def test_names_cannot_break_the_line() -> None:
    given = source()
    with pytest.raises(UserError, match=r"left over: a b\\x1b\[31m$"):
        convert(Source("tf1", {**given.variables, "a\nb\x1b[31m": constant((1,))}, given.files), WANTED)


def test_a_long_list_is_cut() -> None:
    given = source()
    more = {f"extra{i}": constant((1,)) for i in range(8)}
    with pytest.raises(UserError, match="8 left over: extra0, extra1, extra2, extra3, extra4 and 3 more$"):
        convert(Source("tf1", {**given.variables, **more}, given.files), WANTED)


NAMES = ("coarse_generator.conv1.conv.weight", "fine_generator.conv1.conv.weight")
CRITIC = ("dis_conv_module.conv1.conv.weight", "linear.weight")
PREFIXES = ("", "module.", "netG.", "_orig_mod.", "netG.module._orig_mod.", "state_dict.", "gen.")


def under(prefix: str, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    return {prefix + name: constant((1,)) for name in names}


@pytest.mark.parametrize("generator", PREFIXES)
@pytest.mark.parametrize("critic", ["%sD.", "netD.%sD.", "module.%s_critic.", "dis.module.%sD._orig_mod."])
def test_networks_of_any_form(generator: str, critic: str) -> None:
    entries = {**under(generator, NAMES), **under(critic % "local", CRITIC), **under(critic % "global", CRITIC)}
    found, ignored = networks({**entries, "epoch": 3, "optG.state.0.step": None, "version": "1"})
    assert found.keys() == {*NAMES, *under("localD.", CRITIC), *under("globalD.", CRITIC)}
    assert ignored == {"entries of no network": 2, "names": 1}


def test_what_stands_beside_a_generator() -> None:
    """Arrays under its own prefix must fit, others are of something else."""
    entries = {**under("netG.", (*NAMES, "extra.weight")), **under("optG.", ("0.exp_avg",))}
    found, ignored = networks(entries)
    assert found.keys() == {*NAMES, "netG.extra.weight"} and ignored == {"entries of no network": 1}
    found, _ = networks(under("", (*NAMES, "extra.weight", "other.linear.weight")))
    assert found.keys() == {*NAMES, "extra.weight", "other.linear.weight"}
    assert networks({**under("", NAMES), NAMES[0]: 7})[0][NAMES[0]] == 7


def test_several_networks_of_a_kind() -> None:
    with pytest.raises(UserError, match=r"several networks of a kind, as ema\.coarse\S+: save one alone"):
        networks({**under("netG.", NAMES), **under("ema.", NAMES)})
    with pytest.raises(UserError, match=r"several networks of a kind, as module\.coarse"):
        networks({**under("", NAMES), **under("module.", NAMES)})


def test_modules_wrapped_in_the_middle() -> None:
    found, _ = networks({"coarse_generator._orig_mod.conv1.conv.weight": constant((1,))})
    assert list(found) == [NAMES[0]]


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
