"""The demonstration's third chapter: a conversation about a picture, with a model of a family that one can talk with.

With published weights, where the Hub's cache on this machine holds some; else with a tiny model of the same parts and
random weights, which shows all that happens but what a model knows.
"""

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from lensmith.core.types import Picture
from lensmith.models.families.base import Family
from lensmith.models.families.registry import all_families
from lensmith.models.inference.endpoint import Answering
from lensmith.models.inference.loading import load_answering
from lensmith.workflows.chat.conversation import Chat, ChatSettings, Reply
from lensmith.workflows.chat.local import LocalSpeaker
from lensmith.workflows.html.gallery import Chapter

QUESTIONS = ("What does this page show?", "What would you change about it?")
MOST_TOKENS = {True: 96, False: 12}
"""Of an answer, with published weights and without: random words are soon enough."""


@dataclass(frozen=True, kw_only=True)
class ChatResult:
    """The conversation. `name` is the model's, `is_published` whether its weights are the published ones."""

    name: str
    family: str
    is_published: bool
    replies: tuple[Reply, ...]

    def __str__(self) -> str:
        kind = (
            self.name if self.is_published else f"a tiny {self.family} with random weights (the published are not here)"
        )
        again = sum(reply.known_tokens or 0 for reply in self.replies[1:])
        return f"a conversation about a picture with {kind}: {len(self.replies)} answers, {again} tokens not read again"


def run_chat(picture: Image.Image) -> ChatResult:
    """Asks two questions about a picture."""
    family = next(family for family in all_families().values() if family.published and family.tiny)
    published = next(_cached(family.published), None)
    answering = (
        _tiny(family) if published is None else load_answering(published[1], name=published[0], dtype=torch.int8)
    )
    settings = ChatSettings(max_tokens=MOST_TOKENS[published is not None])
    chat = Chat(LocalSpeaker(answering), settings)
    file = io.BytesIO()
    picture.save(file, "PNG")
    chat.attach([Picture(data=file.getvalue())])
    replies = tuple(chat.ask(question) for question in QUESTIONS)
    return ChatResult(name=answering.name, family=family.title, is_published=published is not None, replies=replies)


def _cached(names: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Names and folders of those models that the Hub's cache holds. Nothing is fetched."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415  # transformers brings it along
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415

    for name in names:
        with contextlib.suppress(LocalEntryNotFoundError, HfHubHTTPError):
            folder = Path(snapshot_download(name, local_files_only=True))
            if any(folder.glob("*.safetensors")) or any(folder.glob("*.bin")):
                yield name, folder


def _tiny(family: Family) -> Answering:
    assert family.tiny is not None, "chosen among those that have one"
    return Answering.of(*family.tiny(), name=f"tiny {family.title}")


def chat_chapter(result: ChatResult) -> Chapter:
    """The chapter for the demonstration's report."""
    rows = [["asked", "answered", "tokens of the prompt", "not read again", "seconds"]]
    for question, reply in zip(QUESTIONS, result.replies, strict=True):
        shown = "".join(character if character.isprintable() else "\u00b7" for character in reply.answer) or "(nothing)"
        rows.append([question, shown, f"{reply.prompt_tokens}", f"{reply.known_tokens}", f"{reply.seconds:.1f}"])
    lead = (
        f"The first page above, as a picture, and two questions about it, to {result.name} with 8-bit weights. "
        if result.is_published
        else "The first page above, as a picture, and two questions about it. The published weights of "
        f"{result.family} are not on this machine, so its parts, both towers included, are tiny and "
        "random here: what it writes means nothing, how it is read and written is the same. "
    )
    lead += "The second question does not read the picture and the first exchange again."
    return Chapter(title="A conversation about a picture", lead=lead, rows=rows)
