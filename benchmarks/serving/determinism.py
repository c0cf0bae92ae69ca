"""Does the same seed give the same bytes? Random requests to all bundled models, answered in every way there is.

    python -m benchmarks determinism [--quick] [--json] [--requests N]

500 requests of every domain, order and parameter, drawn with a fixed seed; each answer is compared, as JSON, with the
one that the library gives alone in a process of its own. Over HTTP, 24 at a time: in the order drawn, in another one,
streamed; and after a restart, in other batches, with memory for so few canvases that nearly every step finds its own
evicted. Prints how many agree by domain and way, and ends with 1 if one does not.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from unveil.api import load
from unveil.benchmarks.common.runs import timing_arguments
from unveil.benchmarks.serving.clients.served import Served, served
from unveil.model.decoding.canvas import ORDER_POLICIES

CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"
REQUESTS, QUICK_REQUESTS, SEED = 500, 40, 25
SHARES = {"adult": 7, "moses": 6, "text": 5, "sudoku": 1}  # by what a request costs
CONNECTIONS, TIMEOUT_SECONDS = 24, 600
SETTINGS = {"device": "cpu", "threads": 1, "default_timeout_seconds": TIMEOUT_SECONDS}
RESTARTED = {**SETTINGS, "max_batch": 7, "cache_bytes": 2_100_000}  # of moses five canvases, of text two

_COLUMNS: dict[str, Any] = {"age": 39, "sex": "Female", "education": "Masters", "hours-per-week": 40, "income": ">50K"}
_SCAFFOLDS = ("", "c1ccc([MASK:4])cc1", "[MASK:5]N1CCN([MASK:3])CC1", "[MASK:12]", "CC(=O)[MASK:9]")
_BEGINNINGS = ("", "And the LORD spake unto ", "In the beginning ", "And he said, ")
_GRID = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
_EXPLICIT = 9  # positions of a text whose order is given
Request = dict[str, Any]
Ask = Callable[[int, Request], Any]


def main() -> None:
    parser = timing_arguments(__doc__, rounds=1)
    parser.add_argument("--requests", type=int, default=None)
    given = parser.parse_args()
    requests = draw_requests(given.requests or (QUICK_REQUESTS if given.quick else REQUESTS))
    report = compare(requests)
    print(json.dumps(report, indent=2) if given.json else as_text(report))
    if not report["agree"]:
        raise SystemExit(1)


def draw_requests(num: int) -> list[Request]:
    """Bodies of POST /generate, the same every time; of every model one at least."""
    draws = random.Random(SEED)
    models = draws.choices(list(SHARES), weights=list(SHARES.values()), k=max(num - len(SHARES), 0))
    return [_request(model, draws) for model in (*SHARES, *models)][:num]


def _request(model: str, draws: random.Random) -> Request:
    order: Any = draws.choice([own for own in ORDER_POLICIES if own != "explicit"])
    prompt = _prompt(model, draws)
    pace: Request = draws.choice(
        [{}, {}, {"tokens_per_step": draws.randint(1, 4)}, {"steps": draws.randint(1, 9)}, {"threshold": 0.4}]
    )
    if model == "text" and draws.random() < 0.2:
        prompt, order = f"[MASK:{_EXPLICIT}]", draws.sample(range(_EXPLICIT), _EXPLICIT)
    if order == "learned":
        pace = {**pace, "order_temperature": draws.choice([0, 0.7, 1, 2])}
    tokens = {"temperature": draws.choice([0, 0.6, 1, 1.5]), "top_k": draws.choice([None, None, 3])}
    request = {"model": model, "prompt": prompt, "order": order, "seed": draws.randrange(2**53)}
    num_samples = draws.choice([1, 1, 1, 3])
    return {**request, **pace, **tokens, "top_p": draws.choice([None, None, 0.8]), "num_samples": num_samples}


def _prompt(model: str, draws: random.Random) -> Any:
    if model == "adult":
        known = draws.sample(sorted(_COLUMNS), draws.randint(0, len(_COLUMNS)))
        return {name: _COLUMNS[name] for name in known}
    if model == "moses":
        return draws.choice(_SCAFFOLDS)
    if model == "text":
        return f"{draws.choice(_BEGINNINGS)}[MASK:{draws.randint(1, 32)}]{draws.choice(['', ' and he died.'])}"
    holes = draws.sample(range(len(_GRID)), draws.randint(1, 3))
    return "".join("." if i in holes else digit for i, digit in enumerate(_GRID))


def compare(requests: Sequence[Request]) -> Request:
    """How many answers of each way agree with those alone, by domain."""
    alone = answers_alone(requests)
    numbers, ways = range(len(requests)), dict[str, list[Any]]()
    with served(None, SETTINGS, core=0) as server:
        ways["together"] = crowd(server, requests, numbers)
        ways["together, in another order"] = crowd(server, requests, _shuffled(numbers, 1))
        ways["streamed"] = crowd(server, requests, _shuffled(numbers, 2), is_streamed=True)
    with served(None, RESTARTED, core=0) as server:
        ways["restarted, with memory for few"] = crowd(server, requests, _shuffled(numbers, 3))
    agreeing = {
        way: dict(Counter(requests[i]["model"] for i in numbers if found[i] == alone[i])) for way, found in ways.items()
    }
    domains = dict(Counter(request["model"] for request in requests))
    agree = all(found == domains for found in agreeing.values())
    different = len({json.dumps(answer) for answer in alone})
    return {"requests": domains, "different_answers": different, "agreeing": agreeing, "agree": agree}


def answers_alone(requests: Sequence[Request]) -> list[Any]:
    """Of the library, one request after the other."""
    models = {name: load(CHECKPOINTS / name, device="cpu") for name in SHARES}
    found = []
    for request in requests:
        fields = {name: value for name, value in request.items() if name != "model"}
        reply = models[request["model"]].generate(fields.pop("prompt"), **fields)
        found.append([reply["samples"], reply["usage"]])
    return found


def crowd(server: Served, requests: Sequence[Request], order: Sequence[int], *, is_streamed: bool = False) -> list[Any]:
    """Asks all in this order, many at a time; the answers in the requests' own."""
    ask = _streamed if is_streamed else _whole
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        answers = dict(zip(order, pool.map(lambda i: ask(server.port, requests[i]), order), strict=True))
    return [answers[i] for i in range(len(requests))]


