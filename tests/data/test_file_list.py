from __future__ import annotations

import os

import pytest

from data.file_list import read_file_list
from utils.cli import UserError


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return [str(folder / name) for name in names]


def one_line_error(source, root=""):
    with pytest.raises(UserError) as caught:
        read_file_list(str(source), str(root))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_text_list_with_everything_odd(tmp_path):
    names = ["a.jpg", "with space.png", "sub/größe 図.jpg", "#hash.jpg", "z.jpg"]
    paths = touch(tmp_path, *names)
    elsewhere, = touch(tmp_path / "other", "absolute.jpg")
    lines = ["# a comment", "", "a.jpg", "  with space.png\t", "sub/größe 図.jpg", "a.jpg", "./a.jpg", "   ",
             "./#hash.jpg", elsewhere, "sub//größe 図.jpg", "z.jpg"]
    source = tmp_path / "list.txt"
    for ending in ("\n", "\r\n"):
        for mark in (b"", b"\xef\xbb\xbf"):
            source.write_bytes(mark + ending.join(lines).encode())
            found = read_file_list(str(source))
            assert found == [*paths[:4], elsewhere, paths[4]]


def test_repeated_lines_are_kept_on_request(tmp_path):
    a, b = touch(tmp_path, "a.png", "b.png")
    source = tmp_path / "masks.txt"
    source.write_text("a.png\nb.png\n# a.png\na.png\n")
    assert read_file_list(str(source), keep_repeats=True) == [a, b, a]
    assert read_file_list(str(source)) == [a, b]


def test_text_list_starts_at_the_root(tmp_path, monkeypatch):
    there, = touch(tmp_path / "photos", "a.jpg")
    source = tmp_path / "lists" / "l.txt"
    source.parent.mkdir()
    source.write_text("a.jpg")
    assert read_file_list(str(source), str(tmp_path / "photos")) == [there]
    assert "1 of 1 files" in one_line_error(source)
    assert "root folder" in one_line_error(source, tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path / "photos")
    (tmp_path / "photos" / "l.txt").write_text("a.jpg")
    assert read_file_list("l.txt") == ["a.jpg"]


def test_names_that_are_not_utf8(tmp_path):
    raw = os.fsencode(str(tmp_path)) + b"/caf\xe9.jpg"
    with open(raw, "wb") as file:
        file.write(b"x")
    source = tmp_path / "list.txt"
    source.write_bytes(b"caf\xe9.jpg\ngone\xe9.jpg\n")
    message = one_line_error(source)
    assert "gone\\udce9.jpg" in message
    message.encode("utf-8")  # printable anywhere
    source.write_bytes(b"caf\xe9.jpg\n")
    assert [os.fsencode(path) for path in read_file_list(str(source))] == [raw]


def test_unicode_line_separators_belong_to_names(tmp_path):
    path, = touch(tmp_path, "a\u2028b\x85c.jpg")
    source = tmp_path / "list.txt"
    source.write_text("a\u2028b\x85c.jpg\n", encoding="utf-8")
    assert read_file_list(str(source)) == [path]


def test_missing_files_are_counted_and_named(tmp_path):
    touch(tmp_path, "here.jpg")
    (tmp_path / "folder.jpg").mkdir()
    source = tmp_path / "list.txt"
    source.write_text("\n".join(["here.jpg", "folder.jpg", *(f"gone{i}.jpg" for i in range(9)), "no/x.jpg"]))
    message = one_line_error(source)
    assert message.startswith(f"11 of 12 files listed in {source} are missing, e.g. {tmp_path}/folder.jpg, ")
    assert "gone1.jpg" in message and "gone2.jpg" not in message and "data_root" in message


def test_lists_that_cannot_be_used(tmp_path):
    source = tmp_path / "list.txt"
    assert f"{source} does not exist" in one_line_error(source)
    source.write_text("\n# nothing\n  \r\n")
    assert f"{source} is empty" in one_line_error(source)
    source.write_bytes(b"a.jpg\0\n")
    assert "is not UTF-8 text" in one_line_error(source)
    assert "no file list is given" in one_line_error("")


