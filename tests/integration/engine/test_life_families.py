"""Card events beyond purchases and PIN debits, as tables: cash, quasi-cash, account funding, pending refunds and credits."""

import pytest

from tests.support.chains import check_table
from tests.support.in_process_platform import InProcessPlatform

# Letters of the postings: F funding source, A available, H held, S settlement, O the program's overdraft account.
# Names of types abbreviate authorization to auth and omit .auth_plus_capture.

# Cash and quasi-cash have one final clearing. Account funding may be cleared in parts.
HELD_AND_AT_ONCE = """
    message          | type state code                             | order         | impact ledger available | postings
    cash 100         | auth.atm.withdrawal PENDING                 | PENDING 100   | -100 100 0              | F-100 H+100
    clear 60 of 1    | auth.clearing.atm.withdrawal COMPLETION     | COMPLETION 60 | -60 0 0                 | F+40 H-100 S+60
    clear 5 of 1     | auth.clearing.atm.withdrawal COMPLETION     | COMPLETION 5  | -5 0 0                  | F-5 S+5
    reverse 1 of 1   | auth.reversal DECLINED 1018                 | -             | - 0 0                   | -
    cash 40          | auth.atm.withdrawal PENDING                 | PENDING 40    | -40 40 0                | F-40 H+40
    reverse 15 of 5  | auth.reversal PENDING                       | PENDING 15    | +15 25 0                | F+15 H-15
    advise 20 of 5   | auth.advice PENDING                         | PENDING 5     | +5 20 0                 | F+5 H-5
    wait 7d          | -                                           | -             | -                       | -
    expire 5         | auth.reversal.issuerexpiration CLEARED      | REVERSED 20   | +20 0 0                 | F+20 H-20
    chips 30         | auth.quasi.cash PENDING                     | PENDING 30    | -30 30 0                | F-30 H+30
    clear 30 of 10   | auth.clearing.quasi.cash COMPLETION         | COMPLETION 30 | -30 0 0                 | H-30 S+30
    chips 30         | auth.quasi.cash PENDING                     | PENDING 30    | -30 30 0                | F-30 H+30
    clear 35 of 12   | auth.clearing.quasi.cash COMPLETION         | COMPLETION 35 | -35 0 0                 | F-5 H-30 S+35
    reverse 30 of 12 | auth.reversal DECLINED 1018                 | -             | - 0 0                   | -
    pinchips 20      | pindebit.quasi.cash COMPLETION              | COMPLETION 20 | -20 0 0                 | F-20 S+20
    reverse 5 of 15  | pindebit.reversal CLEARED                   | REVERSED 5    | +5 0 0                  | F+5 S-5
    reverse 15 of 15 | pindebit.reversal CLEARED                   | REVERSED 15   | +15 0 0                 | F+15 S-15
    fundhold 50      | account.funding.auth PENDING                | PENDING 50    | -50 50 0                | F-50 H+50
    reverse 10 of 18 | account.funding.auth.reversal PENDING       | PENDING 10    | +10 40 0                | F+10 H-10
    clear 25 of 18   | account.funding.auth.clearing COMPLETION    | COMPLETION 25 | -25 15 0                | H-25 S+25
    wait 7d          | -                                           | -             | -                       | -
    expire 18        | auth.reversal.issuerexpiration CLEARED      | REVERSED 15   | +15 0 0                 | F+15 H-15
    fundhold 10      | account.funding.auth PENDING                | PENDING 10    | -10 10 0                | F-10 H+10
    clear 12 of 23   | account.funding.auth.clearing COMPLETION    | COMPLETION 12 | -12 0 0                 | F-2 H-10 S+12
    reverse 1 of 23  | account.funding.auth.reversal DECLINED 1018 | -             | - 0 0                   | -
    fundhold 8       | account.funding.auth PENDING                | PENDING 8     | -8 8 0                  | F-8 H+8
    reverse 8 of 26  | account.funding.auth.reversal CLEARED       | REVERSED 8    | +8 0 0                  | F+8 H-8
    reverse 8 of 26  | account.funding.auth.reversal DECLINED 1017 | -             | - 0 0                   | -
    fund 10          | account.funding COMPLETION                  | COMPLETION 10 | -10 0 0                 | F-10 S+10
    reverse 4 of 29  | account.funding.reversal COMPLETION         | REVERSED 4    | +4 0 0                  | F+4 S-4
    reverse 7 of 29  | account.funding.reversal DECLINED 1810      | -             | - 0 0                   | -
    reverse 6 of 29  | account.funding.reversal COMPLETION         | REVERSED 6    | +6 0 0                  | F+6 S-6
    fund 0           | account.funding CLEARED 1830                | -             | - 0 0                   | -
"""

