from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from utils import scripts
from utils.config import TestConfig
from utils.evaluation.report import portable_command


@pytest.fixture
def project(tmp_path: Path, monkeypatch) -> Path:
    """A folder with a script that does what its first argument says."""
    monkeypatch.setattr(scripts, "PROJECT", tmp_path)
    (tmp_path / "script.py").write_text(
        "import os, signal, sys, time\n"
        "print('to stdout')\n"
        "print('3/10 holes', 'warning: something', sep='\\n', file=sys.stderr)\n"
        "if sys.argv[1] == 'wait':\n"
        "    received = []\n"
        "    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):\n"
        "        signal.signal(number, lambda number, frame: received.append(number))\n"
        "    open(sys.argv[2], 'w').close()\n"
        "    while not received: time.sleep(0.01)\n"
        "    time.sleep(0.3)\n"
        "    open(sys.argv[2], 'w').write(str(received))\n"
        "elif sys.argv[1] == 'die': os.kill(os.getpid(), signal.SIGKILL)\n"
        "else: sys.exit(int(sys.argv[1]))\n"
    )
    return tmp_path


def test_a_script_that_succeeds_shows_its_warnings_alone(project: Path, capfd) -> None:
    scripts.run_script(["script.py", "0"])
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == "warning: something\n"


@pytest.mark.parametrize(("what", "message"), [("3", "ended with exit code 3"), ("die", "was ended by signal 9")])
def test_a_script_that_fails_is_named(project: Path, what: str, message: str) -> None:
    with pytest.raises(scripts.ScriptError, match=f"^python script.py {what} 'a b': {message}; its own message"):
        scripts.run_script(["script.py", what, "a b"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_passed_on_once_and_the_script_may_end(project: Path, number: int) -> None:
    mark, before = project / "mark", signal.getsignal(number)

    def send() -> None:
        deadline = time.monotonic() + 60
        while not mark.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        os.kill(os.getpid(), number)
        if number == signal.SIGHUP:  # the end of a terminal comes from the shell and from the system
            time.sleep(0.1)
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        scripts.run_script(["script.py", "wait", str(mark)])
    thread.join()
    assert mark.read_text() == str([int(number)])
    assert signal.getsignal(number) is before


def test_a_signal_that_was_ignored_stays_so(project: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        (project / "script.py").write_text("import os, signal\nos.kill(os.getppid(), signal.SIGHUP)\n")
        scripts.run_script(["script.py"])
    finally:
        signal.signal(signal.SIGHUP, before)


def test_when_an_evaluation_is_done(tmp_path: Path) -> None:
    """All files, of this command, in the order in which test.py writes them, after the checkpoint."""
    command = ["test.py", "--checkpoint", "c.npz", "val_data_path=a b"]
    names = ("c.npz", "test.txt", "extremes.png", "evaluated.txt")
    checkpoint, summary, last, mark = (tmp_path / name for name in names)

    def done(arguments=command, digest="ab") -> bool:
        return scripts.is_evaluated(arguments, str(checkpoint), str(tmp_path), digest)

    assert not done()
    summary.write_text(portable_command(command) + "\n\nfigures\n")
    last.write_bytes(b"")
    assert not done()
    checkpoint.write_bytes(b"")
    for number, path in enumerate((checkpoint, summary, last)):
        os.utime(path, (1000 + number, 1000 + number))
    assert not done()  # of which list, nobody knows
    scripts.mark_evaluated(str(tmp_path), "ab")
    assert done() and not done(digest="cd")
    os.utime(mark, (1001, 1001))  # evaluated again by hand, who knows of what
    assert not done()
    os.utime(mark, (3000, 3000))
    assert done()
    assert not done([*command, "--baselines"])
    os.utime(checkpoint, (2000, 2000))  # trained again
    assert not done()
    os.utime(checkpoint, (1000, 1000))
    os.utime(summary, (2000, 2000))  # evaluated again, but not to the end
    assert not done()
    summary.write_bytes(b"\xff\xfe")
    assert not done()


def test_what_an_evaluation_is_of(tmp_path: Path, monkeypatch) -> None:
    """The photographs by their full paths, in their order, and what changes a figure."""
    monkeypatch.chdir(tmp_path)
    paths = ["a/val/0.png", "a/val/\udcff.png"]
    digest = scripts.evaluation_digest(TestConfig(), paths)
    assert scripts.evaluation_digest(TestConfig(num_workers=0), [str(tmp_path / path) for path in paths]) == digest
    others = [paths[:1], paths[::-1], ["b" + path[1:] for path in paths]]
    others = [scripts.evaluation_digest(TestConfig(), other) for other in others]
    others.append(scripts.evaluation_digest(TestConfig(seed=1), paths))
    assert len({digest, *others}) == 5


def test_saved_masks_are_part_of_what_an_evaluation_is_of(tmp_path: Path, monkeypatch) -> None:
    """Their paths in full, in their order, and what is in them; not when they were written."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(name.encode())
    config, photographs = TestConfig(protocol="mask_list", mask_path="masks.txt"), ["0.jpg", "1.jpg"]

    def digest(*masks: str) -> str:
        return scripts.evaluation_digest(config, photographs, masks)

    before = digest("a.png", "b.png")
    assert digest(str(tmp_path / "a.png"), "b.png") == before
    os.utime(tmp_path / "a.png", (1000, 1000))
    assert digest("a.png", "b.png") == before
    others = [digest("b.png", "a.png"), digest("a.png", "a.png")]
    (tmp_path / "a.png").write_bytes(b"A.png")  # as long as before
    os.utime(tmp_path / "a.png", (1000, 1000))
    assert len({before, *others, digest("a.png", "b.png")}) == 4
    with pytest.raises(scripts.ScriptError, match="^c.png: cannot be read: No such file or directory$"):
        digest("a.png", "c.png")
    with pytest.raises(ValueError, match="the masks of protocol mask_list are missing"):
        digest()
