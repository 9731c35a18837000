"""What only a backend on a disk can do, or suffer."""

import asyncio
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from etcd_pinwheel.server_stub.mvcc.backend import Bucket
from etcd_pinwheel.server_stub.storage import backend as backend_module
from etcd_pinwheel.server_stub.storage.backend import BackendError, LmdbBackend, map_size_for

KEY = Bucket.KEY


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "member" / "snap" / "db"


@pytest.fixture
def backend(path: Path) -> Iterator[LmdbBackend]:
    opened = LmdbBackend(path)
    yield opened
    opened.close()


def fill(backend: LmdbBackend, first: int, last: int, size: int = 1_000) -> None:
    for number in range(first, last):
        backend.put(KEY, b"%06d" % number, b"x" * size)


def run_child(code: str, path: Path, status: int = 0) -> None:
    """Run `code` with `backend` open on `path`, in a process of its own."""
    lines = (
        "import os, sys, resource",
        "from pathlib import Path",
        "from etcd_pinwheel.server_stub.mvcc.backend import Bucket",
        "from etcd_pinwheel.server_stub.storage.backend import *",
        "backend = LmdbBackend(Path(sys.argv[1]))",
        code,
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines), str(path)], timeout=60)
    assert done.returncode == status


class TestDurability:
    @pytest.mark.process
    def test_a_killed_process_keeps_what_was_committed(self, path: Path) -> None:
        """And of the rest, nothing: batches are there wholly or not at all."""
        code = """
for number in range(100):
    backend.put(Bucket.KEY, b"%03d" % number, b"x")
backend.commit()
backend.put(Bucket.KEY, b"lost", b"x")
backend.delete(Bucket.KEY, b"000")
os._exit(7)
"""
        run_child(code, path, 7)
        backend = LmdbBackend(path)
        assert [key for key, _ in backend.range(KEY, b"")] == [b"%03d" % n for n in range(100)]
        backend.close()

    def test_closing_commits(self, path: Path) -> None:
        backend = LmdbBackend(path)
        fill(backend, 0, 3)
        backend.close()
        backend.close()
        again = LmdbBackend(path)
        assert len(again.range(KEY, b"")) == 3
        again.close()

    def test_each_batch_goes_to_disk_whole(self, path: Path, backend: LmdbBackend) -> None:
        """What one callback of the loop writes is in one batch, however much it is."""

        async def main() -> None:
            small = LmdbBackend(path.with_name("small") / "db", batch_interval_s=0, batch_limit=3)
            small.start()
            seen: list[int] = []
            write = small._file.write

            def recording(batch: dict[Bucket, dict[bytes, bytes | None]]) -> None:
                seen.append(len(batch[KEY]))
                write(batch)

            small._file.write = recording  # type: ignore[method-assign]
            for turn in range(5):
                for number in range(7):
                    small.put(KEY, b"%d-%d" % (turn, number), b"")
                await asyncio.sleep(0)
            await small.commit_async()
            assert all(count % 7 == 0 for count in seen)
            assert sum(seen) == 35
            small.close()

        asyncio.run(main())


def watch_hand_overs(backend: LmdbBackend) -> asyncio.Event:
    """Return an event that is set when the backend gave a batch to its writer by itself."""
    happened = asyncio.Event()
    hand_over = backend.hand_over

    def watched() -> None:
        hand_over()
        happened.set()

    backend.hand_over = watched  # type: ignore[method-assign]
    return happened


