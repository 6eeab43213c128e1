"""Card product configuration: all branches and leaves of the ``config`` tree, in the order of the wire's responses."""

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from cardwright.core.expiry import ExpirationUnit
from cardwright.resources.common.fields import Limit10, Limit32, Limit40
from cardwright.resources.common.route import Blank, Shape

# --- Shapes: what travels on the wire ------------------------------------------------

Text = Annotated[str, Meta(max_length=255)]
"""A text for which the wire reference gives no limit."""

Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]


class Branch(Shape, frozen=True, kw_only=True, omit_defaults=True):
    """A part of the tree, in requests and responses. None means unset in a request, and omitted in a response.

    The order of the fields is that of the wire's responses.
    """


class OtherPoi(Branch, frozen=True, kw_only=True):
    """All points of interaction except e-commerce and ATMs, such as ordinary points of sale."""

    allow: bool | None = None
    card_presence_required: bool | None = None
    cardholder_presence_required: bool | None = None
    track1_discretionary_data: Text | None = None
    track2_discretionary_data: Text | None = None
    use_static_pin: bool | None = None


class Poi(Branch, frozen=True, kw_only=True):
    """Points of interaction."""

    other: OtherPoi | None = None
    ecommerce: bool | None = None
    atm: bool | None = None


class AddressCheck(Branch, frozen=True, kw_only=True):
    """The effects of an address mismatch. The two decline settings require ``validate``."""

    validate: bool | None = None
    decline_on_address_number_mismatch: bool | None = None
    decline_on_postal_code_mismatch: bool | None = None


class AddressChecks(Branch, frozen=True, kw_only=True):
    """The address checks of account verifications and authorizations."""

    av_messages: AddressCheck | None = None
    auth_messages: AddressCheck | None = None


class ScaLimits(Branch, frozen=True, kw_only=True):
    """The European limits of strong customer authentication. They are read-only and always empty."""

    blank: ClassVar[Blank | None] = Blank.ANYTHING


class TransactionControls(Branch, frozen=True, kw_only=True):
    """The settings that authorizations are checked against."""

    accepted_countries_token: Annotated[str, Meta(max_length=50)] | None = None
    always_require_pin: bool | None = None
    always_require_icc: bool | None = None
    allow_gpa_auth: bool | None = None
    require_card_not_present_card_security_code: bool | None = None
    allow_mcc_group_authorization_controls: bool | None = None
    allow_first_pin_set_via_financial_transaction: bool | None = None
    ignore_card_suspended_state: bool | None = None
    allow_chip_fallback: bool | None = None
    allow_network_load: bool | None = None
    allow_network_load_card_activation: bool | None = None
    allow_quasi_cash: bool | None = None
    enable_partial_auth_approval: bool | None = None
    address_verification: AddressChecks | None = None
    strong_customer_authentication_limits: ScaLimits | None = None
    quasi_cash_exempt_mids: Annotated[str, Meta(max_length=4000)] | None = None
    enable_credit_service: bool | None = None
    quasi_cash_exempt_merchant_group_token: Annotated[str, Meta(min_length=1, max_length=36)] | None = None
    notification_language: Literal["ces", "deu", "eng", "fra", "grc", "ita", "nld", "pol", "prt", "rou", "spa", "swe"] | None = (
        None
    )
    enable_cardholder_verification_biometric_in_payload: bool | None = None


class SelectiveAuth(Branch, frozen=True, kw_only=True):
    """Settings of programs that are bound to specific merchants."""

    sa_mode: Literal[0, 1, 2] | None = None
    enable_regex_search_chain: bool | None = None
    dmd_location_sensitivity: Literal[0, 1, 2, 3, 4] | None = None


class Special(Branch, frozen=True, kw_only=True):
    """Settings of merchant onboarding cards."""

    merchant_on_boarding: bool | None = None


class MinOffset(Branch, frozen=True, kw_only=True):
    """The minimum lifetime of a card. Absent fields have the values of the offset."""

    unit: ExpirationUnit | None = None
    value: Int32 | None = None


class ExpirationOffset(Branch, frozen=True, kw_only=True):
    """The lifetime of a card."""

    unit: ExpirationUnit | None = None
    value: Int32 | None = None
    min_offset: MinOffset | None = None


