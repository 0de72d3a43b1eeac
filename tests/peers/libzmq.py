"""Any libzmq of PyPI as a peer: its wheels bring it as a shared library, which is loaded without their Python half, so
that versions work whose wheels are for Pythons long gone.

usage: libzmq.py DIRECTORY caller HOST:PORT     pings an agent's RPC port, and prints what it answers
       libzmq.py DIRECTORY pull HOST:PORT       listens there as the manager does; prints the frames of each message
       libzmq.py DIRECTORY runner [HEARTBEAT]   listens as a kernel's runner does; prints both ports, and sends back on
                                                one what comes on the other; with ZMTP heartbeats every so many ms
"""
import ctypes
import glob
import os
import struct
import sys
import time

PULL, PUSH, DEALER, RCVMORE, LAST_ENDPOINT, SNDMORE = 7, 8, 5, 13, 32, 2
HEARTBEAT_IVL, HEARTBEAT_TIMEOUT, RCVTIMEO, LINGER = 75, 77, 27, 17


def load(directory):
    libraries = glob.glob(os.path.join(directory, '*.so*'))
    for library in sorted(libraries, key=lambda path: 'libzmq' in path):
        loaded = ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL, use_errno=True)
    loaded.zmq_ctx_new.restype = loaded.zmq_socket.restype = ctypes.c_void_p
    return loaded


class Socket:
    def __init__(self, kind):
        self.raw = ctypes.c_void_p(zmq.zmq_socket(context, kind))
        self.set(LINGER, 0)

    def set(self, option, value):
        value = ctypes.c_int(value)
        assert zmq.zmq_setsockopt(self.raw, option, ctypes.byref(value), 4) == 0, option

    def get(self, option, size=4):
        out, length = ctypes.create_string_buffer(size), ctypes.c_size_t(size)
        assert zmq.zmq_getsockopt(self.raw, option, out, ctypes.byref(length)) == 0, option
        return out.raw[:length.value]

    def bind(self, address):
        assert zmq.zmq_bind(self.raw, ('tcp://' + address).encode()) == 0, address
        return int(self.get(LAST_ENDPOINT, 256).rstrip(b'\0').rsplit(b':', 1)[1])

    def send(self, frames):
        for at, frame in enumerate(frames):
            flags = SNDMORE if at + 1 < len(frames) else 0
            assert zmq.zmq_send(self.raw, frame, len(frame), flags) >= 0, 'send'

    def recv(self):
        frames, buffer = [], ctypes.create_string_buffer(1 << 20)
        while True:
            length = zmq.zmq_recv(self.raw, buffer, len(buffer), 0)
            assert length >= 0, 'nothing came'
            frames.append(buffer.raw[:length])
            if struct.unpack('i', self.get(RCVMORE))[0] == 0:
                return frames


def caller(address):
    socket = Socket(DEALER)
    socket.set(RCVTIMEO, 10000)
    assert zmq.zmq_connect(socket.raw, ('tcp://' + address).encode()) == 0
    for number in range(20):
        text = 'ping %d' % number
        packed = b'\x91' + bytes([0xa0 | len(text)]) + text.encode()
        head = struct.pack('=HHLd', 1, 2, number, time.time())
        socket.send([head, b'ping', packed, b'\x80'])
        answer, body = socket.recv()
        assert struct.unpack('=HHLd?', answer)[2::2] == (number, False), answer
        assert body == packed[1:], body
    print('20 pings answered', flush=True)


def pull(address):
    socket = Socket(PULL)
    socket.bind(address)
    print('listening', flush=True)
    while True:
        print(' '.join(frame[:40].hex() or '-' for frame in socket.recv()), flush=True)


def runner(heartbeat='0'):
    source, sink = Socket(PULL), Socket(PUSH)
    if heartbeat != '0':
        for socket in (source, sink):
            socket.set(HEARTBEAT_IVL, int(heartbeat))
            socket.set(HEARTBEAT_TIMEOUT, 10 * int(heartbeat))
    print(source.bind('127.0.0.1:*'), sink.bind('127.0.0.1:*'), flush=True)
    while True:
        sink.send(source.recv())


zmq = load(sys.argv[1])
version = [ctypes.c_int() for _ in range(3)]
zmq.zmq_version(*map(ctypes.byref, version))
print('.'.join(str(part.value) for part in version), flush=True)
context = ctypes.c_void_p(zmq.zmq_ctx_new())
{'caller': caller, 'pull': pull, 'runner': runner}[sys.argv[2]](*sys.argv[3:])
