"""Name resolution of endpoints: the system's resolver in threads of its own, so that silent names delay no other name."""

import asyncio
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

from aiohttp.abc import AbstractResolver, ResolveResult

RESOLVE_S: Final = 3.0
"""Time limit of a lookup in seconds, and of the wait for a free thread."""

SILENT_S: Final = 30.0
"""Seconds after a lookup without an answer in which the name is not looked up again."""

THREADS_MAX: Final = 64
"""Maximum number of lookups in progress. A lookup beyond its time limit is in progress until the system's resolver returns."""

NEW_THREADS_MAX: Final = 48
"""Number of lookups in progress at which no lookup of a name begins that has not been answered before."""

SILENT_THREADS_MAX: Final = 16
"""Number of lookups in progress at which no lookup of a name begins that was not answered last time."""

NAMES_MAX: Final = 10_000
"""Maximum number of names whose last lookup is remembered."""

Infos = Sequence[tuple[Any, ...]]
"""The result of ``socket.getaddrinfo``."""

GetAddrInfo = Callable[..., Infos]
"""A function with the parameters of ``socket.getaddrinfo``."""

Lookup = asyncio.Future[Infos]


class NameTrouble(OSError):
    """A name has no addresses now. The text of the exception is the reason, without the name."""


class NameResolver(AbstractResolver):
    """Resolver for one event loop. The guarded client checks each address when it is dialled, not here.

    A lookup of the system's resolver cannot be cancelled, and a silent name can occupy it for half a minute. So each lookup has a
    thread, and the time limit applies to the wait for it. All requests for a name share one lookup. After its time limit the name
    counts as silent: requests fail at once for ``SILENT_S`` seconds, and until the lookup ends.

    The number of threads is limited. Names that were answered can use all of them, other names fewer, silent names fewest. So
    silent names cannot take the last threads.
    """

    def __init__(self, getaddrinfo: GetAddrInfo = socket.getaddrinfo) -> None:
        self._getaddrinfo = getaddrinfo
        self._lookups: dict[str, Lookup] = {}
        # The time until which a name counts as silent, 0 if its last lookup was answered.
        self._silent_until: OrderedDict[str, float] = OrderedDict()
        self._thread_ended = asyncio.Event()

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        """Return the addresses of a name. Raises NameTrouble within twice ``RESOLVE_S``."""
        if asyncio.get_running_loop().time() < self._silent_until.get(host, 0.0):
            raise NameTrouble("the name did not resolve in time")
        if host not in self._lookups:
            await self._wait_for_thread(host)
        lookup = self._lookups.get(host) or self._begin(host)
        # Shielded, because other requests for the name wait for the same lookup.
        infos = await asyncio.shield(lookup)
        return [
            ResolveResult(
                hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in infos
            if family in (socket.AF_UNSPEC, kind)
        ]  # fmt: skip

    async def close(self) -> None:
        """Do nothing: the threads end with the process."""

    async def _wait_for_thread(self, host: str) -> None:
        """Return when a thread is free for the name, or another request has begun its lookup. Raises NameTrouble at the limit."""
        threads_max = self._threads_max(host)
        try:
            async with asyncio.timeout(RESOLVE_S):
                while len(self._lookups) >= threads_max and host not in self._lookups:
                    await self._thread_ended.wait()
        except TimeoutError:
            raise NameTrouble("the resolver is busy") from None

    def _threads_max(self, host: str) -> int:
        match self._silent_until.get(host):
            case None:
                return NEW_THREADS_MAX
            case 0.0:
                return THREADS_MAX
            case _:
                return SILENT_THREADS_MAX

    def _begin(self, host: str) -> Lookup:
        """Look the name up in a new thread, which ends with the process. Raises NameTrouble if no thread can be started."""
        loop = asyncio.get_running_loop()
        lookup: Lookup = loop.create_future()

        def look_up() -> None:
            result: Infos | Exception
            try:
                result = self._getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
            except Exception as error:  # An error that is no OSError, such as one of the codec, must end the lookup too.
                result = error
            try:
                loop.call_soon_threadsafe(self._end, host, lookup, result)
            except RuntimeError:
                return  # The loop is closed.

        try:
            threading.Thread(target=look_up, name="resolver", daemon=True).start()
        except RuntimeError:
            raise NameTrouble("the resolver is busy") from None
        self._lookups[host] = lookup
        loop.call_later(RESOLVE_S, self._expire, host, lookup)
        return lookup

    def _expire(self, host: str, lookup: Lookup) -> None:
        """Answer the requests of a lookup at its time limit. Its thread stays occupied."""
        if not lookup.done():
            self._remember(host, asyncio.get_running_loop().time() + SILENT_S)
            _fail(lookup, "the name did not resolve in time")

    def _end(self, host: str, lookup: Lookup, result: Infos | Exception) -> None:
        """Free the thread of a lookup, and answer its requests unless it is beyond its time limit."""
        del self._lookups[host]
        # Wakes all tasks that wait now.
        self._thread_ended.set()
        self._thread_ended.clear()
        if not lookup.done() or not isinstance(result, Exception):
            self._remember(host, 0.0)
        if lookup.done():
            return
        if isinstance(result, Exception):
            _fail(lookup, _reason(result))
        else:
            lookup.set_result(result)

    def _remember(self, host: str, silent_until: float) -> None:
        self._silent_until[host] = silent_until
        self._silent_until.move_to_end(host)
        if len(self._silent_until) > NAMES_MAX:
            self._silent_until.popitem(last=False)


def _fail(lookup: Lookup, reason: str) -> None:
    lookup.set_exception(NameTrouble(reason))
    # All requests may be cancelled by now. Without this the loop would log that the exception was never retrieved.
    lookup.exception()


def _reason(error: Exception) -> str:
    match error:
        case socket.gaierror(errno=socket.EAI_NONAME):
            return "the name does not exist"
        case socket.gaierror(errno=socket.EAI_NODATA):
            return "the name has no address"
        case _:
            return "the name could not be resolved"
