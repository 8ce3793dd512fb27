"""Folders of strangers: no link is followed, no pipe waited for; files are whole or not there."""

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from zoo.errors import UserError
from zoo.storage.files import Folder, open_folder

OUTSIDE = "outside"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder beside a file that nothing may touch."""
    (tmp_path / OUTSIDE).write_text("mine")
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def link(file: Path) -> None:
    file.symlink_to(file.parent.parent / OUTSIDE)


NO_FILES: dict[str, Callable[[Path], None]] = {
    "link": link,
    "link to nowhere": lambda file: file.symlink_to("nowhere"),
    "link to itself": lambda file: file.symlink_to(file.name),
    "endless device": lambda file: file.symlink_to("/dev/zero"),
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
}


def write(folder: Folder) -> None:
    with folder.write("file") as file:
        file.write(b"new")


@pytest.mark.parametrize("case", NO_FILES)
@pytest.mark.parametrize("use", [lambda folder: folder.read("file"), lambda folder: folder.append("file")])
def test_only_plain_files_are_opened(case: str, use: Callable[[Folder], object], run: Path) -> None:
    NO_FILES[case](run / "file")
    with open_folder(run) as folder, pytest.raises(UserError, match="file is not a plain file"):
        use(folder)
    assert (run.parent / OUTSIDE).read_text() == "mine"
    assert not (run / "nowhere").exists()


@pytest.mark.parametrize("name", ["file", "file.part"])
@pytest.mark.parametrize("case", ["link", "link to nowhere", "link to itself", "endless device", "pipe"])
def test_what_is_written_takes_the_place_of_a_link(name: str, case: str, run: Path) -> None:
    NO_FILES[case](run / name)
    with open_folder(run) as folder:
        write(folder)
    assert (run / "file").read_bytes() == b"new"
    assert stat.S_ISREG((run / "file").lstat().st_mode)
    assert (run.parent / OUTSIDE).read_text() == "mine"
    assert [file.name for file in run.iterdir()] == ["file"]


def test_a_folder_in_the_place_of_a_part_is_named(run: Path) -> None:
    (run / "file.part").mkdir()
    with open_folder(run) as folder, pytest.raises(UserError, match=r"file\.part is not a plain file"):
        write(folder)


def fail(number: int) -> Callable[..., None]:
    def call(*arguments: object, **keywords: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


def test_so_is_one_that_macos_refuses_to_remove_with_another_error(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "file.part").mkdir()
    monkeypatch.setattr(os, "unlink", fail(errno.EPERM))
    with open_folder(run) as folder, pytest.raises(UserError, match=r"file\.part is not a plain file"):
        write(folder)
    (run / "file.part").rmdir()
    (run / "file.part").touch()
    with open_folder(run) as folder, pytest.raises(PermissionError):
        folder.remove("file.part")


def test_so_is_a_socket_that_macos_refuses_to_open_with_another_error(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_folder(run) as folder:
        monkeypatch.setattr(os, "open", fail(errno.EOPNOTSUPP))
        with pytest.raises(UserError, match="file is not a plain file"):
            folder.append("file")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_file_system_need_not_flush_folders_but_other_errors_count(
    number: int, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = os.fsync
    monkeypatch.setattr(os, "fsync", lambda at: fail(number)() if stat.S_ISDIR(os.fstat(at).st_mode) else flush(at))
    with open_folder(run) as folder:
        if number == errno.EIO:
            with pytest.raises(OSError, match="Input/output error"):
                write(folder)
        else:
            write(folder)
    assert (run / "file").read_bytes() == b"new"


def test_a_plain_open_would_follow_the_link(run: Path) -> None:
    link(run / "file.part")
    (run / "file.part").write_text("new")
    assert (run.parent / OUTSIDE).read_text() == "new"


def test_a_file_with_a_name_elsewhere_is_not_appended_to(run: Path) -> None:
    (run / "file").hardlink_to(run.parent / OUTSIDE)
    with open_folder(run) as folder, pytest.raises(UserError, match="has another name elsewhere"):
        folder.append("file")
    assert (run.parent / OUTSIDE).read_text() == "mine"


@pytest.mark.parametrize("make", [True, False])
@pytest.mark.parametrize("target", ["..", "/", "inner", "nowhere"])
def test_no_folder_is_reached_through_a_link(make: bool, target: str, run: Path) -> None:
    (run / "inner").symlink_to(target)
    with (
        open_folder(run) as folder,
        pytest.raises(UserError, match="inner is not a folder"),
        folder.folder("inner", make=make),
    ):
        pass


def test_check_names_what_stands_in_the_way(run: Path) -> None:
    (run / "a").write_text("")
    (run / "b").mkdir()
    with open_folder(run) as folder:
        folder.check(files=("a", "missing"), folders=("b", "missing"))
        with pytest.raises(UserError, match="b is not a plain file"):
            folder.check(files=("a", "b"), folders=())
        with pytest.raises(UserError, match="a is not a folder"):
            folder.check(files=(), folders=("b", "a"))


def test_an_error_leaves_what_was_there_before(run: Path) -> None:
    (run / "file").write_text("old")
    with open_folder(run) as folder, pytest.raises(TypeError), folder.write("file") as file:
        file.writelines([b"new", None])  # type: ignore[list-item]
    assert (run / "file").read_text() == "old"
    assert [file.name for file in run.iterdir()] == ["file"]


def test_files_follow_the_umask(run: Path) -> None:
    before = os.umask(0o027)
    try:
        with open_folder(run) as folder:
            write(folder)
            folder.append("rows").close()
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in run.iterdir()} == {0o640}


def test_a_folder_that_is_moved_is_still_written_to(run: Path) -> None:
    with open_folder(run) as folder:
        run.rename(run.parent / "moved")
        run.mkdir()
        write(folder)
    assert (run.parent / "moved" / "file").read_bytes() == b"new"
    assert not list(run.iterdir())


def test_one_process_at_a_time_holds_the_lock(run: Path) -> None:
    other = "import sys; from pathlib import Path; from zoo.storage.files import open_folder\n"
    other += "with open_folder(Path(sys.argv[1])) as folder, folder.locked(): print('in')"
    command = [sys.executable, "-c", other, str(run)]
    with open_folder(run) as folder:
        with folder.locked():
            done = subprocess.run(command, capture_output=True, text=True)
            assert "is in use: another process is at work in it" in done.stderr
        assert subprocess.run(command, capture_output=True, text=True).stdout == "in\n"


def test_a_lock_that_cannot_be_opened_is_named(run: Path) -> None:
    link(run / ".lock")
    with open_folder(run) as folder, pytest.raises(UserError, match=r"\.lock is not a plain file"), folder.locked():
        pass
    run.rename(run.parent / "gone")
    (run.parent / "gone" / ".lock").unlink()
    with open_folder(run.parent / "gone") as folder:
        (run.parent / "gone").rmdir()
        with pytest.raises(UserError, match="cannot be locked: No such file"), folder.locked():
            pass


@pytest.mark.parametrize(("path", "why"), [("nowhere", "No such file"), (OUTSIDE, "Not a directory")])
def test_a_folder_that_is_none_is_named(path: str, why: str, run: Path) -> None:
    with pytest.raises(UserError, match=f"{path} cannot be opened: {why}"), open_folder(run.parent / path):
        pass
