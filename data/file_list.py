"""A text list, a folder or a glob pattern -> a checked list of image paths."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from fnmatch import fnmatchcase

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")


class DataError(Exception):
    """The data cannot be used as they are; the message is one line for the user."""


def one_line(path: object) -> str:
    """A path as it can be printed: on one line, undecodable bytes escaped."""
    text = str(path).encode("utf-8", "backslashreplace").decode("utf-8")
    return text.replace("\r", "\\r").replace("\n", "\\n")


def read_file_list(source: str, root: str = "", keep_repeats: bool = False) -> list[str]:
    """Paths of the images that `source` stands for; every one of them exists.

    source: one of
        a text file: one path a line, UTF-8 (other bytes are kept as they are); blank lines and lines that
            start with # are ignored (write ./#name for such a file), white space at both ends too; a path
            that comes again is dropped, unless keep_repeats is set; relative paths start at `root`, or at
            the list's own folder;
        a folder: all images below it by suffix, sorted; hidden names are ignored, links to folders are
            followed, and no folder is visited twice;
        a glob pattern, `**` for any depth: the images by suffix that match, sorted, as for a folder.
    root: where relative lines of a text file start; "" for the list's own folder.
    Raises DataError: the source is missing, unreadable or names no image, or files in it are missing.
    """
    source = os.path.expanduser(source)
    root = os.path.expanduser(root)
    if not source:
        raise DataError("no file list is given; name a text list, a folder or a glob pattern")
    if root and not os.path.isdir(root):
        raise DataError(f"the root folder {one_line(root)} does not exist")
    if os.path.isdir(source):
        paths = sorted(path for path in _walk(source) if _is_image_name(path))
        advice = f"no images ({' '.join(IMAGE_SUFFIXES)}) below the folder {one_line(source)}"
    elif os.path.exists(source):
        paths = _read_text_list(source, root)
        paths = paths if keep_repeats else list(dict.fromkeys(paths))
        advice = f"the file list {one_line(source)} is empty; write one image path a line"
    elif any(sign in source for sign in "*?["):
        paths = sorted(path for path in _glob(source) if _is_image_name(path) and not os.path.isdir(path))
        advice = f"no images ({' '.join(IMAGE_SUFFIXES)}) match the pattern {one_line(source)}"
    else:
        raise DataError(f"the file list {one_line(source)} does not exist; "
                        "name a text list (one image path a line), a folder or a glob pattern")
    if not paths:
        raise DataError(advice)
    _refuse_missing(paths, source)
    return paths


def _is_image_name(path: str) -> bool:
    return path.lower().endswith(IMAGE_SUFFIXES)


def _read_text_list(source: str, root: str) -> list[str]:
    try:
        with open(source, "rb") as file:
            content = file.read()
    except OSError as error:
        raise DataError(f"the file list {one_line(source)} cannot be read: {error.strerror}") from None
    if b"\0" in content:  # an image given by mistake, or UTF-16
        raise DataError(f"the file list {one_line(source)} is not UTF-8 text; write one image path a line")
    # surrogateescape keeps bytes that are not UTF-8, so that files with such names are still found.
    text = content.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    base = root or os.path.dirname(source)
    paths = []
    for line in text.replace("\r", "\n").split("\n"):
        line = line.strip(" \t")
        if line and not line.startswith("#"):
            # ".." stays: behind a link to a folder it means another place than the text says.
            if ("./" in line or "//" in line) and ".." not in line:
                line = os.path.normpath(line)
            paths.append(os.path.join(base, line))
    return paths


def _walk(folder: str) -> Iterator[str]:
    """Files and broken links below `folder`, not hidden ones; each real folder once, so that loops end."""
    visited = set()
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                entries = sorted(entries, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            raise DataError(f"the folder {one_line(folder)} cannot be read: {error.strerror}") from None
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                waiting.append(entry.path)
            else:
                yield entry.path


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _glob(pattern: str) -> Iterator[str]:
    """Like glob.glob(recursive=True), whose ** walks loops of links again and again."""
    parts = pattern.split("/")
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    start = parts.index("**")
    head = "/".join(parts[:start])
    for folder in glob.glob(head + "/") if start else [""]:
        for path in _walk(folder or "."):
            path = path if folder else path[2:]
            if _matches(path[len(folder):].split("/"), parts[start:]):
                yield path


def _matches(names: list[str], patterns: list[str]) -> bool:
    if not patterns:
        return not names
    if patterns[0] == "**":
        return any(_matches(names[skip:], patterns[1:]) for skip in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], patterns[0]) and _matches(names[1:], patterns[1:])


def _refuse_missing(paths: list[str], source: str) -> None:
    # One look at each folder instead of one at each file: seconds, not minutes, on network disks.
    files_of = {}
    missing = []
    for path in paths:
        folder, name = os.path.split(path)
        files = files_of.get(folder)
        if files is None:
            files = files_of[folder] = _files_in(folder)
        if name not in files and not os.path.isfile(path):
            missing.append(path)
    if missing:
        first = ", ".join(one_line(path) for path in missing[:3])
        raise DataError(f"{len(missing)} of {len(paths)} files listed in {one_line(source)} are missing, "
                        f"e.g. {first}; correct the list, or data_root, where relative paths start")


def _files_in(folder: str) -> set[str]:
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    except OSError:
        return set()
