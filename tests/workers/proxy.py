"""A TCP proxy that can cut all connections that go through it, at any time or when a chosen transaction has been committed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from threading import Thread
from typing import Self

from tests.postgres import free_port


class Proxy:
    """Listens on ``port`` of the loopback interface and forwards to another port there; a context."""

    def __init__(self, target: int) -> None:
        self.port, self._target = free_port(), target
        self._writers: set[asyncio.StreamWriter] = set()
        self._statement, self._lost = b"", 0
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", self.port), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> int:
        """Reset every connection; returns how many sides there were."""
        return asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result()

    def lose_answer(self, statement: str, times: int = 1) -> None:
        """Drop the server's answer to the COMMIT of the next transactions with this SQL in them, and reset every connection instead."""
        self._statement, self._lost = statement.encode(), times

    @property
    def answers_to_lose(self) -> int:
        """Number of answers that are still to be dropped."""
        return self._lost

    async def _end(self) -> None:
        self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _cut(self) -> int:
        cut = list(self._writers)
        for writer in cut:
            writer.transport.abort()
        return len(cut)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, onward = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        chosen = asyncio.Event()
        await asyncio.gather(self._pump(reader, onward, chosen), self._pump(there, writer, chosen, back=True))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, chosen: asyncio.Event, *, back: bool = False) -> None:
        """Forward one direction of a connection; ``chosen`` is set while a transaction runs whose answer is to be dropped."""
        self._writers.add(writer)
        with suppress(OSError):
            while data := await reader.read(65536):
                if not back and self._lost and self._statement in data:
                    chosen.set()
                if back and chosen.is_set() and b"COMMIT" in data:
                    self._lost -= 1
                    await self._cut()
                    break
                writer.write(data)
                await writer.drain()
        self._writers.discard(writer)
        writer.close()
