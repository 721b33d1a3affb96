"""Personal data in a text: found by pattern, proved by check digits, masked by kind.

Presidio would bring the same recognisers, but importing it loads spaCy and torch (over 400 MB);
these kinds need no language model. Names and addresses are not found: that needs one.

Two policies. What only identifies or pays for a person (CPF, payment card, IBAN) is masked
always, unless it is a number published as an example. Contact data, which documents hold so that
it is passed on (e-mail, telephone, CNPJ, IP address), is kept when a source holds it, and masked
when it comes from elsewhere: then the model made it up, or repeats the user's own.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import phonenumbers
from stdnum import iban, luhn
from stdnum.br import cnpj, cpf

_EMAIL = re.compile(
    r"\b[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}\b"
)
_CPF = re.compile(r"(?<![\w.,-])\d{3}\.?\d{3}\.?\d{3}-?\d{2}(?![\w-]|[.,]\d)")
# Letters are allowed in the first twelve places (Instrução Normativa RFB 2.229/2024).
_CNPJ = re.compile(
    r"(?<![\w.,-])[0-9A-Z]{2}\.?[0-9A-Z]{3}\.?[0-9A-Z]{3}/?[0-9A-Z]{4}-?\d{2}(?![\w-]|[.,]\d)"
)
_CARD = re.compile(r"(?<![\w.,-])\d(?:[ -]?\d){12,18}(?![\w-]|[.,]\d)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_IP = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4})(?![\w:]|\.\d)"
)
_PHONE_HINT = re.compile(r"\d[\d\s().-]{6,}\d")

MASKS = {
    "email": "[e-mail]",
    "phone": "[phone]",
    "cpf": "[CPF]",
    "cnpj": "[CNPJ]",
    "card": "[card]",
    "iban": "[IBAN]",
    "ip": "[IP]",
}
_ALWAYS_MASKED = {"cpf", "card", "iban"}
# Numbers that texts about these formats print: they belong to nobody.
_EXAMPLES = {
    "11144477735",
    "12345678909",
    "52998224725",
    "4111111111111111",
    "4242424242424242",
    "5555555555554444",
    "378282246310005",
    "GB82WEST12345698765432",
    "GB29NWBK60161331926819",
    "DE89370400440532013000",
    "BR1800360305000010009795493C1",
}


@dataclass(frozen=True, slots=True)
class Finding:
    kind: str
    start: int
    end: int
    value: str
    """The value without separators, for comparing."""


IsCpf = Callable[[str], bool]
"""`is_cpf`, or another with its signature."""


def is_cpf(digits: str) -> bool:
    """Whether eleven digits are a CPF: both check digits agree, and not all digits are equal."""
    return cpf.is_valid(digits) and len(set(digits)) > 1


def find(text: str, is_cpf: IsCpf = is_cpf) -> list[Finding]:
    """Personal data in the text, in order, without overlaps (the first kind found wins)."""
    if "@" not in text and ":" not in text and sum(char.isdigit() for char in text) < 4:
        return []
    found: list[Finding] = []
    for finding in _candidates(text, is_cpf):
        if all(finding.end <= other.start or finding.start >= other.end for other in found):
            found.append(finding)
    return sorted(found, key=lambda finding: finding.start)


def _candidates(text: str, is_cpf: IsCpf) -> Iterator[Finding]:
    for match in _EMAIL.finditer(text):
        if not _reserved_domain(match[0]):
            yield Finding("email", match.start(), match.end(), match[0].lower())
    for match in _IBAN.finditer(text):
        if iban.is_valid(match[0]):
            yield Finding("iban", match.start(), match.end(), iban.compact(match[0]))
    for match in _CNPJ.finditer(text):
        if cnpj.is_valid(match[0]):
            yield Finding("cnpj", match.start(), match.end(), re.sub(r"[./-]", "", match[0]))
    for match in _CPF.finditer(text):
        digits = _digits(match[0])
        if is_cpf(digits):
            yield Finding("cpf", match.start(), match.end(), digits)
    for match in _CARD.finditer(text):
        digits = _digits(match[0])
        if luhn.is_valid(digits) and digits[0] in "23456" and len(set(digits)) > 1:
            yield Finding("card", match.start(), match.end(), digits)
    for match in _IP.finditer(text):
        if _is_public_address(match[0]):
            yield Finding("ip", match.start(), match.end(), match[0])
    if _PHONE_HINT.search(text):
        for phone in phonenumbers.PhoneNumberMatcher(text, "BR"):
            yield Finding("phone", phone.start, phone.end, _digits(phone.raw_string))


def mask(text: str, source_texts: str = "", is_cpf: IsCpf = is_cpf) -> tuple[str, list[str]]:
    """The text with personal data masked, and the kinds masked. See the module for the policy."""
    known = find(source_texts, is_cpf) if source_texts else []
    published = {finding.value for finding in known if finding.kind not in _ALWAYS_MASKED}
    kinds = []
    for finding in reversed(find(text, is_cpf)):
        if finding.value in _EXAMPLES or finding.value in published:
            continue
        text = text[: finding.start] + MASKS[finding.kind] + text[finding.end :]
        kinds.append(finding.kind)
    return text, kinds[::-1]


def _digits(text: str) -> str:
    return "".join(char for char in text if char.isdigit())


def _reserved_domain(address: str) -> bool:
    """example.com and the like (RFC 2606, RFC 6761) reach nobody."""
    domain = address.rpartition("@")[2].lower()
    return domain in {"example.com", "example.org", "example.net"} or domain.endswith(
        (".example", ".test", ".invalid", ".localhost")
    )


def _is_public_address(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False
