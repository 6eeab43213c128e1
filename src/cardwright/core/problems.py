"""Problems: every error that a caller can receive, in one table of HTTP status, wire code and message.

``error_code`` on the wire is a string of six digits: the HTTP status and three more (wire reference, "Errors"). Codes and texts
marked (observed) come from the real API. The others are a choice; this table is the only place to correct them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """Row of the table: HTTP status, six-digit code, message."""

    status: int
    code: str
    text: str


class Problem(Exception):
    """Request that cannot be executed. Only the HTTP edge renders the error body."""

    def __init__(self, kind: Kind, detail: str = "") -> None:
        super().__init__(kind.text.format(detail) if "{}" in kind.text else kind.text)
        self.kind = kind
        self.detail = detail


INVALID_INPUT = Kind(400, "400001", "Invalid input(s): {}")  # observed
INVALID_PARAMETER = Kind(400, "400002", "Invalid input(s): {}")
USER_UNKNOWN = Kind(400, "400003", "User not found")
BUSINESS_UNKNOWN = Kind(400, "400004", "Business not found")
CARD_UNKNOWN = Kind(400, "400008", "Card not found")
FUNDING_SOURCE_UNKNOWN = Kind(400, "400009", "Funding source not found: {}")
GROUP_UNKNOWN = Kind(400, "400010", "Account holder group not found")
PARENT_UNKNOWN = Kind(400, "400011", "Parent not found")
CARD_CREATION_OFF = Kind(400, "400012", "Card creation is not allowed for this card product")
BAD_CARD_TRANSITION = Kind(400, "400013", "Invalid card state transition: {}")
ONE_HOLDER = Kind(400, "400014", "Either user_token or business_token is required, not both")
CURRENCY_UNSUPPORTED = Kind(400, "400015", "Currency not supported: {}")
PRODUCT_UNKNOWN = Kind(400, "400016", "Card product not found")  # observed
CARD_SOURCE_INVALID = Kind(400, "400018", "Card cannot be reissued: {}")
BALANCE_OWNER_UNKNOWN = Kind(404, "404004", "Cardholder not found")
FEE_UNKNOWN = Kind(400, "400019", "Fee not found: {}")
FEE_CHARGE_UNKNOWN = Kind(400, "400020", "Fee charge transaction not found")
DEPOSIT_ACCOUNT_UNKNOWN = Kind(400, "400021", "Deposit account not found")
DEPOSIT_UNKNOWN = Kind(400, "400022", "Direct deposit not found")
BAD_DEPOSIT_TRANSITION = Kind(400, "400023", "Invalid direct deposit transition: {}")
MALFORMED = Kind(400, "400037", "Malformed JSON request received: {}")  # observed
BAD_REQUEST = Kind(400, "400038", "Malformed HTTP request received: {}")
EMAIL_TAKEN = Kind(400, "400057", "A card holder with the same email already exist")  # observed, the missing s too
NO_GRANDCHILDREN = Kind(400, "400064", "Children of a User Cardholder may not have children")  # observed
BAD_CREDENTIAL = Kind(401, "401001", "Invalid credential has been detected")  # observed
FORBIDDEN = Kind(403, "403001", "Access to the requested resource is denied: {}")
NOT_FOUND = Kind(404, "404001", "Resource not found: {}")
CARD_NOT_FOUND = Kind(404, "404002", "Card not found")
BARCODE_NOT_FOUND = Kind(404, "404002", "Card does not exist")
PRODUCT_NOT_FOUND = Kind(404, "404003", "Card product not found")
USER_NOT_FOUND = Kind(404, "404004", "Cardholder not found")  # observed
NO_FUNDING_ACCOUNTS = Kind(404, "404006", "No funding accounts found")
SOURCE_NOT_FOUND = Kind(404, "404007", "Program funding source not found")
ORDER_NOT_FOUND = Kind(404, "404008", "GPA order token not found")
UNLOAD_NOT_FOUND = Kind(404, "404008", "Return not found")
TRANSITION_NOT_FOUND = Kind(404, "404009", "Transition not found")
FEE_NOT_FOUND = Kind(404, "404010", "Fee not found")
FEE_CHARGE_NOT_FOUND = Kind(404, "404010", "Fee charge not found")
RELOAD_NOT_FOUND = Kind(404, "404010", "Auto reload not found")
PEER_TRANSFER_NOT_FOUND = Kind(404, "404010", "Transfer token not found")
TRANSFER_TYPE_NOT_FOUND = Kind(404, "404010", "Program transfer type not found")
TRANSFER_NOT_FOUND = Kind(404, "404010", "Program transfer not found")
DEPOSIT_NOT_FOUND = Kind(404, "404010", "Direct deposit not found")
DEPOSIT_ACCOUNT_NOT_FOUND = Kind(404, "404010", "Deposit account not found")
TRANSACTION_NOT_FOUND = Kind(404, "404011", "Transaction not found")
WEBHOOK_NOT_FOUND = Kind(404, "404012", "Webhook not found")
EVENT_NOT_FOUND = Kind(404, "404013", "Event not found")
CONTROL_NOT_FOUND = Kind(404, "404015", "Velocity control not found")
AUTH_CONTROL_NOT_FOUND = Kind(404, "404016", "Authorization control not found")
EXEMPTION_NOT_FOUND = Kind(404, "404017", "MID exemption not found")
MCC_GROUP_NOT_FOUND = Kind(404, "404018", "MCC group not found")
MERCHANT_GROUP_NOT_FOUND = Kind(404, "404019", "Merchant group not found")
COUNTRIES_NOT_FOUND = Kind(404, "404020", "Accepted countries not found")
HOLDER_GROUP_NOT_FOUND = Kind(404, "404021", "Account holder group not found")
FEE_GROUP_NOT_FOUND = Kind(404, "404022", "Real-time fee group not found")
ORIGINAL_NOT_FOUND = Kind(404, "404014", "Original transaction not found")
BACKTEST_NOT_FOUND = Kind(404, "404041", "Backtest not found")
SHADOW_NOT_FOUND = Kind(404, "404042", "Shadow control not found")
CREDENTIAL_NOT_FOUND = Kind(404, "404043", "Credential not found")
METHOD_NOT_ALLOWED = Kind(405, "405001", "Method not allowed: this path takes {}")
REQUEST_TIMEOUT = Kind(408, "408001", "Request Timeout: {}")
TOKEN_TAKEN = Kind(  # observed
    409, "409002", "General conflict exception: Token has already been associated with a different payload"
)
HOLD_NOT_DUE = Kind(409, "409003", "The hold does not expire now")  # only for the scheduler
LAST_CREDENTIAL = Kind(
    409, "409004", "The program has no other valid credential: add one first, or repeat the request with force=true"
)
CREDENTIALS_FULL = Kind(409, "409005", "The program has {} valid credentials, the maximum: revoke one first")
UNLOAD_TOO_LARGE = Kind(412, "412002", "Unload amount is greater than load amount")
BAD_STATUS_TRANSITION = Kind(412, "412003", "Invalid status transition: {}")
GPA_TOO_SMALL = Kind(412, "412004", "Insufficient funds")
TOO_LARGE = Kind(413, "413001", "Request Entity Too Large: {}")
URL_TOO_LONG = Kind(414, "414001", "URI Too Long: {}")
WRONG_CONTENT_TYPE = Kind(415, "415001", "Unsupported Media Type: send Content-Type: application/json, not {}")
MISDIRECTED = Kind(421, "421001", "Misdirected Request: {}")
INSUFFICIENT_FUNDS = Kind(422, "422001", "Insufficient funds")
HOLDER_NOT_ACTIVE = Kind(422, "422002", "Cardholder not active")
FEE_NOT_CHARGEABLE = Kind(422, "422003", "Fee cannot be charged: {}")
FEE_REFUNDED = Kind(422, "422004", "Fee has already been refunded")
DEPOSIT_ACCOUNTS_FULL = Kind(422, "422005", "A cardholder may have at most five deposit accounts")
LOAD_NOT_ALLOWED = Kind(422, "422006", "Load is not allowed before KYC: {}")
WEBHOOK_FAILED = Kind(422, "422600", "Webhook operation failed {}")
BUSY = Kind(429, "429001", "Too many requests: {}")
HEAD_TOO_LARGE = Kind(431, "431001", "Request Header Fields Too Large: {}")
INTERNAL = Kind(500, "500001", "Internal server error")  # message observed
UNAVAILABLE = Kind(503, "503001", "Service unavailable: {}")


def bad_field(field: str, text: str) -> Problem:
    """Return a 400 that names the field, in the format of the wire's bean validation: ``Invalid input(s): <field> <text>``."""
    return Problem(INVALID_INPUT, f"{field} {text}")


def bad_parameter(name: str, text: str) -> Problem:
    """Return a 400 that names the query parameter."""
    return Problem(INVALID_PARAMETER, f"{name} {text}")
