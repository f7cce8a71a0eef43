#!/usr/bin/env python3
"""Writes the seeds of the targets that make system calls: programs as src/lib.rs reads them, one byte a decision.

The numbers of the ops are their places in the list of each target; whoever changes one runs this again and looks at the coverage.
"""

import pathlib
import struct

HERE = pathlib.Path(__file__).parent / "seeds"


def piece(data):
    return bytes([len(data)]) + data


def number(n):
    return bytes([n]) if n < 240 else b"\xff" + struct.pack("<I", n)


def word(n):
    return struct.pack("<I", n)


def words(*all):
    return b"".join(word(n) for n in all)


def seed(target, name, *ops):
    (HERE / target).mkdir(parents=True, exist_ok=True)
    (HERE / target / name).write_bytes(b"".join(ops))


# What the ops of src/program.rs read, without their own number. Kinds of sockets are places in KINDS.
UNIX_STREAM, UNIX_DGRAM, TCP, UDP, PING, RAW, TCP6, UDP6, PING6, RAW6, ROUTE, DIAG, PACKET, COOKED = (
    0, 1, 3, 4, 5, 6, 8, 9, 10, 11, 13, 14, 15, 16)
INET, INET6, LOCAL = b"\1", b"\2", b"\3\1"
# Everything on the loopback interface.
LINK = b"\0" + piece(struct.pack("<HHI12x", 17, 0x0300, 1))
BIND, CONNECT, LISTEN, SHUTDOWN, SOCKNAME, ACCEPT = range(6)
LEVELS = {1: 0, 0: 1, 41: 2, 6: 3, 17: 4, 58: 5, 255: 6, 263: 7, 270: 8}


def names(which, address=INET, rest=b""):
    return bytes([which]) + address + rest


def set_option(level, name, value):
    return bytes([LEVELS[level]]) + number(name) + piece(value) + b"\0"


def get_option(level, name, room=64):
    return bytes([LEVELS[level]]) + number(name) + number(room) + piece(b"")


def message(address=None, control=(), length=20, flags=0):
    to = b"\0" if address is None else b"\1" + address
    return to + bytes([len(control)]) + b"".join(control) + b"x" + number(length) + number(flags)


def rights(*sockets):
    return bytes([0, 0, len(sockets)]) + bytes(sockets) + b"\0"


def credentials(pid):
    return b"\4\0" + piece(words(pid, 0, 0)) + b"\0"


def other_control(level, kind, data):
    return b"\7" + number(level) + number(kind) + b"\3" + piece(data) + b"\0"


def receive(room=200, control=200, flags=0):
    return number(room) + number(control) + b"\x80" + number(flags)


def ioctl(command, data=b"", name=0):
    base = {0x89: 0, 0x8b: 1, 0x54: 2}[command >> 8]
    tail = number(256) if command == 0x8912 else b""
    return bytes([base, command & 255, name]) + piece(data) + tail


def instructions(*all):
    return piece(b"".join(struct.pack("<HBBI", *one) for one in all))


ACCEPT_ALL = instructions((0x28, 0, 0, 12), (0x15, 0, 1, 0x800), (0x6, 0, 0, 65535), (0x6, 0, 0, 64))


def sockaddr(last, port=0):
    return struct.pack("<HHBBBB8x", 2, port, *last)


