"""Blobs: bodies as files named by their content, and how they are written, read and swept.

Format 2 (the number is the index's), under the store's folder (every folder 0700, every file 0600):

    reserve                  noise: space that is given up when the disk is full (space.py)
    lock                     empty; `flock`ed by whoever writes (lock.py)
    index.sqlite[-wal,-shm]  the index (index.py)
    blobs/ab/ab…32….zst      one blob. The name is the XXH3-128 (seed 0) of the uncompressed bytes
                             as 32 lower-case hex digits, in the folder of its first two. The file
                             is exactly one zstd frame (RFC 8878) whose header declares the content
                             size and has the checksum flag set, with its 4-byte checksum at the
                             end and nothing after it. An empty body is such a frame too.
    tmp/*                    files being written, each `flock`ed by its writer; what nobody holds
                             is left over from a crash and may be removed

Promises:
- A file under its final name is whole: it was written in tmp/ and renamed.
- A file is renamed into place and unlinked only under the write lock. A file that no index row
  names while that lock is free is an orphan (its writer died) and may be removed.
- What `read` returns has the size the index says and the digest the name says; everything else is
  `BlobDamaged`. No more than the size the index says is ever allocated for it.
- Nothing is fsynced: a killed process loses nothing, a power cut may leave a damaged blob, which
  is then seen when it is read, and is a miss.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

import xxhash
import zstandard

from llm_cache.errors import StoreError

SHARDS = 256
_LEVEL = 3

Step = Callable[[str], None]


class BlobDamaged(Exception):
    """The file of a blob is missing, cut short, altered or not what its name says."""


class _Codecs(threading.local):
    """zstd contexts are costly to make and not for several threads at once: one pair each."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(
            level=_LEVEL, write_checksum=True, write_content_size=True
        )
        self.decompressor = zstandard.ZstdDecompressor()


_codecs = _Codecs()


def digest_of(body: bytes) -> str:
    """Return the name of a body: its XXH3-128 as 32 hex digits."""
    return xxhash.xxh3_128_hexdigest(body)


def encode(body: bytes) -> bytes:
    """Return the bytes a blob file holds for `body`."""
    return _codecs.compressor.compress(body)


