"""Extractions are recognised and honest use is not; budgets hold; memory is bounded."""

import asyncio
import gc
import random
import time
from typing import Any

import pytest

from lensmith.core.endpoint import RefusedError
from lensmith.core.exposure import Exposure
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.guard.config import OnExtraction, PatternConfig, ResourceLimits
from lensmith.guard.patterns import (
    THRESHOLDS,
    ClientStatistics,
    Observation,
    Pattern,
    ids_look_random,
    looks_random,
)
from lensmith.guard.proxy import Guard
from lensmith.openai_api import BusyError
from tests.support.guard_bed import ask, guard_before, serve

CHAT = {"model": "fake", "max_tokens": 1, "temperature": 0}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def statistics_of(*, limits: ResourceLimits | None = None, **patterns: Any) -> tuple[ClientStatistics, Clock]:
    clock = Clock()
    return ClientStatistics(PatternConfig(**patterns), limits or ResourceLimits(), clock=clock), clock


def seen(clients: ClientStatistics, observations: list[Observation], client: str = "a") -> set[Pattern]:
    return {pattern for each in observations for pattern in clients.admit(client, each)}


def bias(token_id: int, value: float = 1.0, prompt: bytes = b"p", **others: Any) -> Observation:
    return Observation(prompts=(prompt,), bias=((token_id, value),), named_ids=(token_id,), **others)


# --- patterns -----------------------------------------------------------------------------------------------------

EXTRACTIONS = {
    Pattern.MANY_BIASES: [bias(5, value) for value in range(1, 30)],
    Pattern.FORCED_TOKENS: [bias(5, 100, b"%d" % n, is_one_token=True, is_forced=True) for n in range(40)],
    Pattern.ONE_TOKEN_LOGPROBS: [Observation(prompts=(b"p",), reads_logprobs=True, is_one_token=True)] * 600,
    Pattern.ID_SWEEP: [bias(n, 1, b"%d" % n) for n in range(300)],
    Pattern.RANDOM_CONTEXTS: [
        Observation(prompts=(b"%d" % n,), reads_logprobs=True, is_random=True) for n in range(40)
    ],
}
HONEST = {
    "a chat": [Observation(prompts=())] * 5000,
    "a list of banned words": [
        Observation(prompts=(b"%d" % n,), bias=tuple((i, -100.0) for i in range(200)), named_ids=tuple(range(200)))
        for n in range(1000)
    ],
    "logprobs of long answers": [Observation(prompts=(b"%d" % n,), reads_logprobs=True) for n in range(1000)],
    "some multiple choice": [Observation(prompts=(b"p",), reads_logprobs=True, is_one_token=True)] * 400,
    "random text without reading": [Observation(prompts=(), is_random=True)] * 1000,
    "classification among chats": [
        Observation(prompts=(b"%d" % n,), reads_logprobs=True, is_one_token=n % 3 == 0) for n in range(3000)
    ],
}


@pytest.mark.parametrize("pattern", Pattern)
def test_each_extraction_is_seen_once_and_as_what_it_is(pattern):
    clients, _ = statistics_of()
    assert seen(clients, EXTRACTIONS[pattern]) == {pattern}
    assert seen(clients, EXTRACTIONS[pattern]) == set()
    assert seen(clients, EXTRACTIONS[pattern], client="b") == {pattern}


@pytest.mark.parametrize("name", HONEST)
def test_honest_use_is_no_extraction(name):
    clients, _ = statistics_of()
    assert seen(clients, HONEST[name]) == set()


@pytest.mark.parametrize("pattern", Pattern)
def test_the_threshold_is_where_it_says(pattern):
    step = EXTRACTIONS[pattern]
    clients, _ = statistics_of()
    assert seen(clients, step[: THRESHOLDS[pattern]]) == set()
    assert seen(clients, step[THRESHOLDS[pattern] : THRESHOLDS[pattern] + 1]) == {pattern}


def test_a_new_window_begins_anew():
    clients, clock = statistics_of(window_s=60)
    half = EXTRACTIONS[Pattern.ID_SWEEP][:200]
    assert seen(clients, half) == set()
    clock.now = 61
    assert seen(clients, half) == set()


