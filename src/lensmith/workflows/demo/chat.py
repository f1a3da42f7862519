"""The demonstration's third chapter: a conversation about a picture with DeepSeek-VL.

With the published weights, where the Hub's cache on this machine holds them; else with a tiny model of the same parts
and random weights, which shows all that happens but what a model knows.
"""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from lensmith.core.types import Picture
from lensmith.models import VisionLanguageModel
from lensmith.models.families.deepseek_vl import DeepseekVlProcessor, tiny_config
from lensmith.models.families.deepseek_vl.tokenizer import tiny_tokenizer
from lensmith.models.inference.endpoint import Answering
from lensmith.models.inference.loading import load_answering
from lensmith.workflows.chat.conversation import Chat, ChatSettings, Reply
from lensmith.workflows.chat.local import LocalSpeaker
from lensmith.workflows.html.gallery import Chapter

PUBLISHED = tuple(
    f"{owner}/deepseek-vl-{size}-chat" for size in ("1.3b", "7b") for owner in ("deepseek-ai", "deepseek-community")
)
QUESTIONS = ("What does this page show?", "What would you change about it?")
MOST_TOKENS = {True: 96, False: 12}
"""Of an answer, with published weights and without: random words are soon enough."""


@dataclass(frozen=True, kw_only=True)
class ChatResult:
    """The conversation. `name` is the model's, `is_published` whether its weights are the published ones."""

    name: str
    is_published: bool
    replies: tuple[Reply, ...]

    def __str__(self) -> str:
        kind = self.name if self.is_published else "a tiny DeepSeek-VL with random weights (the published are not here)"
        again = sum(reply.known_tokens or 0 for reply in self.replies[1:])
        return f"a conversation about a picture with {kind}: {len(self.replies)} answers, {again} tokens not read again"


def run_chat(picture: Image.Image) -> ChatResult:
    """Asks two questions about a picture."""
    published = find_published()
    answering = _tiny() if published is None else load_answering(published[1], name=published[0], dtype=torch.int8)
    settings = ChatSettings(max_tokens=MOST_TOKENS[published is not None])
    chat = Chat(LocalSpeaker(answering), settings)
    file = io.BytesIO()
    picture.save(file, "PNG")
    chat.attach([Picture(data=file.getvalue())])
    replies = tuple(chat.ask(question) for question in QUESTIONS)
    return ChatResult(name=answering.name, is_published=published is not None, replies=replies)


def find_published() -> tuple[str, Path] | None:
    """Name and folder of the first published model that the Hub's cache holds. Nothing is fetched."""
    return next(_cached(), None)


def _cached() -> Iterator[tuple[str, Path]]:
    from huggingface_hub import snapshot_download  # noqa: PLC0415  # transformers brings it along
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415

    for name in PUBLISHED:
        with contextlib.suppress(LocalEntryNotFoundError, HfHubHTTPError):
            folder = Path(snapshot_download(name, local_files_only=True))
            if any(folder.glob("*.safetensors")) or any(folder.glob("*.bin")):
                yield name, folder


def _tiny() -> Answering:
    torch.manual_seed(0)
    model = VisionLanguageModel(tiny_config("hybrid")).eval()
    return Answering.of(model, DeepseekVlProcessor.for_model(model.config, tiny_tokenizer()), name="tiny DeepSeek-VL")


def chat_chapter(result: ChatResult) -> Chapter:
    """The chapter for the demonstration's report."""
    rows = [["asked", "answered", "tokens of the prompt", "not read again", "seconds"]]
    for question, reply in zip(QUESTIONS, result.replies, strict=True):
        told = "".join(character if character.isprintable() else "\u00b7" for character in reply.answer) or "(nothing)"
        rows.append([question, told, f"{reply.prompt_tokens}", f"{reply.known_tokens}", f"{reply.seconds:.1f}"])
    lead = (
        f"The first page above, as a picture, and two questions about it, to {result.name} with 8-bit weights. "
        if result.is_published
        else "The first page above, as a picture, and two questions about it. The published weights of DeepSeek-VL are "
        "not on this machine, so its parts, both towers included, are tiny and random here: what it writes means "
        "nothing, how it is read and written is the same. "
    )
    lead += "The second question does not read the picture and the first exchange again."
    return Chapter(title="A conversation about a picture", lead=lead, rows=rows)
