"""--engine: Paddle Inference in the place of the network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import test as script
import tester
from tests import tiny_checkpoint
from utils.cli import UserError
from utils.visualization import write_image

pytestmark = pytest.mark.own_process
PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[tester.Tester, tester.Tester]:
    """The same model by itself and with the engine."""
    path = tiny_checkpoint.write(tmp_path_factory.mktemp("run"))
    engine = tester.Tester(path)
    engine.use_inference_engine()
    return tester.Tester(path), engine


def sample(height: int, width: int, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    masks = np.zeros((count, height, width), np.uint8)
    for i in range(count):
        masks[i, 4 : 20 + 4 * i, 8:24] = 1
    return images, masks


@pytest.mark.parametrize("size", [(32, 32), (64, 48), (104, 72)])
def test_results_are_the_networks_but_for_rounding(both, size) -> None:
    images, masks = sample(*size)
    network, engine = both
    for found, wanted in zip(engine.complete(images, masks)[:2], network.complete(images, masks)[:2]):
        np.testing.assert_array_equal(found[masks == 0], images[masks == 0])
        apart = np.abs(found.astype(int) - wanted)
        assert apart.max() <= 1
        assert (apart > 0).mean() < 0.001
    assert engine.complete(images, masks)[2].shape == (2, 2, size[0] // 8, size[1] // 8)


def test_one_mask_serves_a_batch(both) -> None:
    images, masks = sample(32, 40)
    _, engine = both
    for found, wanted in zip(engine.complete(images, masks[:1]), engine.complete(images, masks[[0, 0]])):
        np.testing.assert_array_equal(found, wanted)


def test_large_pictures_stay_with_the_network(both, monkeypatch) -> None:
    images, masks = sample(32, 40)
    network, engine = both
    monkeypatch.setattr(tester, "ENGINE_PIXELS", 32 * 40 - 1)
    monkeypatch.setattr(engine, "predictor", lambda *_: pytest.fail("the engine was asked"))
    monkeypatch.setattr(engine, "engine_ran", False)
    np.testing.assert_array_equal(engine.complete(images, masks)[1], network.complete(images, masks)[1])
    assert not engine.engine_ran


@pytest.mark.parametrize("road", [0, 1])
def test_both_roads_refuse_the_same(both, road: int) -> None:
    images, masks = sample(32, 40)
    for shape in ((32,), (32, 40), (32, 40, 3)):
        with pytest.raises(ValueError, match="images must be uint8"):
            both[road].complete(np.zeros(shape, np.uint8), masks)
    for odd in (np.s_[:, :31], np.s_[:, :, :36]):
        with pytest.raises(ValueError, match="images must have sides divisible by 8, not (31 x 40|32 x 36)"):
            both[road].complete(images[odd], masks[odd])
    with pytest.raises(ValueError, match="masks must be"):
        both[road].complete(images, masks[:, :24])


def test_a_coarse_model_has_one_output(tmp_path: Path) -> None:
    model = tester.Tester(tiny_checkpoint.write(tmp_path, coarse_only=True))
    images, masks = sample(32, 32)
    wanted = model.complete(images, masks)
    model.use_inference_engine()
    coarse, completed, offsets = model.complete(images, masks)
    assert offsets is None
    np.testing.assert_array_equal(coarse, completed)
    assert np.abs(completed.astype(int) - wanted[1]).max() <= 1


def test_an_engine_that_differs_is_not_used(both, monkeypatch) -> None:
    network, _ = both
    monkeypatch.setattr(tester, "save_program", lambda *_: None)
    monkeypatch.setattr(tester, "Predictor", lambda *_: None)
    monkeypatch.setattr(tester, "largest_difference", lambda *_: 0.5)
    with pytest.raises(tester.EngineError, match="differs from the network by 5.0e-01"):
        network.use_inference_engine()
    monkeypatch.setattr(tester, "Predictor", lambda *_: 1 / 0)
    monkeypatch.setattr(tester, "save_program", lambda *_: (_ for _ in ()).throw(RuntimeError("no\nkernel")))
    with pytest.raises(tester.EngineError, match="does not run: no kernel$"):
        network.use_inference_engine()
    assert network.predictor is None


@pytest.mark.parametrize("error", [StopIteration, AttributeError, ImportError, MemoryError, KeyError, AssertionError])
def test_whatever_goes_wrong_leaves_the_network(both, monkeypatch, capsys, error) -> None:
    def fail(*_):
        raise error

    monkeypatch.setattr(tester, "save_program", fail)
    script.set_engine(arguments(), both[0], "cpu", 1000)
    warning = f"the inference engine does not run: {error.__name__}; the network itself is used"
    assert warning in capsys.readouterr().err
    assert both[0].predictor is None


def test_a_paddle_without_its_engine_still_completes(both, monkeypatch) -> None:
    code = "import sys, paddle; sys.modules['paddle.inference'] = None; import tester"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    monkeypatch.setitem(sys.modules, "paddle.inference", None)
    monkeypatch.setattr(tester, "save_program", lambda _, path: Path(path + ".json").touch())
    with pytest.raises(tester.EngineError, match="does not run: import of paddle.inference halted"):
        both[0].use_inference_engine()


class Asked:
    """Stands for a Tester; counts how often the engine is asked for."""

    def __init__(self, works: bool = True):
        self.count, self.works = 0, works

    def use_inference_engine(self) -> None:
        self.count += 1
        if not self.works:
            raise tester.EngineError("the inference engine does not run: out of order")


def arguments(*options: str):
    return script.parse_arguments(list(options))


@pytest.mark.parametrize(
    ("engine", "device", "pictures", "asked"),
    [
        ("auto", "cpu", 0, 0),  # an evaluation
        ("auto", "cpu", script.ENGINE_PAYS - 1, 0),
        ("auto", "cpu", script.ENGINE_PAYS, 1),
        ("auto", "gpu (some)", 1000, 0),
        ("eager", "cpu", 1000, 0),
        ("inference", "cpu", 0, 1),
    ],
)
def test_when_the_engine_is_chosen(engine, device, pictures, asked) -> None:
    model = Asked()
    script.set_engine(arguments("--engine", engine), model, device, pictures)
    assert model.count == asked


def test_falls_back_visibly_unless_insisted_on(capsys) -> None:
    script.set_engine(arguments(), Asked(works=False), "cpu", 1000)
    assert "out of order; the network itself is used" in capsys.readouterr().err
    with pytest.raises(UserError, match="out of order"):
        script.set_engine(arguments("--engine", "inference"), Asked(works=False), "cpu", 1)
    with pytest.raises(UserError, match="--engine inference runs on the CPU; add --device cpu"):
        script.set_engine(arguments("--engine", "inference"), Asked(), "gpu (some)", 1)


def picture_options(folder: Path, output: str, *options: str) -> list[str]:
    """The command line for a picture of 37x45 pixels, whose files it makes."""
    checkpoint = tiny_checkpoint.write(folder / "run")
    images, masks = sample(37, 45, count=1)
    write_image(str(folder / "in.png"), images[0])
    write_image(str(folder / "mask.png"), np.repeat(masks[0][..., None] * np.uint8(255), 3, axis=2))
    files = {"--image": "in.png", "--mask": "mask.png", "--output": output}
    words = [word for option, name in files.items() for word in (option, str(folder / name))]
    return [*words, "--checkpoint", checkpoint, "--device", "cpu", *options]


def test_a_picture_from_the_command_line(tmp_path: Path, capsys) -> None:
    images, masks = sample(37, 45, count=1)
    results = []
    for engine in ("eager", "inference"):
        output = f"{engine}.png"
        assert script.main(picture_options(tmp_path, output, "--engine", engine)) == 0
        results.append(script.decode_image(str(tmp_path / output)))
    assert "--engine" not in capsys.readouterr().err
    np.testing.assert_array_equal(results[1][masks[0] == 0], images[0][masks[0] == 0])
    assert np.abs(results[0].astype(int) - results[1]).max() <= 1


def test_pictures_too_large_for_the_engine_are_said(tmp_path: Path, monkeypatch, capsys) -> None:
    for module in (script, tester):
        monkeypatch.setattr(module, "ENGINE_PIXELS", 1000)
    monkeypatch.setattr(tester.Tester, "use_inference_engine", lambda self: setattr(self, "predictor", pytest.fail))
    assert script.main(picture_options(tmp_path, "out.png", "--engine", "inference")) == 0
    warning = "--engine inference: every picture had more than 1000 pixels; the network itself was used"
    assert warning in capsys.readouterr().err


def test_an_evaluation_too_large_for_the_engine_is_refused() -> None:
    too_many = script.ENGINE_PIXELS + 64
    with pytest.raises(UserError, match=f"--engine inference takes pictures of up to 262144 pixels, not {too_many}"):
        script.set_engine(arguments("--engine", "inference"), Asked(), "cpu", 0, pixels=too_many)
    script.set_engine(arguments(), Asked(), "cpu", 0, pixels=too_many)