def socket_messages():
    pair = lambda kind, end=0: bytes([0, kind, end])
    send = lambda *a, **k: b"\2" + message(*a, **k)
    recv = lambda *a, **k: b"\4" + receive(*a, **k)
    at = lambda n: bytes([7, n])
    name = lambda *a: b"\5" + names(*a)
    make = lambda kind: bytes([6, kind])
    option = lambda *a: b"\x09" + set_option(*a)
    close = b"\x0a"
    save = lambda label, *ops: seed("socket_messages", label, *ops)
    for kind, label in enumerate(("stream", "dgram", "seqpacket")):
        save(label, pair(kind), send(), send(length=3000), at(0), recv(8), recv(8, flags=2), recv(240), send(),
         name(SHUTDOWN, LOCAL, number(1)), at(1), recv(), recv(), send(), close, at(0), recv(), send())
    save("rights", pair(0), pair(1), send(control=[rights(0, 1)]), at(2), recv(flags=2), recv(), at(3), recv(),
         at(0), send(control=[rights(2), rights(3)]), at(1), recv(200, 20), recv(4))
    save("in_flight", pair(1), send(control=[rights(0, 1)]), at(0), send(control=[rights(0, 1)]), close, close,
         pair(0), send(control=[rights(0)]), at(0), send(control=[rights(1)]), close, close)
    save("credentials", pair(0), option(1, 16, word(1)), at(0), option(1, 16, word(1)), send(control=[credentials(1)]),
         send(control=[credentials(7), rights(0)]), at(1), recv(), recv(), send(), at(0), recv(3), recv())
    save("listen", make(UNIX_STREAM), name(BIND, LOCAL), name(LISTEN, LOCAL, number(2)), make(UNIX_STREAM),
         name(CONNECT, LOCAL), send(control=[rights(0)]), at(0), name(ACCEPT, LOCAL), at(2), recv(), send(), at(1), recv(),
         make(UNIX_DGRAM), name(BIND, b"\3\2"), make(UNIX_DGRAM), send(b"\3\2"), name(CONNECT, b"\3\2"), send())
    save("inet", make(UDP), name(BIND), option(0, 8, word(1)), send(INET, [other_control(0, 8, words(1, 0x0100007f, 0))]),
         recv(), make(UDP6), name(BIND, INET6), option(41, 49, word(1)), send(INET6, [other_control(41, 50,
         b"\0" * 15 + b"\1" + word(1))]), recv())


def socket_options():
    make = lambda kind: bytes([0, kind])
    set_ = lambda *a: b"\1" + set_option(*a)
    get = lambda *a: b"\3" + get_option(*a)
    name = lambda *a: b"\5" + names(*a)
    send = lambda *a, **k: b"\6" + message(*a, **k)
    recv = lambda *a, **k: b"\7" + receive(*a, **k)
    at = lambda n: bytes([8, n])
    wait = b"\x0a"
    both = lambda level, option, value=word(1): set_(level, option, value) + get(level, option)
    save = lambda label, *ops: seed("socket_options", label, *ops)
    save("socket", make(UDP), *(both(1, n) for n in (2, 5, 6, 7, 8, 9, 10, 12, 15, 29, 35)), both(1, 13, words(1, 2)),
         both(1, 20, words(1, 0, 0, 0)), both(1, 25, b"lo\0"), *(get(1, n) for n in (3, 4, 17, 28, 30, 38, 39)))
    save("filter", make(UDP), name(BIND), b"\4" + ACCEPT_ALL, send(INET), recv(), set_(1, 44, word(1)), set_(1, 27, word(0)),
         send(INET), recv())
    save("ip", make(UDP), *(both(0, n) for n in (1, 2, 8, 10, 11, 12, 13, 14, 33, 34)), name(BIND), send(INET), recv(),
         recv(flags=0x2000))
    save("groups", make(UDP), set_(0, 32, bytes(8) + word(1)), set_(0, 35, bytes([224, 1, 2, 3]) + bytes(4)),
         set_(0, 35, bytes([224, 1, 2, 3, 127, 0, 0, 1]) + word(1)), set_(0, 39, bytes([224, 1, 2, 4, 127, 0, 0, 1, 9, 9, 9, 9])),
         get(0, 41), set_(0, 36, bytes([224, 1, 2, 3]) + bytes(4)), wait, make(UDP6), set_(41, 20,
         b"\xff\2" + bytes(13) + b"\x09" + word(1)),
         set_(41, 21, b"\xff\2" + bytes(13) + b"\x09" + word(1)))
    save("ip6", make(UDP6), *(both(41, n) for n in (16, 18, 19, 26, 49, 51, 66, 67)), name(BIND, INET6), send(INET6), recv(),
         make(RAW6), both(58, 1, words(*[0xffffffff] * 8)), both(255, 7))
    save("tcp", make(TCP), *(both(6, n) for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 18)), set_(6, 13, b"reno"), get(6, 13, 16), get(6, 11,
         232),
         name(BIND), name(LISTEN, INET, number(4)), make(TCP), name(CONNECT), wait, at(0), name(ACCEPT), at(1), send(), get(6, 11, 232),
         at(2), recv(), wait, set_(1, 13, words(1, 0)), b"\x09", at(1), recv(), get(1, 4), wait)
    save("raw", make(RAW), both(255, 1, word(0xff)), both(0, 3), send(INET, length=40), recv(), make(PING), send(INET, length=16),
         recv(), wait)
    save("netlink", make(ROUTE), *(both(270, n) for n in (1, 3, 4, 5, 8, 10, 11, 12)), get(270, 9), send(b"\5"), recv(), make(DIAG),
         send(b"\5"))
    save("packet", make(PACKET), *(both(263, n) for n in (8, 9, 10, 12, 14, 15, 18, 20, 23)), get(263, 6), both(263, 1, words(1, 1, 0,
         0)))


