"""A stand-in for the `vllm` command: `vllm serve MODEL --port N ...`. FAKE says how it behaves, FAKE_LOG what it prints."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

how = os.environ.get("FAKE", "good")
port = int(sys.argv[sys.argv.index("--port") + 1])
generated = 0


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        say(f'INFO:     127.0.0.1:1 - "{self.requestline}" 200 OK')

    def answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path == "/version":
            self.answer(b'{"version": "0.0.1"}')
        elif self.path == "/v1/models":
            self.answer(json.dumps({"data": [{"id": "it", "root": sys.argv[2], "max_model_len": 2048}]}).encode())
        elif self.path == "/metrics":
            self.answer(f'# HELP x\nvllm:generation_tokens_total{{engine="0"}} {float(generated)}\n'.encode())
        else:
            self.answer(b"")

    def do_POST(self) -> None:
        global generated  # noqa: PLW0603 - a program of one file
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = os.environ.get("VLLM_API_KEY")
        if key and self.headers.get("Authorization") != f"Bearer {key}":
            self.answer(b'{"error": "Unauthorized"}', 401)
        elif how == "dies asked":
            os._exit(3)
        elif how == "mute":
            self.answer(b"no", 500)
        elif self.path in {"/v1/embeddings", "/classify"}:
            self.answer(b'{"error": "The model does not support this"}', 400)
        elif self.path == "/pooling":
            self.answer(b'{"data": []}')
        else:
            generated += body["max_tokens"]
            self.answer(b'data: {"choices": [{"text": "a"}]}\n\ndata: [DONE]\n\n')


say(f"argv {json.dumps(sys.argv[1:])}")
say(f"key {os.environ.get('VLLM_API_KEY')} token {os.environ.get('HF_TOKEN')}")
# A worker, as vLLM has them: it is not told when its parent goes.
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
say(f"pids {os.getpid()} {worker.pid}")
if how == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.stdout.write(Path(os.environ["FAKE_LOG"]).read_text(encoding="utf-8"))
sys.stdout.flush()
if how == "dies":
    sys.exit(1)
if how in {"slow", "deaf"}:
    time.sleep(600)
server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
if how == "dies later":
    threading.Timer(1.0, lambda: os._exit(3)).start()
server.serve_forever()
