"""What the study runs and in which order, without running it; trainings and evaluations are stood in for."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest

from data.file_list import read_file_list
from utils.checkpoint import checkpoint_path, list_checkpoints, load_checkpoint, save_checkpoint
from utils.config import TestConfig, TrainConfig, load_config, run_folder, to_yaml
from utils.evaluation.report import portable_command
from utils.run_state import list_digest

PROJECT = Path(__file__).resolve().parents[2]
ROWS = ["full", "without_attention", "without_discounting", "without_critics"]


def load(path: str):
    spec = importlib.util.spec_from_file_location(f"a_{Path(path).stem}", PROJECT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


study = load("tools/study.py")


class Scripts:
    """Stands in for run_script: writes what the scripts would and keeps the commands."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.stop_at: int | None = None  # the training of this number is stopped half-way

    def __call__(self, command: list[str]) -> None:
        self.commands.append(command)
        {"train.py": self.train, "tools/average.py": self.mean, "test.py": self.test}[command[0]](command)

    def train(self, command: list[str]) -> None:
        overrides = [word for word in command[3:] if "=" in word]
        config = load_config(command[2], TrainConfig, overrides)
        stopped = self.stop_at == sum(command[0] == "train.py" for command in self.commands)
        iteration = config.niter - 2 if stopped else config.niter
        folder = Path(run_folder(config))
        digest = list_digest(read_file_list(config.train_data_path, config.data_root))
        step = config.snapshot_save_iter
        for saved in {*range(step, iteration + 1, step), iteration}:
            meta = {"photographs": digest, "iteration": saved}
            save_checkpoint(checkpoint_path(str(folder), saved), {"generator/w": np.full(1, saved)}, meta)
        (folder / "config.yaml").write_text(to_yaml(dataclasses.replace(config, amp="none")))  # as on a CPU
        if stopped:
            raise KeyboardInterrupt

    def mean(self, command: list[str]) -> None:
        assert load("tools/average.py").main(command[1:]) == 0

    def test(self, command: list[str]) -> None:
        """The model's PSNR is 10, and 1, 2 and 3 for full, another row and the second seed; telea has 15."""
        output = Path(command[command.index("--output") + 1])
        assert Path(command[command.index("--checkpoint") + 1]).exists()
        output.mkdir(exist_ok=True)
        (output / "test.txt").write_text(portable_command(command) + "\n")
        psnr = 10.0 + ("full" in str(output)) + 2 * ("without" in str(output)) + 3 * ("seed1" in str(output))
        methods = {"telea": 15.0, "model": psnr} if "--baselines" in command else {"model": psnr}
        with open(output / "test.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["index", "hole_number", "hole", "method", "hole_psnr", "hole_ssim", "hole_l1"])
            for index in range(2):
                writer.writerows([index, 0, "box", method, value + index, 0, 0] for method, value in methods.items())
        (output / "extremes.png").write_bytes(b"")


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch) -> Scripts:
    monkeypatch.chdir(tmp_path)
    for name in ("train", "val", "urban_val"):
        (tmp_path / f"{name}.txt").write_text("a.png\n")
    (tmp_path / "a.png").write_bytes(b"")
    settings = "train_data_path: train.txt\nval_data_path: val.txt\nimage_shape: [64, 64, 3]\nmask_shape: [32, 32]\n"
    settings += "max_delta_shape: [8, 8]\ndataset_name: small\nniter: 10\nsnapshot_save_iter: 5\n"
    (tmp_path / "c.yaml").write_text(settings)
    stand_in = Scripts()
    monkeypatch.setattr(study, "run_script", stand_in)
    return stand_in


def run(*arguments: str) -> int:
    return study.main(["--config", "c.yaml", "--last", "2", *arguments])


