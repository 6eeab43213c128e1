"""User transitions over HTTP: allowed changes of status, the record of each, their effects, and refused input."""

import json
import sqlite3
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from cardwright.core.enums import HolderStatus
from cardwright.resources.account_holders.user_transitions import may_change
from tests.support.facts import facts_of, revision_of
from tests.support.fixtures import shared_server
from tests.support.issuing import fresh, made_by
from tests.support.server import Client

# The documented changes that channel API may make, as initial letters. TERMINATED may follow every status, and it is final.
API_TRANSITIONS = {
    "UNVERIFIED": "UACT",
    "LIMITED": "LASCT",
    "ACTIVE": "ASCUT",
    "SUSPENDED": "SALUCT",
    "CLOSED": "CALUST",
    "TERMINATED": "T",
}
PAIRS = list(product(API_TRANSITIONS, API_TRANSITIONS))

server = shared_server()


def user(api: Client, **fields: Any) -> str:
    """Create a user and return its token."""
    return str(made_by(api.post("/users", fields))["token"])


def lead(api: Client, user_token: str, status: str, channel: str = "API", **fields: Any) -> Any:
    """Request a transition and return the answer."""
    body = {"user_token": user_token, "status": status, "reason_code": "05", "channel": channel, **fields}
    return api.post("/usertransitions", body)


# --- Fields and lists ---------------------------------------------------------------------------------


def test_a_transition_is_shown_whole(api: Client) -> None:
    """The answer has all fields of the reference in order, the time in seconds and in milliseconds, and the user's metadata."""
    somebody = user(api, metadata={"berth": "7"})
    token = fresh("ut")
    reply = lead(api, somebody, "SUSPENDED", token=token, reason="Under review", idempotentHash="ignored")
    made = reply.json
    assert reply.status == 201
    assert json.dumps(made) == json.dumps(
        {
            "token": token,
            "status": "SUSPENDED",
            "reason_code": "05",
            "reason": "Under review",
            "channel": "API",
            "created_time": made["created_time"],
            "last_modified_time": made["created_time"],
            "user_token": somebody,
            "created_timestamp": made["created_timestamp"],
            "metadata": {"berth": "7"},
        }
    )
    assert made["created_timestamp"][:19] + "Z" == made["created_time"]
    assert len(made["created_timestamp"]) == len("2026-01-31T12:00:00.000Z")
    assert api.get(f"/usertransitions/{token}").json == made
    assert api.get(f"/usertransitions/{token}?fields=status").json == {"status": "SUSPENDED"}


def test_what_is_not_said_is_made_or_left_out(api: Client) -> None:
    """The server generates a missing token. The answer has no reason if the request has none."""
    made = lead(api, user(api), "CLOSED").json
    assert made["token"]
    assert "reason" not in made


@pytest.mark.parametrize("status", API_TRANSITIONS)
def test_the_user_shows_its_status(api: Client, status: str) -> None:
    """A transition changes ``status``, ``last_modified_time`` and the derived ``active`` of the user, and no other field."""
    somebody = user(api, first_name="Mara")
    before = api.get(f"/users/{somebody}").json
    assert lead(api, somebody, status, channel="SYSTEM").status == 201
    after = api.get(f"/users/{somebody}").json
    active = status in ("ACTIVE", "LIMITED")
    assert after == {**before, "status": status, "active": active, "last_modified_time": after["last_modified_time"]}


def test_a_users_transitions_are_listed_newest_first(api: Client) -> None:
    """A page has five transitions of this user, newest first; the oldest is the creation. A count above 100 gets 413."""
    somebody = user(api)
    lead(api, user(api), "SUSPENDED")
    statuses = ["SUSPENDED", "ACTIVE", "SUSPENDED", "CLOSED", "LIMITED"]
    for status in statuses:
        assert lead(api, somebody, status).status == 201
    url = f"/usertransitions/user/{somebody}"
    page = api.get(url).json
    assert [transition["status"] for transition in page["data"]] == statuses[::-1]
    assert (page["count"], page["is_more"]) == (5, True)
    oldest = api.get(f"{url}?sort_by=id&count=1&fields=status,channel,reason_code").json["data"]
    assert oldest == [{"status": "ACTIVE", "channel": "SYSTEM", "reason_code": "00"}]
    assert api.get(f"{url}?start_index=5").json["count"] == 1
    assert api.get(f"{url}?count=101").status == 413


