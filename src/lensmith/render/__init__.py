"""HTML to screenshot, text blocks and boxes, in a sandboxed headless Chromium; the only place a browser appears."""

from lensmith.render.config import Capture, RenderConfig, Scripts
from lensmith.render.renderer import Renderer

__all__ = ["Capture", "RenderConfig", "Renderer", "Scripts"]
