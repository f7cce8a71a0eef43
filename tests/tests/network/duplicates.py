"""Duplicates of an epoll descriptor are one instance, whoever made them and when, and whoever asks: the same on a host and on a kernel."""
import errno
import fcntl
import os
import resource
import select
import socket
import subprocess
import sys
import threading

IN = select.EPOLLIN


def pair():
    server = socket.create_server(('127.0.0.1', 0))
    a = socket.create_connection(server.getsockname())
    b, _ = server.accept()
    server.close()
    return a, b


def fails(f, *args):
    try:
        return f(*args)
    except OSError as e:
        return errno.errorcode[e.errno]


# Each way to make one, for a number that is free.
WAYS = {
    'dup': os.dup,
    'dup2': lambda fd: os.dup2(fd, free(), True),
    'dup3': lambda fd: os.dup2(fd, free(), False),
    'F_DUPFD': lambda fd: fcntl.fcntl(fd, fcntl.F_DUPFD, 40),
    'F_DUPFD_CLOEXEC': lambda fd: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 40),
}


def free():
    fd = os.open('/dev/null', os.O_RDONLY)
    os.close(fd)
    return fd


class Same:
    """An instance by several descriptors."""

    def __init__(self):
        self.first = select.epoll()
        self.all = [self.first]

    def more(self, way):
        self.all.append(select.epoll.fromfd(WAYS[way](self.all[-1].fileno())))
        return self.all[-1]

    def see(self, names):
        """What each descriptor tells: a list when they agree."""
        told = [sorted(names[fd] for fd, _ in e.poll(0)) for e in self.all]
        return told[0] if all(t == told[0] for t in told) else told

    def close(self):
        for e in self.all:
            e.close()


def every_way():
    for before in True, False:
        for way in WAYS:
            a, b = pair()
            r, w = os.pipe()
            names = {a.fileno(): 'socket', r: 'pipe'}
            same = Same()
            if before:
                same.more(way)
            same.all[-1].register(a, IN)
            same.first.register(r, IN)
            same.more(way)
            seen = [same.see(names)]
            b.send(b'x')
            seen += [same.see(names), [names[fd] for fd, _ in same.all[-1].poll()]]
            os.write(w, b'x')
            seen.append(same.see(names))
            twice = [fails(e.register, a, IN) for e in same.all]
            same.all[1].modify(a, select.EPOLLOUT)
            seen.append(same.see(names))
            same.first.modify(a, IN)
            # The instance lasts as long as any of them.
            same.all.pop(0).close()
            seen.append(same.see(names))
            same.all[0].unregister(a)
            seen.append(same.see(names))
            print(way, before, seen, twice, [fails(e.unregister, a) for e in same.all])
            same.close()
            a.close(), b.close(), os.close(r), os.close(w)


def numbers_that_are_used_again():
    a, b = pair()
    b.send(b'x')
    same = Same()
    same.first.register(a, IN)
    second, names = same.more('dup'), {a.fileno(): 'socket'}
    number = second.fileno()
    print('no such', fails(os.dup2, 900, number), same.see(names), fails(os.dup2, number, number) == number)
    # A socket in the place of one, and one in the place of a socket.
    os.dup2(b.fileno(), number)
    print('socket', os.write(number, b'y'), a.recv(10), same.first.poll(0), fails(second.poll, 0))
    os.dup2(same.first.fileno(), number)
    b.send(b'z')
    print('again', same.see(names))
    # Another instance there; then nothing.
    other = select.epoll()
    other.register(b, select.EPOLLOUT)
    os.dup2(other.fileno(), number)
    print('other', second.poll(0) == [(b.fileno(), select.EPOLLOUT)], len(same.first.poll(0)))
    os.closerange(number, number + 1)
    c = socket.socket()
    d = [c] if c.fileno() == number else [c, socket.socket()]
    print('closed', [s.fileno() == number for s in d][-1], d[-1].getsockopt(socket.SOL_SOCKET, socket.SO_TYPE))
    os.dup2(os.open('/dev/null', os.O_RDONLY), number)
    print('file', os.read(number, 1), fails(second.poll, 0), len(same.first.poll(0)))


def who_waits_already():
    """Whoever waits hears of what is added later, by whatever descriptor."""
    seen = []
    for way in 'dup', 'F_DUPFD_CLOEXEC', None:
        for _ in range(20):
            same = Same()
            waits = same.first
            adds = same.more(way) if way else same.first
            a, b = pair()
            heard = []
            thread = threading.Thread(target=lambda: heard.extend(waits.poll()))
            thread.start()
            adds.register(a, IN)
            b.send(b'x')
            thread.join()
            seen.append(heard == [(a.fileno(), IN)])
            same.close(), a.close(), b.close()
    print('waits', all(seen), len(seen))


def watched():
    """An instance is readable when something in it is ready, to poll(2), select(2) and another instance."""
    for way in 'dup', 'F_DUPFD':
        a, b = pair()
        same = Same()
        same.more(way)
        same.first.register(a, IN)
        inner = same.all[1].fileno()
        outer, poll = select.epoll(), select.poll()
        outer.register(inner, IN)
        poll.register(inner, select.POLLIN)
        look = lambda wait: (poll.poll(wait * 1000), select.select([inner], [], [], wait)[0], {fd for fd, _ in outer.poll(wait)})
        quiet = look(0)
        b.send(b'x')
        told = look(60)
        a.recv(1)
        print(way, quiet, told == ([(inner, 1)], [inner], {inner}), look(0))
        outer.unregister(inner)
        b.send(b'x')
        print('left', outer.poll(0), fails(outer.modify, inner, IN), fails(outer.register, outer, IN), len(same.first.poll()))
        same.close()


def high_numbers():
    """Above what a process may have at first."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    a, b = pair()
    same = Same()
    same.first.register(fcntl.fcntl(a, fcntl.F_DUPFD, 3000), IN)
    same.all.append(select.epoll.fromfd(fcntl.fcntl(same.first, fcntl.F_DUPFD, 3000)))
    os.dup2(b.fileno(), 4000)
    os.write(4000, b'x')
    print('high', same.see({3000: 'socket'}), [e.fileno() for e in same.all[1:]])


def children():
    """A child that fork made has the instance too, and so has a program that gets a duplicate by exec."""
    same = Same()
    same.more('dup')
    a, b = pair()
    child = os.fork()
    if child == 0:
        same.all[1].register(a, IN)
        b.send(b'x')
        os._exit(0)
    os.waitpid(child, 0)
    names = {a.fileno(): 'socket'}
    print('fork', same.see(names))
    program = 'import select, sys\n' \
        'for fd in sys.argv[1:]: e = select.epoll.fromfd(int(fd)); print(len(e.poll(0)), flush=True)\n' \
        'e.unregister(int(fd) and %d)\n' % a.fileno()
    fds = [e.fileno() for e in same.all]
    done = subprocess.run([sys.executable, '-c', program, *map(str, fds)], pass_fds=fds + [a.fileno()], capture_output=True)
    print('exec', done.stdout, done.returncode, done.stderr[-200:], same.see(names))


every_way()
numbers_that_are_used_again()
who_waits_already()
watched()
high_numbers()
children()
print('done')
