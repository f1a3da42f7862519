"""Pages written by a model in this process; apart from the other writers, which need no torch."""

from dataclasses import replace
from pathlib import Path
from typing import Self

from PIL import Image

from lensmith.core.errors import InputError
from lensmith.models.families.registry import resolved
from lensmith.models.inference.endpoint import Answering, LocalEndpoint
from lensmith.models.inference.loading import load_vision_language
from lensmith.workflows.html.writers import TEMPERATURE, TOP_P, Completion, EndpointWriter, completion_of

PAGES_AT_ONCE = 16
"""How many pages are written together."""


class LocalWriter(EndpointWriter):
    """A vision-language model in this process. Pages of one picture read it once."""

    def __init__(self, answering: Answering) -> None:
        super().__init__(LocalEndpoint.around(answering, slots=PAGES_AT_ONCE), png_compression=1)
        self.answering = answering

    @classmethod
    def load(cls, source: str | Path | None = None) -> Self:
        """The model in a folder, or the one that ships. Raises InputError where there is none that reads pictures."""
        source = resolved(source)
        loaded = load_vision_language(source)
        if loaded is None:
            raise InputError("there is no model that reads pictures", expected="a model's folder", actual=source)
        return cls(Answering.of(*loaded, name=Path(source).name))

    def sampled(self, picture: Image.Image, samples: int, seed: int) -> list[Completion]:
        request = replace(self.request(picture), temperature=TEMPERATURE, top_p=TOP_P, seed=seed, n=samples)
        [answer] = self.endpoint.answer([request])
        return [completion_of(choice) for choice in answer.choices]
