"""Responses: the table of response codes, memos and network codes for approvals and declines.

Rows without a mark are documented (wire reference, "Known response codes"). "(choice)" marks a code or text without a known
real value ("Checks without a known code"). This table is the only place to correct them.
"""

from enum import Enum


class Reason(Enum):
    """Response: four-digit code on the wire, memo, and the two-digit code for a card network (ISO 8583 DE39)."""

    APPROVED = ("0000", "Approved or completed successfully", "00")
    PARTIALLY_APPROVED = ("0002", "Partially approved", "10")  # memo (choice)
    CARD_EXPIRED = ("1001", "Card expired", "54")
    CARD_SUSPICIOUS = ("1002", "Card suspicious", "59")
    CARD_SUSPENDED = ("1003", "Card suspended", "62")
    CARD_STOLEN = ("1004", "Card stolen - pickup", "43")
    CARD_LOST = ("1005", "Card lost", "41")
    NOT_SUFFICIENT_FUNDS = ("1016", "Not sufficient funds", "51")
    PREVIOUSLY_REVERSED = ("1017", "Previously reversed", "94")
    PREVIOUSLY_COMPLETED = ("1018", "Previously completed", "94")
    CARD_NOT_ACTIVE = ("1806", "Card not active", "62")
    INCORRECT_PIN = ("1809", "Incorrect PIN", "55")
    INVALID_AMOUNT = ("1810", "Invalid amount", "13")
    HOLDER_NOT_ACTIVE = ("1813", "Cardholder not active", "57")
    PRODUCT_NOT_IN_FORCE = ("1818", "Configuration error", "57")  # (choice) for an inactive or out-of-date card product
    ACCOUNT_LOAD_FAILED = ("1842", "Account load failed", "51")
    ORIGINAL_NOT_FOUND = ("1816", "Original not found", "25")
    VERIFIED = ("1830", "Card account verification success", "85")  # network code: "No reason to decline"
    COUNTRY_NOT_ALLOWED = ("1864", "Transactions not allowed from this country", "57")  # memo (choice)
    COUNT_LIMIT = ("1817", "Exceeding count limit", "65")  # code from a public client library, memo (choice)
    MERCHANT_NOT_ALLOWED = ("1821", "Invalid merchant", "57")  # (choice) for an authorization control
    AMOUNT_LIMIT = ("1834", "Exceeding amount limit", "61")  # code from a public client library, memo (choice)
    CARD_NOT_ACTIVATED = ("1901", "Card not activated", "62")
    SECURITY_CODE_FAILED = ("1952", "Card security code check failed", "57")  # (choice)
    ADDRESS_FAILED = ("1953", "Address verification failed", "57")  # (choice)
    CARD_NOT_PRESENT_NOT_ALLOWED = ("1954", "Card not present transactions not allowed", "57")  # (choice)
    CASH_NOT_ALLOWED = ("1955", "ATM transactions not allowed", "57")  # (choice)
    TYPE_NOT_ALLOWED = ("1956", "Transaction type not allowed", "57")  # (choice)

    def __init__(self, code: str, memo: str, network_code: str) -> None:
        self.code = code
        self.memo = memo
        self.network_code = network_code
        self.number = int(code)


REASON_OF = {reason.number: reason for reason in Reason}
"""The reason of a stored code number."""

APPROVALS = frozenset({Reason.APPROVED, Reason.PARTIALLY_APPROVED, Reason.VERIFIED})

# Results of typed data: rows of the same table, inside `card_security_code_verification` and `address_verification`
# rather than in `response`.
SECURITY_CODE_VERDICTS = {True: ("0000", "Card security code match"), False: ("0001", "Card security code did not match")}

ADDRESS_VERDICTS = {
    "0000": "Address and postal code match",
    "0001": "Address matches and postal code does not match",
    "0002": "Address matches and postal code not present",
    "0003": "Address matches and postal code unavailable",  # (choice)
    "0100": "Address does not match and postal code matches",
    "0101": "Address and zip code does not match",
    "0102": "Address does not match and postal code not present",
    "0103": "Address does not match and postal code unavailable",  # (choice)
    "0200": "Address not present and postal code matches",
    "0201": "Address not present and zip code not match",
    "0203": "Address not present and postal code unavailable",  # (choice)
    "0300": "Address unavailable and postal code matches",  # (choice)
    "0301": "Address unavailable and postal code does not match",  # (choice)
    "0302": "Address unavailable and postal code not present",  # (choice)
    "0303": "Address verification unavailable",
}
"""Outcomes of an address verification. The first two digits are the street's, the last two the postal code's.

00 is a match, 01 no match, 02 not in the request. 03 is not checked: no address is on file, or the product does not check.
"""
