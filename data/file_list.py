"""A text list, a folder or a glob pattern -> a checked list of image paths."""

from __future__ import annotations

import csv
import glob
import itertools
import os
import sys
import unicodedata
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase

from utils.cli import UserError
from utils.cli import printable as one_line

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm",
)  # fmt: skip


def say(text: str) -> None:
    print(f"note: {one_line(text)}", file=sys.stderr)


def read_file_list(
    source: str, root: str = "", keep_repeats: bool = False, note: Callable[[str], None] = say
) -> list[str]:
    """Paths of the images that `source` stands for; every one of them exists.

    source: one of
        a text file: one path a line, UTF-8 (other bytes are kept as they are); blank lines and lines that
            start with # are ignored (write ./#name for such a file), white space at both ends too; a path
            that comes again is dropped, unless keep_repeats is set; relative paths start at `root`, or at
            the list's own folder. Where files are missing, the lines are read as lists of
            other programs are written, and the first way that finds all of them is used;
        a folder: all images below it by suffix, sorted; hidden names are ignored, links to folders are
            followed, and no folder is visited twice;
        a glob pattern, `**` for any depth: the images by suffix that match, sorted, as for a folder.
    root: where relative lines of a text file start; "" for the list's own folder.
    note: called with a line on files that are ignored, and on another reading of a list.
    Raises UserError: the source is missing, unreadable or names no image, or files in it are missing.
    """
    source = os.path.expanduser(source)
    root = os.path.expanduser(root)
    if not source:
        raise UserError("no file list is given; name a text list, a folder or a glob pattern")
    if root and not os.path.isdir(root):
        raise UserError(f"the root folder {one_line(root)} does not exist")
    if os.path.isdir(source):
        paths = _images(_walk(source), source, note)
        advice = f"no images ({' '.join(IMAGE_SUFFIXES)}) below the folder {one_line(source)}"
    elif os.path.exists(source):
        return _read_text_list(source, root, keep_repeats, note)
    elif any(sign in source for sign in "*?["):
        paths = _images((path for path in _glob(source) if not os.path.isdir(path)), source, note)
        advice = f"no images ({' '.join(IMAGE_SUFFIXES)}) match the pattern {one_line(source)}"
    else:
        raise UserError(f"the file list {one_line(source)} does not exist; "
                        "name a text list (one image path a line), a folder or a glob pattern")
    if not paths:
        raise UserError(advice)
    missing = _missing(paths)
    if missing:
        raise UserError(_say_missing(missing, len(paths), source))
    return paths


def _images(paths: Iterator[str], source: str, note: Callable[[str], None]) -> list[str]:
    """Sorted; the others are counted by suffix, and some of them named."""
    images, others = [], {}
    for path in paths:
        suffix = os.path.splitext(path)[1].lower()
        if suffix in IMAGE_SUFFIXES:
            images.append(path)
        else:
            others.setdefault(suffix or "without suffix", []).append(os.path.basename(path))
    if others:
        kinds = ", ".join(f"{len(names)} {suffix} ({min(names)})" for suffix, names in sorted(others.items())[:6])
        count = sum(map(len, others.values()))
        note(f"{source}: {count} file{'s' * (count != 1)} ignored, no images by their names: {kinds}")
    return sorted(images)


def _read_text_list(source: str, root: str, keep_repeats: bool, note: Callable[[str], None]) -> list[str]:
    try:
        with open(source, "rb") as file:
            content = file.read()
    except OSError as error:
        raise UserError(f"the file list {one_line(source)} cannot be read: {error.strerror}") from None
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        content = content.decode("utf-16", "replace").encode("utf-8", "surrogatepass")
    if b"\0" in content:  # an image given by mistake
        raise UserError(f"the file list {one_line(source)} is not UTF-8 text; write one image path a line")
    # surrogateescape keeps bytes that are not UTF-8, so that files with such names are still found.
    text = content.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    lines = [line.strip(" \t") for line in text.replace("\r", "\n").split("\n")]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise UserError(f"the file list {one_line(source)} is empty; write one image path a line")
    base = root or os.path.dirname(source)
    paths = [_join(base, line) for line in lines]
    missing = _missing(paths)
    if missing:
        paths = _read_otherwise(lines, base, source, note)
        if not paths:
            raise UserError(_say_missing(missing, len(lines), source))
    return paths if keep_repeats else list(dict.fromkeys(paths))


