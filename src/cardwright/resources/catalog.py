"""Catalog: all routes of the platform in one list, which the HTTP edge, the OpenAPI document and the tests use."""

from cardwright.resources.account_holders import (
    account_holder_groups,
    balances,
    deposit_account_transitions,
    deposit_accounts,
    user_transitions,
    users,
)
from cardwright.resources.analysis import backtests, decisions, shadow_controls, what_if
from cardwright.resources.cards import card_transitions, cards
from cardwright.resources.common.route import Route
from cardwright.resources.controls import (
    accepted_countries,
    auth_controls,
    exempt_mids,
    mcc_groups,
    merchant_groups,
    velocity_controls,
)
from cardwright.resources.fees import fee_charges, fees, real_time_fee_groups
from cardwright.resources.funding import auto_reloads, funding_sources, gpa_orders
from cardwright.resources.programs import card_products, ping
from cardwright.resources.reports import settlement
from cardwright.resources.sandbox import clock, credentials, programs, webhook_deliveries, webhook_inbox
from cardwright.resources.simulations import deposits, v1_authorizations, v1_financials, v1_follow_ups, v2_card_transactions
from cardwright.resources.transactions import transactions
from cardwright.resources.transfers import direct_deposits, peer_transfers, program_transfers
from cardwright.resources.webhooks import webhooks

ROUTES: tuple[Route, ...] = (
    *ping.routes,
    *funding_sources.routes,
    *card_products.routes,
    *account_holder_groups.routes,
    *users.routes,
    *user_transitions.routes,
    *cards.routes,
    *card_transitions.routes,
    *balances.routes,
    *gpa_orders.routes,
    *fees.routes,
    *real_time_fee_groups.routes,
    *fee_charges.routes,
    *auto_reloads.routes,
    *peer_transfers.routes,
    *program_transfers.routes,
    *deposit_accounts.routes,
    *deposit_account_transitions.routes,
    *direct_deposits.routes,
    *v1_authorizations.routes,
    *v1_financials.routes,
    *v1_follow_ups.routes,
    *v2_card_transactions.routes,
    *deposits.routes,
    *transactions.routes,
    *velocity_controls.routes,
    *auth_controls.routes,
    *exempt_mids.routes,
    *mcc_groups.routes,
    *merchant_groups.routes,
    *accepted_countries.routes,
    *webhooks.routes,
    *decisions.routes,
    *what_if.routes,
    *backtests.routes,
    *shadow_controls.routes,
    *webhook_inbox.routes,
    *webhook_deliveries.routes,
    *programs.routes,
    *credentials.routes,
    *clock.routes,
    *settlement.routes,
)