def test_block_refuses_what_reads_and_lets_text_pass_until_the_window_ends():
    clients, clock = statistics_of(window_s=60, on_extraction=OnExtraction.BLOCK)
    assert seen(clients, EXTRACTIONS[Pattern.FORCED_TOKENS][:33]) == {Pattern.FORCED_TOKENS}
    with pytest.raises(RefusedError):
        clients.admit("a", bias(1))
    with pytest.raises(RefusedError):
        clients.admit("a", Observation(prompts=(), reads_logprobs=True))
    clients.admit("a", Observation(prompts=()))
    clients.admit("b", bias(1))
    clock.now = 61
    clients.admit("a", bias(1))


# --- budgets ------------------------------------------------------------------------------------------------------


def test_a_prompt_takes_so_many_biased_ids_and_no_more():
    clients, clock = statistics_of(bias_per_prompt=3, window_s=60)
    for token_id in (1, 2, 3, 1, 2):
        clients.admit("a", bias(token_id))
    with pytest.raises(RefusedError):
        clients.admit("a", bias(4))
    clients.admit("a", bias(4, prompt=b"q"))
    clients.admit("b", bias(4))
    clients.admit("a", bias(3, 7.0))
    clock.now = 61
    clients.admit("a", bias(4))


def test_a_refused_bias_uses_nothing_up():
    clients, _ = statistics_of(bias_per_prompt=3)
    many = Observation(prompts=(b"q", b"p"), bias=tuple((n, 1.0) for n in range(4)), named_ids=())
    with pytest.raises(RefusedError):
        clients.admit("a", many)
    for token_id in (7, 8, 9):
        clients.admit("a", bias(token_id))


def test_a_budget_cannot_be_renewed_by_opening_prompts():
    clients, _ = statistics_of(bias_per_prompt=1, limits=ResourceLimits(prompts=10))
    for number in range(10):
        clients.admit("a", bias(1, prompt=b"%d" % number))
    with pytest.raises(RefusedError):
        clients.admit("a", bias(1, prompt=b"more"))
    with pytest.raises(RefusedError):
        clients.admit("a", bias(2, prompt=b"0"))


@pytest.mark.parametrize("limit", [None, 5])
def test_the_prompts_of_clients_that_are_gone_take_no_room(limit):
    clients, clock = statistics_of(bias_per_prompt=limit, window_s=60, limits=ResourceLimits(open_prompts=100))
    for visitor in range(50):
        clock.now = visitor * 10.0
        for number in range(5):
            clients.admit(str(visitor), bias(1, prompt=b"%d %d" % (visitor, number)))
    assert clients.open_prompts <= 100
    clock.now += 10_000
    clients.admit("new", bias(1, prompt=b"x"))
    assert len(clients.states) == 51  # what they may ask in a minute stays known


def test_with_a_budget_no_prompt_is_forgotten_inside_its_window():
    clients, clock = statistics_of(bias_per_prompt=1, window_s=60, limits=ResourceLimits(open_prompts=10))
    for number in range(10):
        clock.now = number
        clients.admit(str(number), bias(1, prompt=b"%d" % number))
    with pytest.raises(RefusedError):
        clients.admit("new", bias(1))
    clock.now = 61  # the windows of the first two have ended
    clients.admit("new", bias(1))
    clients.admit("newer", bias(1))
    with pytest.raises(RefusedError):
        clients.admit("newest", bias(1))
    with pytest.raises(RefusedError):
        clients.admit("5", bias(2, prompt=b"5"))


def test_without_a_budget_newcomers_take_the_room_of_those_that_asked_longest_ago():
    clients, _ = statistics_of(limits=ResourceLimits(open_prompts=40))
    for value in range(1, 10):
        clients.admit("old", bias(5, value))
    for number in range(400):
        clients.admit(str(number), bias(1, prompt=b"%d" % number))
        clients.admit("busy", bias(1, number + 1.0))
    assert clients.open_prompts == 40
    assert Pattern.MANY_BIASES in clients.states["busy"].patterns
    assert not clients.states["old"].prompts


def test_a_prompt_that_is_asked_again_is_not_forgotten_for_a_new_one():
    clients, _ = statistics_of(limits=ResourceLimits(prompts=2))
    clients.admit("a", bias(1, prompt=b"p"))
    clients.admit("a", bias(1, prompt=b"q"))
    both = Observation(prompts=(b"p", b"r"), bias=((2, 1.0),), named_ids=(2,))
    clients.admit("a", both)
    assert [*clients.states["a"].prompts] == [b"p", b"r"]


