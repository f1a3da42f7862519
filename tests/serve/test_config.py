"""What a server is told: checked where it is declared, before anything is loaded."""

import pytest

from lensmith.core.errors import ConfigError, InputError
from lensmith.serve.config import Access, ServerConfig, ServerLimits


@pytest.mark.parametrize("name", ["body_bytes", "waiting_requests", "timeout_s"])
def test_impossible_limits(name):
    with pytest.raises(ConfigError, match=name):
        ServerLimits(**{name: 0})


def test_an_unknown_precision():
    with pytest.raises(InputError, match="precision"):
        ServerConfig(model="any", dtype="float8")


@pytest.mark.parametrize(
    "origin", ["https://example.com", "http://localhost:3000", "http://[::1]:8080", "https://a.b:8443", "*"]
)
def test_origins_as_a_browser_sends_them(origin):
    assert Access(origins=(origin,)).origins == (origin,)


@pytest.mark.parametrize(
    ("origin", "meant"),
    [
        ("https://example.com/", "https://example.com"),
        ("https://example.com/page", "https://example.com"),
        ("https://Example.com", "https://example.com"),
        ("https://example.com:443", "https://example.com"),
        ("http://example.com:80", "http://example.com"),
        ("https://user@example.com", "https://example.com"),
        ("example.com", "such as"),
        ("localhost:3000", "such as"),
        ("ftp://example.com", "such as"),
        ("http://a:port", "such as"),
        ("http://[", "such as"),
        ("null", "such as"),
        ("https://*.example.com", "such as"),
        ("", "such as"),
    ],
)
def test_an_origin_that_no_browser_sends_would_let_nobody_in(origin, meant):
    with pytest.raises(ConfigError, match="allow_origin") as refused:
        Access(origins=("https://good.example", origin))
    assert meant in str(refused.value)