def _join(base: str, line: str) -> str:
    # ".." stays: behind a link to a folder it means another place than the text says.
    if ("./" in line or "//" in line) and ".." not in line:
        line = os.path.normpath(line)
    return os.path.join(base, line)


def _say_missing(missing: list[str], total: int, source: str) -> str:
    first = ", ".join(one_line(path) for path in missing[:3])
    return (f"{len(missing)} of {total} files listed in {one_line(source)} are missing, "
            f"e.g. {first}; correct the list, or data_root, where relative paths start")


def _decoded(encoding: str) -> Callable[[str], str]:
    return lambda line: line.encode("utf-8", "surrogateescape").decode(encoding)


def _suffix(change: Callable[[str], str]) -> Callable[[str], str]:
    return lambda line: os.path.splitext(line)[0] + change(os.path.splitext(line)[1])


# How lists are written elsewhere: what is said of a line -> the line as it is written here. One of each kind.
COLUMNS: dict[str, Callable[[str], str]] = {
    "": str,
    "without their last column": lambda line: line.rpartition("\t" if "\t" in line else " ")[0].rstrip(" \t"),
    "by the first column of CSV": lambda line: next(csv.reader([line]))[0].strip(),
    "by the second column of CSV": lambda line: next(csv.reader([line]))[1].strip(),
    "without quotes": lambda line: line.strip("'\""),
}
READINGS: dict[str, Callable[[str], str]] = {
    "": str,
    "with / for backslashes": lambda line: line.replace("\\", "/"),
    "in composed Unicode": lambda line: unicodedata.normalize("NFC", line),
    "in decomposed Unicode": lambda line: unicodedata.normalize("NFD", line),
    "in the encoding GB 18030": _decoded("gb18030"),
    "in the encoding Windows-1252": _decoded("cp1252"),
    "with their suffix in small letters": _suffix(str.lower),
    "with their suffix in capitals": _suffix(str.upper),
    "with the suffix .jpg": lambda line: f"{line}.jpg",
    "with the suffix .png": lambda line: f"{line}.png",
}
STARTS: dict[str, Callable[[str], str]] = {
    "": str,
    **{
        f"below data_root without {f'their first {count} folders' if count else 'the leading slash'}":
            lambda line, count=count: line.partition("/")[2].split("/", count)[count]
        for count in range(6)
    },
}  # fmt: skip


def _read_otherwise(lines: list[str], base: str, source: str, note: Callable[[str], None]) -> list[str] | None:
    """The first other reading of the lines, from `base` or the working folder, that finds every file; with a note.

    A first line without any image's suffix may be a heading of columns.
    """
    may_be_heading = not any(suffix in lines[0].lower() for suffix in IMAGE_SUFFIXES)
    bases = {"": base, "from the working folder": ""}
    ways = itertools.product(COLUMNS, READINGS, STARTS, bases, (False, True)[: 1 + may_be_heading])
    for column, reading, start, where, heading in ways:
        told = ", ".join(filter(None, [column, reading, start, where, "without the first one" * heading]))

        def path_of(line: str, column=column, reading=reading, start=start, where=where) -> str:
            return _join(bases[where], STARTS[start](READINGS[reading](COLUMNS[column](line))))

        try:
            if told and os.path.isfile(path_of(lines[heading])):
                paths = [path_of(line) for line in lines[heading:]]
                if not _missing(paths):
                    note(f"{source}: its lines are read {told}; as they stand they do not find their files")
                    return paths
        except (UnicodeError, ValueError, IndexError, csv.Error, StopIteration):
            continue
    return None


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
            raise UserError(f"the folder {one_line(folder)} cannot be read: {error.strerror}") from None
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


def _missing(paths: list[str]) -> list[str]:
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
    return missing


def _files_in(folder: str) -> set[str]:
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    except (OSError, ValueError):
        return set()