def decode(raw: bytes, digest: str, size: int) -> bytes:
    """Return the body in the bytes of a blob file.

    `digest` and `size` are the body's, from the index. Raises BlobDamaged unless `raw` is exactly
    one frame of that size, with a checksum, of that digest.
    """
    try:
        frame = zstandard.get_frame_parameters(raw)
        # The declared size is what gets allocated, whatever max_output_size says: compare first.
        if frame.content_size != size:
            raise BlobDamaged(f"it declares {frame.content_size} bytes instead of {size}")
        if not frame.has_checksum:
            raise BlobDamaged("its frame has no checksum")
        body = _codecs.decompressor.decompress(raw, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise BlobDamaged(str(error)) from None
    if len(body) != size:
        raise BlobDamaged(f"it holds {len(body)} bytes instead of {size}")
    found = digest_of(body)
    if found != digest:
        raise BlobDamaged(f"its content has the digest {found}")
    return body


class BlobDraft:
    """A body on its way into the store: either its blob was there already, or it is in tmp/.

    `temp` is the path of the file in tmp/, None when a good blob was found in place. The open file
    holds a lock that tells a sweep the writer lives; `close` gives it up and removes the file if
    it is still there. Closing twice is fine; it raises OSError.
    """

    __slots__ = ("_fd", "body", "digest", "disk_size", "temp")

    def __init__(self, body: bytes, digest: str, disk_size: int, temp: Path | None, fd: int):
        self.body = body
        self.digest = digest
        self.disk_size = disk_size
        self.temp = temp
        self._fd = fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self.temp is not None:
            self.temp.unlink(missing_ok=True)
            self.temp = None


class Blobs:
    """The blob files of one store. Raises OSError; only `read` and `decode` raise BlobDamaged."""

    def __init__(self, root: Path, step: Step) -> None:
        self._blobs = root / "blobs"
        self._tmp = root / "tmp"
        self._root = root
        self._step = step

    def lay_out(self) -> None:
        """Make the folders that are missing, and make all of them private."""
        for folder in (self._root, self._blobs, self._tmp):
            folder.mkdir(mode=0o700, parents=folder is self._root, exist_ok=True)
            folder.chmod(0o700)

    def path(self, digest: str) -> Path:
        """Return where the blob of that digest is or would be."""
        return self._blobs / digest[:2] / f"{digest}.zst"

    def read(self, digest: str, size: int, disk_size: int) -> bytes:
        """Return a body. Sizes are the index's; raises BlobDamaged when the file isn't that."""
        try:
            with self.path(digest).open("rb", buffering=0) as file:
                found = os.fstat(file.fileno()).st_size
                if found != disk_size:
                    raise BlobDamaged(f"its file has {found} bytes instead of {disk_size}")
                raw = file.read()
        except (FileNotFoundError, NotADirectoryError):
            raise BlobDamaged("its file is missing") from None
        except IsADirectoryError:
            raise BlobDamaged("its file is a folder") from None
        return decode(raw, digest, size)

    def draft(self, body: bytes) -> BlobDraft:
        """Write `body` to tmp/, unless a good blob of it is in place already.

        The blob in place is compared with `body` byte by byte: the digest isn't a cryptographic
        one, and two bodies of one name must not stand for each other (StoreError).
        """
        digest = digest_of(body)
        path = self.path(digest)
        try:
            disk_size = path.stat().st_size
            there = self.read(digest, len(body), disk_size)
        except (FileNotFoundError, NotADirectoryError, BlobDamaged):
            return self._write(body, digest)
        if there != body:
            raise StoreError(f"{path} is another body of the same digest: not stored")
        return BlobDraft(body, digest, disk_size, None, -1)

    def _write(self, body: bytes, digest: str) -> BlobDraft:
        raw = encode(body)
        temp = self._tmp / f"{digest}.{token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            fd = os.open(temp, flags, 0o600)
        except FileNotFoundError:
            self.lay_out()
            fd = os.open(temp, flags, 0o600)
        draft = BlobDraft(body, digest, len(raw), temp, fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)  # waits for nobody but a sweep that just looks at it
            os.fchmod(fd, 0o600)
            self._step("draft-created")
            half = len(raw) // 2
            _write_all(fd, raw[:half])
            self._step("draft-half-written")
            _write_all(fd, raw[half:])
            self._step("draft-written")
        except BaseException:
            draft.close()
            raise
        return draft

    def place(self, draft: BlobDraft) -> int:
        """Bring a draft's blob to its final name and return its size on disk.

        Only under the write lock. A blob that was in place when the draft was made, and a file in
        tmp/, may both be gone by now: then it is written again.
        """
        path = self.path(draft.digest)
        if draft.temp is None:
            try:
                return path.stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                pass
        elif self._moved(draft.temp, path):
            draft.temp = None
            return draft.disk_size
        again = self._write(draft.body, draft.digest)
        try:
            if again.temp is None or not self._moved(again.temp, path):
                raise StoreError(f"{path}: can't be put in place")
            again.temp = None
            return again.disk_size
        finally:
            again.close()

    def _moved(self, temp: Path, path: Path) -> bool:
        for _ in range(2):
            try:
                temp.rename(path)
            except FileNotFoundError:
                if not temp.exists():
                    return False
                self._blobs.mkdir(mode=0o700, exist_ok=True)
                path.parent.mkdir(mode=0o700, exist_ok=True)
                path.parent.chmod(0o700)
            except IsADirectoryError:
                shutil.rmtree(path)
            except NotADirectoryError:  # a file in place of the folder: nobody's, and in the way
                path.parent.unlink()
                path.parent.mkdir(mode=0o700)
                path.parent.chmod(0o700)
            else:
                return True
        return False

    def unlink(self, digest: str) -> None:
        """Remove a blob's file, if it is there. Only under the write lock."""
        path = self.path(digest)
        try:
            path.unlink(missing_ok=True)
        except NotADirectoryError:
            return  # a file in place of its folder: there is no such blob
        except (IsADirectoryError, PermissionError):
            # unlink(2) of a folder is EISDIR on Linux and EPERM on macOS.
            if not path.is_dir():
                raise
            shutil.rmtree(path)

    def set_all_aside(self) -> Path | None:
        """Move every blob out of the way in one rename; return where to, for `discard`.

        Only under the write lock.
        """
        away = self._tmp / f"cleared.{token_hex(8)}"
        try:
            self._blobs.rename(away)
        except FileNotFoundError:
            return None
        finally:
            try:
                self.lay_out()
            except OSError:  # no space for a folder, which there is when the blobs are gone
                self.discard(away)
                self.lay_out()
        return away

    def discard(self, away: Path) -> None:
        """Remove what `set_all_aside` moved away. Needs no lock."""
        shutil.rmtree(away, ignore_errors=True)

    def shard(self, number: int) -> list[str]:
        """Return the digests of the blob files in one of the `SHARDS` folders."""
        try:
            names = os.listdir(self._blobs / f"{number:02x}")  # noqa: PTH208 (names only)
        except (FileNotFoundError, NotADirectoryError):
            return []
        prefix = f"{number:02x}"
        return [
            name[:32]
            for name in names
            if len(name) == 36 and name.endswith(".zst") and name.startswith(prefix)
        ]

    def oldest_first(self, number: int) -> list[tuple[str, int]]:
        """Return digests and sizes on disk of one of the `SHARDS` folders by time of writing."""
        found = []
        for digest in self.shard(number):
            with suppress(OSError):
                stat = self.path(digest).stat()
                found.append((stat.st_mtime, digest, stat.st_size))
        return [(digest, size) for _, digest, size in sorted(found)]

    def sweep_drafts(self) -> int:
        """Remove what dead writers left in tmp/; return how many files that were.

        Safe at any time: a living writer's file is locked, and one caught between its creation and
        its lock is written again by `place`.
        """
        swept = 0
        try:
            leftovers = list(self._tmp.iterdir())
        except FileNotFoundError:
            return 0
        for path in leftovers:
            if path.is_dir():
                self.discard(path)
                swept += 1
                continue
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
                swept += 1
            except BlockingIOError:
                pass
            finally:
                os.close(fd)
        return swept


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