def test_a_link_in_a_list_counts_as_its_file(tmp_path):
    touch(tmp_path, "a.jpg")
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    (tmp_path / "broken.jpg").symlink_to("gone.jpg")
    source = tmp_path / "list.txt"
    source.write_text("link.jpg\nsub/../a.jpg")
    (tmp_path / "sub").mkdir()
    assert read_file_list(str(source)) == [str(tmp_path / "link.jpg"), str(tmp_path / "sub/../a.jpg")]
    source.write_text("broken.jpg")
    assert "1 of 1 files" in one_line_error(source)


def test_folder_is_searched_recursively_and_sorted(tmp_path):
    names = ["B.JPG", "a.jpeg", "sub/deep/c.PNG", "sub/d.webp", "x [1].bmp"]
    paths = touch(tmp_path, *names)
    touch(tmp_path, "notes.txt", ".hidden.jpg", "._a.jpg", ".cache/e.jpg")
    assert read_file_list(str(tmp_path)) == sorted(paths)


def test_folder_with_loops_of_links(tmp_path):
    paths = touch(tmp_path, "a.jpg", "sub/b.jpg")
    for name in ("loop", "sub/up", "sub/again"):
        (tmp_path / name).symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    outside, = touch(tmp_path.parent / (tmp_path.name + "_outside"), "c.jpg")
    (tmp_path / "linked").symlink_to(os.path.dirname(outside))
    expected = sorted([*paths, str(tmp_path / "linked/c.jpg")])
    assert read_file_list(str(tmp_path)) == expected
    assert read_file_list(f"{tmp_path}/**/*.jpg") == expected


