"""Key watch: a running process gets data keys that another process adds, and one that starts during an outage gets them later."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cardwright.edges.cli.database_commands import opened
from cardwright.instance_secrets import find_master_key
from cardwright.kit.clock import system_ms
from cardwright.settings import Settings
from cardwright.storage.data_keys import KeyState, find_key_check
from cardwright.storage.database import Database
from cardwright.storage.failures import Unavailable
from cardwright.storage.key_watch import KeyWatch
from cardwright.storage.reseal import prepare_key, refuse_prepared_keys, use_key
from cardwright.wiring import Platform, make_vault
from tests.stress.outages import durable_cluster
from tests.support.postgres import Cluster


@pytest.fixture
def cluster(postgres: object) -> Iterator[Cluster]:
    """Yield a PostgreSQL server that the test stops and starts."""
    made = durable_cluster()
    yield made
    made.stop()


def test_new_keys_are_loaded_before_they_seal(migrated_url: str, tmp_path: Path) -> None:
    """Prepared keys are loaded at the next look, and seal from the look on after which they are in use. Refused keys are not."""
    settings = Settings(db=migrated_url, data_dir=tmp_path)
    with opened(settings) as (database, _):
        vault = make_vault(database, settings)
        watch = KeyWatch(database, vault)
        watch.look()
        assert (vault.key_ids, vault.sealing_id) == ({1}, 1)
        with database.read() as db:
            master_key = find_master_key(settings, find_key_check(db) or "")
        assert prepare_key(database, master_key, system_ms) == (2, KeyState.PREPARED)
        watch.look()
        assert (vault.key_ids, vault.sealing_id) == ({1, 2}, 1)
        use_key(database, 2)
        assert prepare_key(database, master_key, system_ms) == (2, KeyState.USED)
        watch.look()
        assert vault.sealing_id == 2
        assert vault.seal("text", "context")[0] == 2
        assert refuse_prepared_keys(database) == []
        watch.stop()


def test_a_process_starts_during_an_outage(cluster: Cluster, tmp_path: Path) -> None:
    """A process that starts while PostgreSQL is away answers with the outage, and has its keys when PostgreSQL is back."""
    settings = Settings(db=cluster.dsn, data_dir=tmp_path)
    with opened(settings) as (database, _):
        vault = make_vault(database, settings)
        digest = vault.credential_digest("application", "access")

    async def live() -> None:
        platform = Platform(settings)
        await platform.start()
        try:
            with pytest.raises(Unavailable):
                await asyncio.to_thread(platform.app.vault.credential_digest, "application", "access")
            cluster.launch()
            async with asyncio.timeout(120):
                while platform.app.vault.sealing_id is None:
                    await asyncio.sleep(0.05)
            assert platform.app.vault.credential_digest("application", "access") == digest
        finally:
            await platform.stop()

    os.kill(cluster.pid, signal.SIGINT)
    cluster.wait()
    asyncio.run(live())


def test_the_watch_survives_an_outage(tmp_path: Path) -> None:
    """A read of a closed database raises Unavailable, and the loop goes on until it is stopped."""
    settings = Settings(db=str(tmp_path / "x.db"), data_dir=tmp_path)
    with opened(settings):
        pass
    database = Database(str(tmp_path / "x.db"))
    watch = KeyWatch(database, make_vault(database, settings))
    database.close()

    async def live() -> None:
        running = asyncio.create_task(watch.run())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await asyncio.to_thread(watch.look)
        watch.stop()
        await asyncio.wait_for(running, 60)

    asyncio.run(live())
