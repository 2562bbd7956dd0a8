"""Blobs that are missing, cut, altered, swapped or grown, and files nobody needs."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import zstandard

from llm_cache.errors import StoreError
from llm_cache.store import Limits
from llm_cache.store.local import blobs
from llm_cache.store.local.blobs import BlobDamaged, decode, digest_of, encode

KEY, OTHER = b"k" * 32, b"o" * 32
BODY = bytes((i * i * 7 + i // 3) % 256 for i in range(300)) + b"tail " * 40


def test_every_flipped_bit_of_a_blob_is_seen() -> None:
    body = b'{"id":"msg_1","content":[{"type":"text","text":"tea?"}]}'
    raw = encode(body)
    assert decode(raw, digest_of(body), len(body)) == body
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            got = decode(bytes(flipped), digest_of(body), len(body))
        except BlobDamaged:
            continue
        assert got == body  # a header bit that means nothing: the bytes are right all the same


def test_every_cut_of_a_blob_is_seen() -> None:
    raw = encode(BODY)
    for length in range(len(raw)):
        with pytest.raises(BlobDamaged):
            decode(raw[:length], digest_of(BODY), len(BODY))


@pytest.mark.parametrize("more", [b"\0", b"x" * 9, encode(b""), encode(BODY)])
def test_bytes_after_the_frame_are_seen(more: bytes) -> None:
    with pytest.raises(BlobDamaged):
        decode(encode(BODY) + more, digest_of(BODY), len(BODY))


def test_a_frame_that_declares_more_than_the_index_says_is_not_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bomb = encode(bytes(64 << 20))

    class Unpacks:
        @property
        def decompressor(self) -> object:
            raise AssertionError("unpacked")

    monkeypatch.setattr(blobs, "_codecs", Unpacks())
    with pytest.raises(BlobDamaged, match="declares"):
        decode(bomb, digest_of(b""), 5)


@pytest.mark.parametrize("options", [{"write_checksum": False}, {"write_content_size": False}])
def test_a_frame_without_checksum_or_size_is_refused(options: dict[str, bool]) -> None:
    compressor = zstandard.ZstdCompressor(**{"write_checksum": True, **options})
    with pytest.raises(BlobDamaged):
        decode(compressor.compress(BODY), digest_of(BODY), len(BODY))


def damage(kind: str, path: Path, other: Path) -> None:
    raw = path.read_bytes()
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        path.write_bytes(raw[:-3])
    elif kind == "flipped":
        path.write_bytes(raw[:20] + bytes([raw[20] ^ 4]) + raw[21:])
    elif kind == "grown":
        path.write_bytes(raw + b"\0")
    elif kind == "swapped":
        path.write_bytes(other.read_bytes())
    elif kind == "plain":
        path.write_bytes(b"p" * len(raw))
    else:
        path.unlink()
        path.mkdir()


KINDS = ["missing", "empty", "cut", "flipped", "grown", "swapped", "plain", "folder"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_blob_is_a_miss_dropped_and_logged(
    opened: Any, log: list[str], kind: str, tmp_path: Path
) -> None:
    store = opened()
    entry = store.put([KEY, b"n"], b"", BODY)
    other = store.put([OTHER], b"", BODY[::-1])
    place = store.path / "blobs"
    paths = [place / e.digest[:2] / f"{e.digest}.zst" for e in (entry, other)]
    damage(kind, *paths)
    assert store.get(KEY) is None
    assert entry.digest in log[-1]
    assert store.totals().entries == 1
    assert store.get(OTHER).body == BODY[::-1]
    assert store.find("", 9) == [(OTHER.hex(), store.find("", 9)[0][1])]
    assert store.integrity() == []
    store.put([KEY], b"", BODY)
    assert store.get(KEY).body == BODY
    assert store.integrity() == []


@pytest.mark.parametrize("kind", KINDS)
def test_storing_the_body_again_heals_its_blob(opened: Any, kind: str) -> None:
    store = opened()
    entry = store.put([KEY], b"", BODY)
    other = store.put([OTHER], b"", BODY[::-1])
    paths = [store._blobs.path(e.digest) for e in (entry, other)]
    damage(kind, *paths)
    store.put([b"third"], b"", BODY)
    assert store.get(b"third").body == store.get(KEY).body == BODY
    assert store.integrity() == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_request_body_leaves_the_answer(opened: Any, log: list[str], kind: str) -> None:
    store = opened()
    entry = store.put([KEY], b"", BODY, request=b"asked " * 9)
    damage(kind, store._blobs.path(entry.request_digest), store._blobs.path(entry.digest))
    assert store.request_body(entry) is None
    assert entry.request_digest in log[-1]
    assert store.get(KEY).entry.request_digest is None
    assert store.get(KEY).body == BODY
    assert store.integrity() == []


def test_two_bodies_of_one_digest_never_stand_for_each_other(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()
    monkeypatch.setattr(blobs, "digest_of", lambda body: "ab" * 16)
    store.put([KEY], b"", b"one")
    for body in (b"two", b"longer"):
        with pytest.raises(StoreError):
            store.put([OTHER], b"", body)
    assert store.get(OTHER) is None
    assert store.get(KEY).body == b"one"


def test_orphans_are_swept_and_what_is_needed_stays(opened: Any) -> None:
    store = opened()
    store.put([KEY], b"", BODY, request=b"asked")
    rng = random.Random(7)
    for _ in range(40):
        digest = f"{rng.getrandbits(128):032x}"
        path = store._blobs.path(digest)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"left by a crash")
    (store.path / "tmp" / "half.written").write_bytes(b"left by a crash")
    assert len(store.integrity()) == 40
    assert store.sweep() == 41
    assert store.integrity() == []
    assert list((store.path / "tmp").iterdir()) == []
    assert store.get(KEY).body == BODY


def test_flush_sweeps_orphans_in_the_end(opened: Any) -> None:
    opened().close()
    store = opened()
    orphans = [store._blobs.path(f"{number:02x}" * 16) for number in range(256)]
    for path in orphans:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"left by a crash")
    store.close()
    store = opened()
    for _ in range(200):
        store.flush()
    assert not any(path.exists() for path in orphans)


def test_a_draft_of_a_living_writer_is_not_swept(opened: Any) -> None:
    one, two = opened(), opened()
    draft = one._blobs.draft(b"on its way")
    assert two.sweep() == 0
    assert draft.temp.exists()
    draft.close()
    assert not list((one.path / "tmp").iterdir())


def test_a_file_in_place_of_a_folder_of_blobs_costs_what_was_in_it_and_no_more(opened: Any) -> None:
    store = opened()
    entry = store.put([KEY], b"", BODY, request=b"asked")
    for digest in (entry.digest, entry.request_digest):
        shard = store.path / "blobs" / digest[:2]
        shutil.rmtree(shard)
        shard.write_text("a file")
    assert store.request_body(entry) is None
    assert store.get(KEY) is None
    store.flush()
    store.put([KEY], b"", BODY, request=b"asked")
    stored = store.get(KEY)
    assert stored.body == BODY
    assert store.request_body(stored.entry) == b"asked"
    assert store.delete(KEY)
    assert store.integrity() == []


def test_a_draft_that_vanished_is_written_again(opened: Any) -> None:
    def vanish(name: str) -> None:
        if name == "draft-written" and not gone:
            for path in (store.path / "tmp").iterdir():
                gone.append(path)
                path.unlink()

    gone: list[Path] = []
    store = opened(step=vanish)
    store.put([KEY], b"", BODY)
    assert gone
    assert store.get(KEY).body == BODY


def test_a_draft_that_was_put_given_up_or_refused_leaves_no_file(opened: Any) -> None:
    store = opened(Limits(max_bytes=1_000))
    drafts = [store.draft(b"%d" % number) for number in range(3)]
    store.put([KEY], b"", BODY, request=drafts[0])
    with pytest.raises(StoreError, match="larger than the whole store"):
        store.put([OTHER], b"", random.Random(1).randbytes(5_000), request=drafts[1])
    drafts[2].close()
    assert list((store.path / "tmp").iterdir()) == []
