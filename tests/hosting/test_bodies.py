"""Compressed bodies: what comes out is what went in, and never more than the limit."""

import gzip
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.hosting.bodies import BodyError, Coding, coding_of, expand


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


WRITERS = {
    "gzip": (Coding.GZIP, gzip.compress),
    "zlib": (Coding.DEFLATE, zlib.compress),
    "raw": (Coding.DEFLATE, raw_deflate),
    "none": (Coding.IDENTITY, bytes),
}


@pytest.mark.parametrize("name", WRITERS)
@given(data=st.binary(max_size=2000))
def test_a_body_comes_out_as_it_went_in(name, data):
    coding, write = WRITERS[name]
    assert expand(write(data), coding, most_bytes=len(data)) == data


@pytest.mark.parametrize(
    ("headers", "coding"),
    [
        ([], Coding.IDENTITY),
        ([""], Coding.IDENTITY),
        (["identity"], Coding.IDENTITY),
        (["gzip"], Coding.GZIP),
        ([" GZIP "], Coding.GZIP),
        (["x-gzip"], Coding.GZIP),
        (["deflate"], Coding.DEFLATE),
        (["identity, gzip"], Coding.GZIP),
    ],
)
def test_the_coding_of_a_header(headers, coding):
    assert coding_of(headers) is coding


@pytest.mark.parametrize("headers", [["br"], ["zstd"], ["gzip, gzip"], ["gzip", "deflate"], ["compress"], ["gzip;q=1"]])
def test_other_codings_and_several_are_not_read(headers):
    with pytest.raises(BodyError) as caught:
        coding_of(headers)
    assert caught.value.status == 415


@pytest.mark.parametrize("name", ["gzip", "zlib", "raw"])
def test_a_bomb_stops_at_the_limit(name):
    coding, write = WRITERS[name]
    bomb = write(bytes(200_000_000))
    assert len(bomb) < 300_000
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(BodyError) as caught:
        expand(bomb, coding, most_bytes=1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.status == 413
    assert peak < 5_000_000
    assert time.process_time() - start < 1


@pytest.mark.parametrize("name", ["gzip", "zlib", "raw"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data + data,
        lambda data: b"\xff\xff" + data[2:],
    ],
)
def test_a_damaged_body_is_refused(name, damage):
    coding, write = WRITERS[name]
    data = write(b"hello " * 100)
    with pytest.raises(BodyError) as caught:
        expand(damage(data), coding, most_bytes=10_000)
    assert caught.value.status == 400


def test_one_byte_over_the_limit_is_too_much():
    data = gzip.compress(b"x" * 1000)
    assert len(expand(data, Coding.GZIP, most_bytes=1000)) == 1000
    with pytest.raises(BodyError):
        expand(data, Coding.GZIP, most_bytes=999)
