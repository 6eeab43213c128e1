"""Examples of the OpenAPI document. In the order of the guide, the unchanged requests lead to an approved purchase."""

from typing import Any

HERE = "http://127.0.0.1:8181"
"""The default address of a server. The explorer replaces it with the address of its server."""

PURCHASE = "token-of-the-purchase"
"""A placeholder for the token of a purchase. The explorer replaces it with the token of the last purchase."""

NUMBER = "19000000000000"
"""A placeholder for an account number. The explorer replaces it with the number of the last deposit account."""

DAY = "2036-03-31T09:00:00Z"
"""The settlement date of deposits.

It is far in the future, because an applied deposit can be returned only for two banking days.
"""

FEE = "token-of-the-fee"
"""A placeholder for the token of a transaction that charged a fee."""

TOKENS = {
    "funding_source": "main_account",
    "cardproduct": "coffee_card",
    "user": "ana",
    "card": "anas_card",
    "webhook": "news",
    "backtest": "tighter_days",
    "shadow-control": "quiet_budget",
    "gpaorder": "first_load",
    "unload": "first_return",
    "fee": "monthly",
    "feecharge": "march",
    "feetransfer": "april",
    "autoreload": "never_empty",
    "peertransfer": "pizza",
    "type": "debts",
    "programtransfer": "debt_of_march",
    "depositaccount": "anas_account",
    "account_number": NUMBER,
    "user_or_business_token": "ana",
    "directdeposit": "salary",
    "authcontrol": "no_betting",
    "exemptmid": "the_derby",
    "mccgroup": "betting",
    "merchantgroup": "track_and_field",
    "accepted_countries": "north_america",
    "accountholdergroup": "newcomers",
    "box": "news",
    "phone_number": "+15105551212",
    "event_type": "transaction",
}
"""A token for each kind of object that a path can refer to. The bodies use the same tokens."""

BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/v3/ping"): {"token": "hello", "payload": "Hello"},
    ("POST", "/v3/fundingsources/program"): {"token": "main_account", "name": "Main account"},
    ("PUT", "/v3/fundingsources/program/{token}"): {"name": "Main account, renamed"},
    ("POST", "/v3/cardproducts"): {
        "token": "coffee_card",
        "name": "Coffee card",
        "start_date": "2026-01-01",
        "config": {
            "card_life_cycle": {"activate_upon_issue": True},
            "fulfillment": {"payment_instrument": "VIRTUAL_PAN"},
            "poi": {"ecommerce": True},
            "jit_funding": {"program_funding_source": {"enabled": True, "funding_source_token": "main_account"}},
        },
    },
    ("PUT", "/v3/cardproducts/{token}"): {"config": {"poi": {"atm": True}}},
    ("POST", "/v3/users"): {
        "token": "ana",
        "first_name": "Ana",
        "last_name": "Silva",
        "email": "ana@example.com",
        "phone": "+15105551212",
        "metadata": {"favourite": "cappuccino"},
    },
    ("PUT", "/v3/users/{token}"): {"city": "Oakland"},
    ("POST", "/v3/users/lookup"): {"email": "ana@example.com"},
    ("POST", "/v3/usertransitions"): {"user_token": "ana", "status": "SUSPENDED", "reason_code": "02", "channel": "API"},
    ("POST", "/v3/cards"): {"token": "anas_card", "user_token": "ana", "card_product_token": "coffee_card"},
    ("PUT", "/v3/cards/{token}"): {"metadata": {"colour": "blue"}},
    ("POST", "/v3/cards/getbypan"): {"pan": "1111110000000000"},
    ("POST", "/v3/cardtransitions"): {"card_token": "anas_card", "state": "SUSPENDED", "reason_code": "00", "channel": "API"},
    ("POST", "/v3/fees"): {"token": "monthly", "name": "Monthly fee", "amount": 1.50, "currency_code": "USD"},
    ("PUT", "/v3/fees/{token}"): {"memo": "Charged on the first of each month"},
    ("POST", "/v3/realtimefeegroups"): {"token": "club_fees", "name": "Club fees", "fee_tokens": []},
    ("PUT", "/v3/realtimefeegroups/{token}"): {"name": "Fees of the club"},
    ("POST", "/v3/gpaorders"): {
        "token": "first_load",
        "user_token": "ana",
        "amount": 100.00,
        "currency_code": "USD",
        "funding_source_token": "main_account",
        "memo": "Welcome",
    },
    ("POST", "/v3/gpaorders/unloads"): {"token": "first_return", "original_order_token": "first_load", "amount": 5.00},
    ("POST", "/v3/feecharges"): {"token": "march", "user_token": "ana", "fees": [{"token": "monthly", "memo": "March"}]},
    ("POST", "/v3/feetransfers"): {"token": "april", "user_token": "ana", "fees": [{"token": "monthly", "memo": "April"}]},
    ("POST", "/v3/feerefunds"): {"original_fee_transaction_token": FEE, "tags": "goodwill"},
    ("POST", "/v3/autoreloads"): {
        "token": "never_empty",
        "association": {"card_product_token": "coffee_card"},
        "funding_source_token": "main_account",
        "currency_code": "USD",
        "order_scope": {"gpa": {"trigger_amount": 5.00, "reload_amount": 25.00}},
        "active": False,
    },
    ("PUT", "/v3/autoreloads/{token}"): {"order_scope": {"gpa": {"trigger_amount": 10.00, "reload_amount": 30.00}}},
    ("POST", "/v3/peertransfers"): {
        "token": "pizza",
        "sender_user_token": "ana",
        "recipient_user_token": "ben",
        "amount": 12.00,
        "currency_code": "USD",
        "memo": "Half of the pizza",
    },
    ("POST", "/v3/programtransfers/types"): {
        "token": "debts",
        "memo": "Debts collected",
        "program_funding_source_token": "main_account",
    },
    ("PUT", "/v3/programtransfers/types/{token}"): {"tags": "debt"},
    ("POST", "/v3/programtransfers"): {
        "token": "debt_of_march",
        "type_token": "debts",
        "user_token": "ana",
        "amount": 3.00,
        "currency_code": "USD",
    },
    ("POST", "/v3/depositaccounts"): {"token": "anas_account", "user_token": "ana"},
    ("PUT", "/v3/depositaccounts/{token}"): {"allow_immediate_credit": True},
    ("PUT", "/v3/directdeposits/accounts/{user_or_business_token}"): {"allow_immediate_credit": False},
    ("POST", "/v3/simulate/directdeposits"): {
        "token": "salary",
        "account_number": NUMBER,
        "amount": 1200.00,
        "type": "CREDIT",
        "settlement_date": DAY,
        "company_name": "Harbor Works",
        "company_entry_description": "PAYROLL",
    },
    ("POST", "/v3/simulations/directdeposits/credit"): {
        "account_number": NUMBER,
        "amount": 1200.00,
        "settlement_date": DAY,
        "earlyPayEligible": True,
    },
    ("POST", "/v3/simulations/directdeposits/debit"): {
        "account_number": NUMBER,
        "amount": 30.00,
        "settlement_date": DAY,
    },
    ("POST", "/v3/directdeposits/transitions"): {
        "direct_deposit_token": "salary",
        "state": "REVERSED",
        "channel": "API",
        "reason": "Sent twice",
        "reason_code": "R24",
    },
    ("POST", "/v3/velocitycontrols"): {
        "token": "coffee_budget",
        "name": "Coffee budget of a day",
        "association": {"user_token": "ana"},
        "merchant_scope": {"mcc": "5814"},
        "velocity_window": "DAY",
        "amount_limit": 25.00,
        "usage_limit": 4,
        "currency_code": "USD",
    },
    ("PUT", "/v3/velocitycontrols/{token}"): {"amount_limit": 30.00},
    ("POST", "/v3/mccgroups"): {
        "token": "betting",
        "name": "Betting and casinos",
        "mccs": ["7995", "7800-7802"],
        "config": {"authorization_controls": {"hold_expiration_days": 3}},
    },
    ("PUT", "/v3/mccgroups/{token}"): {"mccs": ["7995", "7800-7802", "9406"]},
    ("POST", "/v3/merchantgroups"): {"token": "track_and_field", "name": "Race tracks we know", "mids": ["TRACK-1", "TRACK-2"]},
    ("PUT", "/v3/merchantgroups/{token}"): {"mids": ["TRACK-1", "TRACK-2", "TRACK-3"]},
    ("POST", "/v3/authcontrols"): {
        "token": "no_betting",
        "name": "No betting",
        "association": {"card_product_token": "coffee_card"},
        "merchant_scope": {"mcc_group": "betting"},
    },
    ("PUT", "/v3/authcontrols/{token}"): {"end_time": "2026-12-31T23:59:59Z"},
    ("POST", "/v3/authcontrols/exemptmids"): {
        "token": "the_derby",
        "name": "The derby is a company event",
        "association": {"user_token": "ana"},
        "merchant_group_token": "track_and_field",
    },
    ("PUT", "/v3/authcontrols/exemptmids/{token}"): {"active": False},
    ("POST", "/v3/acceptedcountries"): {
        "token": "north_america",
        "name": "North America",
        "is_whitelist": True,
        "country_codes": ["124", "484", "840"],
    },
    ("PUT", "/v3/acceptedcountries/{token}"): {"country_codes": ["124", "840"]},
    ("POST", "/v3/accountholdergroups"): {
        "token": "newcomers",
        "name": "Newcomers",
        "config": {"kyc_required": "CONDITIONAL", "pre_kyc_controls": {"cash_access_enabled": False, "balance_max": 250.00}},
    },
    ("PUT", "/v3/accountholdergroups/{token}"): {"config": {"pre_kyc_controls": {"international_enabled": True}}},
    ("POST", "/v3/simulate/authorization"): {
        "card_token": "anas_card",
        "amount": 4.75,
        "mid": "123456890",
        "card_acceptor": {"name": "Corner Coffee", "mcc": "5814", "city": "Oakland", "state": "CA", "country": "USA"},
    },
    ("POST", "/sandbox/whatif/authorization"): {"card_token": "anas_card", "amount": 4.75, "mid": "123456890"},
    ("POST", "/v3/simulate/authorization/advice"): {"original_transaction_token": PURCHASE, "amount": 4.25},
    ("POST", "/v3/simulate/reversal"): {"original_transaction_token": PURCHASE, "amount": 4.75},
    ("POST", "/v3/simulate/clearing"): {"original_transaction_token": PURCHASE, "amount": 4.75},
    ("POST", "/v3/simulate/financial"): {
        "card_token": "anas_card",
        "amount": 18.20,
        "mid": "123456890",
        "card_acceptor": {"name": "Corner Grocery", "mcc": "5411", "city": "Oakland", "state": "CA", "country": "USA"},
    },
    ("POST", "/v3/simulate/financial/advice"): {"original_transaction_token": PURCHASE, "amount": 4.75},
    ("POST", "/v3/simulate/financial/withdrawal"): {
        "card_token": "anas_card",
        "amount": 60,
        "mid": "123456890",
        "account_type": "checking",
    },
    ("POST", "/v3/simulate/financial/balanceinquiry"): {
        "card_token": "anas_card",
        "mid": "123456890",
        "account_type": "checking",
        "card_acceptor": {"name": "Bank on the corner", "mcc": "6011"},
    },
    ("POST", "/v3/simulate/financial/originalcredit"): {
        "card_token": "anas_card",
        "amount": 25,
        "mid": "123456890",
        "type": "person_to_person",
        "sender_data": {"funding_source": "debit", "sender_name": "Ben Moss"},
    },
    ("POST", "/v3/webhooks"): {
        "token": "news",
        "name": "Webhook for the inbox",
        "events": ["*"],
        "config": {
            "url": f"{HERE}/sandbox/inbox/default/news",
            "basic_auth_username": "cardwright",
            "basic_auth_password": "Change-me-to-20-or-more",
        },
    },
    ("PUT", "/v3/webhooks/{token}"): {
        "name": "Transaction events only",
        "events": ["transaction.*"],
        "config": {
            "url": f"{HERE}/sandbox/inbox/default/news",
            "basic_auth_username": "cardwright",
            "basic_auth_password": "Change-me-to-20-or-more",
        },
    },
    ("PUT", "/v3/webhooks/customheaders/{token}"): {"custom_header": {"x-from": "cardwright"}},
    ("POST", "/sandbox/programs"): {"name": "Euro program", "currency": "EUR"},
    ("PUT", "/sandbox/program"): {"mask_webhook_secrets": False},
    ("POST", "/sandbox/backtests"): {
        "token": "tighter_days",
        "name": "Coffee at most 20.00 a day, and no bars",
        "velocity_controls": {"change": [{"token": "coffee_budget", "amount_limit": 20.00}]},
        "auth_controls": {"add": [{"name": "No bars", "merchant_scope": {"mcc": "5813"}}]},
    },
    ("POST", "/sandbox/shadow-controls"): {
        "token": "quiet_budget",
        "name": "Three coffees a day",
        "association": {"user_token": "ana"},
        "velocity_window": "DAY",
        "amount_limit": 15.00,
        "usage_limit": 3,
        "currency_code": "USD",
    },
    ("POST", "/sandbox/shadow-controls/{token}/promote"): {},
    ("POST", "/sandbox/clock"): {"freeze": True},
    ("POST", "/sandbox/clock/advance"): {"by": "8d"},
    ("POST", "/sandbox/reset"): {},
    ("POST", "/sandbox/credentials"): {},
    ("POST", "/sandbox/credentials/{token}/rotate"): {},
}
"""Request bodies by verb and path."""