def test_a_repeat_changes_nothing_twice(api: Client) -> None:
    """The same token and body replay the first transition, even if the status has changed since. Another body gets 409."""
    somebody, token = user(api), fresh("once")
    first = lead(api, somebody, "SUSPENDED", token=token)
    lead(api, somebody, "ACTIVE")
    again = lead(api, somebody, "SUSPENDED", token=token)
    assert (again.status, again.json) == (201, first.json)
    assert api.get(f"/users/{somebody}").json["status"] == "ACTIVE"
    assert api.get(f"/usertransitions/user/{somebody}").json["count"] == 3
    other = lead(api, somebody, "CLOSED", token=token)
    assert (other.status, other.json["error_code"]) == (409, "409002")


@pytest.mark.parametrize("path", ["/usertransitions/nothing", "/usertransitions/user/nobody"])
def test_unknown_tokens_are_not_found(api: Client, path: str) -> None:
    """An unknown token in the path gets 404 with the message of the reference."""
    reply = api.get(path)
    assert (reply.status, reply.json) == (404, {"error_code": "404004", "error_message": "Cardholder not found"})


# --- Allowed changes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), PAIRS, ids=[f"{before} to {after}" for before, after in PAIRS])
def test_channel_api_follows_the_documented_transitions(api: Client, before: str, after: str) -> None:
    """Channel API makes only the documented changes. Any other change gets 412 and leaves user and transitions unchanged."""
    somebody = user(api)
    assert lead(api, somebody, before, channel="SYSTEM").status == 201
    reply = lead(api, somebody, after)
    if after[0] in API_TRANSITIONS[before]:
        assert reply.status == 201
    else:
        assert (reply.status, reply.json["error_code"]) == (412, "412003")
        assert f"{before} to {after}" in reply.json["error_message"]
    assert api.get(f"/users/{somebody}").json["status"] == (after if reply.status == 201 else before)
    assert api.get(f"/usertransitions/user/{somebody}").json["count"] == (3 if reply.status == 201 else 2)


@pytest.mark.parametrize("channel", ["IVR", "FRAUD", "ADMIN", "SYSTEM"])
def test_other_channels_are_free_but_for_the_end(channel: str) -> None:
    """Channels other than API may set every status. Only TERMINATED is final for them too."""
    for before, after in product(HolderStatus, HolderStatus):
        expected = before is not HolderStatus.TERMINATED or after is before
        assert may_change(before, after, channel) is expected


def test_the_observed_walk_of_the_system(api: Client) -> None:
    """Channel SYSTEM may set the statuses in the order in which the clients of the reference set them."""
    somebody = user(api)
    for status in ("UNVERIFIED", "LIMITED", "ACTIVE", "SUSPENDED", "CLOSED", "LIMITED", "SUSPENDED", "UNVERIFIED", "UNVERIFIED"):
        assert lead(api, somebody, status, channel="SYSTEM", reason_code="00").status == 201


# --- Effects ------------------------------------------------------------------------------------------------


def test_a_new_status_raises_the_revision(api: Client, database: Path) -> None:
    """A new status adds a version of the user under a new revision of the account. A repeated status adds a transition only."""
    somebody = user(api, address1="1 Quay")
    lead(api, somebody, "SUSPENDED")
    lead(api, somebody, "SUSPENDED")
    facts = facts_of(database, somebody)
    assert [(fact.status, fact.address1) for _, fact in facts] == [("ACTIVE", "1 Quay"), ("SUSPENDED", "1 Quay")]
    assert facts[-1][0] == revision_of(database, somebody)
    assert api.get(f"/usertransitions/user/{somebody}").json["count"] == 3


