"""The emulator in a process of its own: `python -m bench.server '{"per_minute": null}' 1`.

It prints its base URL, answers each line on stdin with the requests it has seen as JSON, and
ends with stdin.
"""

from __future__ import annotations

import json
import sys
from collections import Counter

from aifaceswap.emulator import Emulator, Limits
from bench.harness import pin


def main(limits: str, core: str) -> None:
    pin(json.loads(core))
    with Emulator(limits=Limits(**json.loads(limits)), credits=1e12, duration=3600) as emulator:
        print(emulator.base_url, flush=True)
        for _ in sys.stdin:
            statuses = Counter(request.status for request in emulator.requests)
            print(json.dumps(statuses), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