class CardLifeCycle(Branch, frozen=True, kw_only=True):
    """The activation, expiration and reloadability of cards."""

    activate_upon_issue: bool | None = None
    expiration_offset: ExpirationOffset | None = None
    card_service_code: Int32 | None = None
    update_expiration_upon_activation: bool | None = None
    reloadability: Literal["SINGLE_USE_VIRTUAL", "NON_RELOADABLE", "RELOADABLE"] | None = None


class ClearingAndSettlement(Branch, frozen=True, kw_only=True):
    """The account that goes negative if a clearing exceeds the available money. It has no effect under JIT Funding."""

    overdraft_destination: Literal["GPA", "MSA", "MERCHANT_CAMPAIGN_ACCOUNT", "GLOBAL_OVERDRAFT_ACCOUNT"] | None = None


class PaymentCardFunding(Branch, frozen=True, kw_only=True):
    """Funding by the cardholder's own payment card."""

    enabled: bool | None = None
    refunds_destination: Literal["", "GATEWAY", "GPA", "WATERFALL"] | None = None


class GatewayFunding(Branch, frozen=True, kw_only=True):
    """Gateway JIT Funding."""

    enabled: bool | None = None
    funding_source_token: Annotated[str, Meta(max_length=36)] | None = None
    refunds_destination: Literal["", "GATEWAY", "GPA", "WATERFALL"] | None = None
    always_fund: bool | None = None


class ProgramFunding(Branch, frozen=True, kw_only=True):
    """Managed JIT Funding. An empty ``refunds_destination`` has the effect of PROGRAM_FUNDING_SOURCE."""

    enabled: bool | None = None
    funding_source_token: Annotated[str, Meta(max_length=36)] | None = None
    refunds_destination: Literal["", "PROGRAM_FUNDING_SOURCE", "GPA", "WATERFALL"] | None = None


class JitFunding(Branch, frozen=True, kw_only=True):
    """The source of the money for purchases. At most one of the three is enabled."""

    paymentcard_funding_source: PaymentCardFunding | None = None
    programgateway_funding_source: GatewayFunding | None = None
    program_funding_source: ProgramFunding | None = None


class WalletAddressCheck(Branch, frozen=True, kw_only=True):
    """The address check when a card is added to a digital wallet."""

    validate: bool | None = None


class WalletSettings(Branch, frozen=True, kw_only=True):
    """Settings of one way to add a card to a digital wallet."""

    enabled: bool | None = None
    address_verification: WalletAddressCheck | None = None


class WebPush(Branch, frozen=True, kw_only=True):
    """Identifiers for provisioning from a web page."""

    wpp_apple_partner_id: Text | None = None
    wpp_apple_card_template_id: Text | None = None
    wpp_google_piaid: Text | None = None


class ProvisioningControls(Branch, frozen=True, kw_only=True):
    """The ways to add a card to a digital wallet."""

    manual_entry: WalletSettings | None = None
    wallet_provider_card_on_file: WalletSettings | None = None
    in_app_provisioning: WalletSettings | None = None
    web_push_provisioning: WebPush | None = None
    force_yellow_path_for_card_product: bool | None = None
    enable_discretionary_data_during_tar: bool | None = None
    dwt_use_card_status_during_auth: bool | None = None
    dwt_verify_atc_during_auth: bool | None = None
    dwt_tar_avs_decline_on_address_number_mismatch: bool | None = None
    dwt_tar_avs_decline_on_postal_code_mismatch: bool | None = None


class WalletTokenization(Branch, frozen=True, kw_only=True):
    """Settings of digital wallets."""

    provisioning_controls: ProvisioningControls | None = None
    card_art_id: Text | None = None


class NameLine(Branch, frozen=True, kw_only=True):
    """A line of text on the card."""

    value: Text | None = None


class NameLines(Branch, frozen=True, kw_only=True):
    """The text on the card. The first line is required if ``card_personalization`` is present."""

    name_line_1: NameLine | None = None
    name_line_2: NameLine | None = None
    name_line_3: NameLine | None = None


class CardImage(Branch, frozen=True, kw_only=True):
    """The image on the card."""

    name: Text | None = None
    thermal_color: Text | None = None


class CarrierImage(Branch, frozen=True, kw_only=True):
    """The image on the carrier, with a message."""

    name: Text | None = None
    message_1: Text | None = None


class NamedImage(Branch, frozen=True, kw_only=True):
    """An image that has only a name."""

    name: Text | None = None