def test_the_commands_are_what_the_scripts_take(scripts: Scripts, capsys) -> None:
    """Shown and not run; rows differ in their key, name and seed alone."""
    assert run("--dry-run", "--val", "val.txt", "urban_val.txt", "niter=20") == 0
    lines = capsys.readouterr().out.splitlines()
    assert scripts.commands == [] and not Path("checkpoints").exists()
    assert [line[2:] for line in lines if line.startswith("#")] == [
        *(f"{row}_seed0" for row in ROWS), "full_seed1", "without_attention_seed1",
        "full_seed2", "without_attention_seed2",
    ]  # fmt: skip
    commands = [line.split()[1:] for line in lines if line.startswith("python")]
    trainings = [command[1:] for command in commands if command[0] == "train.py"]
    evaluations = [command[1:] for command in commands if command[0] == "test.py"]
    assert len(trainings) == 8 and len(evaluations) == 32
    parse = load("train.py").parse_arguments
    configs = [load_config("c.yaml", TrainConfig, parse(command).overrides) for command in trainings]
    assert {config.niter for config in configs} == {20}
    assert [config.seed for config in configs] == [0, 0, 0, 0, 1, 1, 2, 2]
    full, *others = configs[:4]
    for config, key in zip(others, ("contextual_attention", "discounted_mask", "gan_loss_alpha")):
        differing = {name for name in vars(full) if getattr(config, name) != getattr(full, name)}
        assert differing == {key, "expname"} and not getattr(config, key)
    parse = load("test.py").parse_arguments
    tested = [parse(command) for command in evaluations]
    settings = [load_config("c.yaml", TestConfig, args.overrides) for args in tested]
    assert {config.seed for config in settings} == {0}  # the same holes for all
    assert [(c.val_data_path, c.protocol, c.masks_per_image) for c in settings[:4]] == [
        ("val.txt", "center", 1), ("val.txt", "random_box", 5),
        ("urban_val.txt", "center", 1), ("urban_val.txt", "random_box", 5),
    ]  # fmt: skip
    assert [args.baselines for args in tested] == [True] * 4 + [False] * 28
    assert tested[4].checkpoint == "checkpoints/small/hole_without_attention_seed0/mean_of_2_00000020.npz"
    means = [command for command in commands if command[0] == "tools/average.py"]
    args = load("tools/average.py").parse_arguments(means[0][1:])
    folder = "checkpoints/small/hole_full_seed0"
    assert args.sources == [checkpoint_path(folder, iteration) for iteration in (15, 20)]
    assert args.output == f"{folder}/mean_of_2_00000020.npz" and len(means) == 8
    assert run("--dry-run", "--last", "1") == 0
    shown = capsys.readouterr().out
    assert "average" not in shown and "hole_full_seed0/checkpoint_00000010.npz" in shown


def test_the_table_and_that_nothing_is_done_twice(scripts: Scripts, capsys) -> None:
    assert run("--seeds", "2", "--other-seeds", "0") == 0
    assert [command[0] for command in scripts.commands] == (["train.py", "tools/average.py"] + ["test.py"] * 4) * 4
    table = Path("checkpoints/small/comparison.md").read_text()
    # photographs have 10 and 11 more; seeds 0 and 3
    assert "| telea |  | 15.500 ± 0.500 |" in table
    assert "| full | 2 | 13.000 ± 0.500 ± 1.500 |" in table
    assert "| without_attention | 2 | 14.000 ± 0.500 ± 1.500 |" in table
    assert "| without_attention | 2 | -1.000 ± 0.000 ± 0.000 |" in table
    assert "| telea | 2 | -2.500 ± 0.000 ± 1.500 |" in table
    assert "without_critics" not in table
    assert table.count("## ") == 5 and "## urban_val, random_box: 2 photographs, 2 holes" in table
    capsys.readouterr()

    done = len(scripts.commands)
    assert run("--seeds", "2", "--other-seeds", "0") == 0
    assert len(scripts.commands) == done
    assert capsys.readouterr().out.count("trained before; evaluated before") == 4
    Path("checkpoints/small/hole_full_seed1/val_center/extremes.png").unlink()
    assert run("--seeds", "2", "--other-seeds", "1", "--output", "out/table") == 0
    others = [command[0] for command in scripts.commands[done:]]
    assert others == (["train.py", "tools/average.py"] + ["test.py"] * 4) * 2 + ["test.py"]
    assert "| without_critics | 1 | -1.000 ± 0.000 |" in Path("out/table.md").read_text()
    assert Path("out/table.csv").read_text().startswith("list,protocol,")


