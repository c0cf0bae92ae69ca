"""Users for locust, a load generator that is not ours: each posts UNVEIL_BODY to /generate, another seed every time."""

import itertools
import json
import os

from locust import FastHttpUser, task

_BODY = json.loads(os.environ["UNVEIL_BODY"])
_SEEDS = itertools.count()


class Client(FastHttpUser):
    """Asks again as soon as it is answered, on a connection that is kept. What is not a 200 counts as a failure."""

    @task
    def generate(self) -> None:
        self.client.post("/generate", json={**_BODY, "seed": next(_SEEDS)})
