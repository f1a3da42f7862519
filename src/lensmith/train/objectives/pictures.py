"""What the model reads of pictures while it is trained: pixels, or what a tower that does not learn makes of them.

A tower that stays as it is gives a picture the same features in every epoch, and on a CPU it is most of a step's work.
Here each picture goes through it once, alone: so its features do not depend, not in their last bit, on which pictures
came with it, and a run that stops and goes on has the losses of one that does not.

Legend: N pictures, r c rows and columns of tokens, V tower width.
"""

import copy
import functools
import io
import threading
from collections.abc import Callable, Mapping, Sequence

import torch
from PIL import Image
from torch import Tensor

from lensmith.core.errors import ConfigError
from lensmith.core.files import sha256_of_bytes
from lensmith.core.images import DEFAULT_LIMITS, ImageLimits
from lensmith.models.processor import VisionLanguageProcessor
from lensmith.models.towers import encode
from lensmith.models.towers.base import FEATURES
from lensmith.models.vlm import VisionLanguageModel

PicturesOf = Callable[[Sequence[bytes]], Mapping[str, Tensor]]
"""What the model reads of encoded pictures, by the names that it takes; called from several threads."""
_BLANK_PX = 32
_MOST_BYTES = 4 << 30


def pixels_of(processor: VisionLanguageProcessor, limits: ImageLimits = DEFAULT_LIMITS) -> PicturesOf:
    """What the processor gives the tower. The result raises ImageError where one of them is no picture."""

    def read(encoded: Sequence[bytes]) -> Mapping[str, Tensor]:
        inputs = processor.picture_inputs([processor.open_picture(one, limits) for one in encoded])
        return {name: torch.from_numpy(value) for name, value in inputs.values.items()}

    return read


class FrozenFeatures:
    """`PicturesOf` of a model whose tower does not learn: its features, made once a picture and kept in memory.

    The tower is copied as it is now. `dtype` is what features are kept in; beyond `most_bytes` none are kept any more,
    and those of further pictures are made each time.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        processor: VisionLanguageProcessor,
        *,
        dtype: torch.dtype = torch.float32,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        self._tower = copy.deepcopy(model.vision_tower).eval().requires_grad_(False)
        self._config, self._pixels = model.config.vision, pixels_of(processor)
        self._dtype, self._room_bytes = dtype, most_bytes
        self._kept: dict[str, Tensor] = {}
        self._lock = threading.Lock()

    def __call__(self, encoded: Sequence[bytes]) -> Mapping[str, Tensor]:
        """`tower_features` (N, r, c, V).

        Raises ImageError for what is no picture, ConfigError where pictures have not one size, or the tower does not
        tell how tokens lie.
        """
        made = [self._of(picture) for picture in encoded]
        if len({features_rcV.shape for features_rcV in made}) > 1:
            raise self._not_kept("pictures of several sizes")
        return {FEATURES: torch.stack(made)}

    def _of(self, picture: bytes) -> Tensor:
        digest = sha256_of_bytes(picture)
        with self._lock:
            found = self._kept.get(digest)
        if found is not None:
            return found
        made_rcV = self._made(picture)
        with self._lock:
            if digest not in self._kept and self._room_bytes >= made_rcV.nbytes:
                self._room_bytes -= made_rcV.nbytes
                self._kept[digest] = made_rcV
        return made_rcV

    def _made(self, picture: bytes) -> Tensor:
        with torch.no_grad():
            features = encode(self._tower, self._config, self._pixels([picture]))
        if features.columns is None or not bool(features.mask_NP.all()):
            raise self._not_kept("tokens that are not a whole picture's, row by row")
        tokens_PV = features.tokens_NPV[0]
        return tokens_PV.reshape(-1, features.columns, tokens_PV.shape[1]).to("cpu", self._dtype)

    def _not_kept(self, actual: str) -> ConfigError:
        return ConfigError(
            f"what the tower {self._config.kind!r} makes of pictures cannot be kept",
            expected="a rectangle of tokens, the same for all pictures",
            actual=actual,
        )


@functools.cache
def blank_picture() -> bytes:
    """A white square, encoded: what stands where there is no picture."""
    stream = io.BytesIO()
    Image.new("RGB", (_BLANK_PX, _BLANK_PX), "white").save(stream, "PNG")
    return stream.getvalue()
