"""Streams under epoll, poll and select, used in every way and order: the same on a host and on a kernel that has calls answered ahead."""
import array
import ctypes
import errno
import fcntl
import os
import random
import select
import socket
import struct
import termios
import threading

IN, OUT = select.EPOLLIN, select.EPOLLOUT
TCP_CORK = 3


class Stream:
    """One direction: what is to come, and how far it has been read."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.bytes = b''
        self.sent = self.read = 0

    def more(self, n):
        data = self.random.randbytes(n)
        self.bytes += data
        return data

    def took_all_but(self, n):
        # What a short write has left is written another time.
        self.sent = len(self.bytes) - n

    def pending(self):
        return self.bytes[self.sent:]

    def came(self, data, peeked=False):
        at = self.read
        assert data == self.bytes[at:at + len(data)], 'bytes came twice, out of order or not at all'
        if not peeked:
            self.read += len(data)

    def under_way(self):
        return self.sent - self.read


class End:
    def __init__(self, s, out, back):
        s.setblocking(False)
        self.s, self.out, self.back = s, out, back


def poll_twice(fds):
    """poll(2) with each descriptor twice, as programs call it that have several things to do with one."""
    entries = b''.join(struct.pack('ihh', fd, events, 0) for events in (IN, OUT | IN) for fd in fds)
    entries = ctypes.create_string_buffer(entries, len(entries))
    assert ctypes.CDLL(None).poll(entries, ctypes.c_ulong(2 * len(fds)), 0) >= 0
    return sorted({fd for fd, _, found in struct.iter_unpack('ihh', entries.raw) if found})


class World:
    def __init__(self, seed, ops, waits):
        self.random, self.ops, self.waits = random.Random(seed), ops, waits
        self.epoll = select.epoll()
        self.flags = self.random.choice([0, select.EPOLLET])
        self.ends, self.by_fd = [], {}
        server = socket.create_server(('127.0.0.1', 0))
        for i in range(4):
            a = socket.create_connection(server.getsockname())
            b, _ = server.accept()
            there, back = Stream(seed * 100 + i), Stream(seed * 100 + i + 50)
            for end in End(a, there, back), End(b, back, there):
                self.ends.append(end)
                self.by_fd[end.s.fileno()] = end
                self.epoll.register(end.s, IN | OUT | self.flags)
        server.close()

    def ready(self):
        wait = self.random.choice(self.waits)
        if wait == 'epoll':
            return [fd for fd, _ in self.epoll.poll(0, self.random.choice([1, 4, 16]))]
        fds = list(self.by_fd)
        if wait == 'select':
            readable, writable, _ = select.select(fds, fds, [], 0)
            return sorted({*readable, *writable})
        if wait == 'twice':
            return poll_twice(fds)
        poll = select.poll()
        for fd in fds:
            poll.register(fd, IN | OUT)
        return [fd for fd, _ in poll.poll(0)]

    def step(self):
        for fd in self.ready():
            end = self.by_fd[fd]
            for _ in range(self.random.choice([1, 1, 2, 5])):
                self.random.choice(self.ops)(self, end)

    # What is done to a socket.

    def send(self, end):
        n = self.random.choice([1, 40, 240, 240, 1500, 5000])
        data = end.out.pending() + end.out.more(n)
        how = self.random.randrange(5)
        half = len(data) // 2
        try:
            if how == 0:
                n = end.s.send(data)
            elif how == 1:
                n = os.write(end.s.fileno(), data)
            elif how == 2:
                n = os.writev(end.s.fileno(), [data[:half], b'', data[half:]])
            elif how == 3:
                n = end.s.sendmsg([data[:half], data[half:]])
            else:
                n = end.s.send(data, socket.MSG_MORE)
        except BlockingIOError:
            n = 0
        end.out.took_all_but(len(data) - n)

    def receive(self, end):
        n = self.random.choice([1, 100, 8192, 65536])
        how = self.random.randrange(3)
        try:
            if how == 0:
                data = end.s.recv(n)
            elif how == 1:
                data = os.read(end.s.fileno(), n)
            else:
                there, back = bytearray(n // 2), bytearray(n - n // 2)
                got = os.readv(end.s.fileno(), [there, back])
                data = (bytes(there) + bytes(back))[:got]
        except BlockingIOError:
            return
        assert data, 'the end came too early'
        end.back.came(data)

    def peek(self, end):
        try:
            end.back.came(end.s.recv(3000, socket.MSG_PEEK), peeked=True)
        except BlockingIOError:
            pass

    def count(self, end):
        word = array.array('i', [0])
        fcntl.ioctl(end.s, termios.FIONREAD, word)
        assert word[0] <= end.back.under_way(), 'more to read than was sent'

    def cork(self, end):
        end.s.setsockopt(socket.IPPROTO_TCP, TCP_CORK, self.random.randrange(2))
        assert end.s.getsockopt(socket.IPPROTO_TCP, TCP_CORK) in (0, 1)
        end.s.setsockopt(socket.IPPROTO_TCP, TCP_CORK, 0)

    def modify(self, end):
        self.epoll.modify(end.s, self.random.choice([IN, OUT, IN | OUT]) | self.flags)
        self.epoll.modify(end.s, IN | OUT | self.flags)

    def take_out(self, end):
        # In any order: what an entry is not in for is told, also when it just went out or came in.
        there = True
        for _ in range(self.random.randrange(6)):
            op = self.random.randrange(3)
            refused = None
            try:
                if op == 0:
                    self.epoll.register(end.s, self.random.choice([IN, IN | OUT]) | self.flags)
                elif op == 1:
                    self.epoll.unregister(end.s)
                else:
                    self.epoll.modify(end.s, OUT | self.flags)
            except OSError as e:
                refused = e.errno
            expected = errno.EEXIST if op == 0 and there else errno.ENOENT if op != 0 and not there else None
            assert refused == expected, (op, there, refused)
            there = op == 0 or there and op == 2
            if self.random.randrange(3) == 0:
                self.send(end)
        if not there:
            self.epoll.register(end.s, IN | OUT | self.flags)

    def ask(self, end):
        # What changes nothing.
        assert end.s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert end.s.getpeername() != end.s.getsockname()
        flags = fcntl.fcntl(end.s, fcntl.F_GETFL)
        assert flags & os.O_NONBLOCK
        fcntl.fcntl(end.s, fcntl.F_SETFL, flags)
        end.s.setblocking(False)
        assert end.s.connect_ex(end.s.getpeername()) == errno.EISCONN

    def duplicate(self, end):
        # The number goes on with a duplicate, and the old one is another number of the same socket for a while.
        other = os.dup(end.s.fileno())
        self.receive(end)
        try:
            data = os.read(other, 50)
            end.back.came(data)
        except BlockingIOError:
            pass
        self.send(end)
        os.close(other)

    def fork(self, end):
        data = end.out.pending() + end.out.more(100)
        child = os.fork()
        if child == 0:
            # Says how much it has read and written, and leaves at once.
            try:
                read = len(os.read(end.s.fileno(), 77))
            except BlockingIOError:
                read = 0
            try:
                wrote = os.write(end.s.fileno(), data)
            except BlockingIOError:
                wrote = 0
            os.write(pipe[1], struct.pack('ii', read, wrote))
            os._exit(0)
        read, wrote = struct.unpack('ii', os.read(pipe[0], 8))
        os.waitpid(child, 0)
        end.back.read += read
        end.out.took_all_but(len(data) - wrote)

    def thread(self, end):
        def run():
            self.receive(end)
            self.send(end)
        t = threading.Thread(target=run)
        t.start()
        t.join()

    def finish(self):
        # All that was begun goes out, and everything that went out comes, in order and once.
        while any(end.out.pending() or end.back.under_way() for end in self.ends):
            for end in self.ends:
                if end.out.pending():
                    data = end.out.pending()
                    try:
                        end.out.sent += end.s.send(data)
                    except BlockingIOError:
                        pass
                try:
                    end.back.came(end.s.recv(1 << 20))
                except BlockingIOError:
                    pass
        for end in self.ends:
            assert self.epoll.poll(0) is not None
            end.s.shutdown(socket.SHUT_WR)
        for end in self.ends:
            end.s.setblocking(True)
            assert end.s.recv(10) == b''
            end.s.close()
        self.epoll.close()


pipe = os.pipe()


def exchange(name, ops, seeds, steps, waits=('epoll',)):
    for seed in seeds:
        world = World(seed, ops, waits)
        for _ in range(steps):
            world.step()
        world.finish()
    print(name)


W = World
exchange('alone', [W.send] * 4 + [W.receive] * 5 + [W.cork, W.modify, W.take_out, W.peek, W.count, W.ask], range(8), 60)
exchange('shared', [W.send] * 8 + [W.receive] * 10 + [W.duplicate, W.fork, W.take_out, W.ask], range(100, 103), 40)
exchange('threads', [W.send] * 8 + [W.receive] * 10 + [W.thread, W.take_out], range(200, 203), 40)
exchange('polls', [W.send] * 4 + [W.receive] * 5 + [W.cork, W.take_out, W.peek, W.count, W.ask], range(300, 304), 40, ('poll', 'select', 'twice'))
exchange('all waits', [W.send] * 8 + [W.receive] * 10 + [W.duplicate, W.fork, W.thread, W.take_out], range(400, 403), 40, ('poll', 'select', 'twice', 'epoll'))


def ready():
    """A connected pair, and what epoll says of its first end when the second has written."""
    server = socket.create_server(('127.0.0.1', 0))
    a = socket.create_connection(server.getsockname())
    b, _ = server.accept()
    server.close()
    b.sendall(b'request')
    epoll = select.epoll()
    epoll.register(a, IN)
    epoll.poll()
    return a, b, epoll


# What is written before the end of a process arrives, whether it closes, exits, execs or is killed.
for end in 'close', 'exit', 'exec', 'kill':
    a, b, epoll = ready()
    child = os.fork()
    if child == 0:
        b.close()
        epoll = select.epoll()
        epoll.register(a, IN | OUT)
        epoll.poll()
        got = a.recv(100)
        a.send(b'answer to ' + got)
        os.write(a.fileno(), b'!')
        if end == 'close':
            a.close()
        elif end == 'exec':
            a.set_inheritable(True)
            os.execv('/bin/true', ['true'])
        elif end == 'kill':
            os.kill(os.getpid(), 9)
        os._exit(0)
    a.close()
    got = b''
    while piece := b.recv(100):
        got += piece
    os.waitpid(child, 0)
    print(end, got)

# In one process, with nobody else: written and gone.
a, b, epoll = ready()
print(a.recv(3), a.send(b'one'), a.send(b'two'), a.recv(100))
a.close()
print(b.recv(100, socket.MSG_WAITALL))
a, b, epoll = ready()
a.send(b'half')
a.shutdown(socket.SHUT_WR)
print(b.recv(100, socket.MSG_WAITALL), a.recv(100))
b.send(b'more')
print(a.recv(100, socket.MSG_WAITALL | socket.MSG_DONTWAIT))

# The end, and what closes: whoever gets the number next is nobody else.
a, b, epoll = ready()
b.shutdown(socket.SHUT_WR)
epoll.poll()
print(a.recv(3), a.recv(100), a.recv(100), os.read(a.fileno(), 1), a.send(b'late'))
number = a.fileno()
while os.dup(0) < number:
    pass
a.close()
r, w = os.pipe()
os.write(w, b'pipe')
print(number == r, b.recv(100, socket.MSG_WAITALL), os.read(r, 10))
os.close(r)
os.close(w)
c = socket.socket()
print(c.fileno() == number, c.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
try:
    c.recv(1)
except OSError as e:
    print(errno.errorcode[e.errno])
c.close()
a, b, epoll = ready()
a.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 5))
epoll.poll()
a.recv(100)
a.send(b'kept')
a.close()
print(b.recv(100, socket.MSG_WAITALL))


def short_connections(count):
    """A server that closes first and its clients, one after the other and several at a time."""
    server = socket.create_server(('127.0.0.1', 0))
    server.setblocking(False)
    epoll = select.epoll()
    epoll.register(server, IN)
    serving, asking, begun, done = {}, {}, 0, 0
    while done < count:
        while begun < count and len(asking) < 8:
            c = socket.create_connection(server.getsockname())
            c.setblocking(False)
            c.send(b'request %d' % begun)
            epoll.register(c, IN | select.EPOLLRDHUP * (begun % 2))
            asking[c.fileno()] = [c, b'answer to request %d' % begun]
            begun += 1
        for fd, _ in epoll.poll():
            if fd == server.fileno():
                s, _ = server.accept()
                s.setblocking(False)
                epoll.register(s, IN | select.EPOLLRDHUP)
                serving[s.fileno()] = s
            elif fd in serving:
                s = serving.pop(fd)
                s.send(b'answer to ' + s.recv(100))
                s.close()
            else:
                c, expected = asking[fd]
                got = c.recv(100)
                assert expected.startswith(got), (got, expected)
                asking[fd][1] = expected[len(got):]
                if not got:
                    assert not expected, expected
                    del asking[fd]
                    c.close()
                    done += 1
    assert not serving and not asking


short_connections(400)
print('short')

# Level-triggered readiness is over when everything was read, for whoever looks.
a, b, epoll = ready()
other = select.epoll()
other.register(a, IN)
other.poll()
print(a.recv(7), [len(e.poll(0)) for e in (epoll, other)], select.select([a], [], [], 0)[0])
b.send(b'next')
print([len(e.poll()) for e in (epoll, other)], a.recv(100))

# Taken out, nothing is told of it; put back, it is.
a, b, epoll = ready()
print(a.recv(3))
epoll.unregister(a)
print(epoll.poll(0))
epoll.register(a, IN)
print([events for _, events in epoll.poll(0)], a.recv(10))
epoll.modify(a, OUT)
print([events for _, events in epoll.poll(0)])
epoll.unregister(a)
a.close()
b.close()

# An instance that is gone is not changed, and one that took its number is another; exclusive entries do not change.
def refused(call, *args):
    try:
        call(*args)
        return None
    except OSError as e:
        return errno.errorcode[e.errno]


a, b, epoll = ready()
number = epoll.fileno()
os.close(number)
print(refused(epoll.modify, a, OUT))
os.dup2(os.open('/dev/null', os.O_RDONLY), number)
print(refused(epoll.modify, a, OUT), refused(epoll.register, a, OUT))
another = select.epoll()
os.dup2(another.fileno(), number)
print(refused(epoll.modify, a, OUT), refused(epoll.unregister, a), refused(epoll.register, a, OUT))
exclusive = select.epoll()
exclusive.register(a, IN | select.EPOLLEXCLUSIVE)
exclusive.poll()
print(refused(exclusive.modify, a, OUT), refused(exclusive.unregister, a))

# Another descriptor's events after the number was given to something else.
a, b, epoll = ready()
number = a.fileno()
r, w = os.pipe()
os.dup2(r, number)
os.write(w, b'pipe')
print(os.read(number, 100))

# Who asks and who answers, neither of whom ever blocks in anything but poll; the one that is asked has other files in it.
a, b, epoll = ready()
r, w = os.pipe()
rounds = 300


def answers():
    poll = select.poll()
    poll.register(a, IN)
    poll.register(r, IN)
    sum_of = 0
    while sum_of < rounds * 8:
        assert [fd for fd, _ in poll.poll()] == [a.fileno()]
        got = a.recv(100)
        sum_of += len(got)
        a.sendall(got)


assert a.recv(100) == b'request'
thread = threading.Thread(target=answers)
thread.start()
for i in range(rounds):
    b.sendall(b'%08d' % i)
    got = b''
    while len(got) < 8:
        assert select.select([b], [], [], 60)[0] == [b]
        got += b.recv(100)
    assert got == b'%08d' % i, got
thread.join()
print('asked')

# A reset that comes after what epoll has told: one of the next calls tells.
a, b, epoll = ready()
b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
b.close()
for call in a.send, a.send, a.send:
    try:
        call(b'lost')
    except OSError as e:
        print('told', type(e).__name__ in ('ConnectionResetError', 'BrokenPipeError'))
        break
    select.select([a], [], [])
