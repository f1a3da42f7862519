"""Starts and ends one headless Chromium."""

import asyncio
import fcntl
import os
import shutil
import signal
import tempfile
from pathlib import Path

from lensmith.core.errors import RenderError
from lensmith.render.devtools import Connection, ConnectionLostError

START_LIMIT_S = 30.0
END_LIMIT_S = 3.0

# Everything that decides pixels is fixed here or in tab.py: hinting, subpixel text, colour profile, scroll bars,
# locale, time zone. Everything that reaches out is off: the resolver knows no host, and every connection, loopback
# and literal addresses too, goes through a proxy that does not exist.
FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-breakpad",
    "--disable-crash-reporter",
    "--disable-client-side-phishing-detection",
    "--disable-domain-reliability",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-background-timer-throttling",
    "--disable-back-forward-cache",
    "--disable-hang-monitor",
    "--disable-ipc-flooding-protection",
    "--disable-notifications",
    "--disable-prompt-on-repost",
    "--disable-popup-blocking",
    "--disable-features=Translate,MediaRouter,OptimizationHints,AcceptCHFrame,PaintHolding,HttpsUpgrades",
    "--metrics-recording-only",
    "--mute-audio",
    "--no-pings",
    "--no-service-autorun",
    "--password-store=basic",
    "--use-mock-keychain",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--proxy-server=http://127.0.0.1:1",
    "--proxy-bypass-list=<-loopback>",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--hide-scrollbars",
    "--font-render-hinting=none",
    "--disable-lcd-text",
    "--disable-font-subpixel-positioning",
    "--disable-checker-imaging",
    "--force-color-profile=srgb",
    "--lang=en-US",
    "--js-flags=--max-old-space-size=512",
)


class BrowserProcess:
    """A running browser and the connection to it."""

    def __init__(self, pid: int, folder: Path, connection: Connection) -> None:
        self.pid = pid
        self.connection = connection
        self._folder = folder

    @classmethod
    async def start(cls, executable: Path) -> "BrowserProcess":
        """Raises RenderError when the program does not come up as a browser."""
        folder = Path(tempfile.mkdtemp(prefix="lensmith-chromium-"))
        log = folder / "log"
        try:
            pid, to_browser, from_browser = _spawn(executable, folder, log)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise RenderError(f"{executable} could not be started", actual=error) from error
        process = cls(pid, folder, await Connection.open(to_browser, from_browser))
        try:
            async with asyncio.timeout(START_LIMIT_S):
                await process.connection.call("Browser.getVersion")
                await process.connection.call("Browser.setDownloadBehavior", {"behavior": "deny"})
        except (ConnectionLostError, TimeoutError) as error:
            last_words = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            await process.end()
            raise RenderError(f"{executable} did not come up as a browser", actual=last_words.strip()) from error
        return process

    async def end(self) -> None:
        """Kills the browser with all its renderers and removes its profile. Safe to call twice."""
        self.connection.close()
        _kill_group(self.pid)
        await asyncio.to_thread(_reap, self.pid)
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)


def _spawn(executable: Path, folder: Path, log: Path) -> tuple[int, int, int]:
    """Process id, and our ends of the two pipes."""
    browser_reads, we_write = os.pipe()
    we_read, browser_writes = os.pipe()
    # Clear of 3 and 4, which the browser expects to be its ends: dup2 onto itself would leave close-on-exec set.
    theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (browser_reads, browser_writes)]
    os.close(browser_reads)
    os.close(browser_writes)
    arguments = [str(executable), *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
    if os.geteuid() == 0:
        # Chromium refuses its sandbox to root.
        arguments.insert(1, "--no-sandbox")
    try:
        pid = os.posix_spawn(
            str(executable),
            arguments,
            {**os.environ, "TZ": "UTC", "LANG": "en_US.UTF-8", "LANGUAGE": "en_US"},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, str(log), os.O_WRONLY | os.O_CREAT, 0o600),
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


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        return
