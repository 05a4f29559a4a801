"""Keys of the hash mask: derived per policy set and purpose, named, never shown."""

from __future__ import annotations

import hashlib
import hmac
from itertools import combinations

import pytest

from gatebook.engine.mask_keys import derive_mask_key, mask_key_id, mask_key_ids

MASTER = bytes(range(32))


def _hkdf_sha256(secret: bytes, info: bytes) -> bytes:
    """Is RFC 5869 for one block of output and no salt, from the text of the RFC."""
    extracted = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


def test_key_is_hkdf_of_the_master_secret() -> None:
    """The key is HKDF-SHA256 under the documented info, so that others can derive it too."""
    info = b"gatebook/mask-key/v1\x00\x00\x00\x00\x09telemetry\x00\x00\x00\x0emodel_training"

    assert _hkdf_sha256(MASTER, info) == derive_mask_key(MASTER, "telemetry", "model_training")


def test_no_two_purposes_share_a_key() -> None:
    """Purposes, sub-purposes, policy sets and names that run together all have keys of their own."""
    scopes = [
        ("telemetry", "model_training"),
        ("telemetry", "model_training.evaluation"),
        ("telemetry", ""),
        ("telemetr", "ymodel_training"),
        ("", "telemetrymodel_training"),
        ("hr", "model_training"),
    ]
    keys = [derive_mask_key(MASTER, *scope) for scope in scopes]

    assert all(one != other for one, other in combinations(keys, 2))


def test_key_id_names_scope_and_key() -> None:
    """A key id tells set and purpose, and changes with the master secret."""
    ids = [mask_key_ids(secret, "telemetry", ["model_training"]) for secret in (MASTER, MASTER[::-1])]
    key = derive_mask_key(MASTER, "telemetry", "model_training")
    fingerprint = hashlib.sha256(key).hexdigest()[:8]

    assert ids[0] == {
        "model_training": f"telemetry/model_training/{fingerprint}",
        "": mask_key_id(derive_mask_key(MASTER, "telemetry", ""), "telemetry", ""),
    }
    assert not set(ids[0].values()) & set(ids[1].values())


def test_key_id_of_no_purpose() -> None:
    """A request without a purpose has a key id of three parts all the same."""
    assert mask_key_ids(MASTER, "telemetry", [])[""].startswith("telemetry/-/")


@pytest.mark.parametrize("length", [0, 16, 31])
def test_short_master_secret_is_refused(length: int) -> None:
    """A master secret that could be guessed is refused, and its bytes are not in the message."""
    with pytest.raises(ValueError, match=f"has {length} bytes"):
        derive_mask_key(MASTER[:length], "telemetry", "model_training")
