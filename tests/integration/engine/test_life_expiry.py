"""Expiry of holds, as tables."""

import pytest

from tests.support.chains import check_table
from tests.support.in_process_platform import InProcessPlatform

# Letters of the postings: F funding source, A available, H held, S settlement, O the program's overdraft account.
# Names of types abbreviate authorization to auth and omit .auth_plus_capture.

# With Managed JIT Funding. The timers get 409003 if no hold is due to expire.
EXPIRY = """
    message             | type state code                                 | order         | impact ledger available | postings
    auth 100            | auth PENDING                                    | PENDING 100   | -100 100 0              | F-100 H+100
    wait 6d             | -                                               | -             | -                       | -
    expire 1            | 409003                                          | -             | -                       | -
    wait 1d             | -                                               | -             | -                       | -
    expire 1            | auth.reversal.issuerexpiration CLEARED          | REVERSED 100  | +100 0 0                | F+100 H-100
    expire 1            | 409003                                          | -             | -                       | -
    reverse 1 of 1      | auth.reversal DECLINED 1017                     | -             | - 0 0                   | -
    clear 40 of 1       | auth.clearing COMPLETION                        | COMPLETION 40 | -40 0 0                 | F-40 S+40
    auth 100            | auth PENDING                                    | PENDING 100   | -100 100 0              | F-100 H+100
    clear 30 of 9       | auth.clearing COMPLETION                        | COMPLETION 30 | -30 70 0                | H-30 S+30
    wait 3d             | -                                               | -             | -                       | -
    grow 20 of 9        | auth.incremental PENDING                        | PENDING 20    | -20 90 0                | F-20 H+20
    wait 4d             | -                                               | -             | -                       | -
    expire 9            | 409003                                          | -             | -                       | -
    wait 3d             | -                                               | -             | -                       | -
    expire 9            | auth.reversal.issuerexpiration CLEARED          | REVERSED 90   | +90 0 0                 | F+90 H-90
    reverse 1 of 9      | auth.reversal DECLINED 1018                     | -             | - 0 0                   | -
    pinhold 50          | pindebit.auth PENDING                           | PENDING 50    | -50 50 0                | F-50 H+50
    wait 7d             | -                                               | -             | -                       | -
    expire 18           | pindebit.auth.reversal.issuerexpiration CLEARED | REVERSED 50   | +50 0 0                 | F+50 H-50
    clear 20 of 18      | pindebit.auth.clearing COMPLETION               | COMPLETION 20 | -20 0 0                 | F-20 S+20
    auth 80 hold 3h     | auth PENDING                                    | PENDING 80    | -80 80 0                | F-80 H+80
    wait 2h             | -                                               | -             | -                       | -
    expire 22           | 409003                                          | -             | -                       | -
    wait 1h             | -                                               | -             | -                       | -
    expire 22           | auth.reversal.issuerexpiration CLEARED          | REVERSED 80   | +80 0 0                 | F+80 H-80
    pinhold 30 hold 90m | pindebit.auth PENDING                           | PENDING 30    | -30 30 0                | F-30 H+30
    wait 90m            | -                                               | -             | -                       | -
    expire 27           | pindebit.auth.reversal.issuerexpiration CLEARED | REVERSED 30   | +30 0 0                 | F+30 H-30
    auth 10             | auth PENDING                                    | PENDING 10    | -10 10 0                | F-10 H+10
    reverse 10 of 30    | auth.reversal CLEARED                           | REVERSED 10   | +10 0 0                 | F+10 H-10
    wait 8d             | -                                               | -             | -                       | -
    expire 30           | 409003                                          | -             | -                       | -
    auth 9              | auth PENDING                                    | PENDING 9     | -9 9 0                  | F-9 H+9
    advise 4 of 34      | auth.advice PENDING                             | PENDING 5     | +5 4 0                  | F+5 H-5
    wait 7d             | -                                               | -             | -                       | -
    expire 34           | auth.reversal.issuerexpiration CLEARED          | REVERSED 4    | +4 0 0                  | F+4 H-4
"""

# On a preloaded account.
EXPIRY_PLAIN = """
    message      | type state code                                 | order | impact ledger available | postings
    credit 50    | original.credit COMPLETION                      | -     | +50 50 50               | A+50 S-50
    auth 20      | auth PENDING                                    | -     | -20 50 30               | A-20 H+20
    clear 5 of 2 | auth.clearing COMPLETION                        | -     | -5 45 30                | H-5 S+5
    wait 7d      | -                                               | -     | -                       | -
    expire 2     | auth.reversal.issuerexpiration CLEARED          | -     | +15 45 45               | A+15 H-15
    pinhold 45   | pindebit.auth PENDING                           | -     | -45 45 0                | A-45 H+45
    wait 8d      | -                                               | -     | -                       | -
    expire 6     | pindebit.auth.reversal.issuerexpiration CLEARED | -     | +45 45 45               | A+45 H-45
    auth 50      | auth PENDING 0002                               | -     | -45 45 0                | A-45 H+45
    pin 1 alone  | pindebit DECLINED 1016                          | -     | - 45 0                  | -
    wait 7d      | -                                               | -     | -                       | -
    expire 9     | auth.reversal.issuerexpiration CLEARED          | -     | +45 45 45               | A+45 H-45
    pin 45       | pindebit COMPLETION                             | -     | -45 0 0                 | A-45 S+45
"""

TABLES = [
    pytest.param("jit", EXPIRY, id="expiry"),
    pytest.param("plain", EXPIRY_PLAIN, id="expiry_plain"),
]


@pytest.mark.parametrize(("product", "table"), TABLES)
def test_every_message_leaves_what_the_table_says(life: InProcessPlatform, product: str, table: str) -> None:
    """Each message produces the type, state, code, order, impact, balances and postings of its row, and the books balance."""
    check_table(life, product, table)
