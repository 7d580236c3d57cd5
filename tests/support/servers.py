"""What a server may do when it is asked for a file: the right thing, or one thing wrong."""

import hashlib
import time


def tag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


def serve(handler, content, ranges=True, validator=True, ending=None, length=None, kind=None):
    """Answer as a good server does, or with one thing wrong."""
    if content is None:
        handler.send_error(404)
        return
    asked, condition = handler.headers["Range"], handler.headers["If-Range"]
    same = condition is None or condition == tag(content)
    start = int(asked[6:-1]) if asked and ranges and same else 0
    if start >= len(content):
        handler.send_error(416)
        return
    handler.send_response(206 if start else 200)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    if validator:
        handler.send_header("ETag", tag(content))
    handler.send_header("Content-Type", kind or "application/octet-stream")
    if length is None or length:
        handler.send_header("Content-Length", str(length or len(content) - start))
    handler.end_headers()
    handler.wfile.write(content[start:ending])


def whole_only(handler, content):
    """No ranges."""
    serve(handler, content, ranges=False)


def nameless(handler, content):
    """Neither ETag nor time of change."""
    serve(handler, content, validator=False)


def cut(at, **options):
    """The connection ends before byte `at`."""
    return lambda handler, content: serve(handler, content, ending=at, **options)


def claiming(length):
    """Content-Length is another one; 0: there is none."""
    return lambda handler, content: serve(handler, content, length=length)


def sending(other, **options):
    """Another file from now on."""
    return lambda handler, content: serve(handler, other, **options)


def page(handler, content, kind="text/html; charset=utf-8", status=200):
    """A web page in place of the file, as Google Drive sends for large ones."""
    body = b"\n<!DOCTYPE html><html><head><title>Virus scan warning</title></head></html>"
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def status(code, **headers):
    def answer(handler, content):
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def redirect(to):
    return status(302, Location=to)


def mixed(handler, content):
    """Ignores If-Range and continues, whatever the file was before."""
    del handler.headers["If-Range"]
    serve(handler, content)


def drip(handler, content):
    """A few bytes at a time, forever."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    for start in range(0, 400, 4):
        handler.wfile.write(content[start : start + 4])
        handler.wfile.flush()
        time.sleep(0.002)


def stall(handler, content):
    """The headers, some bytes, and then nothing more."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[:1000])
    handler.wfile.flush()
    time.sleep(0.3)


def wordy(to, sent, code=302):
    """A redirect with a body of 64 MiB; `sent` gets the bytes that the client took."""

    def answer(handler, content):
        handler.send_response(code)
        handler.send_header("Location", to)
        handler.end_headers()
        for _ in range(64):
            handler.wfile.write(bytes(1 << 20))
            sent.append(1 << 20)

    return answer


def with_headers(code=200, ending=None, **headers):
    """The file under these headers and no others, as they are."""

    def answer(handler, content):
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content[:ending])

    return answer