def test_the_parents_account_learns_of_a_sharing_child(api: Client, database: Path) -> None:
    """A transition of a child that shares its parent's account increases the revision of that account."""
    parent = user(api)
    child = user(api, parent_token=parent, uses_parent_account=True)
    start = revision_of(database, parent)
    lead(api, child, "SUSPENDED")
    assert revision_of(database, parent) == start + 1
    assert facts_of(database, child)[-1][0] == start + 1
    assert api.get(f"/users/{parent}").json["status"] == "ACTIVE"


def test_transitions_send_events(api: Client, database: Path) -> None:
    """Creation and each transition write one event for each subscribed webhook. The event has the token of the transition."""
    config = {"url": "http://127.0.0.1:9/hook", "basic_auth_username": "harbor", "basic_auth_password": "Harbor#2026harbor#2026"}
    for events in (["usertransition.*"], ["usertransition.suspended"]):
        hook = api.post("/webhooks", {"name": fresh("hook"), "active": True, "config": config, "events": events})
        assert hook.status == 201, hook.text
    somebody = user(api)
    lead(api, somebody, "SUSPENDED")
    lead(api, somebody, "SUSPENDED")
    transitions = api.get(f"/usertransitions/user/{somebody}?sort_by=id").json["data"]
    with sqlite3.connect(database) as db:
        rows = [json.loads(refs) for (refs,) in db.execute("SELECT refs FROM outbox WHERE category = 3 ORDER BY id")]
    creation, first, second = ([transition["token"]] for transition in transitions)
    assert [row for row in rows if row in (creation, first, second)] == [creation, first, first, second, second]


# --- Bad input ------------------------------------------------------------------------------------------------

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"user_token": None}, "400001", "user_token may not be null"),
    ({"user_token": ""}, "400001", "user_token"),
    ({"user_token": "x" * 37}, "400001", "user_token"),
    ({"user_token": "nobody"}, "400003", "User not found"),
    ({"status": None}, "400001", "status may not be null"),
    ({"status": "HAPPY"}, "400037", "status"),
    ({"status": "active"}, "400037", "status"),
    ({"reason_code": None}, "400001", "reason_code may not be null"),
    ({"reason_code": "33"}, "400037", "reason_code"),
    ({"reason_code": "5"}, "400037", "reason_code"),
    ({"channel": None}, "400001", "channel may not be null"),
    ({"channel": "PIGEON"}, "400037", "channel"),
    ({"reason": "x" * 256}, "400001", "reason"),
    ({"token": ""}, "400001", "token"),
    ({"token": "x" * 37}, "400001", "token"),
]


@pytest.mark.parametrize(("wrong", "code", "names"), REFUSED, ids=[str(row[0])[:50] for row in REFUSED])
def test_bad_input_is_refused_by_name(api: Client, wrong: dict[str, Any], code: str, names: str) -> None:
    """A wrong field gets 400 with the code of its kind and a message that names the field. The user is unchanged."""
    somebody = user(api)
    body = {"user_token": somebody, "status": "SUSPENDED", "reason_code": "01", "channel": "API", **wrong}
    reply = api.post("/usertransitions", body)
    assert (reply.status, reply.json["error_code"]) == (400, code), reply.text
    assert names in reply.json["error_message"]
    assert api.get(f"/users/{somebody}").json["status"] == "ACTIVE"


def test_all_missing_fields_are_named_at_once(api: Client) -> None:
    """The error for an empty object names all missing fields."""
    message = api.post("/usertransitions", {}).json["error_message"]
    for field in ("user_token", "status", "reason_code", "channel"):
        assert f"{field} may not be null" in message


@pytest.mark.parametrize("code", [*(f"{number:02d}" for number in range(33)), "86"])
def test_every_reason_code_is_known(api: Client, code: str) -> None:
    """Every reason code of the reference is accepted and returned."""
    assert lead(api, user(api), "SUSPENDED", reason_code=code).json["reason_code"] == code
