"""A screenshot becomes HTML: models that write pages, and the judge that renders them and keeps the closest."""

from lensmith.workflows.html.convert import Converter

__all__ = ["Converter"]
