"""HTTP Basic credentials: an application token and an admin access token that give access to one program."""

import asyncio
import base64
import binascii
import os
from concurrent.futures import Executor
from hashlib import blake2b

from cardwright.core.problems import BAD_CREDENTIAL, Problem
from cardwright.kit.failpoints import async_failpoint
from cardwright.resources.common.call import App
from cardwright.storage.credentials import Access, find_access

KNOWN_MAX = 10_000


class Credentials:
    """A lookup of the program for a request's ``Authorization`` header, with a cache of valid headers.

    The cache holds for one access revision. When the monitor reads another one, a credential was revoked, and the cache is
    emptied. During an outage of the database it stays, because no request can be served then.

    Tokens are compared by their keyed hash only, so the time of a comparison reveals nothing about them. Missing, wrong
    and swapped halves all give the same answer (observed).
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._known: dict[bytes, int] = {}
        self._revision: str | None = None
        self._key = os.urandom(32)

    def is_known(self, header: bytes | None) -> bool:
        """Return True if the header is cached as valid, so that ``program_of`` needs no database lookup."""
        return self.key_of(header) in self._current()

    async def program_of(self, header: bytes | None, threads: Executor) -> int:
        """Return the program's id. Raises BAD_CREDENTIAL."""
        key = self.key_of(header)
        program_id = self._current().get(key)
        if program_id is None:
            digest = self._app.vault.credential_digest(*parse_basic(header))
            access = await asyncio.get_running_loop().run_in_executor(threads, self._look_up, digest)
            await async_failpoint("credential.cache.before")
            program_id, known = access.program_id, self._current()
            # The credential may have been revoked since its lookup, or the monitor may not know yet that another one was.
            if access.revision == self._revision:
                if len(known) >= KNOWN_MAX:
                    known.clear()
                known[key] = program_id
        return program_id

    def _current(self) -> dict[bytes, int]:
        """Return the valid headers, none after a change of the access revision."""
        if self._revision != self._app.database.access_revision:
            self._revision = self._app.database.access_revision
            self._known.clear()
        return self._known

    def key_of(self, header: bytes | None) -> bytes:
        """Return the cache key of a header."""
        # The key is a keyed hash, so that the cache contains no header, and the time of a comparison reveals nothing.
        return blake2b(header or b"", key=self._key, digest_size=16).digest()

    def _look_up(self, digest: bytes) -> Access:
        with self._app.database.read(self._app.database.limits.read_s) as db:
            access = find_access(db, digest)
        if access is None:
            raise Problem(BAD_CREDENTIAL)
        return access


def parse_basic(header: bytes | None) -> tuple[str, str]:
    """Return user name and password of a Basic header (RFC 7617). Raises BAD_CREDENTIAL if there is none."""
    if header is None or header[:6].lower() != b"basic ":
        raise Problem(BAD_CREDENTIAL)
    try:
        name, colon, password = base64.b64decode(header[6:].strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise Problem(BAD_CREDENTIAL) from None
    if not colon:
        raise Problem(BAD_CREDENTIAL)
    return name, password