SHOP = {"mid": "123456891", "name": "Corner Bakery", "mcc": "5462", "country_code": "USA"}
BEGUN = {"card_token": "anas_card", "amount": 4.75, "card_acceptor": SHOP}
FOLLOWED = {"preceding_related_transaction_token": PURCHASE, "amount": 4.75}

ACCOUNT_FUNDING = {
    "first_name": "Ana", "funding_source": "DEBIT", "receiver_account_type": "CARD_ACCOUNT",
    "transaction_type": "ACCOUNT_TO_ACCOUNT",
}  # fmt: skip

EVENTS: dict[str, Any] = {
    "authorization": BEGUN | {"network": "VISA"},
    "authorization.cashback": BEGUN | {"cash_back_amount": 20},
    "authorization.incremental": FOLLOWED | {"amount": 3.50},
    "authorization.advice": FOLLOWED | {"amount": 4.25},
    "authorization.clearing": FOLLOWED,
    "authorization.reversal": FOLLOWED,
    "authorization.atm.withdrawal": {"card_token": "anas_card", "amount": 60},
    "authorization.clearing.atm.withdrawal": FOLLOWED,
    "authorization.quasi.cash": BEGUN,
    "authorization.clearing.quasi.cash": FOLLOWED,
    "account.funding.authorization": BEGUN | {"account_funding": ACCOUNT_FUNDING},
    "account.funding.authorization.clearing": FOLLOWED,
    "account.funding.authorization.reversal": FOLLOWED,
    "account.funding.auth_plus_capture": BEGUN | {"account_funding": ACCOUNT_FUNDING},
    "account.funding.auth_plus_capture.reversal": FOLLOWED,
    "refund": BEGUN,
    "refund.authorization": BEGUN,
    "refund.authorization.advice": FOLLOWED | {"amount": 4.25},
    "refund.authorization.clearing": FOLLOWED,
    "refund.authorization.reversal": FOLLOWED,
    "pindebit": BEGUN,
    "pindebit.cashback": BEGUN | {"cash_back_amount": 20},
    "pindebit.atm.withdrawal": {"card_token": "anas_card", "amount": 60},
    "pindebit.balanceinquiry": {"card_token": "anas_card", "account_type": "checking"},
    "pindebit.quasi.cash": BEGUN,
    "pindebit.reversal": FOLLOWED,
    "pindebit.refund": BEGUN,
    "pindebit.refund.reversal": FOLLOWED,
    "pindebit.authorization": BEGUN,
    "pindebit.authorization.clearing": FOLLOWED,
    "pindebit.authorization.reversal": FOLLOWED,
    "original.credit.auth_plus_capture": BEGUN,
    "original.credit.auth_plus_capture.reversal": FOLLOWED,
    "original.credit.authorization": BEGUN,
    "original.credit.authorization.clearing": FOLLOWED,
    "original.credit.authorization.reversal": FOLLOWED,
}
"""Bodies of Simulations 2.0 by event type."""

BODIES |= {("POST", f"/v3/simulations/cardtransactions/{name}"): body for name, body in EVENTS.items()}

Location = tuple[str, str]

GUIDE: tuple[tuple[str, tuple[Location, ...]], ...] = (
    ("A program funding source", (("POST", "/v3/fundingsources/program"),)),
    ("A card product with Managed JIT Funding", (("POST", "/v3/cardproducts"),)),
    ("A cardholder", (("POST", "/v3/users"),)),
    ("A card and a webhook", (("POST", "/v3/cards"), ("POST", "/v3/webhooks"))),
    ("A purchase", (("POST", "/v3/simulate/authorization"),)),
    (
        "The webhook and the transaction",
        (("GET", "/sandbox/inbox/{box}"), ("GET", "/v3/transactions/{token}"), ("GET", "/sandbox/decisions/{token}")),
    ),
)
"""The six steps of the guide, and the operations of each step."""
