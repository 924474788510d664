"""A TCP proxy that cuts its connections after so many bytes, in the middle of whatever passes."""

import asyncio
import math
import random
import socket
import struct
import threading


class CuttingProxy:
    """Forwards to `target`; a connection is reset once a random number of bytes came back.

    Attributes:
        cuts: Connections that were reset so far.
    """

    def __init__(self, target: str, least: int, most: int, seed: int) -> None:
        """Small and large numbers of bytes are equally likely, by their logarithm."""
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._bytes = (math.log(least), math.log(most))
        self._chance = random.Random(seed)
        self.cuts = 0
        self.address = ""
        self._tasks: set[asyncio.Task] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0, limit=4096)
        )
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in self._tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
        self._loop.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _serve(self, reader, writer) -> None:
        self._tasks.add(asyncio.current_task())
        upstream = None
        try:
            up_reader, upstream = await asyncio.open_connection(*self._target, limit=4096)
            left = int(math.exp(self._chance.uniform(*self._bytes)))
            forth = asyncio.create_task(_pump(reader, upstream, None))
            back = asyncio.create_task(_pump(up_reader, writer, left))
            await asyncio.wait({forth, back}, return_when=asyncio.FIRST_COMPLETED)
            self.cuts += back.done() and not back.cancelled() and back.result()
            forth.cancel()
            back.cancel()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for end in (writer, upstream):
                if end is not None:
                    _reset(end)


async def _pump(reader, writer, left: int | None) -> bool:
    """Forwards until the end (False) or until `left` bytes were forwarded (True)."""
    try:
        while data := await reader.read(4096):
            writer.write(data if left is None else data[:left])
            await writer.drain()
            if left is not None:
                left -= len(data)
                if left <= 0:
                    return True
    except OSError:
        pass
    return False


def _reset(writer) -> None:
    # Without lingering the peer gets a reset instead of an orderly end.
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()
