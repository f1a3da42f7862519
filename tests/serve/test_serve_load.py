"""Many clients at once, some of which go away: no answer is lost, mixed up or told twice."""

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field

import httpx
import pytest

from lensmith.core.endpoint import Request
from lensmith.models.inference.endpoint import LocalEndpoint
from tests.support.serve_models import NAME, tiny_engine, tiny_server, tokenizer

pytestmark = pytest.mark.alone

CLIENTS = 200
TEMPLATES = ("tell me of {}", "what is {} to you, who never saw {}?", "{}")
PROMPTS = tuple(template.format(*[f"thing {i}"] * 2) for i in range(9) for template in TEMPLATES)


@dataclass
class Tally:
    """What the clients met."""

    expected: dict[tuple[str, int], str]
    right: int = 0
    left: int = 0
    wrong: list[str] = field(default_factory=list)
    ids: Counter[str] = field(default_factory=Counter)


def known_answers():
    """Each prompt's greedy answer, computed alone and without any store."""
    answering = tiny_engine().answering
    endpoint = LocalEndpoint(answering.model, tokenizer(), cache_bytes=0)
    expected = {}
    for prompt in PROMPTS:
        [answer] = endpoint.answer([Request(prompt=prompt, max_tokens=24, temperature=0)])
        for length in (1, 8, 24):
            [shorter] = endpoint.answer([Request(prompt=prompt, max_tokens=length, temperature=0)])
            assert answer.choices[0].text.startswith(shorter.choices[0].text.rstrip("\ufffd"))
            expected[prompt, length] = shorter.choices[0].text
    return expected


async def one_client(number, url, client, tally, until_s):
    dice = random.Random(number)
    loop = asyncio.get_running_loop()
    answered = 0
    # One answer at least, however busy the machine is.
    while loop.time() < until_s or not answered:
        prompt, length = dice.choice(PROMPTS), dice.choice((1, 8, 24))
        fields = {"model": NAME, "prompt": prompt, "max_tokens": length, "temperature": 0}
        if dice.random() < 0.3:
            await leave_early(f"{url}/completions", client, fields, dice, tally)
            continue
        ask = streamed if dice.random() < 0.5 else whole
        answer_id, text = await ask(f"{url}/completions", client, fields)
        answered += 1
        tally.ids[answer_id] += 1
        if text == tally.expected[prompt, length]:
            tally.right += 1
        else:
            tally.wrong.append(f"{prompt!r}: {text!r} instead of {tally.expected[prompt, length]!r}")


async def whole(address, client, fields):
    response = await client.post(address, json=fields)
    assert response.status_code == 200, response.text
    body = response.json()
    [choice] = body["choices"]
    return body["id"], choice["text"]


async def streamed(address, client, fields):
    ids, pieces, is_done = set(), [], False
    async with client.stream("POST", address, json={**fields, "stream": True}) as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            if line == "data: [DONE]":
                is_done = True
            elif line:
                chunk = json.loads(line.removeprefix("data: "))
                ids.add(chunk["id"])
                pieces.append(chunk["choices"][0]["text"])
    assert is_done
    [answer_id] = ids
    return answer_id, "".join(pieces)


async def leave_early(address, client, fields, dice, tally):
    asking = asyncio.create_task((streamed if dice.random() < 0.5 else whole)(address, client, fields))
    await asyncio.sleep(dice.random() * 0.3)
    asking.cancel()
    [result] = await asyncio.gather(asking, return_exceptions=True)
    if isinstance(result, asyncio.CancelledError):
        tally.left += 1
    elif isinstance(result, BaseException):
        raise result


async def storm(url, engine, seconds):
    tally = Tally(expected=known_answers())
    until_s = asyncio.get_running_loop().time() + seconds
    limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    async with httpx.AsyncClient(timeout=120, limits=limits) as client:
        await asyncio.gather(*(one_client(i, url, client, tally, until_s) for i in range(CLIENTS)))
        for _ in range(1000):
            if engine.open_requests == 0 and engine.decoder.is_idle:
                break
            await asyncio.sleep(0.01)
    return tally


def check_storm(seconds, least):
    with tiny_server(slots=16, waiting_requests=2 * CLIENTS) as (url, engine):
        tally = asyncio.run(storm(url, engine, seconds))
        assert not tally.wrong, tally.wrong[:5]
        assert set(tally.ids.values()) == {1}
        assert len(tally.ids) == tally.right
        assert tally.right >= least
        assert tally.left >= least // 20
        # Nobody waits for anything, and nothing still runs for those who left.
        assert engine.open_requests == 0
        assert engine.decoder.is_idle


def test_200_clients_for_10_seconds():
    check_storm(10, least=200)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_200_clients_for_2_minutes():
    check_storm(120, least=2000)
