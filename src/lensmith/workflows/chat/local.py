"""A model in this process as who speaks in a chat.

It does not read again what it has read or written: the prompt of each turn begins with that of the turn before and its
answer, whose keys and values are kept, pictures included. (An answer is read again from where its text would be taken
apart in another way than it was written.) A model without a chat template gets a plain dialogue.
"""

from dataclasses import replace

from lensmith.core.endpoint import Request
from lensmith.core.exposure import Exposure
from lensmith.models.inference.decoder import Answers, Decoder
from lensmith.models.inference.endpoint import CACHE_BYTES, Answering
from lensmith.models.inference.loading import dtype_named, given_options, load_answering
from lensmith.models.inference.prefill import Prefill
from lensmith.workflows.chat.conversation import IsStopped, OnText, Spoken

USER, ASSISTANT = "User", "Assistant"
_REMEMBERED_TOKENS = 4096


class LocalSpeaker:
    """A model in this process. Between tokens it can be told to stop."""

    stops_at_once = False

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.name = answering.name
        self._decoder: Decoder | None = None

    @property
    def reads_pictures(self) -> bool:
        return self.answering.prompts.reads_pictures

    def speak(self, request: Request, on_text: OnText, is_stopped: IsStopped) -> Spoken:
        answering = self.answering
        if not answering.prompts.reads_messages:
            request = _plain(request)
        # Taken away while it works: what an exception leaves half done is never used again.
        decoder, self._decoder = self._decoder or self._new_decoder(), None
        job, collector = answering.pending(request, decoder, on_text)
        for _ in decoder.run([job]):
            if is_stopped() and not collector.is_complete:
                job.cancelled = True
        self._decoder = decoder
        return Spoken(
            text=collector.text(),
            finish=collector.finish(),
            interrupted=job.cancelled,
            prompt_tokens=job.prompt.length,
            known_tokens=collector.known_tokens,
            tokens=collector.completion_tokens,
        )

    def _new_decoder(self) -> Decoder:
        return self.answering.decoder(Exposure.everything(), slots=1, answers=Answers.KEPT)


def local_speaker(
    model: str,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    exact: str | None = None,
    picture_decoding: str | None = None,
) -> LocalSpeaker:
    """The model in a folder, in a GGUF file, or under a name on the Hub. Raises InputError where there is none.

    `dtype` "int8": the language model's weights as 8-bit integers, the rest in bfloat16 (`models.int8`).
    """
    options = given_options(exact=exact, picture_decoding=picture_decoding)
    answering = load_answering(model, dtype=dtype_named(dtype), device=device, options=options)
    return LocalSpeaker(_remembering(answering))


def _plain(request: Request) -> Request:
    """A dialogue for a model without a chat template: it ends where the next question would begin."""
    names = {"user": f"{USER}: ", "assistant": f"{ASSISTANT}: ", "system": ""}
    said = ["".join(part for part in message.parts if isinstance(part, str)) for message in request.messages]
    turns = [f"{names[message.role]}{text.strip()}\n" for message, text in zip(request.messages, said, strict=True)]
    return replace(request, messages=(), prompt=f"{''.join(turns)}{ASSISTANT}:", stop=(*request.stop, f"\n{USER}:"))


def _remembering(answering: Answering) -> Answering:
    """With room for a conversation of usual length twice, as it was and as it is, if the default has less."""
    config = answering.model.config.get_text_config()
    heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    head_width = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    token_bytes = 2 * int(config.num_hidden_layers) * heads * head_width * answering.model.dtype.itemsize
    wanted = 2 * min(answering.max_length, _REMEMBERED_TOKENS) * token_bytes * 8 // 7  # an eighth is for pictures
    if wanted <= CACHE_BYTES:
        return answering
    return replace(answering, prefill=Prefill(answering.model, cache_bytes=wanted))
