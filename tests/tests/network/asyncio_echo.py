"""Twenty streams to an echo server at once, a datagram there and back, and a child with pipes, in one event loop."""
import asyncio

SIZE = 100_000


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def one(port, n):
    reader, writer = await asyncio.open_connection('127.0.0.1', port)
    data = bytes(i * n & 255 for i in range(SIZE))
    writer.write(data)
    assert await reader.readexactly(SIZE) == data
    writer.write_eof()
    assert await reader.read() == b''
    writer.close()
    await writer.wait_closed()


class Back(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        self.transport.sendto(data, peer)


class Await(asyncio.DatagramProtocol):
    def __init__(self, future):
        self.future = future

    def datagram_received(self, data, peer):
        self.future.set_result(data)


async def main():
    server = await asyncio.start_server(echo, '127.0.0.1', 0)
    port = server.sockets[0].getsockname()[1]
    await asyncio.gather(*(one(port, n) for n in range(20)))
    server.close()
    print('20 echoes')

    loop = asyncio.get_running_loop()
    back, _ = await loop.create_datagram_endpoint(Back, local_addr=('127.0.0.1', 0))
    got = loop.create_future()
    ask, _ = await loop.create_datagram_endpoint(
        lambda: Await(got), remote_addr=back.get_extra_info('sockname'))
    ask.sendto(b'ping')
    print(await got)

    child = await asyncio.create_subprocess_exec('cat', stdin=-1, stdout=-1)
    out, _ = await child.communicate(b'through cat')
    print(out)


asyncio.run(main())
