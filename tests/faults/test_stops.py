"""Ways a run can be stopped, and that going on is as if it never was."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.harness import assert_same_run, error_lines, fault, wait_until

# long enough to be hit by two signals
SLOW_ITERATION = """
inner = train.train_iteration
def slow(config, trainer, batches):
    if batches.position >= 27:
        time.sleep(20)
    return inner(config, trainer, batches)
train.train_iteration = slow
"""
SLOW_SAVE = """
inner = os.replace
def slow(source, target):
    if target.endswith("00000012.npz"):
        print("saving", flush=True)
        time.sleep(20)
    inner(source, target)
os.replace = slow
"""


def go_on(place, reference, *arguments):
    place.run("--resume", "latest", *arguments)
    assert_same_run(place, reference)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=str
)
@fault("a signal in the middle of the training", "the iteration ends, is saved; exit code 128 + signal; "
       "resumes bit-equal")  # fmt: skip
def test_signal(place, reference, number, code):
    stop_and_go_on(place, reference, number, code)


@fault("Ctrl-C in the middle of the training", "the iteration ends, is saved; exit code 130; resumes bit-equal",
       long=False)  # fmt: skip
def test_interrupt(place, reference):
    stop_and_go_on(place, reference, signal.SIGINT, 130)


def stop_and_go_on(place, reference, number, code):
    process = place.start()
    place.wait_for_iteration(process, 5)
    os.kill(process.pid, number)
    output = place.finish(process, code)
    stopped = max(place.logged())
    assert f"stopped after iteration {stopped}; resume with --resume" in output
    assert 5 <= stopped < 40 and max(place.checkpoints()) == stopped
    go_on(place, reference)


@fault("a second SIGTERM", "stops at once with exit code 143; the checkpoint before is used; resumes bit-equal")
def test_second_sigterm(place, reference):
    process = place.start(patch=SLOW_ITERATION)
    place.wait_for_iteration(process, 9)
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(0.2)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGTERM)
    place.finish(process, 143)
    assert max(place.checkpoints()) == 8
    go_on(place, reference)


@fault("two SIGTERMs during a save", "no half-written file; the checkpoint before is used; resumes bit-equal")
def test_sigterms_during_a_save(place, reference):
    process = place.start(patch=SLOW_SAVE)
    wait_until(lambda: "saving" in place.output(), process)
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGTERM)
    place.finish(process, 143)
    assert max(place.checkpoints()) == 8 and place.leftovers() == []
    go_on(place, reference)


@fault("SIGTERM to the whole process group, data workers included", "as SIGTERM to the run alone")
def test_group_sigterm(place, reference):
    process = place.start("num_workers=2")
    place.wait_for_iteration(process, 5)
    os.killpg(process.pid, signal.SIGTERM)
    assert "stopped after iteration" in place.finish(process, 143)
    go_on(place, reference, "num_workers=0")


@fault("SIGTERM while the program starts", "ends; nothing is left that keeps a run from starting")
def test_sigterm_at_the_start(place, reference):
    for delay in (0.1, 0.5, 1.0, 1.5, 2.0):
        process = place.start()
        time.sleep(delay)
        process.terminate()
        place.finish(process, code=None)
    go_on(place, reference) if place.checkpoints() else place.run()
    assert_same_run(place, reference)


@fault("an ignored SIGHUP (nohup) and the end of the terminal", "the run goes on")
def test_nohup(place, reference):
    process = place.start(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    place.wait_for_iteration(process, 5)
    os.kill(process.pid, signal.SIGHUP)
    place.finish(process)
    assert_same_run(place, reference)


@fault("stop in the middle of an epoch, other numbers of workers", "bit-equal")
def test_other_worker_counts(place, reference):
    for workers, end in ((2, 7), (1, 19), (0, 26), (3, 40)):
        resume = ["--resume", "latest"] if place.checkpoints() else []
        place.run(*resume, f"num_workers={workers}", f"niter={end}")
    # the log's "of how many" differs
    first, second = ({k: {**v, "total": 0} for k, v in p.logged().items()} for p in (place, reference))
    assert first == second
    place.log.write_text(reference.log.read_text())
    assert_same_run(place, reference)


@fault("SIGKILL at a random moment", "the newest complete checkpoint is found; resumes bit-equal", long=False)
def test_sigkill(place, reference):
    process = place.start()
    place.wait_for_iteration(process, 4)
    wait_until(lambda: bool(place.checkpoints()), process)
    time.sleep(random.random() / 2)
    process.kill()
    place.finish(process, code=None)
    go_on(place, reference)


@fault("SIGKILL during a save", "the half-written file is never taken for a checkpoint, and removed; bit-equal")
def test_sigkill_during_a_save(place, reference):
    process = place.start(patch=SLOW_SAVE)
    wait_until(lambda: "saving" in place.output(), process)
    process.kill()
    process.wait()
    assert len(place.leftovers()) == 1 and max(place.checkpoints()) == 8
    go_on(place, reference)


@fault("SIGKILL before the first checkpoint", "--resume says there is none; without it the run starts")
def test_sigkill_before_a_checkpoint(place, reference):
    process = place.start()
    place.wait_for_iteration(process, 1)
    process.kill()
    process.wait()
    for _, path in place.checkpoints().items():  # if it was that fast
        path.unlink()
    assert "holds no checkpoint; a new run starts without --resume" in place.refusal("--resume", "latest")
    place.run()
    assert_same_run(place, reference)


@fault("SIGKILL with data workers", "they end too; an immediate resume gets the folder; bit-equal")
def test_sigkill_with_workers(place, reference):
    process = place.start("num_workers=2")
    place.wait_for_iteration(process, 6)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    process.kill()
    process.wait()
    go_on(place, reference)
    wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children), timeout=10)


@fault("SIGKILL of a data worker", "one line, exit code 2; resumes bit-equal")
def test_killed_worker(place, reference):
    process = place.start("num_workers=2")
    place.wait_for_iteration(process, 6)
    child = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
    os.kill(int(child), signal.SIGKILL)
    output = place.finish(process, 2)
    assert len(error_lines(output)) == 1 and "a data worker ended unexpectedly" in error_lines(output)[0]
    go_on(place, reference)


@fault("the reader of the output ends (a pipe to head)", "the run goes on; the log file is complete")
def test_closed_output(place, reference):
    read, write = os.pipe()
    process = subprocess.Popen(place.command(), cwd=place.folder, stdout=write, stderr=write)
    os.close(write)
    os.read(read, 10)
    os.close(read)
    assert process.wait(60) == 0
    assert_same_run(place, reference)


@fault("SIGSTOP for a while, then SIGCONT", "nothing is lost; bit-equal")
def test_paused(place, reference):
    process = place.start("num_workers=1")
    place.wait_for_iteration(process, 5)
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(2)
    os.killpg(process.pid, signal.SIGCONT)
    place.finish(process)
    assert_same_run(place, reference)
