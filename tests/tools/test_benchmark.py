from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import paddle
import pytest

from models.contextual_attention import ContextualAttention
from models.critics import GlobalCritic, LocalCritic
from models.generator import InpaintingGenerator

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def load(name: str) -> ModuleType:
    """By its path: a script is run, not imported by name."""
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


benchmark = load("benchmark")
plain_forms = load("plain_forms")


def run(*options: str, **kwargs) -> subprocess.CompletedProcess:
    command = [sys.executable, str(TOOLS / "benchmark.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, **kwargs)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict]:
    """What a quick run prints, and its figures."""
    folder = tmp_path_factory.mktemp("bench mark")
    done = run("--quick", "--json", "figures.json", "--plot", "figures.png", "--device", "cpu", cwd=folder)
    assert done.returncode == 0, done.stderr
    drawn = importlib.util.find_spec("matplotlib") is not None
    assert (folder / "figures.png").is_file() == drawn
    assert ("matplotlib is not installed" in done.stderr) != drawn
    return done.stdout, json.loads((folder / "figures.json").read_text(encoding="utf-8"))


def test_without_matplotlib_there_are_figures_still(tmp_path: Path, capsys, monkeypatch) -> None:
    known = {"environment": {}, "sharpness": []}
    monkeypatch.setattr(benchmark, "measure", lambda *_: (known, []))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    figures, plot = tmp_path / "figures.json", tmp_path / "figures.png"
    assert benchmark.main(["--quick", "--json", str(figures), "--plot", str(plot)]) == 0
    warning = "warning: no plot will be drawn: matplotlib is not installed: pip install matplotlib\n"
    assert warning in capsys.readouterr().err
    assert figures.is_file() and not plot.exists()


def test_quick_covers_everything_once(quick: tuple[str, dict]) -> None:
    text, figures = quick
    records = figures["records"]
    works = ["matmul", *["attention"] * 12, *["generator"] * 2, *["training"] * 6, *["loader"] * 2, *["tester"] * 2]
    assert [record["work"] for record in records] == works
    assert len({(record["row"], record["form"]) for record in records}) == len(records)
    parts = [record["part"] for record in records if record["work"] == "training"]
    assert parts == ["critics"] * 2 + ["generator"] * 2 + ["iteration"] * 2
    assert all(record["row"] in text for record in records)
    assert [row["name"] for row in figures["plan"]] == list(dict.fromkeys(record["row"] for record in records))


def test_figures_are_complete_and_consistent(quick: tuple[str, dict]) -> None:
    _, figures = quick
    ceiling = figures["records"][0]
    by_name = {(record["row"], record["form"]): record for record in figures["records"]}
    for record in figures["records"]:
        assert record["error"] is None
        assert len(record["times"]) == 2
        assert record["seconds"] == pytest.approx(np.median(record["times"])) and record["seconds"] > 0
        assert record["ratio"] == pytest.approx(record["seconds"] / by_name[record["row"], "ours"]["seconds"])
        if sys.platform == "linux":
            assert record["peak_mib"] >= 0 and record["base_mib"] > 10
        if record["work"] == "loader":
            assert record["gflop"] is None and record["share"] is None
            continue
        assert record["gflop_per_second"] == pytest.approx(record["gflop"] / record["seconds"])
        assert record["share"] == pytest.approx(record["gflop_per_second"] / ceiling["gflop_per_second"])
    environment = figures["environment"]
    assert environment["device"] == "cpu" and environment["paddle"] == paddle.__version__
    assert {"cpu", "cores", "threads", "load_average", "python"} <= set(environment)
    assert [item["features"] for item in figures["sharpness"]] == ["random", "real"]
    assert all(0 < item["largest_weight"] <= 1 for item in figures["sharpness"])
    assert {"attention, ours", "critic update", "convolution"} <= set(figures["formulas"])


def test_plain_and_fast_forms_agree(quick: tuple[str, dict]) -> None:
    _, figures = quick
    allowed = {"attention": 2e-5, "generator": 2e-5, "training": 1e-2, "tester": 1e-2}
    compared = [record for record in figures["records"] if record["difference"] is not None]
    assert len(compared) == 4 * 2 + 1 + 3 + 1
    for record in compared:
        assert record["difference"] <= allowed[record["work"]], record["row"]


@pytest.mark.parametrize("dialect", ["tf1", "pytorch"])
@pytest.mark.parametrize("flush", [False, True])
def test_plain_attention_with_a_mask_for_each_sample(dialect: str, flush: bool) -> None:
    rng = np.random.default_rng(5)
    features = [paddle.to_tensor(rng.standard_normal([2, 4, 12, 16], np.float32)) for _ in range(2)]
    mask = np.zeros([2, 1, 12, 16], np.float32)
    mask[0, :, 2:8, 2:6] = mask[1, :, 4:10, 8:14] = 1
    upstream = paddle.to_tensor(rng.standard_normal([2, 4, 12, 16], np.float32))
    found = []
    for form in (ContextualAttention(dialect=dialect), lambda *x: plain_forms.attention(*x, dialect, flush)):
        inputs = [x.detach() for x in features]
        for x in inputs:
            x.stop_gradient = False
        output, best = form(*inputs, paddle.to_tensor(mask))
        output.backward(upstream)
        found.append([output.numpy(), best.numpy(), *(x.grad.numpy() for x in inputs)])
    own, plain = found
    for a, b in zip((own[0], *own[2:]), (plain[0], *plain[2:])):
        np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max())  # logits of hundreds have errors of 1e-5
    rows, columns = np.divmod(plain[1].reshape(2, 6, 8), 8)
    offsets = np.stack([rows - np.arange(6)[:, None], columns - np.arange(8)], axis=1)
    np.testing.assert_array_equal(own[1], offsets)


@pytest.mark.parametrize("dialect", ["tf1", "pytorch"])
def test_plain_networks(dialect: str) -> None:
    paddle.seed(2)
    rng = np.random.default_rng(2)
    image = paddle.to_tensor(rng.uniform(-1, 1, [2, 3, 32, 48]).astype(np.float32))
    mask = paddle.zeros([1, 1, 32, 48])
    mask[:, :, 8:24, 8:24] = 1.0
    network = InpaintingGenerator(8, dialect)
    with paddle.no_grad():
        for own, plain in zip(network(image, mask), plain_forms.Generator(network, dialect)(image, mask)):
            np.testing.assert_allclose(own.numpy(), plain.numpy(), atol=1e-5)
        for kind in (LocalCritic, GlobalCritic):
            critic = kind(4, (32, 48), dialect)
            scores = plain_forms.critic(critic, dialect)(image)
            np.testing.assert_allclose(critic(image).numpy(), scores.numpy(), rtol=1e-5, atol=1e-6)


def test_flushing_removes_what_is_negligible() -> None:
    x = paddle.to_tensor(np.random.default_rng(0).standard_normal([1, 16, 16, 16], np.float32) * 3)
    mask = paddle.zeros([1, 1, 16, 16])
    kept, flushed = (plain_forms.weights_of(x, x, mask, "tf1", flush).numpy() for flush in (False, True))
    assert kept[kept > 0].min() < plain_forms.NEGLIGIBLE <= flushed[flushed > 0].min()
    np.testing.assert_allclose(kept, flushed, atol=1e-20)
    assert plain_forms.sharpness(x, mask)["largest_weight"] == pytest.approx(kept.max(axis=1).mean())
    assert plain_forms.sharpness(x, mask)["negligible_fraction"] == np.mean(kept < plain_forms.NEGLIGIBLE)


def test_operation_counts() -> None:
    row = benchmark.Row("", "training", (256, 256), 2, options={"part": "iteration"})
    generator = benchmark.generator_operations((256, 256), 32)
    critic = benchmark.critic_operations((256, 256), 64)
    assert benchmark.operations(row, "ours", 32, 32) == 2 * (8 * generator + 52 * critic)
    row = benchmark.Row("", "attention", (64, 128), 2, options={"backward": True})
    assert benchmark.operations(row, "ours", 32, 8) == 2 * 3 * 128**2 * (22 * 128 + 8)
    assert benchmark.operations(row, "published", 32, 8) == 2 * 3 * 128**2 * (50 * 128 + 36)
    assert benchmark.operations(benchmark.Row("", "loader"), "ours", 32, 32) is None


def planned(*options: str) -> list[str]:
    return [row.name for row in benchmark.plan(benchmark.parse_arguments(options))]


def test_plan() -> None:
    names = planned()
    for batch in (1, 2, 8):
        for part in ("attention forward, real features", "attention forward+backward, random features",
                     "generator forward", "critic update", "generator update"):
            assert f"{part}, 256x256, batch {batch}" in names
    for side in (128, 512, 1024):
        assert f"attention forward, real features, {side}x{side}, batch 1" in names
    assert "one image through the tester, 1080x1920" in names
    assert len(names) == len(set(names))

    chosen = planned("--size", "256", "--batch", "2")
    assert all("256x256" in name for name in chosen[1:]) and "one image through the tester, 256x256" in chosen
    assert not any("batch 1" in name or "batch 8" in name for name in chosen)
    assert planned("--rows", "CRITIC update,", "--size", "64", "128x96", "--batch", "3")[1:] == [
        "critic update, 64x64, batch 3",
        "critic update, 128x96, batch 3",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rows", "nothing"], "error: --rows nothing: no row has this in its name"),
        (["--size", "100"], "100: sides must be divisible by 8, from 32 to 4096"),
        (["--size", "tall"], "tall is not a size such as 256 or 1080x1920"),
        (["--batch", "0"], "invalid positive value: '0'"),
        (["--quick", "--checkpoint", "absent.npz"], "absent.npz"),
    ],
)
def test_bad_options(options: list[str], message: str, tmp_path: Path) -> None:
    done = run(*options, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr


def test_busy_machine_is_noted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(benchmark, "measure", lambda *_: ({"environment": {}, "sharpness": []}, []))
    for load, expected in ((0.4, ""), (0.6, "warning: this machine is busy")):
        monkeypatch.setattr(benchmark.os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert benchmark.main([]) == 0
        text = capsys.readouterr()
        assert f"load average at the start: {load:.2f}" in text.out
        assert text.err.startswith(expected) and bool(text.err) == bool(expected)


def test_disagreement_and_failure_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    record = {"row": "attention", "form": "ours", "difference": 1e-6, "error": None}
    assert benchmark.report_problems([record]) == 0
    for value in (0.5, float("nan")):
        assert benchmark.report_problems([{**record, "difference": value}]) == 1
        assert "attention: ours differs from the published form" in capsys.readouterr().err
    assert benchmark.report_problems([{**record, "error": "out of memory"}]) == 1
    assert benchmark.report_problems([{**record, "form": "published", "error": "out of memory"}]) == 0
