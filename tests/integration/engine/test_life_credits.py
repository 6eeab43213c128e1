"""Credits and overdrafts, as tables: the destination of credited money, and a clearing on an empty account."""

import pytest

from tests.support.chains import check_table
from tests.support.in_process_platform import InProcessPlatform

# Letters of the postings: F funding source, A available, H held, S settlement, O the program's overdraft account.
# Names of types abbreviate authorization to auth and omit .auth_plus_capture.

# Refunds_destination PROGRAM_FUNDING_SOURCE.
CREDITS_SOURCE = """
    message         | type state code                        | order           | impact ledger available | postings
    credit 25       | original.credit COMPLETION             | unCOMPLETION 25 | +25 0 0                 | F+25 S-25
    reverse 10 of 1 | original.credit.reversal COMPLETION    | COMPLETION 10   | -10 0 0                 | F-10 S+10
    reverse 16 of 1 | original.credit.reversal DECLINED 1810 | -               | - 0 0                   | -
    reverse 15 of 1 | original.credit.reversal COMPLETION    | COMPLETION 15   | -15 0 0                 | F-15 S+15
    reverse 1 of 1  | original.credit.reversal DECLINED 1017 | -               | - 0 0                   | -
    auth 10         | auth PENDING                           | PENDING 10      | -10 10 0                | F-10 H+10
    credit 5        | original.credit COMPLETION             | unCOMPLETION 5  | +5 10 0                 | F+5 S-5
    clear 10 of 6   | auth.clearing COMPLETION               | COMPLETION 10   | -10 0 0                 | H-10 S+10
    refund 10 of 6  | refund COMPLETION                      | unCOMPLETION 10 | +10 0 0                 | F+10 S-10
"""

# Refunds_destination GPA.
CREDITS_GPA = """
    message         | type state code                     | order         | impact ledger available | postings
    credit 25       | original.credit COMPLETION          | -             | +25 25 25               | A+25 S-25
    pin 10          | pindebit COMPLETION                 | -             | -10 15 15               | A-10 S+10
    auth 40         | auth PENDING                        | PENDING 25    | -40 40 0                | F-25 A-15 H+40
    reverse 25 of 1 | original.credit.reversal COMPLETION | COMPLETION 25 | -25 40 0                | F-25 S+25
    reverse 40 of 3 | auth.reversal CLEARED               | REVERSED 25   | +40 15 15               | F+25 A+15 H-40
    refund 8 of 2   | refund COMPLETION                   | -             | +8 23 23                | A+8 S-8
    credit 30       | original.credit COMPLETION          | -             | +30 53 53               | A+30 S-30
    auth 20         | auth PENDING                        | -             | -20 53 33               | A-20 H+20
    clear 50 of 8   | auth.clearing COMPLETION            | -             | -50 3 3                 | A-30 H-20 S+50
"""

# Refunds_destination WATERFALL.
CREDITS_WATERFALL = """
    message        | type state code                     | order           | impact ledger available | postings
    auth 30        | auth PENDING                        | PENDING 30      | -30 30 0                | F-30 H+30
    clear 30 of 1  | auth.clearing COMPLETION            | COMPLETION 30   | -30 0 0                 | H-30 S+30
    refund 20 of 1 | refund COMPLETION                   | unCOMPLETION 20 | +20 0 0                 | F+20 S-20
    credit 5       | original.credit COMPLETION          | unCOMPLETION 5  | +5 0 0                  | F+5 S-5
    reverse 5 of 4 | original.credit.reversal COMPLETION | COMPLETION 5    | -5 0 0                  | F-5 S+5
"""

# Purchases do not use the account's own money (allow_gpa_auth is false).
FENCED = """
    message       | type state code            | order         | impact ledger available | postings
    credit 30     | original.credit COMPLETION | -             | +30 30 30               | A+30 S-30
    auth 20       | auth PENDING               | PENDING 20    | -20 50 30               | F-20 H+20
    pin 10        | pindebit COMPLETION        | COMPLETION 10 | -10 50 30               | F-10 S+10
    clear 25 of 2 | auth.clearing COMPLETION   | COMPLETION 25 | -25 30 30               | F-5 H-20 S+25
    refund 5 of 2 | refund COMPLETION          | -             | +5 35 35                | A+5 S-5
"""

# Overdraft_destination GPA: the account goes below zero.
OVERDRAFT_GPA = """
    message        | type state code            | order | impact ledger available | postings
    credit 10      | original.credit COMPLETION | -     | +10 10 10               | A+10 S-10
    auth 10        | auth PENDING               | -     | -10 10 0                | A-10 H+10
    clear 10 of 2  | auth.clearing COMPLETION   | -     | -10 0 0                 | H-10 S+10
    clear 5 of 2   | auth.clearing COMPLETION   | -     | -5 -5 -5                | A-5 S+5
    auth 1         | auth DECLINED 1016         | -     | - -5 -5                 | -
    credit 8       | original.credit COMPLETION | -     | +8 3 3                  | A+8 S-8
    auth 3         | auth PENDING               | -     | -3 3 0                  | A-3 H+3
    force 20 of 2  | auth.clearing COMPLETION   | -     | -20 -17 -20             | A-20 S+20
    refund 30 of 2 | refund COMPLETION          | -     | +30 13 10               | A+30 S-30
"""

# Overdraft_destination GLOBAL_OVERDRAFT_ACCOUNT: the program pays the shortfall.
OVERDRAFT_GLOBAL = """
    message        | type state code            | order | impact ledger available | postings
    credit 10      | original.credit COMPLETION | -     | +10 10 10               | A+10 S-10
    auth 10        | auth PENDING               | -     | -10 10 0                | A-10 H+10
    clear 14 of 2  | auth.clearing COMPLETION   | -     | -14 0 0                 | H-10 S+14 O-4
    force 5 of 2   | auth.clearing COMPLETION   | -     | -5 0 0                  | S+5 O-5
    auth 1         | auth DECLINED 1016         | -     | - 0 0                   | -
    credit 8       | original.credit COMPLETION | -     | +8 8 8                  | A+8 S-8
    auth 3         | auth PENDING               | -     | -3 8 5                  | A-3 H+3
    force 20 of 2  | auth.clearing COMPLETION   | -     | -20 3 0                 | A-5 S+20 O-15
    refund 30 of 2 | refund COMPLETION          | -     | +30 33 30               | A+30 S-30
"""

TABLES = [
    pytest.param("jit", CREDITS_SOURCE, id="credits_source"),
    pytest.param("keeps", CREDITS_GPA, id="credits_gpa"),
    pytest.param("waterfall", CREDITS_WATERFALL, id="credits_waterfall"),
    pytest.param("fenced", FENCED, id="fenced"),
    pytest.param("plain", OVERDRAFT_GPA, id="overdraft_gpa"),
    pytest.param("overdraft", OVERDRAFT_GLOBAL, id="overdraft_global"),
]


@pytest.mark.parametrize(("product", "table"), TABLES)
def test_every_message_leaves_what_the_table_says(life: InProcessPlatform, product: str, table: str) -> None:
    """Each message produces the type, state, code, order, impact, balances and postings of its row, and the books balance."""
    check_table(life, product, table)
