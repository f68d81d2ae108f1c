"""OpenRLHF's remote reward: the file that `--remote_rm_url` names, or a small HTTP server.

--remote_rm_url …/openrlhf_reward.py                      with RLSFT_REWARD=FOLDER in the environment
python -m rlsft.integrations.openrlhf_reward FOLDER       then --remote_rm_url http://127.0.0.1:5000/get_reward
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rlsft.errors import DataError, RlsftError
from rlsft.integrations.rewards import RewardFunction
from rlsft.integrations.verl_reward import named_folder

MOST_BYTES = 64 * 2**20  # of one request


def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Any = None, **_options: Any) -> dict[str, Any]:
    """What OpenRLHF calls in a `.py` file: rewards and scores as float32 tensors, one number a query.

    Raises:
        ConfigError: RLSFT_REWARD is not set.
        DataError: a query does not begin with its prompt.
    """
    import torch

    rewards = torch.tensor(_reward(named_folder(None)).reward_queries(queries, prompts), dtype=torch.float32)
    return {"rewards": rewards, "scores": rewards, "extra_logs": {}}


def make_server(reward: RewardFunction, host: str = "127.0.0.1", port: int = 5000) -> ThreadingHTTPServer:
    """An HTTP server that has its port and waits for `serve_forever()`; `shutdown()` and `server_close()` end it.

    A POST to any path with `{"query": [...], "prompts": [...], "labels": [...]}` is answered by `{"rewards": [...],
    "scores": [...], "extra_logs": {}}`, and a request that cannot be scored by status 400 with `{"error": message}`.
    Nobody is asked who they are: keep it on a private network.

    Args:
        reward: what scores.
        host: address to listen on.
        port: 0 = any free one, see `server_address`.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            try:
                status, body = 200, _answer(reward, self._request())
            except (RlsftError, ValueError) as error:
                status, body = 400, {"error": str(error)}
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _request(self) -> Any:
            length = int(self.headers.get("Content-Length") or 0)
            if length > MOST_BYTES:
                raise DataError(f"the request has {length} bytes, more than {MOST_BYTES}; send fewer queries at once")
            return json.loads(self.rfile.read(length))

        def log_message(self, format: str, *args: Any) -> None:
            """Thousands of requests a step: nothing is logged."""

    return ThreadingHTTPServer((host, port), Handler)


def _answer(reward: RewardFunction, request: Any) -> dict[str, Any]:
    texts = []
    for name in ("query", "prompts"):
        found = request.get(name) if isinstance(request, dict) else None
        if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
            raise DataError(f"the request must be a JSON object with {name!r}, a list of strings")
        texts.append(found)
    rewards = reward.reward_queries(*texts)
    return {"rewards": rewards, "scores": rewards, "extra_logs": {}}


@functools.lru_cache(maxsize=4)
def _reward(folder: str) -> RewardFunction:
    return RewardFunction.from_pretrained(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve a learned reward until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m rlsft.integrations.openrlhf_reward", description=main.__doc__)
    parser.add_argument("folder", help="reward model, exported token rewards, or a finished RFT or STR run")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5000)
    options = parser.parse_args(arguments)
    try:
        server = make_server(RewardFunction.from_pretrained(options.folder), options.host, options.port)
    except (RlsftError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"rewards of {options.folder} at http://{options.host}:{server.server_address[1]}/get_reward", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
