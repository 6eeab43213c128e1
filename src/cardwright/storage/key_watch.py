"""Key watch: the loop that gives the vault of a running process the data keys that another process adds."""

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from cardwright.kit.vault import Vault
from cardwright.storage.data_keys import KeyState, OtherMasterKey, find_key_states, sealing_id_of
from cardwright.storage.database import Database
from cardwright.storage.failures import Unavailable
from cardwright.storage.reseal import refuse_prepared_keys

WATCH_S: Final = 0.5
"""Seconds between two reads of the key states."""

log = structlog.get_logger()


class KeyWatch:
    """A periodic read of the key states, one in the event loop of each process."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="keys")
        self._stopped = asyncio.Event()
        self._reported: dict[int, KeyState] = {}

    async def run(self) -> None:
        """Load new keys until ``stop`` is called."""
        while not self._stopped.is_set():
            try:
                await asyncio.get_running_loop().run_in_executor(self._threads, self.look)
            except Unavailable as error:
                log.debug("the data keys could not be read", error=str(error))
            except Exception:
                # A bug or an unreadable file must not end the loop.
                log.exception("the data keys could not be read")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), WATCH_S)

    def stop(self) -> None:
        """End ``run`` without waiting for the current read."""
        self._stopped.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def look(self) -> None:
        """Load the data keys if their states have changed. Raises Unavailable.

        If they are wrapped under a master key that this process does not have, refuse the prepared ones, so that no envelope is
        sealed under them.
        """
        with self._database.read(self._database.limits.read_s) as db:
            states = find_key_states(db)
        usable = {key_id for key_id, state in states.items() if state is not KeyState.REFUSED}
        if usable <= self._vault.key_ids and sealing_id_of(states) == self._vault.sealing_id:
            return
        try:
            self._vault.reload()
        except OtherMasterKey as error:
            if states != self._reported:
                refused = refuse_prepared_keys(self._database)
                unknown = sorted(usable - self._vault.key_ids - set(refused))
                log.error("data keys cannot be unwrapped", reason=str(error), refused=refused, unknown=unknown)
            self._reported = states
