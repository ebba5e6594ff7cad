"""One-line errors, exit codes, and the thread count."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from utils.cli import UserError, friendly_errors, one_line, set_thread_count

PROJECT = Path(__file__).resolve().parents[2]


class Special(Exception):
    pass


def test_user_error_is_one_line_and_exit_code_2(capsys):
    with pytest.raises(SystemExit) as end, friendly_errors():
        raise UserError("first\n  second\x1b[31m")
    assert end.value.code == 2
    assert capsys.readouterr() == ("", "error: first second\\x1b[31m\n")


def test_given_types_count_and_an_empty_message_names_the_type(capsys):
    with pytest.raises(SystemExit) as end, friendly_errors(Special):
        raise Special
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: Special\n"


def test_other_exceptions_pass_through():
    with pytest.raises(Special), friendly_errors(KeyError):
        raise Special
    with pytest.raises(SystemExit) as end, friendly_errors():
        sys.exit(7)
    assert end.value.code == 7


def test_interrupt(capsys):
    with pytest.raises(SystemExit) as end, friendly_errors():
        raise KeyboardInterrupt
    assert end.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_nothing_happens_without_an_error(capsys):
    with friendly_errors():
        pass
    assert capsys.readouterr() == ("", "")


def test_one_line_keeps_letters_of_every_script():
    assert one_line("照片\t é \n x") == "照片 é x"


@pytest.mark.parametrize(("given", "expected"), [("3", 3), ("4,2", 4), ("odd", 1)])
def test_the_users_thread_count_stays(monkeypatch, given, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert set_thread_count() == expected
    assert os.environ["OMP_NUM_THREADS"] == given


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux")
def test_thread_count_follows_the_affinity_and_paddle_is_not_imported():
    code = (
        "import os, sys\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from utils.cli import set_thread_count\n"
        "import utils.config, utils.checkpoint, utils.logger\n"
        "print(set_thread_count(), os.environ['OMP_NUM_THREADS'], 'paddle' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": ""}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["1", "1", "False"], done.stderr