def socket_ioctls():
    do = lambda *a, **k: b"\0" + ioctl(*a, **k)
    make = lambda kind: bytes([3, kind])
    name = lambda *a: b"\4" + names(*a)
    send = lambda *a, **k: b"\5" + message(*a, **k)
    save = lambda label, *ops: seed("socket_ioctls", label, *ops)
    save("get", *(do(c) for c in (0x8910, 0x8912, 0x8913, 0x8915, 0x8917, 0x8919, 0x891b, 0x891d, 0x8921, 0x8927, 0x8933, 0x8942,
         0x8970)))
    for half, kinds in (("some", range(9)), ("others", range(9, 17))):
        save(f"kinds_{half}", *(make(kind) + do(0x541b) + do(0x8933) + do(0x8906) + name(BIND) + send(INET) for kind in kinds))
    save("set", do(0x8916, sockaddr((10, 0, 0, 1))), do(0x891c, sockaddr((255, 255, 255, 0))), do(0x891a, sockaddr((10, 0, 0, 255))),
         do(0x8914, b"\1\0"), do(0x8922, word(1500)), do(0x8943, word(100)), do(0x8924, b"\1\0abcdef"), do(0x8923, b"x0\0"),
         do(0x8914, b"\0\0"), do(0x8915), do(0x8912))
    route = bytes(0) + sockaddr((10, 1, 0, 0)) + sockaddr((127, 0, 0, 1)) + sockaddr((255, 255, 0, 0)) + struct.pack("<HH", 3, 0)
    save("routes", do(0x890b, route), do(0x890c, route), do(0x8955, sockaddr((127, 0, 0, 1)) + sockaddr((0, 0, 0, 0))),
         do(0x8954, sockaddr((127, 0, 0, 1))), do(0x8953, sockaddr((127, 0, 0, 1))))
    save("queues", make(UDP), name(BIND), send(INET), do(0x541b), do(0x5411), do(0x8905), do(0x8906), do(0x8907), make(TCP), do(0x541b),
         do(0x5421, word(1)), do(0x8901, word(1)), do(0x8903), make(UNIX_STREAM), do(0x541b), make(PACKET), do(0x8906), do(0x8933),
         do(0x8927))
    ethtool = lambda command: do(0x8946, struct.pack("<Q", 0x10000 + 512) + word(command))
    save("bridge", do(0x89a0, name=1), do(0x89a2, word(1), name=1), do(0x8914, b"\1\0", name=1), do(0x89a3, word(1), name=1),
         do(0x89a1, name=1),
         ethtool(3), ethtool(10))


