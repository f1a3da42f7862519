"""The protocol over pipes, against a partner of our own at the other end."""

import asyncio
import json
import os

import pytest

from lensmith.render.devtools import Connection, ConnectionLostError, ProtocolError, SessionLostError


class Partner:
    """The browser's end of the pipes."""

    def __init__(self) -> None:
        self._reads, self.our_write = os.pipe()
        self.our_read, self._writes = os.pipe()

    def received(self) -> dict:
        data = b""
        while not data.endswith(b"\0"):
            data += os.read(self._reads, 1)
        return json.loads(data[:-1])

    def send(self, *messages: dict, piece: int = 1 << 16) -> None:
        data = b"".join(json.dumps(message).encode() + b"\0" for message in messages)
        for start in range(0, len(data), piece):
            os.write(self._writes, data[start : start + piece])

    def leave(self) -> None:
        os.close(self._writes)
        os.close(self._reads)


def run(scenario) -> None:
    async def main():
        partner = Partner()
        connection = await Connection.open(partner.our_write, partner.our_read)
        try:
            async with asyncio.timeout(10):
                await scenario(connection, partner)
        finally:
            connection.close()

    asyncio.run(main())


def test_answers_find_their_calls_in_any_order():
    async def scenario(connection, partner):
        first = connection.send("A.one", {"x": 1})
        second = connection.send("A.two", session="s")
        one, two = await asyncio.to_thread(lambda: (partner.received(), partner.received()))
        assert one == {"id": one["id"], "method": "A.one", "params": {"x": 1}}
        assert two == {"id": two["id"], "method": "A.two", "params": {}, "sessionId": "s"}
        partner.send({"id": two["id"], "result": {"n": 2}}, {"id": one["id"], "result": {"n": 1}})
        assert (await first, await second) == ({"n": 1}, {"n": 2})

    run(scenario)


@pytest.mark.parametrize("piece", [1, 7, 1 << 16])
def test_messages_survive_any_cutting(piece):
    async def scenario(connection, partner):
        seen = []
        connection.listen("s", lambda method, params: seen.append((method, params)))
        call = connection.send("A.call")
        message = await asyncio.to_thread(partner.received)
        partner.send(
            {"method": "E.one", "params": {"t": "é\u0001"}, "sessionId": "s"},
            {"method": "E.other", "params": {}, "sessionId": "unknown"},
            {"id": message["id"], "result": {"long": "x" * 3000}},
            piece=piece,
        )
        assert (await call)["long"] == "x" * 3000
        assert seen == [("E.one", {"t": "é\u0001"})]

    run(scenario)


def test_refusal_is_a_protocol_error():
    async def scenario(connection, partner):
        call = connection.send("A.wrong")
        message = await asyncio.to_thread(partner.received)
        partner.send({"id": message["id"], "error": {"code": -32601, "message": "no such method"}})
        with pytest.raises(ProtocolError, match="no such method"):
            await call

    run(scenario)


def test_lost_connection_fails_what_waits_and_what_comes_after():
    async def scenario(connection, partner):
        waiting = [connection.send("A.call"), connection.expect("s")]
        partner.leave()
        for future in waiting:
            with pytest.raises(ConnectionLostError):
                await future
        assert connection.lost
        with pytest.raises(ConnectionLostError):
            await connection.send("A.call")

    run(scenario)


def test_lost_session_fails_its_own_calls_only():
    async def scenario(connection, partner):
        ours, event, other = (
            connection.send("A", session="s"),
            connection.expect("s"),
            connection.send("B", session="t"),
        )
        connection.drop_session("s")
        for future in (ours, event):
            with pytest.raises(SessionLostError):
                await future
        first, second = await asyncio.to_thread(lambda: (partner.received(), partner.received()))
        partner.send({"id": first["id"], "result": {}}, {"id": second["id"], "result": {"n": 1}})
        assert await other == {"n": 1}

    run(scenario)
