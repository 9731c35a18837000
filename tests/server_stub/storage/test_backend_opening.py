"""Opening a backend: what is found in its place, and what is said of it."""

import itertools
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from etcd_pinwheel.server_stub.mvcc.backend import Bucket
from etcd_pinwheel.server_stub.storage.backend import BackendError, LmdbBackend


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "member" / "snap" / "db"


@pytest.fixture
def backend(path: Path) -> Iterator[LmdbBackend]:
    opened = LmdbBackend(path)
    yield opened
    opened.close()


def test_a_foreign_file(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a backend at all\n" * 1_000)
    with pytest.raises(BackendError, match=f"{path}: cannot be opened: not a backend"):
        LmdbBackend(path)
    assert path.read_bytes() == b"not a backend at all\n" * 1_000


def test_not_a_directory(tmp_path: Path) -> None:
    (tmp_path / "member").write_text("a file")
    with pytest.raises(BackendError, match=r"cannot be opened: .*member"):
        LmdbBackend(tmp_path / "member" / "snap" / "db")


def test_a_directory_in_its_place(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(BackendError, match="is not a regular file"):
        LmdbBackend(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_directory(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.parent.chmod(0o500)
    with pytest.raises(BackendError, match="Permission denied"):
        LmdbBackend(path)


def test_a_file_system_without_room_for_it() -> None:
    with pytest.raises(BackendError, match="cannot be opened"):
        LmdbBackend(Path("/proc/self/member/snap/db"))


def test_one_process_at_a_time(path: Path, backend: LmdbBackend) -> None:
    with pytest.raises(BackendError, match="is in use by another process"):
        LmdbBackend(path)


def test_a_file_cut_short(path: Path) -> None:
    backend = LmdbBackend(path)
    for number in range(500):
        backend.put(Bucket.KEY, b"%d" % number, b"x" * 1_000)
    backend.close()
    os.truncate(path, path.stat().st_size - 50 * 4_096)
    with pytest.raises(BackendError, match="is cut short"):
        LmdbBackend(path)


@pytest.mark.process
def test_a_file_that_lacks_only_pages_out_of_use(path: Path) -> None:
    """LMDB leaves trailing pages unwritten that it took and freed in one transaction."""
    seed = itertools.count(1)
    while True:
        backend = LmdbBackend(path)
        chance = random.Random(next(seed))
        for _ in range(600):
            backend.put(Bucket.KEY, b"%d" % chance.randrange(600), b"x" * 1_000)
        backend.commit()
        for _ in range(chance.choice([100, 1_000])):
            backend.delete(Bucket.KEY, b"%d" % chance.randrange(600))
        backend.commit()
        size, rows = backend.size_bytes, backend.range(Bucket.KEY, b"")
        backend.close()
        if path.stat().st_size < size:
            break
    backend = LmdbBackend(path)
    assert backend.range(Bucket.KEY, b"") == rows
    backend.close()


def test_an_empty_file_is_a_new_one(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.touch()
    LmdbBackend(path).close()


def test_a_failed_opening_leaves_nothing_locked(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"foreign" * 10_000)
    with pytest.raises(BackendError):
        LmdbBackend(path)
    path.unlink()
    LmdbBackend(path).close()


def filled(path: Path, rows: int) -> int:
    """Make a backend with a map that is large enough; return the size of its file."""
    backend = LmdbBackend(path)
    for number in range(rows):
        backend.put(Bucket.KEY, b"%06d" % number, b"x" * 1_000)
    backend.close()
    return path.stat().st_size


def write_and_delete(backend: LmdbBackend, rows: int) -> None:
    """Do what a member does that is told to free space: every write copies pages first."""
    for number in range(rows):
        backend.delete(Bucket.KEY, b"%06d" % number)
        if number % 100 == 0:
            backend.put(Bucket.META, b"consistent_index", number.to_bytes(8, "big"))
            backend.commit()


def test_a_file_that_is_larger_than_the_map_asked_for(path: Path) -> None:
    """As after a restart with a smaller quota."""
    size = filled(path, 2_000)
    backend = LmdbBackend(path, map_size_bytes=size // 4)
    write_and_delete(backend, 2_000)
    backend.close()


def test_a_received_file_that_is_larger_than_the_map_asked_for(tmp_path: Path, path: Path) -> None:
    size = filled(tmp_path / "sender" / "db", 2_000)
    backend = LmdbBackend(path, map_size_bytes=size // 4)
    received = path.with_name("received")
    (tmp_path / "sender" / "db").rename(received)
    backend.replace_by(received)
    write_and_delete(backend, 2_000)
    backend.close()