class TestStarted:
    async def test_it_commits_by_itself(self, path: Path) -> None:
        backend = LmdbBackend(path, batch_interval_s=0.001)
        handed_over = watch_hand_overs(backend)
        backend.put(KEY, b"before", b"1")
        backend.start()
        for key in (b"before", b"after"):
            backend.put(KEY, key, b"1")
            await handed_over.wait()
            handed_over.clear()
            backend._settle()
            assert backend._file.get(KEY, key) == b"1"
        backend.close()

    async def test_a_full_batch_does_not_wait_for_the_timer(self, path: Path) -> None:
        backend = LmdbBackend(path, batch_interval_s=3_600, batch_limit=10)
        handed_over = watch_hand_overs(backend)
        backend.start()
        fill(backend, 0, 9)
        await asyncio.sleep(0)
        assert not handed_over.is_set()
        fill(backend, 9, 10)
        await handed_over.wait()
        backend.close()

    async def test_a_slow_disk_holds_the_loop_back(self, path: Path) -> None:
        """The buffer is at most two batches, and what one callback adds."""
        backend = LmdbBackend(path, batch_interval_s=0, batch_limit=10)
        backend.start()
        most = 0
        for number in range(2_000):
            backend.put(KEY, b"%06d" % number, b"x")
            most = max(most, backend._writes)
            await asyncio.sleep(0)
        assert most <= 21
        backend.close()

    async def test_concurrent_commits(self, backend: LmdbBackend) -> None:
        backend.start()

        async def one(number: int) -> None:
            backend.put(KEY, b"%06d" % number, b"x")
            await backend.commit_async()
            backend._settle()
            assert backend._file.get(KEY, b"%06d" % number) == b"x"

        await asyncio.gather(*map(one, range(50)))


class TestFailures:
    def test_a_full_map_is_kept_and_raised(self, path: Path) -> None:
        backend = LmdbBackend(path, map_size_bytes=40 * 4096)
        fill(backend, 0, 20)
        backend.commit()
        fill(backend, 20, 200)
        with pytest.raises(BackendError, match="the map of 163840 bytes is full") as caught:
            backend.commit()
        assert caught.value.path == path
        with pytest.raises(BackendError):
            backend.put(KEY, b"more", b"")
        with pytest.raises(BackendError):
            backend.delete(KEY, b"000000")
        assert backend.get(KEY, b"000199") == b"x" * 1_000
        assert len(backend.range(KEY, b"")) == 200
        with pytest.raises(BackendError):
            backend.commit()
        with pytest.raises(BackendError):
            backend.close()
        larger = LmdbBackend(path)
        assert len(larger.range(KEY, b"")) == 20
        larger.close()

    async def test_the_next_write_tells_of_a_failure_behind(self, path: Path) -> None:
        backend = LmdbBackend(path, map_size_bytes=40 * 4096, batch_limit=50)
        handed_over = watch_hand_overs(backend)
        backend.start()
        fill(backend, 0, 50, size=10_000)
        await handed_over.wait()
        await backend._written()
        with pytest.raises(BackendError, match="full"):
            backend.put(KEY, b"000000", b"")
        with pytest.raises(BackendError):
            await backend.commit_async()
        assert len(backend.range(KEY, b"")) == 50
        with pytest.raises(BackendError):
            backend.close()

    @pytest.mark.process
    def test_a_full_disk_is_survived(self, path: Path) -> None:
        """The commit fails; with room again, the same backend commits what it kept."""
        code = """
backend.put(Bucket.KEY, b"0", b"x")
backend.commit()
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (50 * 4096, hard))
for number in range(1, 300):
    backend.put(Bucket.KEY, b"%d" % number, b"x" * 1000)
try:
    backend.commit()
except BackendError as error:
    assert "cannot be written" in str(error), error
else:
    raise AssertionError("nothing was raised")
assert backend.get(Bucket.KEY, b"299")
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
backend.commit()
backend.close()
"""
        run_child(code, path)
        backend = LmdbBackend(path)
        assert len(backend.range(KEY, b"")) == 300
        backend.close()


