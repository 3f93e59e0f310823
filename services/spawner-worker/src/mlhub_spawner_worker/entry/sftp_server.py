"""An SFTP server (protocol 3) on standard input and output, for images and machines without OpenSSH's.

Run as a program. It needs nothing but the standard library, so it can also be handed to an interpreter as text.
It must stay below the 128 KiB that Linux allows one argument of a program.
"""

import errno
import os
import stat
import struct
import sys
from collections.abc import Callable
from typing import BinaryIO

INIT, VERSION, STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED, EXTENDED_REPLY = 1, 2, 101, 102, 103, 104, 105, 200, 201
OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE, BAD_MESSAGE, UNSUPPORTED = 0, 1, 2, 3, 4, 5, 8
READ, WRITE, APPEND, CREATE, TRUNCATE, EXCLUSIVE = 1, 2, 4, 8, 16, 32
SIZE, OWNER, MODE, TIMES, MORE = 1, 2, 4, 8, 0x80000000

OPENSSH = (
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/libexec/sftp-server",
    "/usr/lib/ssh/sftp-server",
)
"""Where distributions put OpenSSH's, which is to be preferred."""

LONGEST_PACKET = 1 << 20
LONGEST_READ = 256 * 1024
NAMES_AT_ONCE = 128
EXTENSIONS = {
    b"posix-rename@openssh.com": b"1",
    b"statvfs@openssh.com": b"2",
    b"fstatvfs@openssh.com": b"2",
    b"hardlink@openssh.com": b"1",
    b"fsync@openssh.com": b"1",
    b"lsetstat@openssh.com": b"1",
}


class Fields:
    """Reads the fields of a packet in turn."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def _take(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        if len(piece) != size:
            raise ValueError("the packet is too short")
        self._at += size
        return piece

    def byte(self) -> int:
        """One byte."""
        return self._take(1)[0]

    def uint32(self) -> int:
        """Four bytes."""
        return int.from_bytes(self._take(4), "big")

    def uint64(self) -> int:
        """Eight bytes."""
        return int.from_bytes(self._take(8), "big")

    def string(self) -> bytes:
        """Bytes after their length."""
        return self._take(self.uint32())

    def attributes(self) -> dict[int, tuple[int, ...]]:
        """What is set of size, owner, mode and times, by flag."""
        flags = self.uint32()
        found: dict[int, tuple[int, ...]] = {}
        if flags & SIZE:
            found[SIZE] = (self.uint64(),)
        for flag, count in ((OWNER, 2), (MODE, 1), (TIMES, 2)):
            if flags & flag:
                found[flag] = tuple(self.uint32() for _ in range(count))
        if flags & MORE:
            for _ in range(self.uint32()):
                self.string(), self.string()
        return found


def string(data: bytes) -> bytes:
    """A field of bytes."""
    return struct.pack(">I", len(data)) + data


def attributes_of(status: os.stat_result) -> bytes:
    """The field of a file's attributes."""
    return struct.pack(
        ">IQIIIII",
        SIZE | OWNER | MODE | TIMES,
        status.st_size,
        status.st_uid,
        status.st_gid,
        status.st_mode,
        max(int(status.st_atime), 0) & 0xFFFFFFFF,
        max(int(status.st_mtime), 0) & 0xFFFFFFFF,
    )


def long_name(name: bytes, status: os.stat_result) -> bytes:
    """What `ls` of a client shows."""
    mode = stat.filemode(status.st_mode)
    return f"{mode} {status.st_nlink:4} {status.st_uid:<8} {status.st_gid:<8} {status.st_size:12} ".encode() + name


