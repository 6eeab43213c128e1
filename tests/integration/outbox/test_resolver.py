"""Name resolution with an injected resolver of the system that hangs: silent names occupy threads, and delay no other name."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from cardwright.kit.clock import monotonic_ms
from cardwright.kit.guard import OutgoingPolicy
from cardwright.outbox import resolver as module
from cardwright.outbox.client import EndpointResponse, GuardedClient
from cardwright.outbox.resolver import (
    NEW_THREADS_MAX,
    RESOLVE_S,
    SILENT_S,
    SILENT_THREADS_MAX,
    THREADS_MAX,
    NameResolver,
    NameTrouble,
)
from tests.support.held_time import HeldLoop, run_held, turn_until

ADDRESS = "203.0.113.7"


class SystemResolver:
    """A replacement of ``socket.getaddrinfo``: names that begin with ``silent`` hang until ``over`` is set, then they fail."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.names: list[str] = []
        self.errors: dict[str, Exception] = {}
        self.answers_late = False

    def __call__(self, host: str, *_: object, **__: object) -> list[Any]:
        with self.lock:
            self.names.append(host)
        if host in self.errors:
            raise self.errors[host]
        if host.startswith("silent"):
            self.over.wait()
            if not self.answers_late:
                raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ADDRESS, 0))]


@asynccontextmanager
async def hanging() -> AsyncIterator[SystemResolver]:
    """Yield a system resolver, and end its threads afterwards."""
    system = SystemResolver()
    try:
        yield system
    finally:
        system.over.set()


async def outcome(resolving: Awaitable[list[Any]]) -> str:
    """Return the address of a resolution, or the text of its error."""
    try:
        return str((await resolving)[0]["host"])
    except NameTrouble as trouble:
        return str(trouble)


async def silence(loop: HeldLoop, resolver: NameResolver, system: SystemResolver, count: int, prefix: str = "silent") -> None:
    """Let lookups of this many silent names run into the time limit."""
    before = len(system.names)
    requests = [asyncio.create_task(outcome(resolver.resolve(f"{prefix}{number}.example"))) for number in range(count)]
    await turn_until(lambda: len(system.names) == before + count)
    await loop.advance(RESOLVE_S)
    assert set(await asyncio.gather(*requests)) == {"the name did not resolve in time"}


def test_names_resolve() -> None:
    """A result has address, family and port for a connection, and no other family if a family is requested."""

    async def story() -> None:
        async with hanging() as system:
            resolver = NameResolver(system)
            (result,) = await resolver.resolve("a.example", 443)
            assert (result["hostname"], result["host"], result["port"], result["family"]) == (
                "a.example", ADDRESS, 443, socket.AF_INET
            )  # fmt: skip
            assert await resolver.resolve("a.example", 443, socket.AF_INET6) == []

    asyncio.run(story())


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (socket.gaierror(socket.EAI_NONAME, "x"), "the name does not exist"),
        (socket.gaierror(socket.EAI_NODATA, "x"), "the name has no address"),
        (socket.gaierror(socket.EAI_AGAIN, "x"), "the name could not be resolved"),
        (UnicodeError("label too long"), "the name could not be resolved"),
    ],
)
def test_errors_of_the_system_have_a_reason(error: Exception, text: str) -> None:
    """Each error of the system's resolver has a text of its own, and occupies no thread afterwards."""

    async def story() -> None:
        async with hanging() as system:
            system.errors["bad.example"] = error
            resolver = NameResolver(system)
            for _ in range(2 * THREADS_MAX):
                assert await outcome(resolver.resolve("bad.example")) == text

    asyncio.run(story())


@pytest.mark.parametrize("lookup_ends_first", [True, False])
def test_a_silent_name_ends_at_the_limit_and_is_remembered(lookup_ends_first: bool) -> None:
    """A silent name fails at the time limit. Then it fails at once, without a lookup, until the memory and the lookup end."""

    async def story(loop: HeldLoop, lookup_ends_first: bool) -> None:
        async with hanging() as system:
            resolver = NameResolver(system)
            await silence(loop, resolver, system, 1)
            if lookup_ends_first:
                system.over.set()
                await turn_until(lambda: not resolver._lookups)
            for wait_s in (0.0, SILENT_S - 0.1, 0.0 if lookup_ends_first else 0.2):
                await loop.advance(wait_s)
                assert await outcome(resolver.resolve("silent0.example")) == "the name did not resolve in time"
            assert system.names == ["silent0.example"]
            system.over.set()
            await turn_until(lambda: not resolver._lookups)
            await loop.advance(0.2)
            assert await outcome(resolver.resolve("silent0.example")) == "the name could not be resolved"
            assert len(system.names) == 2

    run_held(partial(story, lookup_ends_first=lookup_ends_first))


def test_requests_for_a_name_share_a_lookup() -> None:
    """A hundred requests for a silent name occupy one thread, and all fail at its limit."""

    async def story(loop: HeldLoop) -> None:
        async with hanging() as system:
            resolver = NameResolver(system)
            requests = [asyncio.create_task(outcome(resolver.resolve("silent.example"))) for _ in range(100)]
            await turn_until(lambda: system.names)
            await loop.advance(RESOLVE_S)
            assert set(await asyncio.gather(*requests)) == {"the name did not resolve in time"}
            assert system.names == ["silent.example"]

    run_held(story)


def test_a_late_answer_ends_the_memory() -> None:
    """If the system resolves a name after the limit, the next request looks it up again."""

    async def story(loop: HeldLoop) -> None:
        async with hanging() as system:
            system.answers_late = True
            resolver = NameResolver(system)
            await silence(loop, resolver, system, 1)
            system.over.set()
            await turn_until(lambda: not resolver._lookups)
            assert await outcome(resolver.resolve("silent0.example")) == ADDRESS

    run_held(story)