class TestCopies:
    def test_a_snapshot_opens_as_a_backend(self, path: Path, backend: LmdbBackend) -> None:
        fill(backend, 0, 300)
        backend.commit()
        fill(backend, 300, 310)
        copy = backend.snapshot(path.parent)
        assert copy.stat().st_size % 512 == 0
        (restored := path.parent.parent / "restored").mkdir()
        copy.rename(restored / "db")
        opened = LmdbBackend(restored / "db")
        assert opened.range(KEY, b"") == backend.range(KEY, b"", b"000300")
        opened.close()

    def test_a_snapshot_that_finds_no_place(self, path: Path, backend: LmdbBackend) -> None:
        missing = path.parent / "missing"
        with pytest.raises(BackendError, match=f"cannot be copied to {missing}"):
            backend.snapshot(missing)

    def test_defragmenting_gives_pages_back(self, path: Path, backend: LmdbBackend) -> None:
        fill(backend, 0, 2_000)
        backend.commit()
        for number in range(1_900):
            backend.delete(KEY, b"%06d" % number)
        backend.commit()
        rows = backend.range(KEY, b"")
        before = backend.size_bytes
        assert before > 5 * backend.size_in_use_bytes
        backend.defragment()
        assert backend.size_bytes < before / 5
        assert path.stat().st_size < before / 5
        assert backend.range(KEY, b"") == rows
        fill(backend, 5_000, 5_010)
        backend.commit()
        assert len(backend.range(KEY, b"")) == 110
        assert sorted(entry.name for entry in path.parent.iterdir()) == ["db", "db-lock"]

    def test_a_defragmentation_that_fails_changes_nothing(
        self, path: Path, backend: LmdbBackend
    ) -> None:
        fill(backend, 0, 1_000)
        backend.commit()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50 * 4_096, hard))
        try:
            with pytest.raises(BackendError, match="cannot be defragmented"):
                backend.defragment()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert len(backend.range(KEY, b"")) == 1_000
        assert sorted(entry.name for entry in path.parent.iterdir()) == ["db", "db-lock"]

    def test_what_a_crash_left_of_them_is_removed(self, path: Path) -> None:
        path.parent.mkdir(parents=True)
        for name in ("db.defragmented", "x.snap.db.tmp"):
            path.with_name(name).write_bytes(b"half a copy")
        LmdbBackend(path).close()
        assert sorted(entry.name for entry in path.parent.iterdir()) == ["db", "db-lock"]


def test_appended_keys_fill_their_pages(backend: LmdbBackend) -> None:
    """Revisions ascend; half-filled pages would double the file."""
    fill(backend, 0, 10_000, size=100)
    backend.commit()
    fill(backend, 10_000, 20_000, size=100)
    backend.commit()
    assert backend.size_in_use_bytes < 20_000 * 125 * 1.1


class TestScans:
    def test_do_not_keep_the_file_in_memory(
        self, path: Path, backend: LmdbBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(backend_module, "_SCANNED_BYTES", 4_000_000)
        fill(backend, 0, 20_000)
        backend.commit()
        start = b""
        while rows := backend.range(KEY, start, None, 1_000):
            start = rows[-1][0] + b"\0"
            assert mapped_bytes(path) < 8_000_000
        assert start == b"019999\0"
        assert backend.size_bytes > 20_000_000

    def test_go_on_while_batches_are_committed(
        self, backend: LmdbBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(backend_module, "_SCANNED_BYTES", 1)
        for number in range(0, 20_000, 1_000):
            fill(backend, number, number + 1_000, size=10)
            backend.hand_over()
            assert len(backend.range(KEY, b"")) == number + 1_000
            assert backend.get(KEY, b"%06d" % number) is not None


def mapped_bytes(path: Path) -> int:
    """Return how much of the file's map is resident in this process."""
    resident, counts = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0]:
            counts = words[-1] == str(path)
        elif words[0] == "Rss:" and counts:
            resident += int(words[1]) * 1_024
    return resident


def test_map_leaves_headroom_over_the_quota() -> None:
    assert map_size_for(2**31) >= 2 * 2**31
    assert map_size_for(-1) >= 2**39


def test_the_interpreter_ends_before_the_backend(backend: LmdbBackend) -> None:
    """Then it takes the writer's thread first, and a loop's timer may still find writes."""
    backend.put(Bucket.KEY, b"k", b"v")
    backend._writer.shutdown()
    backend.hand_over()
    with pytest.raises(BackendError, match="commits no more: cannot schedule"):
        backend.put(Bucket.KEY, b"l", b"v")
    assert backend.get(Bucket.KEY, b"k") == b"v"
    backend.abandon()