def test_a_stopped_study_goes_on(scripts: Scripts, capsys) -> None:
    scripts.stop_at = 2
    with pytest.raises(SystemExit) as exit_:
        run("--seeds", "1", "--other-seeds", "0")
    assert exit_.value.code == 130 and capsys.readouterr().err == "interrupted\n"
    # of the finished row there is a table
    assert "| full | 1 | 11.500 ± 0.500 |" in Path("checkpoints/small/comparison.md").read_text()
    assert list_checkpoints("checkpoints/small/hole_without_attention_seed0")[-1][0] == 8
    done = len(scripts.commands)
    assert run("--seeds", "1", "--other-seeds", "0") == 0
    first, *others = scripts.commands[done:]
    assert first[-2:] == ["--resume", "latest"] and "expname=without_attention_seed0" in first
    assert [command[0] for command in others] == ["tools/average.py"] + ["test.py"] * 4
    # of the same iterations as in a row that was not stopped
    arrays, meta = load_checkpoint("checkpoints/small/hole_without_attention_seed0/mean_of_2_00000010.npz")
    assert meta["averaged"] == ["checkpoint_00000005.npz", "checkpoint_00000010.npz"]
    assert arrays["generator/w"] == 7.5


def test_other_settings_are_another_study(scripts: Scripts, capsys) -> None:
    assert run("--seeds", "1", "--other-seeds", "0") == 0
    done = len(scripts.commands)
    with pytest.raises(SystemExit):
        run("--seeds", "1", "--other-seeds", "0", "lr=0.01")
    message = "hole_full_seed0: was trained with other settings than now (lr: 0.01): remove it, or give the study"
    assert message in capsys.readouterr().err and len(scripts.commands) == done


def test_other_settings_or_photographs_are_found_before_anything_is_trained(scripts: Scripts, capsys) -> None:
    """In whichever row, so that no table mixes them."""
    rows = ["--seeds", "1", "--other-seeds", "0"]
    assert run(*rows) == 0
    done = len(scripts.commands)
    shutil.rmtree("checkpoints/small/hole_full_seed0")
    with pytest.raises(SystemExit):
        run(*rows, "lr=0.01")
    assert "hole_without_attention_seed0: was trained with other settings" in capsys.readouterr().err
    Path("b.png").write_bytes(b"")
    Path("train.txt").write_text("a.png\nb.png\n")
    with pytest.raises(SystemExit):
        run(*rows)
    message = "hole_without_attention_seed0: was trained on other photographs than train.txt lists now: remove it"
    assert message in capsys.readouterr().err and len(scripts.commands) == done


def test_a_mean_of_other_checkpoints_is_made_anew(scripts: Scripts) -> None:
    rows = ["--seeds", "1", "--other-seeds", "0"]
    assert run(*rows) == 0
    mean = Path("checkpoints/small/hole_full_seed0/mean_of_2_00000010.npz")
    arrays, meta = load_checkpoint(str(mean))
    save_checkpoint(str(mean), arrays, {**meta, "averaged": ["checkpoint_00000008.npz", "checkpoint_00000010.npz"]})
    done = len(scripts.commands)
    assert run(*rows) == 0
    assert [command[0] for command in scripts.commands[done:]] == ["tools/average.py"] + ["test.py"] * 4


def test_a_second_list_is_taken_where_there_is_one(scripts: Scripts, capsys) -> None:
    Path("urban_val.txt").unlink()
    assert run("--dry-run") == 0
    lines = capsys.readouterr().out
    assert "urban_val" not in lines and lines.count("python test.py") == 16


