"""An addon of mitmproxy: a proxy in front of an S3 server that fails as networks and servers do.

It runs in mitmproxy's own process and environment; `s3_servers.faulty` starts it and tells it, by
the file ``rules.json`` of the folder that the option ``faults`` names, which requests to spoil.
What it saw is in ``requests.jsonl`` there: method, path, kind of the fault or "pass".

A rule: ``id``; ``kind``; ``match``, a part of the path; ``method``; ``query``, a part of the query;
``n``, how many requests it spoils (null: all), for each path if ``per`` is "key"; ``s``, seconds.
"""

import asyncio
import collections
import json
from pathlib import Path
from typing import Any

from mitmproxy import ctx, http
from mitmproxy.addonmanager import Loader

ERRORS = {
    "503": (503, "SlowDown", "Please reduce your request rate."),
    "500": (500, "InternalError", "We encountered an internal error. Please try again."),
    "403": (403, "AccessDenied", "Access Denied"),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
}
BODY = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    "<Error><Code>{}</Code><Message>{}</Message><RequestId>1</RequestId></Error>"
)


class Faults:
    """Spoils the requests that a rule asks for; the others pass."""

    def __init__(self) -> None:
        self.spoilt: collections.Counter[tuple[int, str]] = collections.Counter()

    def load(self, loader: Loader) -> None:
        loader.add_option("faults", str, "", "folder of rules.json and requests.jsonl")

    async def request(self, flow: http.HTTPFlow) -> None:
        folder = Path(ctx.options.faults)
        rule = self.rule_for(flow.request, json.loads((folder / "rules.json").read_text()))
        kind = flow.metadata["kind"] = rule.get("kind", "pass")
        with open(folder / "requests.jsonl", "a") as log:
            log.write(json.dumps([flow.request.method, flow.request.path, kind]) + "\n")
        if kind in ERRORS:
            status, code, text = ERRORS[kind]
            # An answer to HEAD has no body: the client would take it for the next answer.
            body = "" if flow.request.method == "HEAD" else BODY.format(code, text)
            flow.response = http.Response.make(status, body, {"Content-Type": "application/xml"})
        elif kind == "reset":
            flow.kill()
        elif kind == "stall":
            await asyncio.sleep(rule["s"])
        elif kind == "flip-sent" and flow.request.raw_content:
            flow.request.raw_content = flipped(flow.request.raw_content)

    def response(self, flow: http.HTTPFlow) -> None:
        kind, answer = flow.metadata["kind"], flow.response
        if kind == "lost":
            flow.kill()  # the server has acted
        elif kind == "flip" and answer and answer.raw_content:
            answer.raw_content = flipped(answer.raw_content)
        elif kind in ("short", "cut", "hang") and answer and answer.raw_content:
            answer.raw_content = answer.raw_content[: len(answer.raw_content) // 2]
            if kind == "short":
                answer.headers["Content-Length"] = str(len(answer.raw_content))
            else:  # less than was announced; then the connection is closed, or kept open
                answer.http_version = "HTTP/1.1"
                answer.headers["Connection"] = "close" if kind == "cut" else "keep-alive"

    def rule_for(self, request: http.Request, rules: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the first rule that applies, which it uses up by one; {} if there is none."""
        path, _, query = request.path.partition("?")
        for rule in rules:
            if rule["match"] not in path or rule["query"] not in query:
                continue
            if rule["method"] not in ("", request.method):
                continue
            count = (rule["id"], path if rule["per"] == "key" else "")
            if rule["n"] is None or self.spoilt[count] < rule["n"]:
                self.spoilt[count] += 1
                return rule
        return {}


def flipped(body: bytes) -> bytes:
    """Return the bytes with one bit in the middle changed."""
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 0x10]) + body[middle + 1 :]


addons = [Faults()]
