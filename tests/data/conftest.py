"""A warm renderer at the width of generated pages."""

from collections.abc import Iterator

import pytest

from lensmith.data.webpages.export import PAGE_RENDERING
from lensmith.render import Renderer


@pytest.fixture(scope="session")
def page_renderer() -> Iterator[Renderer]:
    with Renderer(PAGE_RENDERING) as warm:
        yield warm
