from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.dataset import PhotoDataset
from data.loader import TrainLoader
from data.masks import TrainingHoles
from utils.cli import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for number in range(11):
        paths.append(str(tmp_path / f"{number}.png"))
        assert cv2.imwrite(paths[-1], rng.integers(0, 256, (40 + number, 50, 3)).astype(np.uint8))
    return paths


def make(paths, cache=0, **options):
    dataset = PhotoDataset(paths, (32, 32), seed=7, horizontal_flip=True, cache_mb=cache)
    kind, box = options.pop("hole", "box"), options.pop("box_size", (16, 16))
    holes = TrainingHoles(kind, (32, 32), box, options.pop("margin", (0, 0)), options.pop("max_delta", (6, 6)))
    return TrainLoader(dataset, **{"batch_size": 4, "holes": holes, "seed": 7, **options})


def take(count, *arguments, **options):
    with make(*arguments, **options) as loader:
        return [next(loader) for _ in range(count)]


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second):
        assert one.distance is other.distance is None
        for a, b in zip(one[:3], other[:3]):
            assert a.dtype == b.dtype and np.array_equal(a, b)


def test_shapes_ranges_and_values(photos):
    loader = make(photos)
    dataset = PhotoDataset(photos, (32, 32), seed=7, horizontal_flip=True)
    for number, batch in zip(range(5), loader):
        assert batch.image.shape == (4, 3, 32, 32) and batch.image.dtype == np.float32
        assert batch.mask.shape == (1, 1, 32, 32) and batch.mask.dtype == np.float32
        assert batch.box.shape == (1, 4) and batch.box.dtype == np.int64
        for place in range(4):
            pixels = dataset.load(4 * number + place)[0].transpose(2, 0, 1)
            assert np.array_equal(batch.image[place], pixels.astype(np.float32) / np.float32(127.5) - 1)
    assert batch.image.min() == -1 and batch.image.max() == 1
    assert loader.position == 5


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_batches_are_the_same_for_any_number_of_workers(photos, workers):
    expected = take(7, photos)
    assert_same(take(7, photos, num_workers=workers), expected)
    assert_same(take(7, photos, cache=1, num_workers=workers, prefetch=1), expected)


def test_batches_are_the_same_with_and_without_the_cache(photos):
    assert_same(take(9, photos, cache=1), take(9, photos))


@pytest.mark.parametrize("workers", [0, 2])
def test_start_equals_skipping(photos, workers):
    straight = take(9, photos, num_workers=workers)
    with make(photos, num_workers=workers, start=5) as loader:
        assert loader.position == 5
        assert_same([next(loader) for _ in range(4)], straight[5:])
        assert loader.position == 9


def test_seed_decides(photos):
    first, other = take(3, photos), take(3, photos, seed=8)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, other))  # the data set's seed
    assert any(not np.array_equal(a.box, b.box) for a, b in zip(first, other))


@pytest.mark.parametrize("same, count", [(True, 1), (False, 4)])
def test_hole_lies_centred_in_its_box(photos, same, count):
    boxes, holes = set(), set()
    for batch in take(60, photos, mask_batch_same=same, margin=(2, 3)):
        assert batch.box.shape == (count, 4) and batch.mask.shape == (count, 1, 32, 32)
        for (top, left, height, width), mask in zip(batch.box.tolist(), batch.mask[:, 0]):
            assert (height, width) == (16, 16)
            assert 2 <= top < 32 - 2 - 16 and 3 <= left < 32 - 3 - 16
            rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
            assert mask.sum() == len(rows) * len(columns)
            above, before = rows[0] - top, columns[0] - left
            assert above == top + 15 - rows[-1] and before == left + 15 - columns[-1]
            assert 0 <= above <= 3 and 0 <= before <= 3
            boxes.add((top, left))
            holes.add((above, before))
    assert len(boxes) > 40 and len(holes) == 16


def test_boxes_differ_within_a_batch_only_if_asked(photos):
    batch = take(1, photos, mask_batch_same=False)[0]
    assert len({tuple(box) for box in batch.box.tolist()}) > 1


def test_box_that_does_not_fit_is_refused_at_once(photos):
    for workers in (0, 2):
        with pytest.raises(UserError, match="box of height 33 .* does not fit an image of height 32"):
            make(photos, box_size=(33, 16), num_workers=workers)
    with pytest.raises(UserError, match="cannot shrink"):
        make(photos, max_delta=(16, 16))


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_files_are_named_once_and_counted(photos, workers):
    for path in photos[:2]:
        with open(path, "rb") as file:
            half = file.read()[:999]
        with open(path, "wb") as file:
            file.write(half)
    warnings = []
    with make(photos, num_workers=workers, warn=warnings.append, max_bad_images=2) as loader:
        batches = [next(loader) for _ in range(9)]
        assert loader.bad_images == dict.fromkeys(photos[:2], "is truncated")
    assert sorted(warnings) == [f"{path}: is truncated; another one takes its place" for path in photos[:2]]
    assert_same(batches, take(9, photos, warn=lambda message: None))


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_bad_files_end_the_stream(photos, workers):
    for path in photos[:5]:
        os.remove(path)
    with make(photos, num_workers=workers, warn=lambda message: None, max_bad_images=2) as loader:
        with pytest.raises(UserError, match=r"3 images .*, more than max_bad_images \(2\)") as caught:
            for _ in loader:
                pass
        assert ".png: cannot be read" in str(caught.value) and "\n" not in str(caught.value)
        with pytest.raises(UserError, match="closed"):
            next(loader)


