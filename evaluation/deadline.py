"""HTTP connections that end at a deadline, whatever the server sends: what client.py opens."""
import http.client
import socket
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress


class Deadline(threading.local):
    """Of this thread's request: when it ends, and duplicates of its sockets, which a timer shuts down then.

    urllib's own timeout is per packet: a server that sends a byte now and then, in headers or body, would never end.
    """
    ends, sockets = None, ()


DEADLINE = Deadline()


@contextmanager
def deadline(seconds):
    """End this thread's connections after `seconds`; yields a function that returns whether it has."""
    DEADLINE.ends, DEADLINE.sockets = time.monotonic() + seconds, []
    ends, sockets = DEADLINE.ends, DEADLINE.sockets

    def shut_down():
        for sock in list(sockets):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, shut_down)
    timer.daemon = True
    timer.start()
    try:
        yield lambda: time.monotonic() >= ends
    finally:
        timer.cancel()
        for sock in sockets:
            sock.close()


def connect_socket(*args, **kwargs):
    sock = socket.create_connection(*args, **kwargs)
    DEADLINE.sockets.append(sock.dup())  # the same connection, whatever TLS and urllib do with the object
    if time.monotonic() >= DEADLINE.ends:
        sock.close()
        raise TimeoutError("connecting took all the time")
    return sock


def with_deadline(connection_class):
    def make(*args, **kwargs):
        connection = connection_class(*args, **kwargs)
        connection._create_connection = connect_socket
        return connection
    return make


class HTTPHandler(urllib.request.HTTPHandler):
    def http_open(self, request):
        return self.do_open(with_deadline(http.client.HTTPConnection), request)


class HTTPSHandler(urllib.request.HTTPSHandler):
    def https_open(self, request):
        return self.do_open(with_deadline(http.client.HTTPSConnection), request)


# no redirects, which would hand the key to another host; every HTTP status is a reply
OPENER = urllib.request.OpenerDirector()
for _handler in (urllib.request.ProxyHandler, HTTPHandler, HTTPSHandler, urllib.request.UnknownHandler):
    OPENER.add_handler(_handler())
