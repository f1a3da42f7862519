"""The two ways to score pages whose HTML is known. Apart from both, so that a command line can name them quickly."""

import enum


class ScoreWay(enum.Enum):
    """By which scores rendered pages are compared."""

    GEOMETRY = "geometry"
    """`visual.score`: boxes as the browser lays them out, and pixels."""
    DESIGN2CODE = "design2code"
    """`visual.design2code`: boxes from coloured pixels, in a window of 1280 x 720."""
    BOTH = "both"
