"""RSA, as libp2p stores and uses it.

Spec: libp2p peer-ids.md, "RSA"; RFC 8017. What a peer's key may cost is bounded before it is parsed: its size by the
length of the encoding, and its exponent to the 31 bits that go-libp2p can read. The dearest key, of 8,192 bits with an
exponent of 31 ones, takes 0.8 ms to verify; with the usual 65537, 2,048 bits take 25 µs and 8,192 bits 0.3 ms.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from aiolibp2p.entropy import Entropy
from aiolibp2p.errors import InvalidValueError

MODULUS_BITS_MIN: Final = 2048
MODULUS_BITS_MAX: Final = 8192
"""The bounds of go-libp2p, js-libp2p and rust-libp2p."""

GENERATED_BITS: Final = 2048
"""Of keys made here: what other stacks make, and all can verify quickly."""

_EXPONENT = 65537
_EXPONENT_MAX = (1 << 31) - 1
# The longest encodings of MODULUS_BITS_MAX; primes of unequal length make a private one a little longer.
_PUBLIC_BYTES_MAX = 1063
_PRIVATE_BYTES_MAX = 5 << 10
# The AlgorithmIdentifier rsaEncryption, behind at most four bytes of the sequence that it is in.
_ALGORITHM = bytes.fromhex("300d06092a864886f70d0101010500")
_ALGORITHM_START_MAX = 4


class RsaVerifier:
    """The public half of an RSA key."""

    __slots__ = ("_key",)

    def __init__(self, data: bytes) -> None:
        """Take the key in PKIX form: a SubjectPublicKeyInfo in DER.

        Raises:
            InvalidValueError: it is none, not in the one form of DER, or its size or exponent is out of bounds.
        """
        if len(data) > _PUBLIC_BYTES_MAX:
            text = f"an RSA public key of {len(data)} bytes: {MODULUS_BITS_MAX} bits take {_PUBLIC_BYTES_MAX}"
            raise InvalidValueError(text)
        # Keys of other algorithms never reach the parser.
        if data.find(_ALGORITHM, 0, _ALGORITHM_START_MAX + len(_ALGORITHM)) < 0:
            raise InvalidValueError("not an RSA public key in PKIX form")
        try:
            key = load_der_public_key(data)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InvalidValueError("not an RSA public key in PKIX form") from error
        assert isinstance(key, rsa.RSAPublicKey)  # as the algorithm said
        _check(key.public_numbers())
        if _encode(key) != data:
            raise InvalidValueError("an RSA public key that is not in DER")
        self._key = key

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Return whether `signature` is this key's over `data`."""
        try:
            self._key.verify(signature, data, PKCS1v15(), SHA256())
        except InvalidSignature:
            return False
        return True


class RsaSigner:
    """An RSA private key."""

    __slots__ = ("_key", "data", "public_data")

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self._key = key
        self.data = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        self.public_data = _encode(key.public_key())

    @classmethod
    def generate(cls, entropy: Entropy | None) -> RsaSigner:
        """Make a key of `GENERATED_BITS` from the system's random bytes.

        Raises:
            InvalidValueError: there is an `entropy`: the search for primes takes none.
        """
        if entropy is not None:
            raise InvalidValueError("an RSA key is not made from a given entropy: only from the system's")
        return cls(rsa.generate_private_key(_EXPONENT, GENERATED_BITS))

    @classmethod
    def from_data(cls, data: bytes) -> RsaSigner:
        """Take the key in PKCS #1 form: an RSAPrivateKey in DER, with two primes.

        Its parts are checked against each other. Whether its primes are prime is not: for 8,192 bits that takes
        seconds, and such a key harms nobody but who made it.

        Raises:
            InvalidValueError: it is none, not in the one form of DER, its size or exponent is out of bounds, or its
                parts do not belong together.
        """
        if len(data) > _PRIVATE_BYTES_MAX:
            raise InvalidValueError(f"an RSA private key of {len(data)} bytes, where {_PRIVATE_BYTES_MAX} may be")
        try:
            key = load_der_private_key(data, None, unsafe_skip_rsa_key_validation=True)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InvalidValueError("not an RSA private key in PKCS #1 form") from error
        if not isinstance(key, rsa.RSAPrivateKey):
            raise InvalidValueError("not an RSA private key in PKCS #1 form")
        numbers = key.private_numbers()
        _check(numbers.public_numbers)
        if not _belong_together(numbers):
            raise InvalidValueError("the parts of an RSA private key do not belong together")
        signer = cls(key)
        if signer.data != data:
            raise InvalidValueError("an RSA private key that is not in PKCS #1 form")
        return signer

    def sign(self, data: bytes) -> bytes:
        """Return the signature over `data`, as long as the modulus."""
        return self._key.sign(data, PKCS1v15(), SHA256())


def _check(numbers: rsa.RSAPublicNumbers) -> None:
    """Check the bounds of modulus and exponent."""
    bits = numbers.n.bit_length()
    if not MODULUS_BITS_MIN <= bits <= MODULUS_BITS_MAX:
        raise InvalidValueError(f"an RSA key of {bits} bits, where {MODULUS_BITS_MIN} to {MODULUS_BITS_MAX} may be")
    if not 3 <= numbers.e <= _EXPONENT_MAX or numbers.e % 2 == 0:
        raise InvalidValueError("the exponent of an RSA key is not an odd number from 3 to 2**31 - 1")
    if numbers.n % 2 == 0:
        raise InvalidValueError("the modulus of an RSA key is even")


def _belong_together(numbers: rsa.RSAPrivateNumbers) -> bool:
    """Return whether the parts of a private key are those of one key. Spec: RFC 8017, section 3.2."""
    p, q, d, e = numbers.p, numbers.q, numbers.d, numbers.public_numbers.e
    if p < 3 or q < 3 or p * q != numbers.public_numbers.n:
        return False
    return (
        d * e % (p - 1) == 1
        and d * e % (q - 1) == 1
        and numbers.dmp1 == d % (p - 1)
        and numbers.dmq1 == d % (q - 1)
        and numbers.iqmp < p
        and numbers.iqmp * q % p == 1
    )


def _encode(key: rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
