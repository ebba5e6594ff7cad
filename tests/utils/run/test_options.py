from __future__ import annotations

import pytest

from utils.cli import UserError
from utils.run.options import parse_arguments


@pytest.mark.parametrize(
    ("line", "dry_run", "overrides"),
    [
        ("", None, []),
        ("--dry-run", "dry_run.png", []),
        ("--dry-run first.png", "first.png", []),
        ("--dry-run niter=3", "dry_run.png", ["niter=3"]),
        ("niter=3 --dry-run", "dry_run.png", ["niter=3"]),
        ("lr=1 --dry-run first.png niter=3 --seed 4", "first.png", ["lr=1", "niter=3", "seed=4"]),
        ("--resume", None, ["resume=latest"]),
        ("--resume niter=3", None, ["niter=3", "resume=latest"]),
        ("--resume run/c.npz niter=3", None, ["niter=3", "resume=run/c.npz"]),
    ],
)
def test_words_behind_options(line, dry_run, overrides):
    arguments = parse_arguments(line.split())
    assert (arguments.dry_run, arguments.overrides) == (dry_run, overrides)


@pytest.mark.parametrize("words", [["--dry-run", ""], ["--dry-run="]])
def test_an_empty_name_is_not_a_training(words):
    with pytest.raises(UserError, match="^--dry-run: the picture's name is empty: leave it out for dry_run.png$"):
        parse_arguments(words)


def test_a_picture_whose_name_looks_like_a_setting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.png").touch()
    assert parse_arguments(["--dry-run", "a=b.png"]).dry_run == "a=b.png"
