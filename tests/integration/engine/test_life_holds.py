"""Holds that are cleared, reversed, reduced and increased, as tables: state, order, balances and postings of each message."""

import pytest

from tests.support.chains import check_table
from tests.support.in_process_platform import InProcessPlatform

# Letters of the postings: F funding source, A available, H held, S settlement, O the program's overdraft account.
# Names of types abbreviate authorization to auth and omit .auth_plus_capture.

# Clearings in part, in full, beyond the hold, and after its end.
CLEARINGS = """
    message          | type state code             | order         | impact ledger available | postings
    auth 100         | auth PENDING                | PENDING 100   | -100 100 0              | F-100 H+100
    clear 30 of 1    | auth.clearing COMPLETION    | COMPLETION 30 | -30 70 0                | H-30 S+30
    clear 30 of 1    | auth.clearing COMPLETION    | COMPLETION 30 | -30 40 0                | H-30 S+30
    clear 30 of 1    | auth.clearing COMPLETION    | COMPLETION 30 | -30 10 0                | H-30 S+30
    clear 10 of 1    | auth.clearing COMPLETION    | COMPLETION 10 | -10 0 0                 | H-10 S+10
    clear 10 of 1    | auth.clearing COMPLETION    | COMPLETION 10 | -10 0 0                 | F-10 S+10
    auth 12          | auth PENDING                | PENDING 12    | -12 12 0                | F-12 H+12
    clear 15 of 7    | auth.clearing COMPLETION    | COMPLETION 15 | -15 0 0                 | F-3 H-12 S+15
    auth 100         | auth PENDING                | PENDING 100   | -100 100 0              | F-100 H+100
    reverse 40 of 9  | auth.reversal PENDING       | PENDING 40    | +40 60 0                | F+40 H-40
    clear 60 of 9    | auth.clearing COMPLETION    | COMPLETION 60 | -60 0 0                 | H-60 S+60
    auth 100         | auth PENDING                | PENDING 100   | -100 100 0              | F-100 H+100
    reverse 40 of 12 | auth.reversal PENDING       | PENDING 40    | +40 60 0                | F+40 H-40
    clear 80 of 12   | auth.clearing COMPLETION    | COMPLETION 80 | -80 0 0                 | F-20 H-60 S+80
    auth 50          | auth PENDING                | PENDING 50    | -50 50 0                | F-50 H+50
    clear 25 of 15   | auth.clearing COMPLETION    | COMPLETION 25 | -25 25 0                | H-25 S+25
    reverse 26 of 15 | auth.reversal DECLINED 1810 | -             | - 25 0                  | -
    reverse 25 of 15 | auth.reversal CLEARED       | REVERSED 25   | +25 0 0                 | F+25 H-25
    reverse 1 of 15  | auth.reversal DECLINED 1018 | -             | - 0 0                   | -
    auth 0           | auth CLEARED 1830           | -             | - 0 0                   | -
    reverse 1 of 20  | auth.reversal DECLINED 1810 | -             | - 0 0                   | -
    clear 5 of 20    | auth.clearing COMPLETION    | COMPLETION 5  | -5 0 0                  | F-5 S+5
    auth 20          | auth PENDING                | PENDING 20    | -20 20 0                | F-20 H+20
    reverse 20 of 23 | auth.reversal CLEARED       | REVERSED 20   | +20 0 0                 | F+20 H-20
    reverse 20 of 23 | auth.reversal DECLINED 1017 | -             | - 0 0                   | -
    clear 20 of 23   | auth.clearing COMPLETION    | COMPLETION 20 | -20 0 0                 | F-20 S+20
    force 30 of 23   | auth.clearing COMPLETION    | COMPLETION 30 | -30 0 0                 | F-30 S+30
    reverse 5 of 23  | auth.reversal DECLINED 1018 | -             | - 0 0                   | -
"""

# Increments of an authorization.
INCREMENTS = """
    message          | type state code                | order          | impact ledger available | postings
    auth 100         | auth PENDING                   | PENDING 100    | -100 100 0              | F-100 H+100
    grow 40 of 1     | auth.incremental PENDING       | PENDING 40     | -40 140 0               | F-40 H+40
    clear 140 of 2   | auth.clearing COMPLETION       | COMPLETION 140 | -140 0 0                | H-140 S+140
    auth 100         | auth PENDING                   | PENDING 100    | -100 100 0              | F-100 H+100
    grow 20 of 4     | auth.incremental PENDING       | PENDING 20     | -20 120 0               | F-20 H+20
    grow 30 of 5     | auth.incremental PENDING       | PENDING 30     | -30 150 0               | F-30 H+30
    reverse 150 of 4 | auth.reversal CLEARED          | REVERSED 150   | +150 0 0                | F+150 H-150
    grow 10 of 4     | auth.incremental DECLINED 1017 | -              | - 0 0                   | -
    auth 100         | auth PENDING                   | PENDING 100    | -100 100 0              | F-100 H+100
    grow 50 of 9     | auth.incremental PENDING       | PENDING 50     | -50 150 0               | F-50 H+50
    reverse 120 of 9 | auth.reversal PENDING          | PENDING 120    | +120 30 0               | F+120 H-120
    clear 30 of 10   | auth.clearing COMPLETION       | COMPLETION 30  | -30 0 0                 | H-30 S+30
    grow 5 of 9      | auth.incremental DECLINED 1018 | -              | - 0 0                   | -
    auth 60          | auth PENDING                   | PENDING 60     | -60 60 0                | F-60 H+60
    grow 40 of 14    | auth.incremental PENDING       | PENDING 40     | -40 100 0               | F-40 H+40
    advise 70 of 14  | auth.advice PENDING            | PENDING 30     | +30 70 0                | F+30 H-30
    clear 70 of 15   | auth.clearing COMPLETION       | COMPLETION 70  | -70 0 0                 | H-70 S+70
"""

