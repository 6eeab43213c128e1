"""Scenario of the demo: the guide's six steps, then a webhook, look-ups and a decline, all over HTTP."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cardwright.edges.cli.client import Client
from cardwright.edges.cli.output import Failure, Hint

SOURCE, PRODUCT, USER, CARD = "demo_funding", "demo_product", "demo_user", "demo_card"
BOX = "demo"
HOOK = {"username": "demo_hook", "password": "Demo-Hook-Passw0rd-1!", "secret": "Demo-Hook-Secret-Nr-1!"}

PRODUCT_CONFIG = {
    "fulfillment": {"payment_instrument": "VIRTUAL_PAN"},
    "card_life_cycle": {"activate_upon_issue": True},
    "jit_funding": {
        "program_funding_source": {
            "enabled": True, "funding_source_token": SOURCE, "refunds_destination": "PROGRAM_FUNDING_SOURCE",
        }
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A request, its response, and the fields of the response that the demo prints."""

    title: str
    verb: str
    path: str
    body: dict[str, Any] | None
    status: int
    answer: Any
    shown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Promise:
    """An expected result, and whether it occurred."""

    says: str
    is_kept: bool


@dataclass(slots=True)
class Story:
    """Story of the demo: runs the steps in order and collects the expected results in ``promises``."""

    client: Client
    promises: list[Promise] = field(default_factory=list)

    def play(self) -> Iterator[Step]:
        """Yield every step. Raises Failure if a request fails."""
        yield from self._set_up()
        bought = self._purchase("A purchase: Just-in-Time Funding loads the money, and a hold reserves it", 10)
        purchase = bought.answer["transaction"]
        self._check_purchase(purchase)
        yield bought
        if "gpa_order" not in purchase:
            return
        yield from self._look_back(purchase)
        yield self._ask(
            "The card is suspended", "POST", "/v3/cardtransitions",
            {"card_token": CARD, "state": "SUSPENDED", "reason_code": "01", "channel": "API"}, ("state", "reason_code"),
        )  # fmt: skip
        refused = self._purchase("The next purchase is declined; a decline is a transaction too", 25)
        self._check_decline(refused.answer["transaction"])
        yield refused
        yield from self._look_at_the_decline(refused.answer["transaction"])

    def _set_up(self) -> Iterator[Step]:
        yield self._ask(
            "A program funding source: the account that funds purchases", "POST", "/v3/fundingsources/program",
            {"token": SOURCE, "name": "Demo Program Funding"}, ("token", "name", "active"),
        )  # fmt: skip
        yield self._ask(
            "A card product: virtual cards, active at once, with Just-in-Time Funding", "POST", "/v3/cardproducts",
            {"token": PRODUCT, "name": "Demo Virtual Card", "start_date": "2026-01-01", "config": PRODUCT_CONFIG},
            ("token", "name", "config.jit_funding.program_funding_source.funding_source_token"),
        )  # fmt: skip
        yield self._ask(
            "A cardholder", "POST", "/v3/users", {"token": USER, "first_name": "Mara", "last_name": "Okafor"},
            ("token", "first_name", "last_name", "status"),
        )  # fmt: skip
        yield self._ask(
            "A card", "POST", "/v3/cards", {"token": CARD, "user_token": USER, "card_product_token": PRODUCT},
            ("token", "pan", "expiration", "state"),
        )  # fmt: skip

    def _purchase(self, title: str, amount: int) -> Step:
        hook = {"endpoint": f"{self.client.root_url}/sandbox/inbox/default/{BOX}", **HOOK}
        body = {"card_token": CARD, "amount": amount, "mid": "1234567890", "webhook": hook}
        shown = (
            "transaction.type", "transaction.state", "transaction.token", "transaction.amount", "transaction.response.memo",
            "transaction.gpa_order.amount", "transaction.gpa_order.funding.source.type",
            "transaction.gpa_order.funding.source.token",
        )  # fmt: skip
        return self._ask(title, "POST", "/v3/simulate/authorization", body, shown)

    def _check_purchase(self, purchase: dict[str, Any]) -> None:
        order = purchase.get("gpa_order", {})
        source = order.get("funding", {}).get("source", {})
        self._promise("the purchase is approved and pending", purchase["state"] == "PENDING")
        self._promise('gpa_order.funding.source.type is "program"', source.get("type") == "program")
        self._promise("the order names the funding source made in step 1", source.get("token") == SOURCE)
        self._promise("the order draws the whole amount from it", order.get("amount") == purchase["amount"])
        self._promise("the transaction names the user made in step 3", purchase["user_token"] == USER)
        self._promise("the transaction names the card made in step 4", purchase["card_token"] == CARD)

    def _look_back(self, purchase: dict[str, Any]) -> Iterator[Step]:
        token, load_token = purchase["token"], purchase["gpa_order"]["transaction_token"]
        yield self._webhook("The webhook arrives, signed", token, purchase)
        step = self._ask(
            "The transaction by its token", "GET", f"/v3/transactions/{token}", None,
            ("type", "state", "amount", "response.code", "approval_code"),
        )  # fmt: skip
        self._promise("the transaction equals the response to the purchase", step.answer == purchase)
        yield step
        step = self._ask(
            "The JIT load that funded it", "GET", f"/v3/transactions/{load_token}", None,
            ("type", "subnetwork", "amount", "preceding_related_transaction_token"),
        )  # fmt: skip
        self._promise("the JIT load refers to the purchase", step.answer["preceding_related_transaction_token"] == token)
        yield step
        step = self._ask(
            "The account: the load is on hold, so nothing is available", "GET", f"/v3/balances/{USER}", None,
            ("gpa.ledger_balance", "gpa.available_balance"),
        )  # fmt: skip
        gpa = step.answer["gpa"]
        self._promise("ledger 10.00, available 0.00", (gpa["ledger_balance"], gpa["available_balance"]) == (10, 0))
        yield step
        yield self._ask(
            "The decision: every check, in order", "GET", f"/sandbox/decisions/{token}", None, ("outcome", "response.memo")
        )

    def _webhook(self, title: str, token: str, transaction: dict[str, Any]) -> Step:
        step = self._ask(
            title, "GET", f"/sandbox/inbox/{BOX}?wait=10s&token={token}", None,
            ("data.0.headers.authorization", "data.0.signature.algorithm", "data.0.signature.valid",
             "data.0.body.transactions.0.type", "data.0.body.transactions.0.state"),
        )  # fmt: skip
        arrived = step.answer["data"][0] if step.answer["data"] else {}
        self._promise("the webhook arrives with a valid signature", arrived.get("signature", {}).get("valid") is True)
        self._promise(
            "the webhook contains the transaction of the response", arrived.get("body") == {"transactions": [transaction]}
        )
        return step

    def _check_decline(self, refused: dict[str, Any]) -> None:
        self._promise("a purchase with a suspended card is declined with 1003", refused["response"]["code"] == "1003")
        self._promise("a decline loads no money", refused["state"] == "DECLINED" and "gpa_order" not in refused)

    def _look_at_the_decline(self, refused: dict[str, Any]) -> Iterator[Step]:
        yield self._webhook("The webhook of the decline", refused["token"], refused)
        step = self._ask(
            "The decision: the check that declined, and a remedy", "GET", f"/sandbox/decisions/{refused['token']}", None,
            ("outcome", "first_refusal", "would_pass_if"),
        )  # fmt: skip
        self._promise("the first refusal is the card's state", step.answer.get("first_refusal") == "card_is_active")
        yield step

    def _ask(self, title: str, verb: str, path: str, body: dict[str, Any] | None, shown: tuple[str, ...]) -> Step:
        answer = self.client.request(verb, path, body)
        if answer.status not in (200, 201):
            hint = Hint("cardwright demo", "run the demo again; if it fails again, report this output")
            raise Failure(f"{verb} {path} was answered {answer.status}: {answer.body}", hint)
        return Step(title=title, verb=verb, path=path, body=body, status=answer.status, answer=answer.body, shown=shown)

    def _promise(self, says: str, is_kept: bool) -> None:
        self.promises.append(Promise(says, is_kept))


def value_at(answer: Any, path: str) -> Any:
    """Return the value at a dotted path, or None if a part of the path is missing."""
    for name in path.split("."):
        try:
            answer = answer[int(name) if isinstance(answer, list) else name]
        except (KeyError, IndexError, TypeError):
            return None
    return answer
