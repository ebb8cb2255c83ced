"""The registry against the reference over long histories, with the same test for each store.

A million steps (`make soak`), a step being a heartbeat or whatever else happens; some thousands in `make
test`. A history is made of one number, which a failure names: `MODEL_SEED` lives through it alone.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import pytest
from receiver.lives import SETTINGS, STORES, failure_of, history_of

from support.skip import binary

STEPS = int(os.environ.get("SOAK_STEPS", "1000000"))
SEED = os.environ.get("MODEL_SEED")
A_HISTORY = 20_000
"""Steps of one history."""


@pytest.mark.parametrize("store", STORES)
def test_the_registry_keeps_the_contract(store: str) -> None:
    needs_servers(store)
    for seed in range(len(SETTINGS)):
        failure = failure_of(store, seed, A_HISTORY // len(SETTINGS))
        assert failure is None, failure


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("store", STORES)
def test_the_registry_keeps_the_contract_for_a_million_steps(store: str) -> None:
    needs_servers(store)
    seeds = [int(SEED)] if SEED else range(STEPS // A_HISTORY)
    started = time.monotonic()
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as processes:
        failures = list(processes.map(partial(failure_of, store, count=A_HISTORY), seeds))
    happened: Counter[str] = Counter()
    for seed in seeds:
        happened.update(type(happening).__name__ for happening in history_of(store, seed, A_HISTORY)[1])
    print(
        f"\n{store}: {len(seeds) * A_HISTORY} steps in {time.monotonic() - started:.0f} s: {dict(happened)}"
    )
    assert failures == [None] * len(seeds), "\n\n".join(filter(None, failures))


def needs_servers(store: str) -> None:
    """Skip where the store's server is not installed."""
    if store == "redis":
        binary("redis-server", "redis-server")
