"""Streams and datagrams over asyncio: half closes both ways, many connections at once, transfers of random sizes, known by their hashes.

serve ADDRESS, ask ADDRESS; send ADDRESS, which is a large transfer each way and no more; or put ADDRESS, one there.
"""

import asyncio
import hashlib
import random
import sys

PORT = 9000
random.seed(7)


def data(seed, size):
    return random.Random(seed).randbytes(size)


async def serve_stream(reader, writer):
    """A line says what is wanted."""
    word, seed, size = (await reader.readline()).split()
    seed, size = int(seed), int(size)
    if word == b"sink":
        # All of it, to its end, then what it was.
        told = hashlib.sha256()
        while part := await reader.read(100_000):
            told.update(part)
        writer.write(told.digest())
    elif word == b"source":
        # The other side has nothing more to say from the start.
        assert await reader.read() == b""
        writer.write(data(seed, size))
    elif word == b"echo":
        while part := await reader.read(random.randint(1, 70_000)):
            writer.write(part)
            await writer.drain()
    await writer.drain()
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()


class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        self.transport.sendto(data[::-1], peer)


async def serve(address):
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(Datagrams, local_addr=(address, PORT))
    server = await asyncio.start_server(serve_stream, address, PORT, backlog=512)
    print("serving", flush=True)
    await server.serve_forever()


async def ask_stream(address, word, seed, size):
    reader, writer = await asyncio.open_connection(address, PORT)
    writer.write(b"%s %d %d\n" % (word, seed, size))
    sent = data(seed, size)
    if word == b"source":
        writer.write_eof()
        assert await reader.read() == sent, "source"
    elif word == b"sink":
        for at in range(0, size, 50_000):
            writer.write(sent[at : at + 50_000])
            await writer.drain()
        writer.write_eof()
        assert await reader.read() == hashlib.sha256(sent).digest(), "sink"
    else:

        async def send():
            at = 0
            while at < size:
                part = random.randint(1, 60_000)
                writer.write(sent[at : at + part])
                await writer.drain()
                at += part
            writer.write_eof()

        _, got = await asyncio.gather(send(), reader.read())
        assert got == sent, "echo"
    writer.close()
    await writer.wait_closed()


class Asking(asyncio.DatagramProtocol):
    def __init__(self):
        self.answers = asyncio.Queue()

    def datagram_received(self, data, peer):
        self.answers.put_nowait(data)


async def ask(address):
    loop = asyncio.get_running_loop()
    for word in b"sink", b"source", b"echo":
        for size in 0, 1, 1447, 1448, 1449, 65_535, random.randrange(1 << 20), 5_000_000:
            await ask_stream(address, word, size, size)
    print("streams")
    # More than fit into anybody's queue of connections at once would be refused somewhere; so many are not.
    for word in b"sink", b"source", b"echo":
        sizes = [random.randrange(20_000) for _ in range(100)]
        await asyncio.gather(*(ask_stream(address, word, n, size) for n, size in enumerate(sizes)))
    print("many")
    transport, asking = await loop.create_datagram_endpoint(Asking, remote_addr=(address, PORT))
    for size in [1, 1400, 1452, 1472, 1473, 9000, 65_000] + [random.randrange(30_000) for _ in range(20)]:
        sent = data(size, size)
        transport.sendto(sent)
        assert await asyncio.wait_for(asking.answers.get(), 30) == sent[::-1], size
    transport.close()
    print("datagrams")


async def send(address):
    for word in b"sink", b"source":
        await ask_stream(address, word, 1, 1_000_003)
    print("sent")


async def put(address):
    await ask_stream(address, b"sink", 1, 1_000_003)
    print("put")


asyncio.run({"serve": serve, "ask": ask, "send": send, "put": put}[sys.argv[1]](sys.argv[2]))
