"""An addon of mitmproxy that injects faults of networks and servers into S3 requests.

It runs in mitmproxy's own process and environment; `s3_servers.faulty` starts it. The option
``faults`` names a folder. Its file ``rules.json`` holds the rules, whose keys are the arguments of
`s3_servers.Faulty.fault`; its file ``requests.jsonl`` receives method, path, and fault (or "pass")
of each request.
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
    """Injects the faults of the rules; requests without a rule pass."""

    def __init__(self) -> None:
        self.counts: collections.Counter[tuple[int, str]] = collections.Counter()

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
            # A HEAD response has no body: the client would read it as the next response.
            body = "" if flow.request.method == "HEAD" else BODY.format(code, text)
            flow.response = http.Response.make(status, body, {"Content-Type": "application/xml"})
        elif kind == "reset":
            flow.kill()
        elif kind == "stall":
            await asyncio.sleep(rule["s"])
        elif kind == "flip-sent" and flow.request.raw_content:
            flow.request.raw_content = flipped(flow.request.raw_content)

    def response(self, flow: http.HTTPFlow) -> None:
        kind, response = flow.metadata["kind"], flow.response
        if kind == "lost":
            flow.kill()  # the request has taken effect
        elif kind == "flip" and response and response.raw_content:
            response.raw_content = flipped(response.raw_content)
        elif kind in ("short", "cut", "hang") and response and response.raw_content:
            response.raw_content = response.raw_content[: len(response.raw_content) // 2]
            if kind == "short":
                response.headers["Content-Length"] = str(len(response.raw_content))
            else:  # shorter than its Content-Length
                response.http_version = "HTTP/1.1"
                response.headers["Connection"] = "close" if kind == "cut" else "keep-alive"

    def rule_for(self, request: http.Request, rules: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the first rule that applies, and count its use; {} if no rule applies."""
        path, _, query = request.path.partition("?")
        for rule in rules:
            if rule["match"] not in path or rule["query"] not in query:
                continue
            if rule["method"] not in ("", request.method):
                continue
            count = (rule["id"], path if rule["per"] == "key" else "")
            if rule["n"] is None or self.counts[count] < rule["n"]:
                self.counts[count] += 1
                return rule
        return {}


def flipped(body: bytes) -> bytes:
    """Return the bytes with one bit in the middle changed."""
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 0x10]) + body[middle + 1 :]


addons = [Faults()]