def _shuffled(numbers: Sequence[int], seed: int) -> list[int]:
    return random.Random(seed).sample(numbers, len(numbers))


def _whole(port: int, request: Request) -> Any:
    reply = json.loads(_post(port, request))
    return [reply["samples"], reply["usage"]]


def _streamed(port: int, request: Request) -> Any:
    """What the events say: samples in their own order, and the usage."""
    samples, usage = [], None
    for event in _post(port, {**request, "stream": True}).strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in event.splitlines() if not line.startswith(":"))
        data = json.loads(lines.get("data", "null"))
        if lines.get("event") == "sample":
            samples.append(data)
        if lines.get("event") == "done":
            usage = data["usage"]
    return [sorted(samples, key=lambda sample: int(sample["sample_index"])), usage]


def _post(port: int, body: Request) -> str:
    """The reply's body. Raises RuntimeError if it is an error."""
    connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("POST", "/generate", json.dumps(body), {"content-type": "application/json"})
        reply = connection.getresponse()
        text = reply.read().decode()
    finally:
        connection.close()
    if reply.status != 200:
        raise RuntimeError(f"{reply.status} for {body}: {text}")
    return text


def as_text(report: Request) -> str:
    """The same for a reader."""
    domains: dict[str, int] = report["requests"]
    total = sum(domains.values())
    lines = [f"{total} requests, {report['different_answers']} different answers; as alone are"]
    for way, found in report["agreeing"].items():
        shares = ", ".join(f"{name} {found.get(name, 0)} of {num}" for name, num in domains.items())
        lines.append(f"  {way}: {sum(found.values())} ({shares})")
    return "\n".join([*lines, "all agree" if report["agree"] else "NOT all agree"])


if __name__ == "__main__":
    main()
