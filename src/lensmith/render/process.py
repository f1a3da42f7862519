"""Starts and ends one headless Chromium."""

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

from lensmith.core.errors import RenderError
from lensmith.render.devtools import Connection, ConnectionLostError

START_LIMIT_S = 30.0
SANDBOX_HINT = "allow user namespaces (sysctl kernel.apparmor_restrict_unprivileged_userns=0), or the system's Chromium"

PICTURE_FLAGS = (
    "--font-render-hinting=none",
    "--disable-lcd-text",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--lang=en-US",
    # Animated pictures stand still at their first frame.
    "--blink-settings=imageAnimationPolicy=2",
    "--disable-checker-imaging",
)
"""What decides pixels, apart from fonts, window size and scale."""

# Nothing reaches out: the resolver knows no host, and every connection, loopback and literal addresses too, goes
# through a proxy that does not exist.
SEALING_FLAGS = (
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--proxy-server=http://127.0.0.1:1",
    "--proxy-bypass-list=<-loopback>",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-client-side-phishing-detection",
    "--disable-domain-reliability",
    "--disable-breakpad",
    "--no-pings",
)

# RenderDocument would give each navigation a new frame and compositor, which takes twice the time of keeping them.
OFF_FEATURES = ("RenderDocument", "BackForwardCache", "PaintHolding", "Translate", "OptimizationHints", "MediaRouter")

WORKING_FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    f"--disable-features={','.join(OFF_FEATURES)}",
    "--no-first-run",
    "--no-startup-window",
    "--no-default-browser-check",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-background-timer-throttling",
    "--disable-hang-monitor",
    "--disable-notifications",
    "--mute-audio",
    "--password-store=basic",
    "--use-mock-keychain",
    "--js-flags=--max-old-space-size=512",
)


class BrowserProcess:
    """A running browser and the connection to it."""

    def __init__(self, pid: int, folder: Path, connection: Connection) -> None:
        self.pid = pid
        self.connection = connection
        self._folder = folder
        self._ended = False

    @classmethod
    async def start(cls, executable: Path) -> "BrowserProcess":
        """Raises RenderError when the program does not come up as a browser."""
        folder = Path(tempfile.mkdtemp(prefix="lensmith-chromium-"))
        try:
            pid, to_browser, from_browser = _spawn(executable, folder)
        except OSError as error:
            _remove(folder)
            raise RenderError(f"{executable} could not be started", actual=error) from error
        process = cls(pid, folder, await Connection.open(to_browser, from_browser))
        try:
            async with asyncio.timeout(START_LIMIT_S):
                await process.connection.send("Browser.getVersion")
                await process.connection.send("Browser.setDownloadBehavior", {"behavior": "deny"})
        except (ConnectionLostError, TimeoutError) as error:
            last_words = process.last_words()
            process.end()
            raise RenderError(
                f"{executable} did not come up as a browser",
                actual=last_words or "it said nothing",
                hint=SANDBOX_HINT if "sandbox" in last_words.lower() else None,
            ) from error
        except asyncio.CancelledError:
            process.end()
            raise
        return process

    def last_words(self) -> str:
        """The end of what the browser wrote on its standard error."""
        return _log_of(self._folder).read_text(errors="replace")[-2000:].strip()

    def end(self) -> None:
        """Kills the browser with all its renderers and removes its profile. Safe to call twice.

        Blocks for some milliseconds rather than use a thread: at the interpreter's exit there are no new threads.
        """
        if self._ended:
            return
        self._ended = True
        self.connection.close()
        # Not yet waited for, so the number cannot belong to another process by now.
        with contextlib.suppress(ProcessLookupError, PermissionError):  # as some systems say of a dead one
            os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        _remove(self._folder)


def _remove(folder: Path) -> None:
    """Removes a profile, into which processes that are dying at this moment may still write."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.02)


def _log_of(folder: Path) -> Path:
    return folder / "log"


def _arguments(executable: Path, folder: Path) -> list[str]:
    # Chromium refuses its sandbox to root.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    profile = f"--user-data-dir={folder / 'profile'}"
    return [str(executable), *sandbox, *WORKING_FLAGS, *SEALING_FLAGS, *PICTURE_FLAGS, profile]


def _spawn(executable: Path, folder: Path) -> tuple[int, int, int]:
    """Process id, and our ends of the two pipes."""
    browser_reads, we_write = os.pipe()
    we_read, browser_writes = os.pipe()
    # Clear of 3 and 4, which the browser expects to be its ends: dup2 onto itself would leave close-on-exec set.
    theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (browser_reads, browser_writes)]
    os.close(browser_reads)
    os.close(browser_writes)
    try:
        pid = os.posix_spawn(
            executable,
            _arguments(executable, folder),
            {**os.environ, "TZ": "UTC", "LANG": "en_US.UTF-8", "LANGUAGE": "en_US"},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, str(_log_of(folder)), os.O_WRONLY | os.O_CREAT, 0o600),
                (os.POSIX_SPAWN_DUP2, theirs[0], 3),
                (os.POSIX_SPAWN_DUP2, theirs[1], 4),
            ],
            setpgroup=0,  # a Ctrl-C is for us: we then end the browser ourselves
        )
    except OSError:
        os.close(we_write)
        os.close(we_read)
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    return pid, we_write, we_read