def test_to_make_room_costs_little():
    """Who is over the limit all the time does not look through all clients each time."""
    clients, clock = statistics_of(bias_per_prompt=5, window_s=10_000, limits=ResourceLimits(open_prompts=2000))
    for number in range(2000):
        clients.admit(str(number), bias(1))
    gc.collect()
    gc.disable()  # what other tests left is looked through by whoever makes the next object
    try:
        start = time.thread_time()
        for number in range(2000):
            clock.now += 0.001
            with pytest.raises(RefusedError):
                clients.admit(f"new {number}", bias(1))
        took_s = time.thread_time() - start
    finally:
        gc.enable()
    assert took_s < 0.5  # to look each time takes ten times as long


def test_requests_per_minute():
    clients, clock = statistics_of(requests_per_minute=6)
    for _ in range(6):
        clients.arrive("a")
    with pytest.raises(BusyError) as busy:
        clients.arrive("a")
    assert busy.value.retry_after_s == 10
    clients.arrive("b")
    clock.now = 10
    clients.arrive("a")
    with pytest.raises(BusyError):
        clients.arrive("a")
    clock.now = 10_000  # a new window gives no more than a minute's worth
    for _ in range(6):
        clients.arrive("a")
    with pytest.raises(BusyError):
        clients.arrive("a")


@pytest.mark.parametrize("limit", [None, 5])
def test_memory_is_bounded_whatever_clients_do(limit):
    clients, _ = statistics_of(bias_per_prompt=limit, limits=ResourceLimits(clients=20, prompts=50))
    dice = random.Random(0)
    for _ in range(20_000):
        client = str(dice.randrange(200))
        ids = tuple(dice.randrange(100_000) for _ in range(5))
        observation = Observation(
            prompts=tuple(dice.randbytes(4) for _ in range(dice.randrange(1, 4))),
            bias=tuple((token_id, 1.0) for token_id in ids),
            named_ids=ids,
            is_random=True,
        )
        try:
            clients.admit(client, observation)
        except RefusedError:
            assert limit is not None
    assert len(clients.states) <= 20
    states = clients.states.values()
    assert all(len(client.prompts) <= 50 for client in states)
    assert all(len(client.ids) <= THRESHOLDS[Pattern.ID_SWEEP] + 5 for client in states)
    assert all(len(client.contexts) <= THRESHOLDS[Pattern.RANDOM_CONTEXTS] + 3 for client in states)
    assert clients.open_prompts == sum(len(client.prompts) for client in states) <= ResourceLimits().open_prompts


# --- random text --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Tell me about the weather in Paris and whether I should take an umbrella with me tomorrow.",
        "Erkläre mir bitte, wie die Donaudampfschifffahrtsgesellschaft gegründet wurde und warum.",
        "Расскажи мне, пожалуйста, о погоде в Париже и о том, стоит ли брать зонт.",
        "今日はパリの天気について教えてください。傘を持って行くべきでしょうか。 明日 電車 で行きます",
        "한국어로 날씨에 대해 알려 주세요 그리고 우산을 가져가야 하는지 말해 주세요",
        "def main(arguments: list) -> int:\n    for name in arguments:\n        print(name, end=' ')\n    return 0",
        "SELECT name, price FROM products WHERE price > 100 AND stock > 0 ORDER BY price DESC LIMIT 10",
        "The HTTP/1.1 protocol was specified in RFC 2616, later RFC 7230, by the IETF in 2014.",
    ],
)
def test_text_that_people_write_is_not_random(text):
    assert not looks_random(text)


def test_random_tokens_joined_are_random():
    pieces = "ing Ver про ção 7 xY 的 ## Str ность 42 Qu ein abl ßt ok IO über Ж 9 ent ALL cz lik π tion 数 De".split()
    dice = random.Random(0)
    for _ in range(20):
        text = " ".join("".join(dice.choice(pieces) for _ in range(4)) for _ in range(10))
        assert looks_random(text), text


def test_ids_over_the_whole_vocabulary_are_random_and_a_texts_are_not():
    dice = random.Random(0)
    assert all(ids_look_random([dice.randrange(50_000) for _ in range(16)]) for _ in range(50))
    text = [464, 3290, 318, 257, 845, 922, 1545, 286, 262, 582, 11, 290, 262, 582, 38475, 13]
    assert not ids_look_random(text)
    assert not ids_look_random([1, 2, 3])


# --- through the guard --------------------------------------------------------------------------------------------


def guard(**patterns: Any) -> Guard:
    return guard_before(serve(FakeEndpoint(vocabulary=500, width=8)), Exposure(), patterns=PatternConfig(**patterns))


