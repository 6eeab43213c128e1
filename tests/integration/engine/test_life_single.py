"""Single-message transactions, and the PIN debit with a later completion, as tables."""

import pytest

from tests.support.chains import check_table
from tests.support.in_process_platform import InProcessPlatform

# Letters of the postings: F funding source, A available, H held, S settlement, O the program's overdraft account.
# Names of types abbreviate authorization to auth and omit .auth_plus_capture.

# PIN debit, cash and balances with Managed JIT Funding.
SINGLE = """
    message            | type state code                      | order           | impact ledger available | postings
    pin 10             | pindebit COMPLETION                  | COMPLETION 10   | -10 0 0                 | F-10 S+10
    reverse 4 of 1     | pindebit.reversal CLEARED            | REVERSED 4      | +4 0 0                  | F+4 S-4
    reverse 7 of 1     | pindebit.reversal DECLINED 1810      | -               | - 0 0                   | -
    reverse 6 of 1     | pindebit.reversal CLEARED            | REVERSED 6      | +6 0 0                  | F+6 S-6
    reverse 6 of 1     | pindebit.reversal DECLINED 1017      | -               | - 0 0                   | -
    pin 10+5           | pindebit.cashback COMPLETION         | COMPLETION 15   | -15 0 0                 | F-15 S+15
    reverse 15 of 6    | pindebit.reversal CLEARED            | REVERSED 15     | +15 0 0                 | F+15 S-15
    pin 0              | pindebit CLEARED 1830                | -               | - 0 0                   | -
    atm 60             | pindebit.atm.withdrawal COMPLETION   | COMPLETION 60   | -60 0 0                 | F-60 S+60
    reverse 60 of 9    | pindebit.reversal CLEARED            | REVERSED 60     | +60 0 0                 | F+60 S-60
    refund 5 of 9      | refund COMPLETION                    | unCOMPLETION 5  | +5 0 0                  | F+5 S-5
    force 7 of 9       | auth.clearing COMPLETION             | COMPLETION 7    | -7 0 0                  | F-7 S+7
    pinhold 100        | pindebit.auth PENDING                | PENDING 100     | -100 100 0              | F-100 H+100
    clear 37.20 of 13  | pindebit.auth.clearing COMPLETION    | COMPLETION 37.2 | -37.2 0 0               | F+62.8 H-100 S+37.2
    clear 5 of 13      | pindebit.auth.clearing COMPLETION    | COMPLETION 5    | -5 0 0                  | F-5 S+5
    reverse 1 of 13    | pindebit.auth.reversal DECLINED 1018 | -               | - 0 0                   | -
    pinhold 50         | pindebit.auth PENDING                | PENDING 50      | -50 50 0                | F-50 H+50
    clear 64 of 17     | pindebit.auth.clearing COMPLETION    | COMPLETION 64   | -64 0 0                 | F-14 H-50 S+64
    pinhold 40 hold 2h | pindebit.auth PENDING                | PENDING 40      | -40 40 0                | F-40 H+40
    reverse 15 of 19   | pindebit.auth.reversal PENDING       | PENDING 15      | +15 25 0                | F+15 H-15
    reverse 25 of 19   | pindebit.auth.reversal CLEARED       | REVERSED 25     | +25 0 0                 | F+25 H-25
    pinhold 30         | pindebit.auth PENDING                | PENDING 30      | -30 30 0                | F-30 H+30
    clear 30 of 22     | pindebit.auth.clearing COMPLETION    | COMPLETION 30   | -30 0 0                 | H-30 S+30
    inquiry 0          | pindebit.balanceinquiry CLEARED      | -               | - 0 0                   | -
    auth 20            | auth PENDING                         | PENDING 20      | -20 20 0                | F-20 H+20
    inquiry 0          | pindebit.balanceinquiry CLEARED      | -               | - 20 0                  | -
"""

# The same on a preloaded account.
SINGLE_PLAIN = """
    message          | type state code                       | order | impact ledger available | postings
    credit 100       | original.credit COMPLETION            | -     | +100 100 100            | A+100 S-100
    pin 10           | pindebit COMPLETION                   | -     | -10 90 90               | A-10 S+10
    atm 60           | pindebit.atm.withdrawal COMPLETION    | -     | -60 30 30               | A-60 S+60
    inquiry 0        | pindebit.balanceinquiry CLEARED       | -     | - 30 30                 | -
    atm 31 alone     | pindebit.atm.withdrawal DECLINED 1016 | -     | - 30 30                 | -
    pin 31 alone     | pindebit DECLINED 1016                | -     | - 30 30                 | -
    atm 31           | pindebit.atm.withdrawal DECLINED 1016 | -     | - 30 30                 | -
    pin 50           | pindebit COMPLETION 0002              | -     | -30 0 0                 | A-30 S+30
    pin 1            | pindebit DECLINED 1016                | -     | - 0 0                   | -
    reverse 30 of 8  | pindebit.reversal CLEARED             | -     | +30 30 30               | A+30 S-30
    reverse 60 of 3  | pindebit.reversal CLEARED             | -     | +60 90 90               | A+60 S-60
    pinhold 100      | pindebit.auth PENDING 0002            | -     | -90 90 0                | A-90 H+90
    clear 20 of 12   | pindebit.auth.clearing COMPLETION     | -     | -20 70 70               | A+70 H-90 S+20
    auth 70          | auth PENDING                          | -     | -70 70 0                | A-70 H+70
    pin 5            | pindebit DECLINED 1016                | -     | - 70 0                  | -
    auth 1           | auth DECLINED 1016                    | -     | - 70 0                  | -
    reverse 70 of 14 | auth.reversal CLEARED                 | -     | +70 70 70               | A+70 H-70
    atm 25           | pindebit.atm.withdrawal COMPLETION    | -     | -25 45 45               | A-25 S+25
    reverse 10 of 18 | pindebit.reversal CLEARED             | -     | +10 55 55               | A+10 S-10
    clear 100 of 14  | auth.clearing COMPLETION              | -     | -100 -45 -45            | A-100 S+100
"""

