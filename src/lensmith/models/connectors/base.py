"""What every connector is: the tower's tokens in, what the language model reads in their place out.

Legend: N pictures, P patches, V tower width, K tokens a picture, F tokens of all pictures, L language width.
"""

from typing import ClassVar, NamedTuple, Protocol

from torch import Tensor, nn


class ConnectorOutput(NamedTuple):
    """The tokens of all pictures, one picture after the other (F, L), and how many each has (N); F is their sum."""

    features_FL: Tensor
    counts_N: Tensor


class ConnectorConfig(Protocol):
    """A frozen dataclass that says how a connector is built. `kind` is its key in `CONNECTORS`.

    It holds no width that its neighbours decide, so that no file can contradict itself: `build` is told. A connector is
    a module whose `forward(features)` takes `VisionFeatures` and returns `ConnectorOutput`; tokens outside the mask
    must not influence it. Its constructor leaves random weights: nothing else initialises them.
    """

    kind: ClassVar[str]

    @property
    def tokens_per_picture(self) -> int | None:
        """K where it is the same for every picture; None for one token a real patch."""
        ...

    def build(self, *, tower_width: int, language_width: int) -> nn.Module:
        """A connector with random weights."""
        ...
