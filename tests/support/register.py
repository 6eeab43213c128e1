"""Register: three webhooks to the webhook inbox, and their arrivals: each event of a program is expected once in every box."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from cardwright.outbox.events import Category
from tests.support.issuing import made_by, read_of
from tests.support.server import Client
from tests.support.waiting import until_all_are_delivered

BOXES = ("everything", "bases", "names")
"""Tokens of the webhooks and names of their boxes. They subscribe to ``*``, to ``<base>.*`` and to names."""

PATHS = {
    Category.TRANSACTION: "/transactions/{}",
    Category.CARD: "/cardtransitions/{}",
    Category.USER: "/usertransitions/{}",
    Category.DEPOSIT: "/directdeposits/transitions/{}",
    Category.DEPOSIT_ACCOUNT: "/depositaccounts/transitions/{}",
}
"""Paths of the objects in events, by token."""

ARRAYS = {category.array: category for category in Category}


class Arrival(NamedTuple):
    """An object in a notification."""

    category: Category
    element: dict[str, Any]

    @property
    def token(self) -> str:
        return str(self.element["token"])

    @property
    def type(self) -> str:
        """The end of the event's name: the type, else the status or the state in lower case (wire reference, 9.5)."""
        fields = ("type", "status", "state")
        return next(str(self.element[name]) for name in fields if name in self.element).lower()

    @property
    def key(self) -> tuple[Category, str]:
        return self.category, self.token


class Register:
    """The webhooks of a program."""

    def __init__(self, client: Client, root_url: str, program: str, names: Iterable[str]) -> None:
        self.client = client
        events = {
            "everything": ["*"],
            "bases": [f"{category.base}.*" for category in Category],
            "names": sorted(set(names)),
        }  # fmt: skip
        for box in BOXES:
            config = {
                "url": f"{root_url}/sandbox/inbox/{program}/{box}",
                "basic_auth_username": "harbor", "basic_auth_password": "Harb0r-Hook-Passw0rd!",
            }  # fmt: skip
            made_by(client.post("/webhooks", {"token": box, "name": box, "events": events[box], "config": config}))

    def messages(self, box: str) -> list[Any]:
        """Wait for all deliveries; return the bodies of all notifications in a box, the newest first."""
        until_all_are_delivered(self.client)
        bodies: list[Any] = []
        while True:
            query = {"count": 100, "start_index": len(bodies)}
            page = read_of(self.client.get(f"/sandbox/inbox/{box}", query=query))
            bodies += [message["body"] for message in page["data"]]
            if not page["is_more"]:
                return bodies

    def arrivals(self, box: str) -> list[Arrival]:
        """Return all objects that arrived in a box."""
        arrays = (item for body in self.messages(box) for item in body.items())
        return [Arrival(ARRAYS[array], element) for array, elements in arrays for element in elements]

    def counts(self, box: str) -> Counter[tuple[Category, str]]:
        """Return the number of arrivals of each object in a box."""
        return Counter(arrival.key for arrival in self.arrivals(box))
