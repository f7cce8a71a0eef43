"""What programs do to sockets, with everything that they see printed: the same on a host and on a kernel."""
import array
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import termios

L = ('127.0.0.1', 0)


def pair():
    server = socket.create_server(L)
    a = socket.create_connection(server.getsockname())
    b, _ = server.accept()
    server.close()
    return a, b


def fails(f, *args):
    try:
        return f(*args)
    except OSError as e:
        return errno.errorcode[e.errno]


def available(s):
    word = array.array('i', [0])
    fcntl.ioctl(s, termios.FIONREAD, word)
    return word[0]


def messages():
    a, b = pair()
    print('sendmsg', a.sendmsg([b'one', b'', b'two' * 1000, b'x']))
    b.recv(1, socket.MSG_PEEK)
    first, rest = bytearray(5), bytearray(2999)
    print('recvmsg_into', b.recvmsg_into([first, rest], 0, socket.MSG_WAITALL)[0::2], first, rest[:3])
    u, v = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
    u.bind(L)
    v.sendmsg([b'ab', b'cd'], [], 0, u.getsockname())
    data, control, flags, peer = u.recvmsg(3)
    print('trunc', data, control, bool(flags & socket.MSG_TRUNC), peer[0])
    u.setsockopt(socket.IPPROTO_IP, socket.IP_PKTINFO if hasattr(socket, 'IP_PKTINFO') else 8, 1)
    v.sendto(b'info', u.getsockname())
    data, control, flags, peer = u.recvmsg(100, 100)
    print('pktinfo', data, [(l, t, d[8:]) for l, t, d in control])
    print('toolong', fails(v.sendto, bytes(70000), u.getsockname()))
    print('nobody', fails(v.sendto, b'', ('127.0.0.1', 1)))


def non_blocking():
    a, b = pair()
    fcntl.ioctl(a, termios.FIONBIO if hasattr(termios, 'FIONBIO') else 0x5421, struct.pack('i', 1))
    print('again', fails(os.read, a.fileno(), 1))
    print('dontwait', fails(b.recv, 1, socket.MSG_DONTWAIT))
    b.send(b'12345')
    select.select([a], [], [])
    print('available', available(a), a.recv(2, socket.MSG_PEEK), a.recv(10, socket.MSG_TRUNC))
    s = socket.socket()
    s.setblocking(False)
    dead = socket.create_server(L)
    where = dead.getsockname()
    dead.close()
    code = s.connect_ex(where)
    select.select([], [s], [])
    last = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    print('connect', errno.errorcode.get(code if code != errno.EINPROGRESS else last))


def ends():
    a, b = pair()
    a.shutdown(socket.SHUT_WR)
    print('half', b.recv(10), b.send(b'still'), a.recv(10))
    print('pipe', fails(a.send, b'x', socket.MSG_NOSIGNAL))
    hits = []
    signal.signal(signal.SIGPIPE, lambda *_: hits.append(1))
    print('sigpipe', fails(os.write, a.fileno(), b'x'), hits)
    a, b = pair()
    b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    b.close()
    select.select([a], [], [])
    print('reset', fails(a.recv, 1), fails(a.getpeername))


def options():
    a, b = pair()
    for level, name, value in [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 5000),
        (socket.IPPROTO_TCP, socket.TCP_CORK, 1),
        (socket.IPPROTO_IP, socket.IP_TOS, 16),
        (socket.SOL_SOCKET, socket.SO_RCVBUF, 50000),
    ]:
        a.setsockopt(level, name, value)
        print('option', level, name, a.getsockopt(level, name))
    for name in (socket.SO_TYPE, socket.SO_DOMAIN, socket.SO_PROTOCOL, socket.SO_ACCEPTCONN, socket.SO_ERROR):
        print('is', name, a.getsockopt(socket.SOL_SOCKET, name))
    print('unknown', fails(a.getsockopt, socket.SOL_SOCKET, 4000), fails(a.setsockopt, 999, 1, 1))
    a.settimeout(None)
    a.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack('ll', 0, 20000))
    print('timeout', fails(a.recv, 1))


def mixes():
    a, b = pair()
    r, w = os.pipe()
    poll = select.poll()
    poll.register(a, select.POLLIN)
    poll.register(r, select.POLLIN)
    os.write(w, b'x')
    print('poll host', [fd == r for fd, _ in poll.poll()])
    b.send(b'x')
    poll.poll()
    print('poll both', sorted(fd == r for fd, _ in poll.poll()))
    ep = select.epoll()
    ep.register(a, select.EPOLLIN | select.EPOLLET)
    ep.register(r, select.EPOLLIN)
    print('epoll both', sorted(fd == r for fd, _ in ep.poll()))
    print('edge once', [fd == r for fd, _ in ep.poll()])
    b.send(b'y')
    os.read(r, 1)
    print('edge again', [fd == a.fileno() for fd, _ in ep.poll()])
    ep.modify(a, select.EPOLLIN | select.EPOLLONESHOT)
    print('oneshot', len(ep.poll()), len(ep.poll(0)))
    listener = socket.create_server(L)
    ep.register(listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
    c = socket.create_connection(listener.getsockname())
    print('exclusive', [fd == listener.fileno() for fd, _ in ep.poll()])
    ready = select.select([listener, r, a], [w, c], [], 0)
    print('select', [x is listener or x is a for x in ready[0]], len(ready[1]))


def processes():
    a, b = pair()
    pid = os.fork()
    if pid == 0:
        b.close()
        os.set_inheritable(a.fileno(), True)
        os.dup2(a.fileno(), 0)
        os.dup2(a.fileno(), 1)
        os.execv('/usr/bin/tr', ['tr', 'a-z', 'A-Z'])
    a.close()
    b.send(b'from the parent')
    b.shutdown(socket.SHUT_WR)
    print('exec', b.recv(100), b.recv(100), os.waitpid(pid, 0)[1])
    a, b = pair()
    pid = os.fork()
    if pid == 0:
        os.close(a.fileno())
        os._exit(0)
    os.waitpid(pid, 0)
    a.send(b'after')
    print('fork and close', b.recv(10))
    pid = os.fork()
    if pid == 0:
        a.close()
        b.recv(1)
        os._exit(3)
    a.close()
    print('last end', b.recv(10), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def files():
    a, b = pair()
    with open(sys.argv[0], 'rb') as f:
        size = os.fstat(f.fileno()).st_size
        sent = os.sendfile(a.fileno(), f.fileno(), 3, 100)
        print('sendfile', sent, f.tell(), b.recv(200, socket.MSG_WAITALL | socket.MSG_PEEK if sent > 200 else 0)[:9])
        print('sendfile to the end', os.sendfile(a.fileno(), f.fileno(), size - 5, 100), b.recv(100)[-1:])
    print('readv', os.writev(b.fileno(), [b'ab', b'cd']), end=' ')
    x, y = bytearray(3), bytearray(3)
    print(os.readv(a.fileno(), [x, y]), x, y)


for part in messages, non_blocking, ends, options, mixes, processes, files:
    part()
    sys.stdout.flush()
print('done')
