"""Rekey: a new master key and new data keys lose no secret, under load, kills and concurrent changes."""

import threading
from pathlib import Path

from sqlalchemy import select

from cardwright.kit.vault import FIRST_KEY_ID
from cardwright.storage.envelopes import pin_context
from cardwright.storage.tables import cards
from tests.stress import api_fixtures, check, rekeying
from tests.stress.api_fixtures import made
from tests.stress.load_clients import Crowd, PurchaseClient
from tests.stress.request_log import Memory
from tests.support.failpoints import Failpoints
from tests.support.receiver import a_receiver
from tests.support.server import RunningServer
from tests.support.waiting import until

KILLS = 6
NEW_CARDS_MIN = 3


def test_no_secret_is_lost(database_url: str, tmp_path: Path) -> None:
    """Numbers, PINs, codes, identification numbers, webhooks and credentials open after `rekey` and killed `rekey --data`.

    This is a short run of `python -m tests.stress.rekeying`.
    """
    figures = rekeying.run(database_url, tmp_path, count=4, kills=KILLS, seed=7, sample=2, say=lambda _: None)
    assert figures.kills.total() == KILLS, f"failpoints were not reached: {figures}"
    assert figures.mixed > 0, "no kill left envelopes under both keys, so the run proved nothing"


def test_servers_write_meanwhile(database_url: str, tmp_path: Path) -> None:
    """While all secrets are sealed anew, purchases and new cards succeed in every process, and none stays under the old key."""
    workers = 2 if "://" in database_url else None
    with a_receiver() as receiver, RunningServer(db=database_url, data_dir=tmp_path, workers=workers) as server:
        with server.client() as client:
            known = api_fixtures.build(client, 8)
        memory = Memory()
        crowd = Crowd(server, [PurchaseClient(number, "7", known, memory, receiver.url) for number in range(4)])
        issued, is_over = list[str](), threading.Event()

        def issue() -> None:
            with server.client() as client:
                while not is_over.is_set():
                    issued.append(api_fixtures.card(client, f"9{len(issued)}").token)

        issuer = threading.Thread(target=issue)
        issuer.start()
        until(lambda: issued and crowd.answered)
        before = len(issued), len(crowd.answered)
        done = rekeying.rekey(database_url, tmp_path, "--data")
        until(lambda: len(issued) >= before[0] + NEW_CARDS_MIN and len(crowd.answered) > before[1])
        is_over.set()
        issuer.join()
        crowd.stop()
        assert not crowd.odd, crowd.odd[:5]
        with server.client() as client:
            for token in issued:
                assert made(client.get(f"/cards/{token}/showpan"))["pan"].isdigit()
        assert "Traceback" not in server.output(), server.output()[-6000:]
    key_ids = rekeying.key_ids_of(database_url)
    assert done["key_id"] > FIRST_KEY_ID
    assert {key_id for ids in key_ids.values() for key_id in ids} == {done["key_id"]}
    assert key_ids["outbox.target"], "no notification had an address, so the run proved nothing about them"


def test_a_concurrent_change_is_kept(database_url: str, tmp_path: Path) -> None:
    """A PIN that changes between the read and the write of a step keeps its new value, and is sealed under the new key too."""
    with Failpoints() as failpoints, RunningServer(db=database_url, data_dir=tmp_path) as server:
        with server.client() as client:
            (card,) = api_fixtures.build(client, 1)
        vault = rekeying.vault_at(database_url, rekeying.master_key_in(tmp_path))

        def set_pin(pin: str) -> None:
            with check.database_at(database_url) as database, database.write() as db:
                card_id = db.scalar(select(cards.c.id))
                assert card_id is not None
                db.execute(cards.update().values(pin_sealed=vault.seal(pin, pin_context(card_id))))

        set_pin("1111")
        # The second step is that of the PINs, after the one of the card numbers.
        failpoints.arm("reseal.read", "pause 2")
        with rekeying.start_rekey(database_url, tmp_path, "--data", env=failpoints.environment) as process:
            assert failpoints.wait("reseal.read", seconds=rekeying.COMMAND_S)
            set_pin("2222")
            failpoints.release("reseal.read")
            _, errors = process.communicate(timeout=rekeying.COMMAND_S)
        assert process.returncode == 0, errors
        assert set(rekeying.key_ids_of(database_url)["cards.pin_sealed"]) == {FIRST_KEY_ID + 1}
        with server.client() as client:
            for pin, code in (("1111", "1809"), ("2222", "0000")):
                body = {"card_token": card.token, "amount": 1, "mid": "m", "pin": pin}
                response = made(client.post("/simulate/authorization", body))["transaction"]["response"]
                assert response["code"] == code, (pin, response)