def packet_rings():
    make = lambda kind=0: bytes([0, kind])
    ring = lambda block, blocks, frame: b"\1" + number(0) + bytes([1, block, blocks - 1, frame, 1])
    scribble = lambda at, data: b"\2" + word(at) + piece(data)
    frame = lambda pad=2: b"\4" + piece(bytes(12) + b"\x08\0" + b"\x45" + bytes(19)) + bytes([pad])
    set_ = lambda *a: b"\7" + set_option(*a)
    get = lambda *a: b"\x08" + get_option(*a)
    recv = lambda *a: b"\x09" + receive(*a)
    at = lambda n: bytes([12, n])
    bind = b"\x0a" + names(BIND, LINK)
    save = lambda label, *ops: seed("packet_rings", label, *ops)
    for version in range(3):
        extra = [set_(263, 5, words(4096, 4, 4096, 4, 10, 0, 0))] if version == 2 else [ring(0, 4, 4)]
        save(f"v{version + 1}", make(), set_(263, 10, word(version)), *extra, bind, frame(), frame(60), scribble(0, word(0)), frame(),
         scribble(2048, words(0, 0)), scribble(8, word(0)), frame(), get(263, 6), make(1), frame())
    save("full", make(), set_(263, 10, word(1)), ring(0, 1, 4), set_(263, 9, word(1)), bind, *[frame()] * 4, scribble(0, word(0)),
         frame(),
         get(263, 6), b"\x0d", make(), frame())
    tx = set_(263, 13, words(4096, 1, 2048, 2))
    save("sent", make(), set_(263, 10, word(1)), tx, bind, scribble(0, words(1, 40)), scribble(32, bytes(12) + b"\x08\0" + bytes(26)),
         b"\4" + piece(b"") + b"\0",
         scribble(2048, words(1, 0xffff)), b"\4" + piece(b"") + b"\0")
    save("members", make(), b"\6" + ACCEPT_ALL, set_(263, 1, words(1, 1, 0, 0)), set_(263, 1, struct.pack("<IHH8x", 1, 0, 6)), frame(),
         recv(),
         set_(263, 2, words(1, 1, 0, 0)), set_(263, 8, word(1)), frame(), recv())
    save("fanout", make(), set_(263, 18, words(1)), make(), set_(263, 18, words(1)), frame(), frame(), recv(), at(0), recv(), b"\x0d")


