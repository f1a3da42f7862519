"""A server of pictures on this machine: good ones, and whatever else a web address may give."""

import gzip
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.documents import picture
from tests.support.packages import png

GOOD = png(8, 6)


class PictureServer:
    """Serves what a path asks for, and counts requests by path. Entering gives the base address."""

    def __init__(self):
        self.asked = Counter()
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    def __enter__(self):
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                with owner.lock:
                    owner.asked[self.path] += 1
                    owner.at_once += 1
                    owner.most_at_once = max(owner.most_at_once, owner.at_once)
                try:
                    getattr(self, self.path.split("/")[1].partition("?")[0].replace("-", "_"))()
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the fetcher has hung up, as it should
                finally:
                    with owner.lock:
                        owner.at_once -= 1

            def _send(self, status=200, body=GOOD, **headers):
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(body)

            def good(self):
                self._send()

            def slow_good(self):
                time.sleep(0.1)
                self._send()

            def jpeg(self):
                self._send(body=picture("green", 40, "JPEG"))

            def status(self):
                self._send(int(self.path.split("/")[2]), b"no")

            def busy_once(self):
                self._send() if owner.asked[self.path] > 1 else self._send(503, b"", Retry_After="0")

            def page(self):
                self._send(body=b"<html>gone</html>")

            def nothing(self):
                self._send(body=b"")

            def packed(self):
                self._send(body=gzip.compress(GOOD), Content_Encoding="gzip")

            def opted_out(self):
                self._send(X_Robots_Tag="nofollow, NoAI")

            def long(self):
                self._send(body=b"x" * 60_000)

            def long_unsaid(self):
                self.send_response(200)
                self.end_headers()
                for _ in range(60):
                    self.wfile.write(b"x" * 1_000)

            def wide(self):
                self._send(body=png(101, 100))

            def never(self):
                self.send_response(200)
                self.end_headers()
                for _ in range(100):
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    time.sleep(0.1)

            def cut(self):
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(GOOD)

            def to(self):
                self._send(302, b"", Location=self.path.partition("?")[2])

            def round(self):
                self._send(302, b"", Location=self.path)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