def test_folder_without_images_and_with_broken_links(tmp_path):
    touch(tmp_path, "notes.txt")
    assert "no images" in one_line_error(tmp_path)
    (tmp_path / "broken.jpg").symlink_to("gone.jpg")
    touch(tmp_path, "a.jpg")
    assert "1 of 2 files" in one_line_error(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_folder_that_cannot_be_read(tmp_path):
    touch(tmp_path, "closed/a.jpg")
    (tmp_path / "closed").chmod(0)
    try:
        assert "cannot be read: Permission denied" in one_line_error(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_glob(tmp_path, monkeypatch):
    touch(tmp_path, "p1/a.jpg", "p1/b.png", "p1/n.txt", "p2/a.jpg", "p2/x/y/a.jpg", "p2/x/train/c.jpg")
    touch(tmp_path, "q/a.jpg")
    monkeypatch.chdir(tmp_path)
    for pattern, expected in {
        "p*/*.jpg": ["p1/a.jpg", "p2/a.jpg"],
        "p1/*": ["p1/a.jpg", "p1/b.png"],
        "p?/**/a.jpg": ["p1/a.jpg", "p2/a.jpg", "p2/x/y/a.jpg"],
        "**/train/*.jpg": ["p2/x/train/c.jpg"],
        "p2/**/x/**/*.jpg": ["p2/x/train/c.jpg", "p2/x/y/a.jpg"],
        "q/**": ["q/a.jpg"],
    }.items():
        assert read_file_list(pattern) == expected
        assert read_file_list(f"{tmp_path}/{pattern}") == [f"{tmp_path}/{path}" for path in expected]
    assert "match the pattern z*.jpg" in one_line_error("z*.jpg")
    assert "match the pattern z/**" in one_line_error("z/**")


def test_folder_with_the_signs_of_a_pattern(tmp_path):
    paths = touch(tmp_path / "photos [2020]*", "a.jpg")
    assert read_file_list(os.path.dirname(paths[0])) == paths


def test_error_for_a_name_with_a_line_break(tmp_path):
    assert "a\\nb" in one_line_error(tmp_path / "a\nb")


def test_long_lists(tmp_path):
    for folder in range(20):
        touch(tmp_path, *(f"{folder}/{name}.jpg" for name in range(50)))
    source = tmp_path / "list.txt"
    lines = [f"{k % 20}/{k // 20 % 50}.jpg" for k in range(100_000)]
    source.write_text("\n".join(lines))
    assert len(read_file_list(str(source))) == 1000


PLACES = ("a/abbey/00000001.jpg", "b/beach/00000001.jpg", "a/abbey/00000002.jpg")


@pytest.mark.parametrize(("lines", "said"), [
    ([f"/{path} {k}" for k, path in enumerate(PLACES)], "last column, below data_root without the leading slash"),
    ([f"/{path}" for path in PLACES], "below data_root without the leading slash"),
    ([f"{path}\t{k}" for k, path in enumerate(PLACES)], "without their last column"),
    (["path,label", *(f"{path},0" for path in PLACES)], "by the first column of CSV, without the first one"),
    (["label;", *(f"0,{path}" for path in PLACES)], "by the second column of CSV, without the first one"),
    ([f"'{path}'" for path in PLACES], "without quotes"),
    ([path.replace("/", "\\") for path in PLACES], "with / for backslashes"),
    (["D:\\sets\\places\\" + path.replace("/", "\\") for path in PLACES], "without their first 2 folders"),
    ([f"/home/someone/{path}" for path in PLACES], "without their first 2 folders"),
    ([path.replace("jpg", "JPG") for path in PLACES], "with their suffix in small letters"),
    ([path.replace(".jpg", "") for path in PLACES], "with the suffix .jpg"),
    ([f"data/{path}" for path in PLACES], "from the working folder"),
])
def test_lists_as_others_write_them(tmp_path, monkeypatch, lines, said):
    """The reading that finds the files is used, and said."""
    paths = touch(tmp_path / "data", *PLACES)
    source = tmp_path / "lists" / "list.txt"
    source.parent.mkdir()
    source.write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    notes = []
    found = read_file_list(str(source), str(tmp_path / "data"), note=notes.append)
    assert [os.path.realpath(path) for path in found] == paths
    assert len(notes) == 1 and said in notes[0]


def test_lists_in_other_encodings(tmp_path):
    composed, chinese = "caf\u00e9.jpg", "\u7167\u7247.jpg"
    paths = touch(tmp_path, "cafe\u0301.jpg", chinese)
    source, notes = tmp_path / "list.txt", []
    for content, expected in (
        (composed.encode(), paths[0]), (chinese.encode("gb18030"), paths[1]), (chinese.encode("utf-16"), paths[1]),
    ):
        source.write_bytes(content)
        assert read_file_list(str(source), note=notes.append) == [expected]
    assert [text.split("read ")[1].split(";")[0] for text in notes] == [
        "in decomposed Unicode", "in the encoding GB 18030"]


def test_a_list_of_which_a_part_is_missing_is_read_in_no_other_way(tmp_path):
    touch(tmp_path, "b.jpg", "c.jpg")
    source = tmp_path / "list.txt"
    source.write_text("a.jpg\nb.jpg\nc.jpg")
    assert "1 of 3 files" in one_line_error(source)
    source.write_text("'b.jpg'\n'a.jpg'\n")
    assert "2 of 2 files" in one_line_error(source)


def test_files_that_are_ignored_are_counted_and_named(tmp_path):
    paths = touch(tmp_path, "a.jfif", "b.JPE", "sub/c.jpg")
    touch(tmp_path, "x.HEIC", "sub/y.heic", "notes.txt", "README", ".hidden")
    notes = []
    assert read_file_list(str(tmp_path), note=notes.append) == sorted(paths)
    assert notes == [f"{tmp_path}: 4 files ignored, no images by their names: "
                     "2 .heic (x.HEIC), 1 .txt (notes.txt), 1 without suffix (README)"]
