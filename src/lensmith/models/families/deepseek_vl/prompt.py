"""DeepSeek-VL's chat format: messages of text and pictures to the one string that the model was trained on.

Source: the code that the weights were published with (github.com/deepseek-ai/DeepSeek-VL, `processing_vlm.py` and
`conversation.py`); the paper does not give it. `Exactness.TRANSFORMERS` writes what the chat template of the converted
checkpoints (deepseek-community on the Hub) writes, which differs:

| | original | transformers |
| --- | --- | --- |
| default system text | where there is no system message | always |
| system message | takes its place | follows it, as a turn "System: ..." that ends with the end-of-sentence token |
| after a turn | two newlines or the end-of-sentence token, by its place | the same by its role; none after the last |
| text parts in a row | joined as they are | joined with a space |
| white space | each message stripped, and the whole | stripped where a message begins or ends with text |

Where we differ: messages of one role in a row are one message, joined by a newline, for the original's separators go by
place and would end a question with the end-of-sentence token. A last message of the assistant's is the beginning of its
answer. A message that is a plain string is read in both; the template drops it without a word.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lensmith.core.errors import InputError
from lensmith.core.types import Message
from lensmith.models.exactness import Exactness
from lensmith.models.families.deepseek_vl.tokenizer import END, IMAGE

DEFAULT_SYSTEM = (
    "You are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language."
)
USER, ASSISTANT = "User", "Assistant"
_SEPARATORS = ("\n\n", END)
_ROLES = {"user": USER, "assistant": ASSISTANT, "system": "System"}


class Turn(NamedTuple):
    """Who speaks, as the prompt names them, and what: text with one placeholder for each picture."""

    role: str
    text: str


def original_prompt(turns: Iterable[Turn], system: str | None = None) -> str:
    """The prompt as the original writes it, whatever the order of roles. `system` None: the default; empty: nothing.

    A turn without text gives its role and a colon: where the answer begins.
    """
    instruction = DEFAULT_SYSTEM if system is None else system
    prompt = instruction + _SEPARATORS[0] if instruction else ""
    for place, turn in enumerate(turns):
        text = turn.text.strip()
        prompt += f"{turn.role}: {text}{_SEPARATORS[place % 2]}" if text else f"{turn.role}:"
    return prompt.strip()


def chat_prompt(messages: Sequence[Message], exact: Exactness = Exactness.ORIGINAL, *, answers: bool = True) -> str:
    """The prompt of a conversation; pictures become placeholders. `answers`: the assistant speaks next.

    A system message alone is answered, too. Raises InputError for what the format has no place for: a system message
    that is not the first, or a conversation that does not begin with the user.
    """
    if exact is Exactness.TRANSFORMERS:
        return _transformers_prompt(messages, answers=answers)
    system, spoken = _split_system(messages)
    turns = _merged(Turn(_ROLES[message.role], _text(message)) for message in spoken)
    if turns and turns[0].role != USER:
        raise InputError("the conversation does not begin with the user", actual=f"{turns[0].role}: ...")
    if not answers or not messages:
        return original_prompt(turns, system)
    if not turns or turns[-1].role == USER:
        return original_prompt([*turns, Turn(ASSISTANT, "")], system)
    return original_prompt(turns, system).removesuffix(END)


def _split_system(messages: Sequence[Message]) -> tuple[str | None, Sequence[Message]]:
    count = next((place for place, message in enumerate(messages) if message.role != "system"), len(messages))
    for place, message in enumerate(messages[count:], start=count):
        if message.role == "system":
            raise InputError(
                "a system message stands within the conversation",
                expected="system messages before all others",
                actual=f"one at place {place}",
            )
    if not count:
        return None, messages
    return "\n".join(_text(message).strip() for message in messages[:count]), messages[count:]


def _merged(turns: Iterable[Turn]) -> list[Turn]:
    merged: list[Turn] = []
    for turn in turns:
        if merged and merged[-1].role == turn.role:
            parts = (merged[-1].text.strip(), turn.text.strip())
            merged[-1] = Turn(turn.role, "\n".join(part for part in parts if part))
        else:
            merged.append(turn)
    return merged


def _text(message: Message) -> str:
    return "".join(part if isinstance(part, str) else IMAGE for part in message.parts)


def _transformers_prompt(messages: Sequence[Message], *, answers: bool) -> str:
    begun = answers and bool(messages) and messages[-1].role == "assistant"
    asks = answers and not begun
    prompt = DEFAULT_SYSTEM + _SEPARATORS[0]
    for place, message in enumerate(messages):
        is_last = place == len(messages) - 1
        is_empty = bool(message.parts) and message.parts[0] == ""
        space = "" if message.role == "assistant" and is_last and not asks and is_empty else " "
        prompt += f"{_ROLES[message.role]}:{space}{_spaced(message)}"
        if not is_last or asks:
            prompt += _SEPARATORS[0] if message.role == "user" else _SEPARATORS[1]
    return prompt + (f"{ASSISTANT}:" if asks else "")


def _spaced(message: Message) -> str:
    """The parts of a message as the template joins them: it strips only at its ends, and only text."""
    text, last = "", len(message.parts) - 1
    for place, part in enumerate(message.parts):
        if not isinstance(part, str):
            text += IMAGE
            continue
        shown = part.lstrip() if place == 0 else part
        shown = shown.rstrip() if place == last else shown
        follows_text = place > 0 and isinstance(message.parts[place - 1], str)
        text += " " + shown if follows_text else shown
    return text
