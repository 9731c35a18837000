"""The data directory: made, held, and refused when it is not ours, with the path in the error."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.storage import data_dir as data_dir_module
from etcd_pinwheel.server_stub.storage.data_dir import DataDir, DataDirError
from etcd_pinwheel.server_stub.storage.segment import SegmentName, segments_of
from etcd_pinwheel.server_stub.storage.wal import Wal

BBOLT_META_PAGE = bytes(16) + bytes.fromhex("edda0ced02000000001000000000000004")


def test_a_new_directory_gets_etcds_layout(tmp_path: Path) -> None:
    directory = DataDir.open(tmp_path / "a" / "data")
    assert directory.snap_path.is_dir()
    assert directory.store_path == tmp_path / "a" / "data" / "member" / "snap" / "db"
    assert directory.wal_path == tmp_path / "a" / "data" / "member" / "wal"
    assert not directory.has_wal
    assert (tmp_path / "a" / "data").stat().st_mode & 0o777 == 0o700
    Wal.create(directory.wal_path, b"").close()
    assert directory.has_wal
    directory.close()
    directory.close()


def test_it_opens_again_and_leaves_no_file_of_its_own(tmp_path: Path) -> None:
    DataDir.open(tmp_path / "data").close()
    DataDir.open(tmp_path / "data").close()
    assert [path.name for path in (tmp_path / "data").rglob("*")] == ["member", "snap"]


def test_a_log_of_its_own_place(tmp_path: Path) -> None:
    directory = DataDir.open(tmp_path / "data", tmp_path / "logs" / "wal")
    assert directory.wal_path == tmp_path / "logs" / "wal"
    Wal.create(directory.wal_path, b"").close()
    directory.close()
    inside = tmp_path / "other"
    for _ in range(2):
        directory = DataDir.open(inside, inside / "log")
        if not directory.has_wal:
            Wal.create(directory.wal_path, b"").close()
        directory.close()


@pytest.mark.parametrize("inner", ["log", "logs/wal", "logs/a/b/wal", "member/log", "member/a/b"])
def test_a_log_anywhere_inside(tmp_path: Path, inner: str) -> None:
    data = tmp_path / "data"
    for number in range(2):
        with closing(DataDir.open(data, data / inner)) as directory:
            assert directory.has_wal == bool(number)
            if not directory.has_wal:
                Wal.create(directory.wal_path, b"").close()
    (tmp_path / "link").symlink_to(data)
    DataDir.open(tmp_path / "link", data / inner).close()
    assert "it holds what no member wrote" in refusal(data, tmp_path / "elsewhere")


def refusal(path: Path, wal_path: Path | None = None) -> str:
    with pytest.raises(DataDirError) as caught:
        DataDir.open(path, wal_path)
    return str(caught.value)


def test_held_by_this_process(tmp_path: Path) -> None:
    directory = DataDir.open(tmp_path / "data")
    assert "another process is using it" in refusal(tmp_path / "data")
    directory.close()
    DataDir.open(tmp_path / "data").close()


def test_a_log_is_held_whosever_data_directory_it_is_given_to(tmp_path: Path) -> None:
    log = tmp_path / "log"
    in_use = f"cannot use {log}: another process is using it"
    with closing(DataDir.open(tmp_path / "a", log)) as directory:
        directory.hold_log()
        assert refusal(tmp_path / "b", log) == in_use
        with closing(Wal.create(log, b"", segment_bytes=8192)) as wal:
            assert refusal(tmp_path / "b", log) == in_use
            while len(segments_of(log)) < 3:
                wal.save(None, [raftpb.Entry(Term=1, Index=1, Data=bytes(9000))])
            wal.release_to(1, keep=1)
        assert refusal(tmp_path / "b", log) == in_use
    for _ in range(2):
        with closing(DataDir.open(tmp_path / "b", log)):
            assert refusal(tmp_path / "a", log) == in_use
    assert refusal(tmp_path / "c", tmp_path / "c" / "member" / "snap").endswith(
        "the log needs a directory of its own"
    )


def test_a_log_inside_is_held_against_those_whose_log_is_elsewhere(tmp_path: Path) -> None:
    with closing(DataDir.open(tmp_path / "a")) as directory:
        directory.hold_log()
        assert "another process is using it" in refusal(tmp_path / "b", directory.wal_path)


def test_two_that_find_no_log_do_not_both_make_one(tmp_path: Path) -> None:
    log = tmp_path / "log"
    one, other = DataDir.open(tmp_path / "a", log), DataDir.open(tmp_path / "b", log)
    with closing(one), closing(other):
        one.hold_log()
        with pytest.raises(DataDirError, match="another process is using it"):
            other.hold_log()
        one.close()
        other.hold_log()


@pytest.mark.process
def test_held_by_another_process_until_it_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from etcd_pinwheel.server_stub.storage.data_dir import DataDir\n"
        "directory = DataDir.open(pathlib.Path(sys.argv[1]))\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "data")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        message = refusal(tmp_path / "data")
        assert str(tmp_path / "data") in message
        assert "another process is using it" in message
        holder.kill()
        holder.wait()
    DataDir.open(tmp_path / "data").close()


def test_a_file_where_the_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert refusal(tmp_path / "file") == f"cannot use {tmp_path}/file: it is not a directory"
    assert "not a directory" in refusal(tmp_path / "file" / "below")


@pytest.mark.parametrize("name", ["member", "member/snap"])
def test_a_file_where_a_part_of_the_layout_should_be(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"")
    assert "not a directory" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["thesis.doc", "member/thesis.doc"])
def test_files_that_no_member_wrote(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"mine")
    assert "thesis.doc" in refusal(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["thesis.doc"]
    (tmp_path / name).unlink()
    DataDir.open(tmp_path).close()


def test_hidden_files_and_those_of_the_file_system_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / ".keep").write_bytes(b"")
    DataDir.open(tmp_path).close()


def test_a_place_for_the_log_where_something_is(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    (log / "thesis.doc").write_bytes(b"mine")
    expected = f"cannot use {log}: it holds what no member wrote (thesis.doc); give an empty one"
    assert refusal(tmp_path / "data", log) == expected
    (log / "thesis.doc").unlink()
    (log / "lost+found").mkdir()
    (log / "0.tmp").write_bytes(b"half a file")
    with closing(DataDir.open(tmp_path / "data", log)) as directory:
        Wal.create(directory.wal_path, b"").close()
        assert directory.has_wal
    assert sorted(path.name for path in log.iterdir()) == [str(SegmentName(0, 0)), "lost+found"]


@pytest.mark.parametrize("page", [0, 1])
def test_a_directory_that_etcd_itself_wrote(tmp_path: Path, page: int) -> None:
    store = tmp_path / "member" / "snap" / "db"
    store.parent.mkdir(parents=True)
    content = bytes(4096 * page) + BBOLT_META_PAGE.ljust(4096, b"\0")
    store.write_bytes(content)
    message = refusal(tmp_path)
    assert str(store) in message
    assert "etcd itself wrote" in message
    assert store.read_bytes() == content


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_directory_without_write_permission(tmp_path: Path) -> None:
    DataDir.open(tmp_path / "data").close()
    (tmp_path / "data" / "member" / "snap").chmod(0o500)
    try:
        assert "cannot write in it: Permission denied" in refusal(tmp_path / "data")
    finally:
        (tmp_path / "data" / "member" / "snap").chmod(0o700)


@pytest.mark.skipif(not os.path.isdir("/proc/sys"), reason="needs a file system nobody writes to")
def test_a_file_system_that_cannot_be_written() -> None:
    message = refusal(Path("/proc/sys/etcd"))
    assert message.startswith("cannot use /proc/sys/etcd: cannot make it: ")


@pytest.mark.skipif(not os.path.isdir("/proc/self/fdinfo"), reason="needs procfs")
def test_an_existing_directory_that_cannot_be_written() -> None:
    message = refusal(Path("/proc/self/map_files"))
    assert "/proc/self/map_files" in message


def test_a_doubt_stays_until_it_is_confirmed(tmp_path: Path) -> None:
    """Whether the member is a new one."""
    with closing(DataDir.open(tmp_path)) as directory:
        assert not directory.is_unconfirmed
        directory.doubt()
    with closing(DataDir.open(tmp_path)) as directory:
        assert directory.is_unconfirmed
        directory.confirm()
        directory.confirm()
    with closing(DataDir.open(tmp_path)) as directory:
        assert not directory.is_unconfirmed


def test_a_power_cut_does_not_bring_a_doubt_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[Path, bool]] = []
    with closing(DataDir.open(tmp_path)) as directory:

        def sync(path: Path) -> None:
            synced.append((path, directory.is_unconfirmed))

        monkeypatch.setattr(data_dir_module, "sync_directory", sync)
        directory.doubt()
        directory.confirm()
        directory.confirm()
    assert synced == [(tmp_path / "member", True), (tmp_path / "member", False)]