# Advice, which lowers the total of an authorization.
ADVICE = """
    message         | type state code           | order         | impact ledger available | postings
    auth 100        | auth PENDING              | PENDING 100   | -100 100 0              | F-100 H+100
    advise 40 of 1  | auth.advice PENDING       | PENDING 60    | +60 40 0                | F+60 H-60
    clear 40 of 2   | auth.clearing COMPLETION  | COMPLETION 40 | -40 0 0                 | H-40 S+40
    auth 100        | auth PENDING              | PENDING 100   | -100 100 0              | F-100 H+100
    clear 30 of 4   | auth.clearing COMPLETION  | COMPLETION 30 | -30 70 0                | H-30 S+30
    advise 80 of 4  | auth.advice PENDING       | PENDING 20    | +20 50 0                | F+20 H-20
    advise 81 of 4  | auth.advice DECLINED 1810 | -             | - 50 0                  | -
    advise 20 of 4  | auth.advice DECLINED 1810 | -             | - 50 0                  | -
    advise 30 of 4  | auth.advice CLEARED       | REVERSED 50   | +50 0 0                 | F+50 H-50
    auth 50         | auth PENDING              | PENDING 50    | -50 50 0                | F-50 H+50
    advise 0 of 10  | auth.advice CLEARED       | REVERSED 50   | +50 0 0                 | F+50 H-50
    advise 0 of 10  | auth.advice DECLINED 1017 | -             | - 0 0                   | -
    clear 50 of 10  | auth.clearing COMPLETION  | COMPLETION 50 | -50 0 0                 | F-50 S+50
    advise 60 of 13 | auth.advice DECLINED 1018 | -             | - 0 0                   | -
"""

# Reversal advice, which cannot be declined, and reversals with a limit on the age of their original.
REVERSAL_ADVICE = """
    message                 | type state code             | order         | impact ledger available | postings
    auth 50                 | auth PENDING                | PENDING 50    | -50 50 0                | F-50 H+50
    reverse 80 of 1 told    | auth.reversal CLEARED       | REVERSED 50   | +50 0 0                 | F+50 H-50
    reverse 80 of 1 told    | auth.reversal CLEARED       | -             | 0 0 0                   | -
    auth 50                 | auth PENDING                | PENDING 50    | -50 50 0                | F-50 H+50
    clear 20 of 4           | auth.clearing COMPLETION    | COMPLETION 20 | -20 30 0                | H-20 S+20
    reverse 50 of 4 told    | auth.reversal CLEARED       | REVERSED 30   | +30 0 0                 | F+30 H-30
    wait 3d                 | -                           | -             | -                       | -
    reverse 1 of 4 within 2 | auth.reversal DECLINED 1816 | -             | - 0 0                   | -
    auth 10                 | auth PENDING                | PENDING 10    | -10 10 0                | F-10 H+10
    wait 1d                 | -                           | -             | -                       | -
    reverse 4 of 9 within 0 | auth.reversal DECLINED 1816 | -             | - 10 0                  | -
    reverse 4 of 9 within 1 | auth.reversal PENDING       | PENDING 4     | +4 6 0                  | F+4 H-4
    pin 20                  | pindebit COMPLETION         | COMPLETION 20 | -20 6 0                 | F-20 S+20
    reverse 90 of 13 told   | pindebit.reversal CLEARED   | REVERSED 20   | +20 6 0                 | F+20 S-20
    reverse 1 of 13 told    | pindebit.reversal CLEARED   | -             | 0 6 0                   | -
"""

# Partial approval: the account has less than the requested amount.
PARTIAL = """
    message        | type state code            | order | impact ledger available | postings
    credit 20      | original.credit COMPLETION | -     | +20 20 20               | A+20 S-20
    auth 50        | auth PENDING 0002          | -     | -20 20 0                | A-20 H+20
    reverse 5 of 2 | auth.reversal PENDING      | -     | +5 20 5                 | A+5 H-5
    clear 15 of 2  | auth.clearing COMPLETION   | -     | -15 5 5                 | H-15 S+15
    auth 20 alone  | auth DECLINED 1016         | -     | - 5 5                   | -
    auth 5 alone   | auth PENDING               | -     | -5 5 0                  | A-5 H+5
    auth 10        | auth DECLINED 1016         | -     | - 5 0                   | -
"""

# The same with a product that does not allow partial approval.
PARTIAL_OFF = """
    message     | type state code                | order | impact ledger available | postings
    credit 20   | original.credit COMPLETION     | -     | +20 20 20               | A+20 S-20
    auth 50     | auth DECLINED 1016             | -     | - 20 20                 | -
    auth 20     | auth PENDING                   | -     | -20 20 0                | A-20 H+20
    grow 1 of 3 | auth.incremental DECLINED 1016 | -     | - 20 0                  | -
"""

TABLES = [
    pytest.param("jit", CLEARINGS, id="clearings"),
    pytest.param("jit", INCREMENTS, id="increments"),
    pytest.param("jit", ADVICE, id="advice"),
    pytest.param("jit", REVERSAL_ADVICE, id="told"),
    pytest.param("plain", PARTIAL, id="partial"),
    pytest.param("whole", PARTIAL_OFF, id="partial_off"),
]


@pytest.mark.parametrize(("product", "table"), TABLES)
def test_every_message_leaves_what_the_table_says(life: InProcessPlatform, product: str, table: str) -> None:
    """Each message produces the type, state, code, order, impact, balances and postings of its row, and the books balance."""
    check_table(life, product, table)