# A pending credit changes no balance before its clearing. A PIN refund is booked at once and can be reversed.
ANNOUNCED = """
    message         | type state code                             | order           | impact ledger available | postings
    announce 10     | refund.auth PENDING                         | unPENDING 10    | 0 0 0                   | -
    clear 10 of 1   | refund.auth.clearing COMPLETION             | unCOMPLETION 10 | +10 0 0                 | F+10 S-10
    clear 3 of 1    | refund.auth.clearing COMPLETION             | unCOMPLETION 3  | +3 0 0                  | F+3 S-3
    reverse 1 of 1  | refund.auth.reversal DECLINED 1018          | -               | - 0 0                   | -
    announce 20     | refund.auth PENDING                         | unPENDING 20    | 0 0 0                   | -
    advise 15 of 5  | refund.auth.advice PENDING                  | unPENDING 5     | 0 0 0                   | -
    advise 16 of 5  | refund.auth.advice DECLINED 1810            | -               | - 0 0                   | -
    clear 6 of 5    | refund.auth.clearing COMPLETION             | unCOMPLETION 6  | +6 0 0                  | F+6 S-6
    reverse 10 of 5 | refund.auth.reversal DECLINED 1810          | -               | - 0 0                   | -
    reverse 9 of 5  | refund.auth.reversal CLEARED                | unREVERSED 9    | 0 0 0                   | -
    reverse 9 of 5  | refund.auth.reversal DECLINED 1018          | -               | - 0 0                   | -
    announce 5      | refund.auth PENDING                         | unPENDING 5     | 0 0 0                   | -
    wait 7d         | -                                           | -               | -                       | -
    expire 12       | refund.auth.reversal CLEARED                | unREVERSED 5    | 0 0 0                   | -
    credithold 30   | original.credit.auth PENDING                | unPENDING 30    | 0 0 0                   | -
    clear 10 of 15  | original.credit.auth.clearing COMPLETION    | unCOMPLETION 10 | +10 0 0                 | F+10 S-10
    clear 20 of 15  | original.credit.auth.clearing COMPLETION    | unCOMPLETION 20 | +20 0 0                 | F+20 S-20
    reverse 5 of 15 | original.credit.auth.reversal DECLINED 1018 | -               | - 0 0                   | -
    credithold 9    | original.credit.auth PENDING                | unPENDING 9     | 0 0 0                   | -
    reverse 4 of 19 | original.credit.auth.reversal PENDING       | unPENDING 4     | 0 0 0                   | -
    reverse 5 of 19 | original.credit.auth.reversal CLEARED       | unREVERSED 5    | 0 0 0                   | -
    credithold 9    | original.credit.auth PENDING                | unPENDING 9     | 0 0 0                   | -
    wait 7d         | -                                           | -               | -                       | -
    expire 22       | original.credit.auth.reversal CLEARED       | unREVERSED 9    | 0 0 0                   | -
    pinrefund 12    | pindebit.refund COMPLETION                  | unCOMPLETION 12 | +12 0 0                 | F+12 S-12
    reverse 5 of 25 | pindebit.refund.reversal CLEARED            | COMPLETION 5    | -5 0 0                  | F-5 S+5
    reverse 8 of 25 | pindebit.refund.reversal DECLINED 1810      | -               | - 0 0                   | -
    reverse 7 of 25 | pindebit.refund.reversal CLEARED            | COMPLETION 7    | -7 0 0                  | F-7 S+7
    reverse 1 of 25 | pindebit.refund.reversal DECLINED 1017      | -               | - 0 0                   | -
"""

