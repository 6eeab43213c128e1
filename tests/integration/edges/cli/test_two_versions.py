"""Two versions on one database: a process of the old version answers 503 with the reason until the schema matches again."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from cardwright.storage.database import Database
from cardwright.storage.migrate import newest
from tests.integration.edges.cli.conftest import Done
from tests.support.server import RunningServer
from tests.support.shop import Shop
from tests.support.waiting import until


def set_schema(address: str, revision: str) -> None:
    """Set the revision of the schema and increment those of the programs, as the last step of a migration does."""
    database = Database(address)
    with database.write() as db:
        db.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
        db.execute(text("UPDATE programs SET revision = revision + 1"))
    database.close()


def test_old_version_answers_503_with_the_reason(
    migrated_url: str, tmp_path: Path, cardwright: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a migration a server of the old version answers 503 and books nothing. It works again with its schema."""
    data_dir = tmp_path / "data"
    with RunningServer(db=migrated_url, data_dir=data_dir) as server:
        shop = Shop(server)
        shop.buy()
        set_schema(migrated_url, "9999")
        # The first request after the migration already gets 503.
        replies = [shop.simulate("authorization", card_token="jit", amount=10, mid="m1"), shop.client.get("/users/ana")]
        replies.append(shop.client.put("/users/ana", {"first_name": "Ana"}))
        for reply in replies:
            assert (reply.status, reply.json["error_code"]) == (503, "503001")
            known = f"the database has schema 9999, this version of Cardwright works with {newest()}"
            assert known in reply.json["error_message"]
            assert "install the matching version and restart" in reply.json["error_message"]
        ready = until(lambda: (reply := shop.client.get("/readyz")).status == 503 and reply.json, 60)
        assert "9999" in ready["reason"]
        monkeypatch.setenv("CARDWRIGHT_APPLICATION_TOKEN", server.application_token)
        monkeypatch.setenv("CARDWRIGHT_ACCESS_TOKEN", server.access_token)
        status = cardwright("status", "--data-dir", data_dir)
        assert status.code == 1
        assert f"is not ready: unavailable: {known}" in status.err
        assert "cardwright migrate" not in status.err
        set_schema(migrated_url, newest())
        until(lambda: shop.client.get("/readyz").status == 200, 60)
        shop.buy()
        assert [transaction["type"] for transaction in shop.listed()].count("authorization") == 2
        assert "first_name" not in shop.get("/users/ana")
        assert "Traceback" not in server.output()


def test_old_version_answers_503_where_a_column_is_gone(database_url: str, tmp_path: Path) -> None:
    """If the new version has renamed a column of the purchase's row, a clearing gets 503 with the schema as the reason."""
    with RunningServer(db=database_url, data_dir=tmp_path / "data") as server:
        shop = Shop(server)
        purchase = shop.buy()
        database = Database(database_url)
        with database.write() as db:
            db.execute(text("ALTER TABLE transactions RENAME COLUMN type_id TO renamed"))
        set_schema(database_url, "9999")
        for _ in range(2):
            reply = shop.simulate("clearing", original_transaction_token=purchase["token"], amount=10)
            assert (reply.status, reply.json["error_code"]) == (503, "503001")
            assert "the database has schema 9999" in reply.json["error_message"]
        with database.write() as db:
            db.execute(text("ALTER TABLE transactions RENAME COLUMN renamed TO type_id"))
        database.close()
        set_schema(database_url, newest())
        until(lambda: shop.client.get("/readyz").status == 200, 60)
        assert shop.follow("clearing", purchase, 10)["type"] == "authorization.clearing"
        assert "Traceback" not in server.output()
