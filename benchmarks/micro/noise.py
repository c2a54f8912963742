"""What one core does of Noise: `python benchmarks/micro/noise.py`.

Each row is the best of several rounds, so that a busy machine disturbs it least. "bare cipher" is the same work as one
call of `cryptography`, without records: the ceiling.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence

import cryptography
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from aiolibp2p.identity.keys import PrivateKey
from aiolibp2p.runtime import SystemEntropy
from aiolibp2p.sansio.noise import PLAINTEXT_BYTES, TAG_BYTES, Buffer, NoiseChannel, NoiseHandshake, NoiseIdentity

HEADER = bytes(12)
ROUNDS = 7
ROUND_SECONDS = 0.1


def best(work: Callable[[], object]) -> float:
    """Return the seconds of one call in the best round."""
    work()
    start = time.perf_counter()
    work()
    calls = max(1, int(ROUND_SECONDS / max(time.perf_counter() - start, 1e-7)))
    result = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(calls):
            work()
        result = min(result, (time.perf_counter() - start) / calls)
    return result


def channels() -> tuple[NoiseChannel, NoiseChannel]:
    """Return the two ends of one channel."""
    return NoiseChannel(bytes(32), b"x" * 32), NoiseChannel(b"x" * 32, bytes(32))


def decrypt_again(wire: Buffer) -> Callable[[], object]:
    """Return a call that decrypts the same first records every time."""
    receiver = channels()[1]

    def work() -> None:
        receiver._received = 0
        receiver.decrypt(wire)

    return work


def row(name: str, size: int, parts: Sequence[Buffer]) -> None:
    """Print the rates of one batch."""
    sender = channels()[0]
    wire = bytes(channels()[0].encrypt(parts))
    sealing, opening = best(lambda: sender.encrypt(parts)), best(decrypt_again(wire))
    print(
        f"{name:34} encrypt {size / sealing / 1e9:6.2f} GB/s {sealing * 1e6:9.2f} µs"
        f"   decrypt {size / opening / 1e9:6.2f} GB/s {opening * 1e6:9.2f} µs"
    )


def handshake(identity: NoiseIdentity, entropy: SystemEntropy) -> None:
    """Run both ends of one handshake."""
    initiator = NoiseHandshake("initiator", identity, entropy)
    responder = NoiseHandshake("responder", identity, entropy)
    responder.receive_bytes(initiator.bytes_to_send())
    initiator.receive_bytes(responder.bytes_to_send())
    assert responder.receive_bytes(initiator.bytes_to_send()) is not None


def main() -> None:
    """Print the table."""
    print(f"Python {platform.python_version()}, cryptography {cryptography.__version__}, {os.cpu_count()} cores")
    data = memoryview(os.urandom(1 << 20))
    cipher = ChaCha20Poly1305(bytes(32))
    plaintext = bytes(data[:PLAINTEXT_BYTES])
    ciphertext = cipher.encrypt(bytes(12), plaintext, None)
    assert len(ciphertext) == PLAINTEXT_BYTES + TAG_BYTES
    sealing = best(lambda: cipher.encrypt(bytes(12), plaintext, None))
    opening = best(lambda: cipher.decrypt(bytes(12), ciphertext, None))
    print(
        f"{'bare cipher, 65,519 bytes':34} encrypt {PLAINTEXT_BYTES / sealing / 1e9:6.2f} GB/s {sealing * 1e6:9.2f} µs"
        f"   decrypt {PLAINTEXT_BYTES / opening / 1e9:6.2f} GB/s {opening * 1e6:9.2f} µs"
    )
    for frames in (1, 4, 16):
        parts = [part for n in range(frames) for part in (HEADER, data[n : n + PLAINTEXT_BYTES - len(HEADER)])]
        row(f"{frames} × (header + 65,507 bytes)", frames * PLAINTEXT_BYTES, parts)
    row("header + 262,144 bytes", len(HEADER) + (256 << 10), [HEADER, data[: 256 << 10]])
    row("header + 16,384 bytes", len(HEADER) + (16 << 10), [HEADER, data[: 16 << 10]])
    row("30 × (header + 1,000 bytes)", 30 * 1012, [HEADER, data[:1000]] * 30)
    for size in (32, 256, 1024, 4000):
        row(f"header + {size:,} bytes", len(HEADER) + size, [HEADER, bytes(data[:size])])
    entropy = SystemEntropy()
    identity = NoiseIdentity(PrivateKey.generate(entropy), entropy)
    print(f"{'handshake, both ends':34} {best(lambda: handshake(identity, entropy)) * 1e6:.0f} µs")


if __name__ == "__main__":
    main()
