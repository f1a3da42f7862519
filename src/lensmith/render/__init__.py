"""HTML to screenshot, text blocks and boxes, in a sandboxed headless Chromium; the only place a browser appears.

Read `tab` (how one page is loaded, measured and photographed), then `pool` (what happens when a page misbehaves), then
`assets` (what a page from a file may read).
Source: WebSight (arXiv 2403.09029) renders with a fresh Playwright context a page and waits for the network to be
idle; we keep one browser and its pages warm, speak the DevTools protocol ourselves, and let nothing out.
"""

from lensmith.render.assets import Assets
from lensmith.render.config import Capture, Extent, RenderConfig, Scripts
from lensmith.render.fonts import font_hash, font_list
from lensmith.render.renderer import HtmlFile, Renderer

__all__ = ["Assets", "Capture", "Extent", "HtmlFile", "RenderConfig", "Renderer", "Scripts", "font_hash", "font_list"]