def netlink_requests():
    REQUEST, ACK, DUMP, CREATE, EXCL = range(5)
    sockets = bytes([5, 0])
    end = lambda flags: bytes([1, 0, flags])
    recv = b"\4" + receive()

    def attribute(kind, value):
        return b"\4" + piece(value) + bytes([kind])

    def request(family, which, address, fixed, flags, *attributes):
        kind = {16: b"\0", 20: b"\1", 24: b"\2", 28: b"\4", 32: b"\5"}[family]
        index = b"" if family >= 24 else b"\1"
        return (b"\0" + kind + bytes([which, address, 1]) + fixed + index + bytes([len(attributes)]) + b"".join(attributes)
                + end(flags))

    message = lambda index=0, flags=0, change=0: bytes(3) + words(index, flags, change)
    address = lambda plen, index=1: bytes([plen, 0, 0]) + word(index)
    route = lambda plen, kind=1: bytes([plen, 0, 0, 254, 3, 0, kind]) + word(0)
    neighbour = lambda index=1: bytes(3) + word(index) + bytes([0x80, 0, 0, 1])
    # A kind, one piece of data, a name, and the two links that it may have.
    link = lambda kind, name, data=(), lower=b"\1", master=b"\1": (
        bytes([3, kind, len(data)]) + b"".join(piece(value) + bytes([which]) for which, value in data)
        + bytes([0, 1, 0, name]) + lower + master + end(CREATE))
    peer = bytes(16) + struct.pack("<HH", 6, 3) + b"b\0\0\0"
    v4 = lambda *a: bytes(a)
    save = lambda label, *ops: seed("netlink_requests", label, sockets, *ops)
    save("dumps", request(16, 2, 0, message(), DUMP), recv, recv, request(20, 2, 0, address(0, 0), DUMP), recv, recv,
         request(24, 2, 0, route(0), DUMP), recv, recv, request(28, 2, 0, neighbour(0), DUMP), recv, request(32, 2, 0, route(0), DUMP),
         recv)
    save("links", link(0, 0, [(0, peer)]), recv, link(1, 2), link(2, 3, [(0, b"\5\0")], lower=b"\0\2"), link(5, 4), link(6, 5), recv,
         request(16, 3, 0, message(2, 1, 1), ACK, attribute(10, word(4))), request(16, 3, 0, message(2), ACK, attribute(4, word(1400))),
         request(16, 2, 0, message(), DUMP), recv, recv, request(16, 1, 0, message(4), ACK), request(16, 1, 0, message(2), ACK), recv)
    save("addresses", request(20, 0, 1, address(24), CREATE, attribute(2, v4(10, 0, 0, 1)), attribute(1, v4(10, 0, 0, 1))), recv,
         request(20, 0, 2, address(64), CREATE, attribute(1, b"\xfd" + bytes(14) + b"\1")), recv,
         request(20, 2, 0, address(0, 0), DUMP), recv, recv, request(20, 1, 1, address(24), ACK, attribute(2, v4(10, 0, 0, 1))), recv,
         request(20, 1, 2, address(64), ACK, attribute(1, b"\xfd" + bytes(14) + b"\1")), recv)
    save("routes", request(24, 0, 1, route(16), CREATE, attribute(1, v4(10, 1, 0, 0)), attribute(4, word(1))), recv,
         request(24, 0, 1, route(0), CREATE, attribute(5, v4(127, 0, 0, 1)), attribute(6, word(9))),
         request(24, 0, 2, route(64), CREATE, attribute(1, b"\xfd" + bytes(15)), attribute(4, word(1))),
         request(24, 2, 1, route(32), REQUEST, attribute(1, v4(10, 1, 2, 3))), recv, request(24, 2, 0, route(0), DUMP), recv, recv,
         request(24, 1, 1, route(16), ACK, attribute(1, v4(10, 1, 0, 0)), attribute(4, word(1))), recv)
    save("neighbours", link(0, 0, [(0, peer)]), request(16, 3, 0, message(2, 1, 1), ACK),
         request(28, 0, 1, neighbour(2), CREATE, attribute(1, v4(10, 0, 0, 9)), attribute(2, b"\2\0\0\0\0\1")), recv, b"\x08",
         request(28, 2, 0, neighbour(0), DUMP), recv, request(28, 1, 1, neighbour(2), ACK, attribute(1, v4(10, 0, 0, 9))), recv)
    diag = lambda family, protocol: (b"\0\6" + bytes([0, family, 1]) + bytes([protocol, 255,
    0]) + word(0xffffffff) + bytes(48) + b"\1\0" + end(DUMP))
    save("diag", bytes([5, 2]), diag(1, 6), recv, diag(1, 17), recv, diag(2, 6), recv, diag(2, 17), recv, diag(3, 0), recv)
    join = lambda group: b"\7" + set_option(270, 1, word(group))
    save("groups", join(1), join(5), join(7), join(9), join(11), bytes([5, 0]), link(0, 0, [(0, peer)]),
         request(20, 0, 1, address(24), CREATE, attribute(2, v4(10, 0, 0, 1))), request(16, 3, 0, message(2, 1, 1), ACK), b"\6\0",
         *[recv] * 6)


for make in (socket_messages, socket_options, socket_ioctls, packet_rings, netlink_requests):
    make()
