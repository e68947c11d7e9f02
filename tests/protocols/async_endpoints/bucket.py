"""A bucket store as small as the SDKs allow: objects are put and got by path; nobody's signature is looked at."""

import http.server
import threading


class Bucket:
    """Runs as long as its block; `objects` by path."""

    def __enter__(self):
        objects = self.objects = {}

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, status, body=b""):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_PUT(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                objects[self.path.split("?")[0]] = body
                self.answer(200)

            def do_GET(self):
                found = objects.get(self.path.split("?")[0])
                self.answer(404 if found is None else 200, found or b"")

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
