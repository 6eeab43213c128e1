"""HTTP Basic credentials: an application token and an admin access token that give access to one program."""

import asyncio
import base64
import binascii
import os
from concurrent.futures import Executor
from hashlib import blake2b

from cardwright.core.problems import BAD_CREDENTIAL, Problem
from cardwright.resources.common.call import App
from cardwright.storage.programs import find_program_of

KNOWN_MAX = 10_000


class Credentials:
    """A lookup of the program for a request's ``Authorization`` header, with a cache of valid headers.

    Tokens are compared by their keyed hash only, so the time of a comparison reveals nothing about them. Missing, wrong
    and swapped halves all give the same answer (observed).
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._known: dict[bytes, int] = {}
        self._key = os.urandom(32)

    def is_known(self, header: bytes | None) -> bool:
        """Return True if the header is cached as valid, so that ``program_of`` needs no database lookup."""
        return self.key_of(header) in self._known

    async def program_of(self, header: bytes | None, threads: Executor) -> int:
        """Return the program's id. Raises BAD_CREDENTIAL."""
        key = self.key_of(header)
        program_id = self._known.get(key)
        if program_id is None:
            digest = self._app.vault.credential_digest(*parse_basic(header))
            program_id = await asyncio.get_running_loop().run_in_executor(threads, self._look_up, digest)
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[key] = program_id
        return program_id

    def key_of(self, header: bytes | None) -> bytes:
        """Return the cache key of a header."""
        # The key is a keyed hash, so that the cache contains no header, and the time of a comparison reveals nothing.
        return blake2b(header or b"", key=self._key, digest_size=16).digest()

    def _look_up(self, digest: bytes) -> int:
        with self._app.database.read(self._app.database.limits.read_s) as db:
            program_id = find_program_of(db, digest)
        if program_id is None:
            raise Problem(BAD_CREDENTIAL)
        return program_id


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
