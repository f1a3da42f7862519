"""Ordinary pages come out equal, pixel for pixel, with hostile pages among them and without."""

import hashlib
import os
import signal

import pytest

from lensmith.core.errors import RenderError
from lensmith.core.types import Page
from lensmith.render import RenderConfig, Renderer, Scripts

CRASH, KILL = b"<!--crash the renderer-->", b"<!--kill the browser-->"
HOSTILE = (
    "<script>for(;;){}</script>x",
    "<script>for(;;)alert(1)</script>x",
    "<p>x" * 100_000,
    "<div style='height:200000px'>",
    CRASH.decode(),
    KILL.decode(),
    "<meta http-equiv=Content-Security-Policy content=\"style-src 'none'\"><p style='color:red'>x",
    "<style>@keyframes a{to{margin-left:99px}}p{animation:a .1s infinite}</style><p>x",
    "<meta http-equiv=refresh content='0;url=https://example.com/'>x",
    "<img src='file:///etc/passwd'><iframe src='https://example.com/'></iframe>",
)
COLOURS = ("#0a4", "#a40", "#04a", "#777", "#c06")


def ordinary(index: int) -> str:
    """A page with text, boxes, shadows and gradients, different for each index."""
    colour = COLOURS[index % len(COLOURS)]
    cards = "".join(
        f"<section><h2>Card {index}.{card}</h2><p>{'words that wrap ' * (1 + (index + card) % 4)}</p></section>"
        for card in range(1 + index % 5)
    )
    return f"""<!doctype html><style>body{{margin:0;font-family:sans-serif;background:linear-gradient({colour},#fff)}}
    section{{margin:16px;padding:8px;border-radius:8px;background:#fff;box-shadow:0 2px 6px #0006}}</style>
    <h1 style='color:{colour};background:#eee'>Page {index}</h1>{cards}"""


async def misbehave(browser, tab, html):
    if CRASH in html:
        await tab.crash()
    if KILL in html:
        os.killpg(browser.pid, signal.SIGKILL)


def digests(pages, config):
    """What stands for each page's picture and texts, or the error itself."""
    with Renderer(config, watch=misbehave) as renderer:
        return [
            hashlib.sha256(page.png + repr(page.texts).encode()).hexdigest() if isinstance(page, Page) else page
            for page in renderer.render_many(pages)
        ]


def check_mix(total: int, hostile: int, scripts: Scripts) -> None:
    config = RenderConfig(
        viewport_width_px=400, viewport_height_px=300, scripts=scripts, timeout_s=10.0, pages_in_flight=4
    )
    places = {(2 * number + 1) * total // (2 * hostile): number for number in range(hostile)}
    pages = [HOSTILE[places[index] % len(HOSTILE)] if index in places else ordinary(index) for index in range(total)]
    mixed = digests(pages, config)
    alone = digests([page for index, page in enumerate(pages) if index not in places], config)
    assert len(alone) == total - hostile
    assert not [page for page in alone if isinstance(page, RenderError)]
    assert [page for index, page in enumerate(mixed) if index not in places] == alone
    assert len(set(alone)) == len(alone), "each page is its own, so a mix-up would show"
    assert any(isinstance(mixed[index], RenderError) for index in places)


@pytest.mark.parametrize("scripts", Scripts, ids=lambda scripts: f"scripts {scripts.value}")
def test_60_pages_with_6_hostile_among_them(scripts):
    check_mix(60, 6, scripts)


@pytest.mark.slow
@pytest.mark.parametrize("scripts", Scripts, ids=lambda scripts: f"scripts {scripts.value}")
def test_500_pages_with_20_hostile_among_them(scripts):
    check_mix(500, 20, scripts)