def chat(text: Any, **fields: Any) -> dict[str, Any]:
    return {**CHAT, "messages": [{"role": "user", "content": text}], **fields}


def statuses(guard: Guard, bodies: list[dict[str, Any]]) -> list[int]:
    async def run() -> list[int]:
        app = guard.app()
        path = "/v1/chat/completions"
        return [(await ask(app, path if "messages" in body else "/v1/completions", body)).status for body in bodies]

    return asyncio.run(run())


def test_a_forced_read_out_is_counted_and_logged(caplog):
    each = guard()
    bodies = [chat("x", logit_bias={str(n): 100}, logprobs=True) for n in range(300)]
    assert set(statuses(each, bodies)) == {200}
    for pattern in (Pattern.MANY_BIASES, Pattern.FORCED_TOKENS, Pattern.ID_SWEEP):
        assert each.metrics.value("extraction_total", pattern=pattern.value) == 1
        assert pattern.value in caplog.text
    assert each.metrics.value("extraction_total") == 3


def test_a_prompt_is_the_same_however_it_is_dressed():
    each = guard(bias_per_prompt=2)
    spaces = [" hello", "hel lo", [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo\n"}]]
    dressed = [chat(text, logit_bias={str(n): 1}) for n, text in enumerate(spaces)]
    assert statuses(each, dressed) == [200, 200, 400]
    named = chat("hello", logit_bias={"9": 1})
    named["messages"][0]["name"] = "ann"
    assert statuses(each, [named]) == [400]
    empty = chat("hello", logit_bias={"9": 1})
    empty["messages"].insert(0, {"role": "system", "content": " "})
    assert statuses(each, [empty]) == [400]
    assert statuses(each, [chat("hello", user="other", seed=5, temperature=1, logit_bias={"9": 1})]) == [400]
    assert statuses(each, [chat("goodbye", logit_bias={"9": 1})]) == [200]


def turns(*texts: str, **fields: Any) -> dict[str, Any]:
    roles = ["user", "assistant"] * len(texts)
    return {**CHAT, "messages": [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]}


CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def with_picture(kind: str) -> dict[str, Any]:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{PIXEL}"}}
    return chat([{"type": "text", "text": "hello"}, picture])


def extra(role: str = "user", **fields: Any) -> dict[str, Any]:
    return {**CHAT, "messages": [{"role": role, "content": "hello", **fields}]}


@pytest.mark.parametrize(
    "variants",
    [
        [chat("hello"), extra(tool_calls=[CALL]), extra(tool_call_id="x"), extra(reasoning_content="x"),
         extra("system"), extra("developer"), extra("assistant", tool_calls=[CALL])],
        [chat("hello"), chat("<|im_start|>user\nhello<|im_end|>"), chat("hel\u200blo"), chat("\uff48ello"),
         {**CHAT, "prompt": "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"}],
        [with_picture("png"), with_picture("x1"), with_picture("x2")],
        [chat("caf\u00e9"), chat("cafe\u0301")],
        [turns("a", "b", "c"), turns("a<|im_end|>\n<|im_start|>assistant\nb", "c"),
         turns("a<end_of_turn>\n<start_of_turn>model\nb</s>[INST] c")],
    ],
)  # fmt: skip
def test_a_budget_is_not_renewed_by_what_the_model_does_not_see(variants):
    each = guard(bias_per_prompt=1)
    biased = [{**body, "logit_bias": {str(n): 1}} for n, body in enumerate(variants)]
    assert statuses(each, biased) == [200, *[400] * (len(variants) - 1)]


def test_prompts_that_differ_have_budgets_of_their_own():
    each = guard(bias_per_prompt=1)
    bodies = [chat("hello"), chat("hello!"), with_picture("png"), turns("a", "b"), {**CHAT, "prompt": [1, 2]}]
    assert statuses(each, [{**body, "logit_bias": {str(n): 1}} for n, body in enumerate(bodies)]) == [200] * 5


def test_prompts_of_a_batch_count_each():
    each = guard(bias_per_prompt=2)
    batch = {**CHAT, "prompt": ["a", "b"], "logit_bias": {"1": 1, "2": 1}}
    single = {**CHAT, "prompt": "b", "logit_bias": {"3": 1}}
    assert statuses(each, [batch, single, {**single, "prompt": "c"}]) == [200, 400, 200]


def test_too_many_requests_are_told_to_wait():
    each = guard(requests_per_minute=2)
    assert statuses(each, [chat("x")] * 3) == [200, 200, 429]
    assert each.metrics.value("refused_total") == 1
