"""A bad network: passes connections on, later, and does to them what it is told.

usage: relay.py PORT HOST:PORT DELAY_SECONDS

Listens on 127.0.0.1:PORT and passes each connection on to HOST:PORT, every byte DELAY_SECONDS later, in both
directions. Says "ready" on standard output, and obeys words on standard input, a line each, answering with "done":

    stall   nothing passes any more
    go      it passes again
    reset   all connections are reset, on both sides
    half    all connections are reset on the side of the client; the other side stays open and hears nothing

It ends with its standard input.
"""

import asyncio
import socket
import struct
import sys

# What is on its way in one direction: chunks of at most so many bytes.
CHUNK_BYTES = 65536
CHUNKS_MAX = 64


class Connection:
    def __init__(self, relay, client, server):
        self.relay = relay
        self.client, self.server = client, server  # (reader, writer) each
        self.tasks = []

    def start(self):
        for (reader, _), (_, writer) in ((self.client, self.server), (self.server, self.client)):
            on_its_way = asyncio.Queue(CHUNKS_MAX)
            self.tasks.append(asyncio.create_task(self.take(reader, on_its_way)))
            self.tasks.append(asyncio.create_task(self.give(on_its_way, writer)))

    async def take(self, reader, on_its_way):
        try:
            while data := await reader.read(CHUNK_BYTES):
                await on_its_way.put((asyncio.get_running_loop().time() + self.relay.delay_seconds, data))
        except ConnectionError:
            pass
        await on_its_way.put((0, b""))

    async def give(self, on_its_way, writer):
        try:
            while True:
                due, data = await on_its_way.get()
                await asyncio.sleep(due - asyncio.get_running_loop().time())
                await self.relay.passing.wait()
                if not data:
                    break
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        self.end(self.client)
        self.end(self.server)

    def end(self, side):
        """Resets the connection on that side, with what was on its way."""
        for task in self.tasks:
            if task is not asyncio.current_task():
                task.cancel()
        end = side[1].get_extra_info("socket")
        if not side[1].is_closing():
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        side[1].transport.abort()
        self.relay.connections.discard(self)


class Relay:
    def __init__(self, host, port, delay_seconds):
        self.host, self.port, self.delay_seconds = host, port, delay_seconds
        self.passing = asyncio.Event()
        self.passing.set()
        self.connections = set()
        self.silent = []  # ends that stay open

    async def accept(self, reader, writer):
        try:
            server = await asyncio.open_connection(self.host, self.port)
        except OSError:
            writer.transport.abort()
            return
        connection = Connection(self, (reader, writer), server)
        self.connections.add(connection)
        connection.start()

    def obey(self, word):
        if word == "stall":
            self.passing.clear()
        elif word == "go":
            self.passing.set()
        elif word in ("reset", "half"):
            for connection in list(self.connections):
                connection.end(connection.client)
                if word == "reset":
                    connection.end(connection.server)
                else:
                    self.silent.append(connection.server)
        else:
            raise ValueError(word)


async def main():
    host, port = sys.argv[2].rsplit(":", 1)
    relay = Relay(host, int(port), float(sys.argv[3]))
    await asyncio.start_server(relay.accept, "127.0.0.1", int(sys.argv[1]))
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        relay.obey(line.strip())
        print("done", flush=True)


asyncio.run(main())