# Partial approval of purchases with cash back: a part of the goods, and no cash.
CASH_IN_PART = """
    message           | type state code                  | order | impact ledger available | postings
    credit 15         | original.credit COMPLETION       | -     | +15 15 15               | A+15 S-15
    auth 20+20        | auth.cashback PENDING 0002       | -     | -15 15 0                | A-15 H+15
    reverse 15 of 2   | auth.reversal CLEARED            | -     | +15 15 15               | A+15 H-15
    auth 10+20        | auth.cashback PENDING 0002       | -     | -10 15 5                | A-10 H+10
    advise 8 of 4     | auth.advice PENDING              | -     | +2 15 7                 | A+2 H-2
    clear 8 of 4      | auth.clearing.cashback COMPLETION | -    | -8 7 7                  | H-8 S+8
    pin 3+20          | pindebit.cashback COMPLETION 0002 | -    | -3 4 4                  | A-3 S+3
    reverse 3 of 7    | pindebit.reversal CLEARED        | -     | +3 7 7                  | A+3 S-3
    reverse 1 of 7    | pindebit.reversal DECLINED 1017  | -     | - 7 7                   | -
    auth 0+20         | auth.cashback DECLINED 1016      | -     | - 7 7                   | -
    pin 0+20          | pindebit.cashback DECLINED 1016  | -     | - 7 7                   | -
    auth 5+5 alone    | auth.cashback DECLINED 1016      | -     | - 7 7                   | -
    pin 5+5 alone     | pindebit.cashback DECLINED 1016  | -     | - 7 7                   | -
    pin 5+2           | pindebit.cashback COMPLETION     | -     | -7 0 0                  | A-7 S+7
    reverse 7 of 14   | pindebit.reversal CLEARED        | -     | +7 7 7                  | A+7 S-7
    auth 5+2          | auth.cashback PENDING            | -     | -7 7 0                  | A-7 H+7
    auth 1+1          | auth.cashback DECLINED 1016      | -     | - 7 0                   | -
"""

# The same with a product that does not allow partial approval.
CASH_WHOLE = """
    message    | type state code                 | order | impact ledger available | postings
    credit 15  | original.credit COMPLETION      | -     | +15 15 15               | A+15 S-15
    auth 10+20 | auth.cashback DECLINED 1016     | -     | - 15 15                 | -
    pin 10+20  | pindebit.cashback DECLINED 1016 | -     | - 15 15                 | -
    auth 10+5  | auth.cashback PENDING           | -     | -15 15 0                | A-15 H+15
"""

# A funding source that is not active.
DRY = """
    message       | type state code                       | order          | impact ledger available | postings
    auth 10       | auth DECLINED 1016                    | DECLINED 10    | - 0 0                   | -
    pin 10        | pindebit DECLINED 1016                | DECLINED 10    | - 0 0                   | -
    atm 10        | pindebit.atm.withdrawal DECLINED 1016 | DECLINED 10    | - 0 0                   | -
    pinhold 10    | pindebit.auth DECLINED 1016           | DECLINED 10    | - 0 0                   | -
    inquiry 0     | pindebit.balanceinquiry CLEARED       | -              | - 0 0                   | -
    auth 0        | auth CLEARED 1830                     | -              | - 0 0                   | -
    force 5 of 6  | auth.clearing COMPLETION              | COMPLETION 5   | -5 0 0                  | F-5 S+5
    refund 5 of 6 | refund COMPLETION                     | unCOMPLETION 5 | +5 0 0                  | F+5 S-5
"""

# A product without cash.
NO_ATM = """
    message   | type state code                       | order | impact ledger available | postings
    credit 10 | original.credit COMPLETION            | -     | +10 10 10               | A+10 S-10
    auth 1+1  | auth.cashback DECLINED 1955           | -     | - 10 10                 | -
    atm 1     | pindebit.atm.withdrawal DECLINED 1955 | -     | - 10 10                 | -
    pin 1+1   | pindebit.cashback DECLINED 1955       | -     | - 10 10                 | -
    inquiry 0 | pindebit.balanceinquiry CLEARED       | -     | - 10 10                 | -
    pin 1     | pindebit COMPLETION                   | -     | -1 9 9                  | A-1 S+1
"""

TABLES = [
    pytest.param("jit", SINGLE, id="single"),
    pytest.param("plain", SINGLE_PLAIN, id="single_plain"),
    pytest.param("plain", CASH_IN_PART, id="cash_in_part"),
    pytest.param("whole", CASH_WHOLE, id="cash_whole"),
    pytest.param("dry", DRY, id="dry"),
    pytest.param("no-atm", NO_ATM, id="no_atm"),
]


@pytest.mark.parametrize(("product", "table"), TABLES)
def test_every_message_leaves_what_the_table_says(life: InProcessPlatform, product: str, table: str) -> None:
    """Each message produces the type, state, code, order, impact, balances and postings of its row, and the books balance."""
    check_table(life, product, table)
