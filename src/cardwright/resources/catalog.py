"""All routes of the platform, one list: the HTTP door, the OpenAPI document and the tests read it."""

from cardwright.resources import (
    backtests,
    balances,
    card_products,
    card_transitions,
    cards,
    decisions,
    funding_sources,
    inbox,
    ping,
    sandbox,
    simulate,
    simulate_followups,
    transactions,
    user_transitions,
    users,
    velocity_controls,
    webhooks,
    whatif,
)
from cardwright.resources.route import Route

ROUTES: tuple[Route, ...] = (
    *ping.routes,
    *funding_sources.routes,
    *card_products.routes,
    *users.routes,
    *user_transitions.routes,
    *cards.routes,
    *card_transitions.routes,
    *balances.routes,
    *simulate.routes,
    *simulate_followups.routes,
    *transactions.routes,
    *velocity_controls.routes,
    *webhooks.routes,
    *decisions.routes,
    *whatif.routes,
    *backtests.routes,
    *inbox.routes,
    *sandbox.routes,
)