def test_what_does_not_change_a_training_may_change(scripts: Scripts, capsys, monkeypatch) -> None:
    """More iterations, other previews, and mixed precision where there is none."""
    rows = ["--seeds", "1", "--other-seeds", "0"]
    monkeypatch.setattr(study, "has_gpu", lambda: False)
    assert run(*rows, "amp=float16") == 0
    done = len(scripts.commands)
    assert run(*rows, "amp=float16") == 0
    assert len(scripts.commands) == done
    assert run(*rows, "amp=float16", "niter=20") == 0
    trainings = [command for command in scripts.commands[done:] if command[0] == "train.py"]
    assert len(trainings) == 2 and len(scripts.commands) == 2 * done
    assert all(command[-2:] == ["--resume", "latest"] and "niter=20" in command for command in trainings)
    assert [iteration for iteration, _ in list_checkpoints("checkpoints/small/hole_full_seed0")] == [5, 10, 15, 20]
    done = len(scripts.commands)
    assert run(*rows, "amp=float16", "niter=20", "--val", "urban_val.txt") == 0
    assert len(scripts.commands) == done
    capsys.readouterr()

    monkeypatch.setattr(study, "has_gpu", lambda: True)
    with pytest.raises(SystemExit):
        run(*rows, "amp=float16", "niter=30")
    assert "with other settings than now (amp: float16): remove it" in capsys.readouterr().err


def test_an_edited_list_is_evaluated_anew(scripts: Scripts) -> None:
    rows = ["--seeds", "1", "--other-seeds", "0"]
    assert run(*rows) == 0
    done = len(scripts.commands)
    Path("b.png").write_bytes(b"")
    Path("urban_val.txt").write_text("a.png\nb.png\n")
    assert run(*rows) == 0
    assert [command[0] for command in scripts.commands[done:]] == ["test.py"] * 4
    assert all("val_data_path=urban_val.txt" in command for command in scripts.commands[done:])


def test_lists_start_at_data_root(scripts: Scripts) -> None:
    Path("photos").mkdir()
    Path("a.png").rename("photos/a.png")
    assert run("--seeds", "1", "--other-seeds", "0", "data_root=photos") == 0
    assert all("data_root=photos" in command for command in scripts.commands if command[0] != "tools/average.py")


def test_whether_there_is_a_gpu(monkeypatch) -> None:
    for device, expected in (("cpu", False), ("gpu (a)", True)):
        monkeypatch.setattr("utils.device.set_device", lambda device=device: device)
        assert study.has_gpu() is expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "--seeds must be a whole number from 1"),
        (["--other-seeds", "-1"], "--other-seeds must be a whole number from 0"),
        (["--last", "0"], "--last must be a whole number from 1"),
        (["--last", "3"], "--last 3: with niter 10, snapshot_save_iter 5 and keep_checkpoints 3 a run does not end"),
        (["niter=12"], "--last 2: with niter 12, snapshot_save_iter 5 and keep_checkpoints 3 a run does not end"),
        (["keep_checkpoints=1"], "--last 2: with niter 10, snapshot_save_iter 5 and keep_checkpoints 1 a run"),
        (["contextual_attention=false"], "contextual_attention=false: the rows have their own contextual_attention"),
        (["expname=a"], "expname=a: the rows have their own expname"),
        (["--val", "niter=20"], "--val names no list"),
        (["--val", "val.txt", "absent.txt"], "the file list absent.txt does not exist"),
        (["--train", "absent.txt"], "the file list absent.txt does not exist"),
        (["--val", "val.txt", "./val.txt"], "--val: two lists are called val and val"),
        (["nitre=5"], "unknown key 'nitre': did you mean niter?"),
        (["--val", "val.txt", "mask_shape=[80,80]"], "mask_shape and margin do not fit into image_shape"),
    ],
)
def test_one_line_says_what_is_wrong_before_anything_runs(scripts: Scripts, capsys, arguments, message: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        run(*arguments)
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert message in error and scripts.commands == []


def test_the_published_configuration() -> None:
    path = str(PROJECT / "configs/ablation64.yaml")
    config = load_config(path)
    assert run_folder(config) == "checkpoints/ablation64/hole_benchmark"
    assert config.contextual_attention and config.discounted_mask and config.gan_loss_alpha > 0
    assert load_config(path, TestConfig).image_shape == (64, 64, 3)
