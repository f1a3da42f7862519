"""A file is written whole or not at all, what is no file is written into, and hashes are those other tools compute."""

import errno
import os
import resource
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lensmith.core.errors import InputError
from lensmith.core.files import (
    is_stream,
    open_input,
    open_output,
    own_descriptor,
    sha256_of_bytes,
    sha256_of_file,
    write_atomic,
)

# printf 'abc' | sha256sum
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_hash_of_bytes_and_of_a_file_larger_than_one_read(tmp_path):
    assert sha256_of_bytes(b"abc") == ABC
    path = tmp_path / "big"
    path.write_bytes(b"x" * ((1 << 20) + 1))
    assert sha256_of_file(path) == sha256_of_bytes(path.read_bytes())


def test_write_makes_folders_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_atomic(path, "grün")
    write_atomic(path, b"blue")
    assert path.read_bytes() == b"blue"
    assert [entry.name for entry in path.parent.iterdir()] == ["b.txt"]


def test_others_may_read_the_file_as_usual(tmp_path):
    old = os.umask(0o022)
    try:
        write_atomic(tmp_path / "x", "")
    finally:
        os.umask(old)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_leaves_no_temporary_file(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(OSError):
        write_atomic(target, "a folder stands here")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


# --- what is there already ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("relative", [True, False])
def test_a_link_keeps_pointing_and_what_it_points_at_is_written(tmp_path, relative):
    real, link, second = tmp_path / "real" / "page.html", tmp_path / "link", tmp_path / "second"
    real.parent.mkdir()
    real.write_text("old")
    link.symlink_to("real/page.html" if relative else real)
    second.symlink_to(link)
    write_atomic(second, "new")
    assert real.read_text() == "new"
    assert link.is_symlink() and second.is_symlink() and not real.is_symlink()
    assert [entry.name for entry in real.parent.iterdir()] == ["page.html"]


def test_a_link_to_nothing_makes_what_it_points_at(tmp_path):
    (tmp_path / "link").symlink_to("later")
    write_atomic(tmp_path / "link", "x")
    assert (tmp_path / "later").read_text() == "x"
    assert (tmp_path / "link").is_symlink()


def test_a_link_to_itself_is_named(tmp_path):
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(OSError, match="link") as caught:
        write_atomic(tmp_path / "link", "x")
    assert caught.value.errno == errno.ELOOP


def test_the_mode_and_the_owner_of_a_file_are_kept(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 1234, 1235)
    before = path.stat()
    write_atomic(path, "new")
    after = path.stat()
    assert path.read_text() == "new"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_a_long_name_is_no_longer_than_it_may_be(tmp_path):
    name = "n" * 250
    write_atomic(tmp_path / name, "x")
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


# --- what is no file ------------------------------------------------------------------------------------------------


def test_a_pipe_is_written_into(tmp_path):
    pipe, heard = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: heard.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_atomic(pipe, b"x" * 200_000)
    reader.join(timeout=10)
    assert heard == [b"x" * 200_000]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("name", ["/dev/fd/1", "/proc/self/fd/1", "link"])
def test_the_processs_own_stream_is_written_into_where_it_stands(tmp_path, name):
    (tmp_path / "link").symlink_to("/dev/stdout")
    program = f"""
import sys
from lensmith.core.files import write_atomic
print("before")
write_atomic({name!r}, "page\\n")
print("after")
"""
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", program], stdout=out, check=True, cwd=tmp_path)
    assert (tmp_path / "out").read_text() == "before\npage\nafter\n"
    assert Path("/dev/stdout").is_symlink()
    assert (tmp_path / "link").is_symlink()


def test_a_socket_on_standard_input_is_read():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"hello")
        ours.shutdown(socket.SHUT_WR)
        program = (
            "import sys; from lensmith.core.files import *; sys.stdout.buffer.write(open_input('/dev/stdin').read())"
        )
        done = subprocess.run([sys.executable, "-c", program], stdin=theirs, capture_output=True, check=True)
    assert done.stdout == b"hello"


def test_streams_are_told_from_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    streams = {"/dev/stdout", "/dev/stderr", "/dev/fd/7", "/dev/null", str(tmp_path / "pipe")}
    files = {"-", "stdout", "1", str(tmp_path / "file"), str(tmp_path), str(tmp_path / "new"), "/dev/fd", "/dev/fd/x"}
    assert {path for path in streams | files if is_stream(path)} == streams
    assert [own_descriptor(path) for path in ("/dev/stdin", "/dev/fd/7", "/dev/null", "1")] == [0, 7, None, None]


def test_a_socket_is_refused(tmp_path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        with pytest.raises(InputError, match="a socket"):
            write_atomic(tmp_path / "s", "x")
    assert stat.S_ISSOCK((tmp_path / "s").stat().st_mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
@pytest.mark.parametrize(
    ("kind", "number"), [(stat.S_IFBLK, (7, 250)), (stat.S_IFCHR, (1, 11)), (stat.S_IFCHR, (10, 235))]
)
def test_a_device_of_the_machine_is_refused_untouched(tmp_path, kind, number):
    device = tmp_path / "device"
    os.mknod(device, kind | 0o600, os.makedev(*number))
    before = device.stat()
    with pytest.raises(InputError, match="device"):
        write_atomic(device, "x")
    assert (device.stat().st_mode, device.stat().st_rdev) == (before.st_mode, before.st_rdev)


def device_like(name, folder):
    """The device; where root runs the tests, a twin in `folder`, since a mistake would replace the machine's own."""
    if os.geteuid() != 0:
        return Path(name)
    twin = folder / Path(name).name
    os.mknod(twin, stat.S_IFCHR | 0o666, Path(name).stat().st_rdev)
    return twin


def test_a_device_that_swallows_is_written_into(tmp_path):
    device = device_like("/dev/null", tmp_path)
    write_atomic(device, "x")
    assert stat.S_ISCHR(device.stat().st_mode)


# --- what fails says where ------------------------------------------------------------------------------------------


def test_a_full_disk_names_the_file(tmp_path):
    device = device_like("/dev/full", tmp_path)
    with pytest.raises(OSError, match=str(device)) as caught:
        write_atomic(device, b"x" * 100_000)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(device))


def test_a_disk_that_takes_no_more_names_the_file_and_keeps_the_old_one(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match=str(path)) as caught:
            write_atomic(path, b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_a_stream_that_is_not_open_is_named():
    with pytest.raises(OSError, match="/dev/fd/987"):
        write_atomic("/dev/fd/987", "x")


def test_an_error_about_another_file_stays_about_that_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere"), open_output(tmp_path / "x"):
        open_input(tmp_path / "elsewhere")
    assert list(tmp_path.iterdir()) == []