class Images(Branch, frozen=True, kw_only=True):
    """The images on the card and its carrier."""

    card: CardImage | None = None
    carrier: CarrierImage | None = None
    signature: NamedImage | None = None
    carrier_return_window: NamedImage | None = None


class Carrier(Branch, frozen=True, kw_only=True):
    """The carrier: the letter that a card is attached to."""

    template_id: Text | None = None
    logo_file: Text | None = None
    logo_thumbnail_file: Text | None = None
    message_file: Text | None = None
    message_line: Text | None = None
    message_line_2: Text | None = None


class Personalization(Branch, frozen=True, kw_only=True):
    """The printing of physical cards."""

    text: NameLines | None = None
    images: Images | None = None
    carrier: Carrier | None = None
    perso_type: Literal["EMBOSS", "LASER", "FLAT"] | None = None


class ShippingAddress(Branch, frozen=True, kw_only=True):
    """An address that physical cards are sent or returned to."""

    first_name: Limit40 | None = None
    middle_name: Limit40 | None = None
    last_name: Limit40 | None = None
    address1: Text | None = None
    address2: Text | None = None
    city: Limit40 | None = None
    state: Limit32 | None = None
    zip: Limit10 | None = None
    postal_code: Limit10 | None = None
    country: Limit40 | None = None
    phone: Annotated[str, Meta(max_length=20)] | None = None


class Shipping(Branch, frozen=True, kw_only=True):
    """The shipping of physical cards."""

    method: (
        Literal[
            "LOCAL_MAIL", "LOCAL_MAIL_PACKAGE", "GROUND", "TWO_DAY", "OVERNIGHT",
            "INTERNATIONAL", "INTERNATIONAL_PRIORITY", "LOCAL_PRIORITY",
            "FEDEX_EXPEDITED", "FEDEX_REGULAR", "UPS_EXPEDITED", "UPS_REGULAR", "USPS_EXPEDITED", "USPS_REGULAR",
        ]
        | None
    ) = None  # fmt: skip
    return_address: ShippingAddress | None = None
    recipient_address: ShippingAddress | None = None
    care_of_line: Text | None = None


class BinPrefix(Branch, frozen=True, kw_only=True):
    """A BIN prefix with its status."""

    bin_prefix: str
    status: Literal["ACTIVE", "INACTIVE"]


class Fulfillment(Branch, frozen=True, kw_only=True):
    """The composition of card numbers and the production of physical cards."""

    payment_instrument: (
        Literal["PHYSICAL_MSR", "PHYSICAL_ICC", "PHYSICAL_CONTACTLESS", "PHYSICAL_COMBO", "VIRTUAL_PAN"] | None
    ) = None
    package_id: Annotated[str, Meta(min_length=1, max_length=50)] | None = None
    all_zero_card_security_code: bool | None = None
    bin_prefix: str | None = None
    bulk_ship: bool | None = None
    pan_length: str | None = None
    fulfillment_provider: (
        Literal[
            "PERFECTPLASTIC", "ARROWEYE", "GEMALTO", "NITECREST", "OBERTHUR", "ALLPAY",
            "IDEMIA", "IDEMIA_UK", "IDEMIA_FR", "IDEMIA_CZ", "IDEMIA_APAC", "IDEMIA_PL", "IDEMIA_AU", "IDEMIA_LA",
        ]
        | None
    ) = None  # fmt: skip
    allow_card_creation: bool | None = None
    uppercase_name_lines: bool | None = None
    enable_offline_pin: bool | None = None
    card_personalization: Personalization | None = None
    shipping: Shipping | None = None
    bin_prefixes: Annotated[tuple[BinPrefix, ...], Meta(max_length=50)] | None = None
    bin_issue_country: Limit40 | None = None


class ProductConfig(Branch, frozen=True, kw_only=True):
    """The complete configuration of a card product."""

    poi: Poi | None = None
    transaction_controls: TransactionControls | None = None
    selective_auth: SelectiveAuth | None = None
    special: Special | None = None
    card_life_cycle: CardLifeCycle | None = None
    clearing_and_settlement: ClearingAndSettlement | None = None
    jit_funding: JitFunding | None = None
    digital_wallet_tokenization: WalletTokenization | None = None
    fulfillment: Fulfillment | None = None
