"""What the adapters share: a model to score and to write with, and a framework's words and pictures as a request."""

import io
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from lensmith.core.endpoint import Request
from lensmith.core.errors import InputError
from lensmith.core.images import orientation
from lensmith.core.types import Message, Part, Picture
from lensmith.models.inference.loading import dtype_named, given_options
from lensmith.models.scoring.likelihood import OptionScore, Scored
from lensmith.models.scoring.model import ScoredModel

IMAGE_PLACEHOLDER = "<image>"
"""What the frameworks write where a picture belongs."""


def load_model(
    pretrained: str,
    *,
    dtype: str = "float32",
    device: str | None = None,
    cache_mib: int = 512,
    max_length: int | None = None,
    exact: str | None = None,
    picture_decoding: str | None = None,
) -> ScoredModel:
    """Whatever `lensmith serve` can load; `exact` and `picture_decoding` matter to DeepSeek-VL only. Raises InputError.

    Frameworks give numbers as text, too.
    """
    return ScoredModel.load(
        pretrained,
        dtype=dtype_named(dtype),
        device=device or "cpu",
        cache_bytes=int(cache_mib) << 20,
        max_length=None if max_length is None else int(max_length),
        options=given_options(exact=exact, picture_decoding=picture_decoding),
    )


def option_scores(
    model: ScoredModel,
    requests: Sequence[Any],
    prepare: Callable[[Sequence[tuple[Any, ...]]], Scored],
    *,
    question: Callable[[tuple[Any, ...]], Hashable],
    at_once: int,
) -> Iterator[tuple[int, OptionScore]]:
    """Number and score of every request of one option, `at_once` questions at a time.

    Requests whose arguments have an equal `question` are options of one, which `prepare` makes of all their arguments:
    it is read once for all of them.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, request in enumerate(requests):
        groups.setdefault(question(request.args), []).append(index)
    indices = list(groups.values())
    for some in (indices[first : first + at_once] for first in range(0, len(indices), at_once)):
        scores = model.score([prepare([requests[index].args for index in group]) for group in some])
        for group, of_group in zip(some, scores, strict=True):
            yield from zip(group, of_group, strict=True)


def chat_request(text: str, pictures: Iterable[Any], **settings: Any) -> Request:
    """One user's turn. Pictures go where the text has `<image>`, or before it where it has none.

    Raises InputError where text and pictures differ in their number.
    """
    parts = tuple(_interleaved(text, [as_picture(picture) for picture in pictures]))
    return Request(messages=(Message(role="user", parts=parts),), **settings)


def _interleaved(text: str, pictures: Sequence[Picture]) -> list[Part]:
    first, *others = text.split(IMAGE_PLACEHOLDER)
    if not others:
        return [*pictures, text] if text else list(pictures)
    if len(others) != len(pictures):
        raise InputError(
            "placeholders and pictures differ in number",
            expected=f"{len(pictures)} times {IMAGE_PLACEHOLDER}, or none",
            actual=len(others),
        )
    parts: list[Part] = [first]
    for picture, other in zip(pictures, others, strict=True):
        parts += [picture, other]
    return [part for part in parts if part]


def as_picture(value: Any) -> Picture:
    """A picture as the frameworks hand it over: a PIL image, encoded bytes, a dictionary of `datasets`, or a path."""
    if isinstance(value, Image.Image):
        buffer = io.BytesIO()
        (value if value.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else value.convert("RGB")).save(
            buffer, format="PNG", compress_level=1, exif=_orientation(value)
        )
        return Picture(data=buffer.getvalue())
    if isinstance(value, dict) and (value.get("bytes") or value.get("path")):
        value = value.get("bytes") or value["path"]
    if isinstance(value, bytes):
        return Picture(data=value)
    if isinstance(value, str | os.PathLike):
        try:
            return Picture(data=Path(value).read_bytes())
        except OSError as error:
            raise InputError("a picture cannot be read", actual=f"{value}: {error.strerror}") from error
    raise InputError("this is no picture", expected="a PIL image, bytes or a path", actual=type(value).__name__)


def _orientation(picture: Image.Image) -> Image.Exif:
    """Which side is up, and no more: other tags may be such as cannot be written."""
    kept = Image.Exif()
    if (turned := orientation(picture)) != 1:
        kept[ExifTags.Base.Orientation] = turned
    return kept


def writing_settings(arguments: dict[str, Any], *, most_tokens: int) -> dict[str, Any]:
    """A framework's generation arguments as those of a request: greedy unless sampling is asked for."""
    names = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
    most = next((int(arguments[name]) for name in names if arguments.get(name) is not None), most_tokens)
    temperature = float(arguments.get("temperature") or 0.0)
    if arguments.get("do_sample") is False:
        temperature = 0.0
    elif arguments.get("do_sample") and not temperature:
        temperature = 1.0
    if int(arguments.get("num_beams") or 1) > 1:
        raise InputError("beams are not searched", expected="num_beams=1", actual=arguments["num_beams"])
    until = arguments.get("until") or ()
    return {
        "max_tokens": most,
        "temperature": temperature,
        "top_p": float(arguments.get("top_p") or 1.0),
        "stop": tuple(stop for stop in ([until] if isinstance(until, str) else until) if stop),
        "seed": 0 if temperature else None,
    }