def test_silent_names_leave_threads_for_others() -> None:
    """Two hundred silent names occupy at most NEW_THREADS_MAX threads. A name that was answered before still resolves."""

    async def story(loop: HeldLoop) -> None:
        async with hanging() as system:
            resolver = NameResolver(system)
            assert await outcome(resolver.resolve("good.example")) == ADDRESS
            requests = [asyncio.create_task(outcome(resolver.resolve(f"silent{number}.example"))) for number in range(200)]
            await turn_until(lambda: len(system.names) == 1 + NEW_THREADS_MAX)
            assert await outcome(resolver.resolve("good.example")) == ADDRESS
            await loop.advance(RESOLVE_S)
            texts = await asyncio.gather(*requests)
            assert texts.count("the name did not resolve in time") == NEW_THREADS_MAX
            assert texts.count("the resolver is busy") == 200 - NEW_THREADS_MAX
            assert len(resolver._lookups) == NEW_THREADS_MAX
            assert await outcome(resolver.resolve("good.example")) == ADDRESS

    run_held(story)


def test_silent_names_that_are_looked_up_again_leave_threads_for_new_ones() -> None:
    """Names that stay silent occupy at most SILENT_THREADS_MAX threads at the second time, so new names resolve."""

    async def story(loop: HeldLoop) -> None:
        async with hanging() as system:
            resolver = NameResolver(system)
            await silence(loop, resolver, system, NEW_THREADS_MAX)
            system.over.set()
            await turn_until(lambda: not resolver._lookups)
            system.over.clear()
            await loop.advance(SILENT_S)
            names = [f"silent{number}.example" for number in range(NEW_THREADS_MAX)]
            requests = [asyncio.create_task(outcome(resolver.resolve(name))) for name in names]
            await turn_until(lambda: len(system.names) == NEW_THREADS_MAX + SILENT_THREADS_MAX)
            assert await outcome(resolver.resolve("new.example")) == ADDRESS
            await loop.advance(RESOLVE_S)
            texts = await asyncio.gather(*requests)
            assert texts.count("the resolver is busy") == NEW_THREADS_MAX - SILENT_THREADS_MAX

    run_held(story)


def test_a_request_waits_for_a_free_thread() -> None:
    """A request without a free thread gets the next one that ends, and does not fail at once."""

    async def story(loop: HeldLoop) -> None:
        async with hanging() as system:
            resolver = NameResolver(system)
            await silence(loop, resolver, system, NEW_THREADS_MAX)
            request = asyncio.create_task(outcome(resolver.resolve("new.example")))
            await loop.advance(RESOLVE_S - 0.1)
            assert not request.done()
            system.over.set()
            assert await request == ADDRESS

    run_held(story)


def test_a_thread_that_cannot_start_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system has no thread left, the request fails as if all were occupied, and the next one tries again."""

    async def story() -> None:
        async with hanging() as system:
            resolver, start = NameResolver(system), threading.Thread.start

            def refuse(_: threading.Thread) -> None:
                raise RuntimeError("can't start new thread")

            monkeypatch.setattr(module.threading.Thread, "start", refuse)
            assert await outcome(resolver.resolve("a.example")) == "the resolver is busy"
            monkeypatch.setattr(module.threading.Thread, "start", start)
            assert await outcome(resolver.resolve("a.example")) == ADDRESS

    asyncio.run(story())


def test_remembered_names_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver remembers NAMES_MAX names."""
    monkeypatch.setattr(module, "NAMES_MAX", 10)

    async def story() -> None:
        async with hanging() as system:
            resolver = NameResolver(system)
            for number in range(30):
                await resolver.resolve(f"{number}.example")
            assert len(resolver._silent_until) == 10

    asyncio.run(story())


# --- With the guarded client --------------------------------------------------------------


async def post(client: GuardedClient, url: str, timeout_ms: int = 60_000) -> EndpointResponse:
    """Post an empty object."""
    return await client.post(url, b"{}", {}, timeout_ms)


def test_the_error_of_a_post_names_the_resolution() -> None:
    """A post to a silent name fails with the error of the resolution, at its limit and not at that of the post."""

    async def story(loop: HeldLoop) -> None:
        async with hanging() as system:
            client = GuardedClient(OutgoingPolicy.sandbox(), loop.time_ms, resolver=NameResolver(system))
            request = asyncio.create_task(post(client, "http://silent.example/"))
            await turn_until(lambda: system.names)
            await loop.advance(RESOLVE_S)
            answer = await request
            assert (answer.status, answer.error) == (None, "the name did not resolve in time")
            assert answer.duration_ms == RESOLVE_S * 1000
            system.errors["absent.example"] = socket.gaierror(socket.EAI_NONAME, "x")
            assert (await post(client, "http://absent.example/")).error == "the name does not exist"
            await client.close()

    run_held(story)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fe80::1"])
def test_resolved_addresses_are_checked_when_dialled(address: str) -> None:
    """In production a name that resolves to a forbidden address is refused at the connection."""

    def getaddrinfo(*_: object, **__: object) -> list[Any]:
        family, rest = (socket.AF_INET6, (0, 0, 0)) if ":" in address else (socket.AF_INET, (0,))
        return [(family, socket.SOCK_STREAM, 6, "", (address, *rest))]

    async def story() -> None:
        client = GuardedClient(OutgoingPolicy.production(), monotonic_ms, resolver=NameResolver(getaddrinfo))
        answer = await post(client, "https://hooks.example.com/")
        assert answer.error is not None
        assert answer.error.startswith("refused by the outgoing guard: ")
        await client.close()

    asyncio.run(story())