def test_only_bad_files_end_the_stream(photos):
    for path in photos:
        os.remove(path)
    for workers in (0, 2):
        with make(photos, num_workers=workers, warn=lambda message: None) as loader, \
                pytest.raises(UserError, match="20 images in a row"):
            next(loader)


def test_default_warning_goes_to_stderr(photos, capsys):
    os.remove(photos[0])
    take(4, photos)
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == (f"warning: {photos[0]}: cannot be read: No such file or directory; "
                          "another one takes its place\n")


def workers_of_this_process():
    return [process for process in multiprocessing.active_children() if process.is_alive()]


@pytest.mark.parametrize("which", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_worker_is_an_error_and_not_a_hang(photos, which):
    with make(photos, num_workers=2) as loader:
        next(loader)
        victim = workers_of_this_process()[0]
        os.kill(victim.pid, which)
        with pytest.raises(UserError, match="a data worker ended unexpectedly"):
            for _ in loader:
                pass
        with pytest.raises(UserError, match="closed"):
            next(loader)
    assert not workers_of_this_process()


def test_close_ends_the_workers(photos):
    loader = make(photos, num_workers=3)
    next(loader)
    assert len(workers_of_this_process()) == 3
    loader.close()
    loader.close()
    assert not workers_of_this_process()
    with pytest.raises(UserError, match="closed"):
        next(loader)


def test_workers_leave_interrupts_to_the_parent(photos):
    with make(photos, num_workers=2) as loader:
        next(loader)
        for worker in workers_of_this_process():
            os.kill(worker.pid, signal.SIGINT)
        for _ in range(5):
            next(loader)
    assert not workers_of_this_process()


def test_workers_do_not_run_the_parents_handler(photos):
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # as a training script does to save first
    try:
        with make(photos, num_workers=2) as loader:
            next(loader)
            os.kill(workers_of_this_process()[0].pid, signal.SIGTERM)
            with pytest.raises(UserError, match="ended unexpectedly"):
                for _ in range(200):
                    next(loader)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not workers_of_this_process()


def test_workers_do_not_outlive_a_killed_parent(photos):
    program = (
        "import multiprocessing, sys, time\n"
        "from data.dataset import PhotoDataset\n"
        "from data.loader import TrainLoader\n"
        "from data.masks import TrainingHoles\n"
        "loader = TrainLoader(PhotoDataset(sys.argv[1:], (32, 32), 0), 2, TrainingHoles('box', (32, 32), (16, 16)),\n"
        "                     num_workers=2)\n"
        "next(loader)\n"
        "print(*[process.pid for process in multiprocessing.active_children()], flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, *photos]
    parent = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert len(workers) == 2
    deadline = time.monotonic() + 60
    while any(is_running(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"  # ended, and not yet collected by whoever adopted it


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("workers", [0, 1])
def test_ranks_together_give_the_batches_of_one(photos, same, workers):
    whole = take(5, photos, batch_size=6, mask_batch_same=same)
    shares = [
        take(3, photos, batch_size=6, mask_batch_same=same, rank=rank, ranks=3, num_workers=workers, start=2)
        for rank in range(3)
    ]
    for batch, *parts in zip(whole[2:], *shares):
        assert np.array_equal(np.concatenate([part.image for part in parts]), batch.image)
        for name in ("mask", "box"):
            together = [getattr(part, name) for part in parts]
            joined = together[0] if same else np.concatenate(together)
            assert np.array_equal(joined, getattr(batch, name))
            assert not same or all(np.array_equal(one, joined) for one in together)


def test_ranks_must_share_evenly(photos):
    with pytest.raises(UserError, match="batch_size 4 cannot be shared evenly by 3 ranks; make it a multiple of 3"):
        make(photos, ranks=3)


def test_photographs_of_a_batch(photos):
    """Those that were really used, replacements included, for all ranks alike."""
    photos[3] = photos[3].replace(".png", "-gone.png")
    dataset = PhotoDataset(photos, (32, 32), seed=7, horizontal_flip=True)
    with make(photos, warn=lambda line: None) as loader, make(photos, rank=1, ranks=2, warn=str) as second:
        for batch in range(8):
            next(loader), next(second)
            for number, path in zip(range(4 * batch, 4 * batch + 4), loader.source_paths(batch)):
                image = cv2.imread(path)
                assert image is not None and dataset.load(number)[0].shape == (32, 32, 3)
                assert path != photos[3]
            assert len(second.source_paths(batch)) == 4
        assert list(loader.bad_images) == [photos[3]]
        everything = [path for batch in range(8) for path in loader.source_paths(batch)]
        assert set(everything) == set(photos) - {photos[3]}


@pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="needs sigtimedwait")
def test_workers_leave_a_group_signal_to_the_parent(photos):
    with make(photos, num_workers=2) as loader:
        next(loader)
        workers = workers_of_this_process()
        # from another process, as service managers and launchers do
        kill = "import os, signal, sys; [os.kill(int(pid), signal.SIGTERM) for pid in sys.argv[1:]]"
        subprocess.run([sys.executable, "-c", kill, *(str(worker.pid) for worker in workers)], check=True)
        for _ in range(5):
            next(loader)
        assert len(workers_of_this_process()) == 2
    assert not workers_of_this_process()
