"""Programs in Paddle Inference against the network that they were made of."""

from __future__ import annotations

import os

import numpy as np
import paddle
import pytest

from models.export import (
    TOLERANCE,
    Completion,
    Predictor,
    largest_difference,
    output_names,
    save_program,
)
from models.generator import InpaintingGenerator
from models.layers import composite, hide_hole

pytestmark = pytest.mark.own_process
SIZES = ((1, 32, 32), (2, 64, 48), (1, 104, 72), (1, 8, 8), (1, 16, 8))


def network(dialect: str = "tf1", **options) -> InpaintingGenerator:
    paddle.seed(1)
    made = InpaintingGenerator(4, dialect, **options)
    for parameter in made.parameters():
        parameter.set_value(parameter * 1.2)  # so that pictures differ by more than rounding
    made.eval()
    return made


CASES = {
    "tf1": lambda: Completion(network("tf1")),
    "pytorch, mosaic": lambda: Completion(network("pytorch"), mosaic_unit_size=12),
    "coarse stage": lambda: Completion(network("tf1"), coarse_only=True),
    "no attention": lambda: Completion(network("tf1", contextual_attention=False)),
}


@pytest.fixture(scope="module", params=CASES)
def saved(request, tmp_path_factory):
    completion = CASES[request.param]()
    path = str(tmp_path_factory.mktemp("program") / "completion")
    save_program(completion, path)
    return completion, path


@pytest.mark.parametrize("onednn", [False, True])
def test_a_program_is_its_network(saved, onednn) -> None:
    completion, path = saved
    predictor = Predictor(path, 1, onednn)
    for count, height, width in SIZES:
        assert largest_difference(completion, predictor, height, width, count) <= TOLERANCE / 5, (height, width)


def test_outputs_and_what_the_hole_hides(saved) -> None:
    completion, path = saved
    predictor = Predictor(path)
    random = np.random.default_rng(0)
    image = random.uniform(-1, 1, (2, 3, 32, 40)).astype(np.float32)
    mask = np.zeros((1, 1, 32, 40), np.float32)
    mask[:, :, 8:24, 8:24] = 1
    outputs = predictor(image, mask)
    assert len(outputs) == len(output_names(completion))
    known = np.broadcast_to(mask == 0, image.shape)
    for output in outputs[:2]:
        np.testing.assert_array_equal(output[known], image[known])
    if len(outputs) == 3:
        assert outputs[2].dtype == np.int64
        assert outputs[2].shape == (2, 2, 4, 5)
    other = predictor(np.where(known, image, -image), mask)
    assert np.array_equal(other[0], outputs[0]) == (completion.mosaic_unit_size is None)


@paddle.no_grad()
def test_completion_is_hide_run_and_put_in() -> None:
    generator = network()
    image = paddle.uniform([1, 3, 32, 32], min=-1, max=1)
    mask = paddle.zeros([1, 1, 32, 32])
    mask[:, :, 8:16, 4:20] = 1
    for kind, unit in (("hole", None), ("mosaic", 12)):
        coarse, refined, offsets = generator(hide_hole(image, mask, kind, 12), mask)
        wanted = composite(refined, image, mask), composite(coarse, image, mask), offsets
        for a, b in zip(Completion(generator, unit)(image, mask), wanted):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_saving_leaves_the_network_alone(saved) -> None:
    """Paddle rewrites the methods of what it traces, which would slow the network down from then on."""
    assert not [layer for layer in saved[0].sublayers(include_self=True) if "forward" in vars(layer)]


def test_differences_are_seen() -> None:
    completion = Completion(network())

    def run(image, mask, change=lambda outputs: outputs):
        with paddle.no_grad():
            return change([x.numpy() for x in completion(paddle.to_tensor(image), paddle.to_tensor(mask))])

    def spoiled(change):
        return largest_difference(completion, lambda *inputs: run(*inputs, change), 32, 32)

    assert largest_difference(completion, run, 32, 32) == 0
    assert spoiled(lambda x: [x[0] + np.float32(0.25), *x[1:]]) == pytest.approx(0.25, abs=1e-6)
    assert spoiled(lambda x: [x[0], x[1] * np.float32("nan"), x[2]]) == float("inf")
    assert spoiled(lambda x: [*x[:2], x[2] + 1]) == float("inf")
    assert spoiled(lambda x: x[:2]) == float("inf")


def test_a_home_that_cannot_be_written(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/dev/null/home")
    save_program(CASES["coarse stage"](), str(tmp_path / "completion"))
    assert os.environ["HOME"] == "/dev/null/home"
    assert largest_difference(CASES["coarse stage"](), Predictor(str(tmp_path / "completion")), 32, 32) <= TOLERANCE