# Forced clearings without an authorization. Each family has its own type.
FORCED = """
    message               | type state code                         | order          | impact ledger available | postings
    force 7 as announce   | refund.auth.clearing COMPLETION         | unCOMPLETION 7 | +7 0 0                  | F+7 S-7
    force 4 as credithold | original.credit.auth.clearing COMPLETION | unCOMPLETION 4 | +4 0 0                  | F+4 S-4
    force 6 as cash       | auth.clearing.atm.withdrawal COMPLETION | COMPLETION 6   | -6 0 0                  | F-6 S+6
"""

# On a preloaded account: a pending credit cannot be spent.
PLAIN = """
    message          | type state code                          | order | impact ledger available | postings
    credit 100       | original.credit COMPLETION               | -     | +100 100 100            | A+100 S-100
    cash 60          | auth.atm.withdrawal PENDING              | -     | -60 100 40              | A-60 H+60
    clear 50 of 2    | auth.clearing.atm.withdrawal COMPLETION  | -     | -50 50 50               | A+10 H-60 S+50
    cash 51          | auth.atm.withdrawal DECLINED 1016        | -     | - 50 50                 | -
    cash 51 alone    | auth.atm.withdrawal DECLINED 1016        | -     | - 50 50                 | -
    chips 40         | auth.quasi.cash PENDING                  | -     | -40 50 10               | A-40 H+40
    clear 45 of 6    | auth.clearing.quasi.cash COMPLETION      | -     | -45 5 5                 | A-5 H-40 S+45
    fundhold 4       | account.funding.auth PENDING             | -     | -4 5 1                  | A-4 H+4
    clear 4 of 8     | account.funding.auth.clearing COMPLETION | -     | -4 1 1                  | H-4 S+4
    pinrefund 30     | pindebit.refund COMPLETION               | -     | +30 31 31               | A+30 S-30
    announce 20      | refund.auth PENDING                      | -     | 0 31 31                 | -
    auth 32 alone    | auth DECLINED 1016                       | -     | - 31 31                 | -
    clear 20 of 11   | refund.auth.clearing COMPLETION          | -     | +20 51 51               | A+20 S-20
    pinchips 6       | pindebit.quasi.cash COMPLETION           | -     | -6 45 45                | A-6 S+6
    reverse 6 of 14  | pindebit.reversal CLEARED                | -     | +6 51 51                | A+6 S-6
    fund 10          | account.funding COMPLETION               | -     | -10 41 41               | A-10 S+10
    reverse 10 of 16 | account.funding.reversal COMPLETION      | -     | +10 51 51               | A+10 S-10
    reverse 30 of 10 | pindebit.refund.reversal CLEARED         | -     | -30 21 21               | A-30 S+30
    credithold 11    | original.credit.auth PENDING             | -     | 0 21 21                 | -
    auth 22 alone    | auth DECLINED 1016                       | -     | - 21 21                 | -
    clear 11 of 19   | original.credit.auth.clearing COMPLETION | -     | +11 32 32               | A+11 S-11
    auth 22 alone    | auth PENDING                             | -     | -22 32 10               | A-22 H+22
"""

