"""The currencies that money can be owed in: ISO 4217 (active codes), with the digits of their minor units.

Asked by grants, adjustments and agreements; whoever writes a payment needs the digits. Codes of funds, metals and
bonds (XAU, XDR, …) are left out: they are not paid in minor units.
"""

from __future__ import annotations

from typing import Final

from trustcompute.errors import ParameterError

_NO_MINOR = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THOUSANDTHS = "BHD IQD JOD KWD LYD OMR TND"
_HUNDREDTHS = (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP CRC "
    "CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR "
    "JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD "
    "NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN "
    "SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG"
)
DIGITS: Final = (
    dict.fromkeys(_NO_MINOR.split(), 0)
    | dict.fromkeys(_THOUSANDTHS.split(), 3)
    | dict.fromkeys(_HUNDREDTHS.split(), 2)
)


def check(code: str) -> str:
    """The code itself. Raises ``ParameterError`` where it is no currency."""
    if code not in DIGITS:
        raise ParameterError(
            f"{code[:20]!r} is no currency: use an active code of ISO 4217, such as EUR or CNY"
        )
    return code


def decimal(minor: int, code: str) -> str:
    """An amount of minor units as people write it: 12345 of EUR is ``123.45``, of JPY ``12345``."""
    digits = DIGITS[check(code)]
    sign, whole = ("-" if minor < 0 else ""), str(abs(minor)).rjust(digits + 1, "0")
    return sign + (f"{whole[:-digits]}.{whole[-digits:]}" if digits else whole)