class Server:
    """Answers the packets of one client from the file system."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source, self._sink = source, sink
        self._handles: dict[bytes, int] = {}
        self._listings: dict[bytes, tuple[bytes, list[bytes]]] = {}
        self._next_handle = 0
        self._operations: dict[int, Callable[[Fields], tuple[int, bytes]]] = {
            3: self._open, 4: self._close, 5: self._read, 6: self._write, 7: self._lstat, 8: self._fstat,
            9: self._setstat, 10: self._fsetstat, 11: self._opendir, 12: self._readdir, 13: self._remove,
            14: self._mkdir, 15: self._rmdir, 16: self._realpath, 17: self._stat, 18: self._rename,
            19: self._readlink, 20: self._symlink, EXTENDED: self._extended,
        }  # fmt: skip
        self._extended_operations: dict[bytes, Callable[[Fields], tuple[int, bytes]]] = {
            b"posix-rename@openssh.com": self._posix_rename,
            b"statvfs@openssh.com": self._statvfs,
            b"fstatvfs@openssh.com": self._fstatvfs,
            b"hardlink@openssh.com": self._hardlink,
            b"fsync@openssh.com": self._fsync,
            b"lsetstat@openssh.com": self._lsetstat,
        }

    def run(self) -> None:
        """Serve until the client is gone."""
        while (packet := self._next_packet()) is not None:
            fields = Fields(packet)
            kind = fields.byte()
            number = fields.uint32()
            if kind == INIT:
                extensions = b"".join(string(name) + string(value) for name, value in EXTENSIONS.items())
                self._send(VERSION, struct.pack(">I", 3) + extensions)
                continue
            answer, body = self._answer(kind, fields)
            self._send(answer, struct.pack(">I", number) + body)

    def _answer(self, kind: int, fields: Fields) -> tuple[int, bytes]:
        operation = self._operations.get(kind)
        if operation is None:
            return _status(UNSUPPORTED, "not supported")
        try:
            return operation(fields)
        except OSError as error:
            return _failure(error)
        except (ValueError, KeyError) as error:
            return _status(BAD_MESSAGE, str(error))

    def _next_packet(self) -> bytes | None:
        head = self._source.read(4)
        if len(head) < 4:
            return None
        size = int.from_bytes(head, "big")
        if not 5 <= size <= LONGEST_PACKET:
            return None
        packet = self._source.read(size)
        return packet if len(packet) == size else None

    def _send(self, kind: int, body: bytes) -> None:
        self._sink.write(struct.pack(">IB", len(body) + 1, kind) + body)
        self._sink.flush()

    def _new_handle(self) -> bytes:
        self._next_handle += 1
        return b"%d" % self._next_handle

    def _fd(self, fields: Fields) -> int:
        return self._handles[fields.string()]

    def _open(self, fields: Fields) -> tuple[int, bytes]:
        path, wanted, attributes = fields.string(), fields.uint32(), fields.attributes()
        flags = {READ: os.O_RDONLY, WRITE: os.O_WRONLY, READ | WRITE: os.O_RDWR}[wanted & (READ | WRITE)]
        for bit, flag in ((CREATE, os.O_CREAT), (TRUNCATE, os.O_TRUNC), (EXCLUSIVE, os.O_EXCL), (APPEND, os.O_APPEND)):
            flags |= flag if wanted & bit else 0
        (mode,) = attributes.get(MODE, (0o666,))
        handle = self._new_handle()
        self._handles[handle] = os.open(path or b".", flags, mode & 0o7777)
        return HANDLE, string(handle)

    def _close(self, fields: Fields) -> tuple[int, bytes]:
        handle = fields.string()
        if self._listings.pop(handle, None) is None:
            os.close(self._handles.pop(handle))
        return _status(OK)

    def _read(self, fields: Fields) -> tuple[int, bytes]:
        fd, offset, size = self._fd(fields), fields.uint64(), fields.uint32()
        data = os.pread(fd, min(size, LONGEST_READ), offset)
        return (DATA, string(data)) if data or not size else _status(EOF, "end of file")

    def _write(self, fields: Fields) -> tuple[int, bytes]:
        fd, offset, data = self._fd(fields), fields.uint64(), memoryview(fields.string())
        while data:
            written = os.pwrite(fd, data, offset)
            offset, data = offset + written, data[written:]
        return _status(OK)

    def _lstat(self, fields: Fields) -> tuple[int, bytes]:
        return ATTRS, attributes_of(os.lstat(fields.string() or b"."))

    def _stat(self, fields: Fields) -> tuple[int, bytes]:
        return ATTRS, attributes_of(os.stat(fields.string() or b"."))

    def _fstat(self, fields: Fields) -> tuple[int, bytes]:
        return ATTRS, attributes_of(os.fstat(self._fd(fields)))

    def _setstat(self, fields: Fields) -> tuple[int, bytes]:
        return _set_attributes(fields.string(), fields.attributes())

    def _fsetstat(self, fields: Fields) -> tuple[int, bytes]:
        return _set_attributes(self._fd(fields), fields.attributes())

    def _lsetstat(self, fields: Fields) -> tuple[int, bytes]:
        return _set_attributes(fields.string(), fields.attributes(), follow=False)

    def _opendir(self, fields: Fields) -> tuple[int, bytes]:
        path = fields.string() or b"."
        handle = self._new_handle()
        self._listings[handle] = (path, [b".", b"..", *os.listdir(path)])
        return HANDLE, string(handle)

    def _readdir(self, fields: Fields) -> tuple[int, bytes]:
        path, names = self._listings[fields.string()]
        if not names:
            return _status(EOF, "end of directory")
        entries = []
        for name in names[:NAMES_AT_ONCE]:
            try:
                status = os.lstat(os.path.join(path, name))
            except OSError:
                continue  # gone since it was listed
            entries.append(string(name) + string(long_name(name, status)) + attributes_of(status))
        del names[:NAMES_AT_ONCE]
        return NAME, struct.pack(">I", len(entries)) + b"".join(entries)

    def _remove(self, fields: Fields) -> tuple[int, bytes]:
        os.unlink(fields.string())
        return _status(OK)

    def _mkdir(self, fields: Fields) -> tuple[int, bytes]:
        path, attributes = fields.string(), fields.attributes()
        (mode,) = attributes.get(MODE, (0o777,))
        os.mkdir(path, mode & 0o7777)
        return _status(OK)

    def _rmdir(self, fields: Fields) -> tuple[int, bytes]:
        os.rmdir(fields.string())
        return _status(OK)

    def _realpath(self, fields: Fields) -> tuple[int, bytes]:
        return _name(os.path.realpath(fields.string() or b"."))

    def _rename(self, fields: Fields) -> tuple[int, bytes]:
        old, new = fields.string(), fields.string()
        if os.path.lexists(new):
            raise FileExistsError(errno.EEXIST, "the new name exists")
        os.rename(old, new)
        return _status(OK)

    def _posix_rename(self, fields: Fields) -> tuple[int, bytes]:
        os.replace(fields.string(), fields.string())
        return _status(OK)

    def _readlink(self, fields: Fields) -> tuple[int, bytes]:
        return _name(os.readlink(fields.string()))

    def _symlink(self, fields: Fields) -> tuple[int, bytes]:
        # OpenSSH has always sent the target first, against the draft, and everybody follows it.
        target, link = fields.string(), fields.string()
        os.symlink(target, link)
        return _status(OK)

    def _hardlink(self, fields: Fields) -> tuple[int, bytes]:
        os.link(fields.string(), fields.string())
        return _status(OK)

    def _fsync(self, fields: Fields) -> tuple[int, bytes]:
        os.fsync(self._fd(fields))
        return _status(OK)

    def _statvfs(self, fields: Fields) -> tuple[int, bytes]:
        return _file_system(os.statvfs(fields.string()))

    def _fstatvfs(self, fields: Fields) -> tuple[int, bytes]:
        return _file_system(os.fstatvfs(self._fd(fields)))

    def _extended(self, fields: Fields) -> tuple[int, bytes]:
        operation = self._extended_operations.get(fields.string())
        return operation(fields) if operation else _status(UNSUPPORTED, "not supported")


def _status(code: int, message: str = "") -> tuple[int, bytes]:
    return STATUS, struct.pack(">I", code) + string(message.encode(errors="replace")) + string(b"en")


def _failure(error: OSError) -> tuple[int, bytes]:
    codes = {
        errno.ENOENT: NO_SUCH_FILE,
        errno.ENOTDIR: NO_SUCH_FILE,
        errno.ELOOP: NO_SUCH_FILE,
        errno.EACCES: PERMISSION_DENIED,
        errno.EPERM: PERMISSION_DENIED,
        errno.EROFS: PERMISSION_DENIED,
    }
    return _status(codes.get(error.errno or 0, FAILURE), error.strerror or str(error))


def _name(path: bytes) -> tuple[int, bytes]:
    return NAME, struct.pack(">I", 1) + string(path) + string(path) + struct.pack(">I", 0)


def _file_system(status: os.statvfs_result) -> tuple[int, bytes]:
    sizes = (status.f_bsize, status.f_frsize, status.f_blocks, status.f_bfree, status.f_bavail, status.f_files)
    return EXTENDED_REPLY, struct.pack(
        ">11Q", *sizes, status.f_ffree, status.f_favail, status.f_fsid, status.f_flag & 3, status.f_namemax
    )


def _set_attributes(
    file: bytes | int, attributes: dict[int, tuple[int, ...]], *, follow: bool = True
) -> tuple[int, bytes]:
    # An open file has no link to follow, and the calls refuse to be told about one.
    follow = follow or isinstance(file, int)
    if SIZE in attributes:
        os.truncate(file, attributes[SIZE][0])
    if OWNER in attributes:
        user, group = attributes[OWNER]
        os.chown(file, user, group, follow_symlinks=follow)
    if MODE in attributes:
        os.chmod(file, attributes[MODE][0] & 0o7777, follow_symlinks=follow)
    if TIMES in attributes:
        accessed, modified = attributes[TIMES]
        os.utime(file, (accessed, modified), follow_symlinks=follow)
    return _status(OK)


if __name__ == "__main__":
    Server(sys.stdin.buffer, sys.stdout.buffer).run()