# Refunds_destination GPA.
KEPT = """
    message        | type state code                          | order         | impact ledger available | postings
    announce 25    | refund.auth PENDING                      | -             | 0 0 0                   | -
    clear 25 of 1  | refund.auth.clearing COMPLETION          | -             | +25 25 25               | A+25 S-25
    credithold 10  | original.credit.auth PENDING             | -             | 0 25 25                 | -
    clear 10 of 3  | original.credit.auth.clearing COMPLETION | -             | +10 35 35               | A+10 S-10
    pinrefund 5    | pindebit.refund COMPLETION               | -             | +5 40 40                | A+5 S-5
    fundhold 60    | account.funding.auth PENDING             | PENDING 20    | -60 60 0                | F-20 A-40 H+60
    clear 60 of 6  | account.funding.auth.clearing COMPLETION | COMPLETION 20 | -60 0 0                 | H-60 S+60
    reverse 5 of 5 | pindebit.refund.reversal CLEARED         | COMPLETION 5  | -5 0 0                  | F-5 S+5
"""

# A product without quasi-cash.
NO_QUASI_CASH = """
    message     | type state code                   | order | impact ledger available | postings
    chips 10    | auth.quasi.cash DECLINED 1956     | -     | - 0 0                   | -
    pinchips 10 | pindebit.quasi.cash DECLINED 1956 | -     | - 0 0                   | -
    cash 10     | auth.atm.withdrawal DECLINED 1016 | -     | - 0 0                   | -
    credit 10   | original.credit COMPLETION        | -     | +10 10 10               | A+10 S-10
    fund 10     | account.funding COMPLETION        | -     | -10 0 0                 | A-10 S+10
"""

# A product without cash.
NO_ATM = """
    message       | type state code                    | order | impact ledger available | postings
    cash 10       | auth.atm.withdrawal DECLINED 1955  | -     | - 0 0                   | -
    credithold 10 | original.credit.auth PENDING       | -     | 0 0 0                   | -
    fundhold 1    | account.funding.auth DECLINED 1016 | -     | - 0 0                   | -
"""

# A funding source that is not active: it pays nothing, but still receives money.
DRY = """
    message       | type state code                       | order           | impact ledger available | postings
    cash 10       | auth.atm.withdrawal DECLINED 1016     | DECLINED 10     | - 0 0                   | -
    chips 10      | auth.quasi.cash DECLINED 1956         | -               | - 0 0                   | -
    fundhold 10   | account.funding.auth DECLINED 1016    | DECLINED 10     | - 0 0                   | -
    fund 10       | account.funding DECLINED 1016         | DECLINED 10     | - 0 0                   | -
    credithold 10 | original.credit.auth PENDING          | unPENDING 10    | 0 0 0                   | -
    announce 10   | refund.auth PENDING                   | unPENDING 10    | 0 0 0                   | -
    clear 10 of 5 | original.credit.auth.clearing COMPLETION | unCOMPLETION 10 | +10 0 0                 | F+10 S-10
    clear 10 of 6 | refund.auth.clearing COMPLETION       | unCOMPLETION 10 | +10 0 0                 | F+10 S-10
    pinrefund 5   | pindebit.refund COMPLETION            | unCOMPLETION 5  | +5 0 0                  | F+5 S-5
"""

TABLES = [
    pytest.param("jit", HELD_AND_AT_ONCE, id="held_and_at_once"),
    pytest.param("jit", ANNOUNCED, id="announced"),
    pytest.param("jit", FORCED, id="forced"),
    pytest.param("plain", PLAIN, id="plain"),
    pytest.param("keeps", KEPT, id="kept"),
    pytest.param("whole", NO_QUASI_CASH, id="no_quasi_cash"),
    pytest.param("no-atm", NO_ATM, id="no_atm"),
    pytest.param("dry", DRY, id="dry"),
]


@pytest.mark.parametrize(("product", "table"), TABLES)
def test_every_message_leaves_what_the_table_says(life: InProcessPlatform, product: str, table: str) -> None:
    """Each message produces the type, state, code, order, impact, balances and postings of its row, and the books balance."""
    check_table(life, product, table)
