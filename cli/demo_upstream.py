"""What stands in for the Anthropic API in `demo`: a small HTTP server on loopback.

It speaks enough of the Messages API for a client of it, takes its time as a model would, and
never gives one answer twice: each has an id of its own, so that equal bytes can only be a replay.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

MODEL = "claude-haiku-4-5"
ANSWER = (
    "A cache keeps what was costly to get close at hand. The first time somebody asks, "
    "the answer is fetched; every time after that it is simply there."
)
THINKING_SEC = 0.25
"""How long it takes to the first word, in seconds."""
WORD_SEC = 0.015
"""How long each further word takes, in seconds."""


class DemoUpstream:
    """The server, in a thread of this process. `calls` counts the requests it answered."""

    def __init__(self) -> None:
        self.calls = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(upstream: DemoUpstream) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.path != "/v1/messages":
                self.send_error(404)
                return
            upstream.calls += 1
            message = _message(asked)
            if asked.get("stream"):
                self._stream(message)
            else:
                time.sleep(THINKING_SEC + WORD_SEC * len(ANSWER.split()))
                self._whole(message)

        def _whole(self, message: dict[str, Any]) -> None:
            body = json.dumps(message).encode()
            self._head("application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _stream(self, message: dict[str, Any]) -> None:
            self._head("text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            time.sleep(THINKING_SEC)
            for event in _events(message):
                data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                if event["type"] == "content_block_delta":
                    time.sleep(WORD_SEC)
            self.wfile.write(b"0\r\n\r\n")

        def _head(self, content_type: str) -> None:
            self.send_response(200)
            self.send_header("content-type", content_type)
            self.send_header("request-id", f"req_{secrets.token_hex(12)}")

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: the transcript is the demo's."""

    return Handler


def _message(asked: dict[str, Any]) -> dict[str, Any]:
    said = json.dumps(asked["messages"])
    return {
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": [{"type": "text", "text": ANSWER}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": len(said) // 4, "output_tokens": len(ANSWER) // 4},
    }


def _events(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a streamed answer (https://docs.anthropic.com/en/api/messages-streaming)."""
    usage = message["usage"]
    begun = {**message, "content": [], "stop_reason": None}
    begun["usage"] = {**usage, "output_tokens": 1}
    words = ANSWER.split(" ")
    texts = [word if at == 0 else f" {word}" for at, word in enumerate(words)]
    return [
        {"type": "message_start", "message": begun},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        },
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": text},
            }
            for text in texts
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": usage["output_tokens"]},
        },
        {"type": "message_stop"},
    ]
