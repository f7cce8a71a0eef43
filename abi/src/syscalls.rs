// The table itself, in the order of numbers: `number name (argument: Kind, ...) -> result, faction, support;`
// A length names the argument by index, counted from 0.
syscalls! {
    0 read (fd: Fd, buf: Out(Arg(2)), count: Size) -> Size, Kern, Full;
    1 write (fd: Fd, buf: In(Arg(2)), count: Size) -> Size, Kern, Full;
    2 open (path: Path, flags: OpenFlags, mode: Mode) -> Fd, Vfs, Full;
    3 close (fd: Fd) -> Zero, Kern, Full;
    4 stat (path: Path, statbuf: Out(Fixed(144))) -> Zero, Vfs, Full;
    5 fstat (fd: Fd, statbuf: Out(Fixed(144))) -> Zero, Kern, Full;
    6 lstat (path: Path, statbuf: Out(Fixed(144))) -> Zero, Vfs, Full;
    7 poll (fds: InOut(Times(1, 8)), nfds: Uint, timeout: Int) -> Int, Kern, Full;
    8 lseek (fd: Fd, offset: Off, whence: Int) -> Off, Kern, Full;
    17 pread64 (fd: Fd, buf: Out(Arg(2)), count: Size, offset: Off) -> Size, Kern, Full;
    18 pwrite64 (fd: Fd, buf: In(Arg(2)), count: Size, offset: Off) -> Size, Kern, Full;
    19 readv (fd: Fd, iov: IovOut(2), iovcnt: Int) -> Size, Kern, Full;
    20 writev (fd: Fd, iov: IovIn(2), iovcnt: Int) -> Size, Kern, Full;
    39 getpid () -> Int, Kern, Full;
    83 mkdir (path: Path, mode: Mode) -> Zero, Vfs, Full;
    87 unlink (path: Path) -> Zero, Vfs, Full;
    165 mount (source: Path, target: Path, fstype: Str, flags: Flags, data: Addr) -> Zero, Vfs, Full;
    257 openat (dirfd: DirFd, path: Path, flags: OpenFlags, mode: Mode) -> Fd, Vfs, Full;
}
