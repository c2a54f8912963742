"""What keys on both curves have in common."""

from __future__ import annotations

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from aiolibp2p.entropy import Entropy
from aiolibp2p.identity import elliptic

CURVES = [ec.SECP256K1(), ec.SECP256R1()]


class FixedEntropy:
    """The same number again and again, as many bytes as are asked for."""

    def __init__(self, number: int) -> None:
        self.number = number

    def token(self, n: int) -> bytes:
        return (self.number & (1 << 8 * n) - 1).to_bytes(n, "big")

    def fork(self, label: str) -> Entropy:
        return self


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_whatever_the_entropy_gives_becomes_a_number_within_range(curve: ec.EllipticCurve) -> None:
    order = curve.group_order
    for number in (0, 1, order - 2, order - 1, order, order + 1, 2**256 - 1, 2**320 - 1):
        scalar = elliptic.make_scalar(curve, FixedEntropy(number))
        assert len(scalar) == 32
        assert 1 <= int.from_bytes(scalar, "big") < order
        elliptic.load_scalar(curve, scalar)


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_64_bits_more_than_the_order_has_are_drawn(curve: ec.EllipticCurve) -> None:
    # The number is drawn modulo order - 1, so that a multiple of it gives the lowest one.
    multiple = (curve.group_order - 1) << 63
    assert elliptic.make_scalar(curve, FixedEntropy(multiple)) == (1).to_bytes(32, "big")


def test_an_openssl_without_the_nonces_of_rfc_6979_signs_with_others(monkeypatch: pytest.MonkeyPatch) -> None:
    made = ec.ECDSA

    def refuse(algorithm: object, *, deterministic_signing: bool = False) -> ec.ECDSA:
        if deterministic_signing:
            raise UnsupportedAlgorithm("")
        return made(algorithm)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(ec, "ECDSA", refuse)
        algorithm = elliptic.signature_algorithm()
    assert not algorithm.deterministic_signing
    key = ec.generate_private_key(CURVES[0])
    assert elliptic.verify(key.public_key(), b"data", key.sign(b"data", algorithm))
