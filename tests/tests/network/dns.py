"""A name server that answers one query over UDP and one over TCP with the address 192.0.2.7."""
import socket
import struct

ADDRESS = ('127.0.0.1', 53)


def answer(query):
    name_end = query.index(b'\0', 12) + 5
    counts = struct.pack('>HHHH', 1, 1, 0, 0)
    record = struct.pack('>HHHIH', 0xc00c, 1, 1, 60, 4) + bytes([192, 0, 2, 7])
    return query[:2] + b'\x81\x80' + counts + query[12:name_end] + record


udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(ADDRESS)
tcp = socket.create_server(ADDRESS)
print('up')
query, peer = udp.recvfrom(1500)
udp.sendto(answer(query), peer)
conn, _ = tcp.accept()
stream = conn.makefile('rwb')
(length,) = struct.unpack('>H', stream.read(2))
reply = answer(stream.read(length))
stream.write(struct.pack('>H', len(reply)) + reply)
stream.close()
