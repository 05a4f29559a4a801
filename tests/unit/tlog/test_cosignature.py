"""Cosignatures and policies of witnesses: what a witness says is what is read, and nobody counts twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gatebook.errors import VerificationError
from gatebook.tlog.checkpoint import Checkpoint
from gatebook.tlog.cosignature import WitnessKey, WitnessSigningKey, parse_signature_lines
from gatebook.tlog.keys import SigningKey, VerifierKey
from gatebook.tlog.merkle import leaf_hash
from gatebook.tlog.note import Note, Signature, parse_note
from gatebook.tlog.policy import any_of, parse_policy
from gatebook_client.verify import verify_checkpoint

VECTORS = sorted((Path(__file__).parents[2] / "vectors" / "witness").glob("*.json"))
BOOK = SigningKey.generate("gatebook.test/book")
NOTE = BOOK.sign_note(Checkpoint(BOOK.name, 7, leaf_hash(b"root")).text())
WITNESSES = [WitnessSigningKey.generate(f"witness.test/w{number}") for number in range(4)]
KEYS = [witness.public for witness in WITNESSES]
NOW = 1_679_315_147


def cosigned(*witnesses: WitnessSigningKey, seconds: int = NOW) -> Note:
    """The note with cosignatures."""
    return Note(NOTE.text, (*NOTE.signatures, *(each.cosign(NOTE.text, seconds) for each in witnesses)))


def test_the_specification_says_what_is_signed() -> None:
    """The message, the key id and the value of a line are those of C2SP tlog-cosignature, computed here apart."""
    line = WITNESSES[0].cosign(NOTE.text, NOW)
    signed = f"cosignature/v1\ntime 1679315147\n{NOTE.text}".encode()

    assert (NOW).to_bytes(8, "big") == line.value[:8]
    Ed25519PublicKey.from_public_bytes(KEYS[0].public_key).verify(line.value[8:], signed)
    assert KEYS[0].verify(line, NOTE.text) == NOW


def test_the_example_of_the_specification_is_read() -> None:
    """The checkpoint in C2SP tlog-cosignature parses, and its cosignature is of the time of its example."""
    text = (
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
        "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5"
        "/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
        "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5n"
        "No0xUe+mbIUBkBIfZ+qnA==\n"
    )
    line = parse_note(text.encode()).signatures[1]

    assert ("witness.example.com/w1", 72) == (line.name, len(line.value))
    assert NOW == int.from_bytes(line.value[:8], "big")


def test_keys_survive_their_text() -> None:
    """Both halves come back from their text; a key of a book is none of a witness, nor the other way round."""
    witness = WITNESSES[0]

    assert witness.public == WitnessSigningKey.parse(witness.serialize()).public
    assert witness.public == WitnessKey.parse(str(witness.public))
    assert witness.serialize().rpartition("+")[2].strip() not in repr(witness)
    for parse, text in (
        (WitnessKey.parse, str(BOOK.verifier)),
        (VerifierKey.parse, str(witness.public)),
        (WitnessSigningKey.parse, BOOK.serialize()),
        (SigningKey.parse, witness.serialize()),
    ):
        with pytest.raises(VerificationError, match="type Ed25519"):
            parse(text)


def test_every_flipped_bit_of_a_cosignature_is_seen() -> None:
    """A cosignature with any one bit of time or signature flipped rejects the note."""
    line = WITNESSES[0].cosign(NOTE.text, NOW)
    for at in range(len(line.value) * 8):
        value = bytearray(line.value)
        value[at // 8] ^= 1 << at % 8
        with pytest.raises(VerificationError):
            KEYS[0].time_on(Note(NOTE.text, (Signature(line.name, line.key_id, bytes(value)),)))


def test_lines_of_a_witness_are_read() -> None:
    """What a witness answers is signature lines; anything else is refused."""
    lines = "".join(each.cosign(NOTE.text, NOW).line() for each in WITNESSES[:2]).encode()

    assert [key.name for key in KEYS[:2]] == [each.name for each in parse_signature_lines(lines, NOTE.text)]
    for wrong in (b"", b"hello\n", lines + b"\n", lines[:-1], "— \n".encode()):
        with pytest.raises(VerificationError):
            parse_signature_lines(wrong, NOTE.text)


def test_so_many_of_the_witnesses_are_enough() -> None:
    """A number of witnesses is needed, whoever they are; strangers and repetitions do not count."""
    policy = any_of(KEYS[:3], 2)
    stranger = WITNESSES[3]

    assert ["witness.test/w0", "witness.test/w2"] == [each.name for each in policy.require(cosigned(*WITNESSES[::2]))]
    for note in (cosigned(), cosigned(WITNESSES[0]), cosigned(WITNESSES[0], WITNESSES[0], stranger)):
        with pytest.raises(VerificationError, match="too few witnesses"):
            policy.require(note)
    assert () == any_of([]).require(cosigned())
    assert () == any_of(KEYS, 0).require(cosigned())


def test_the_newest_time_counts() -> None:
    """Of several cosignatures of one witness the newest time is told."""
    lines = [WITNESSES[0].cosign(NOTE.text, seconds) for seconds in (NOW, NOW + 9, NOW + 3)]

    assert NOW + 9 == KEYS[0].time_on(Note(NOTE.text, tuple(lines)))


def policy_text(*lines: str) -> bytes:
    """A policy of four witnesses and more lines."""
    witnesses = [f"witness X{number} {key} https://w{number}.test/" for number, key in enumerate(KEYS)]
    return "\n".join([f"log {BOOK.verifier}", *witnesses, *lines, ""]).encode()


def test_a_policy_with_groups_of_groups() -> None:
    """The example of C2SP tlog-policy: two of these and any of those."""
    policy = parse_policy(
        policy_text(
            "# whom we trust", "group X 2 X0 X1 X2", "\t group Y  any\tX3 ", "group both all X Y", "", "quorum both"
        )
    )
    enough = {
        mask: policy.satisfied_by({f"X{number}" for number in range(4) if mask >> number & 1}) for mask in range(16)
    }

    expected = {mask: (mask & 7).bit_count() >= 2 and mask >> 3 == 1 for mask in range(16)}
    assert expected == enough
    assert (BOOK.verifier,) == policy.logs
    assert "https://w1.test/" == policy.witnesses[1].url


@pytest.mark.parametrize(
    ("lines", "refused"),
    [
        (("group X 2 X0",), "number up to 1"),
        (("group X 0 X0",), "number up to"),
        (("group X 01 X0",), "number up to"),
        (("group X any X9",), "not defined"),
        (("group X any",), "no `log`"),
        (("group X any X0 X0",), "a member already"),
        (("group X any X0", "group Y any X0"), "a member already"),
        (("group X0 any X1",), "is taken"),
        (("group none any X1",), "is taken"),
        (("group X any none",), "not defined"),
        (("quorum X9",), "not defined"),
        (("quorum X0", "quorum X1"), "a quorum already"),
        ((), "no `quorum`"),
        ((f"witness X9 {KEYS[0]}", "quorum X0"), "has the key of"),
        ((f"witness X9 {WitnessKey('other.test/name', KEYS[0].public_key)}", "quorum X0"), "has the key of"),
        ((f"log {BOOK.verifier}", "quorum X0"), "has the key of"),
        ((f"witness X9 {BOOK.verifier}", "quorum X0"), "type Ed25519"),
        (("quorum X0\r",), "control character"),
        (("Quorum X0",), "no `log`"),
        (("quorum",), "no `log`"),
    ],
)
def test_a_malformed_policy_is_refused(lines: tuple[str, ...], refused: str) -> None:
    """A policy that might be weaker than it was meant is no policy."""
    with pytest.raises(VerificationError, match=refused):
        parse_policy(policy_text(*lines))


def test_nobody_counts_for_two() -> None:
    """One key under two names, and two keys under one name, are refused."""
    with pytest.raises(VerificationError, match="has the key of"):
        any_of([KEYS[0], WitnessKey("other.test/name", KEYS[0].public_key)])
    with pytest.raises(VerificationError, match="one name"):
        any_of([KEYS[0], WitnessKey(KEYS[0].name, KEYS[1].public_key)])
    with pytest.raises(VerificationError, match="3 witnesses are needed"):
        any_of(KEYS[:2], 3)


def test_a_book_is_not_its_own_witness() -> None:
    """A witness with the key of the book is refused, whatever its name."""
    itself = WitnessKey("witness.test/w9", BOOK.verifier.public_key)

    assert any_of(KEYS, 2) == any_of(KEYS, 2).require_apart(BOOK.verifier)
    with pytest.raises(VerificationError, match="has the key of"):
        any_of([*KEYS, itself], 2).require_apart(BOOK.verifier)
    with pytest.raises(VerificationError, match="has the key of"):
        verify_checkpoint(NOTE.format(), str(BOOK.verifier), witnesses=[str(itself)], witnesses_needed=0)


def run(given: dict[str, str], needed: int) -> None:
    """Does what the attacker hopes for: has a checkpoint taken as witnessed."""
    key, witnesses = VerifierKey.parse(given["key"]), [WitnessKey.parse(each) for each in given["witnesses"].split()]
    any_of(witnesses, needed).require(key.open_note(given["note"].encode()))


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_an_attack_fails(path: Path) -> None:
    """Each vector is named after an attack, which is refused; what it was made from is accepted."""
    vector = json.loads(path.read_text("utf-8"))

    with pytest.raises(VerificationError, match=vector["refused"]):
        run(vector["given"], vector["needed"])
    run(vector["given"] | vector["honest"], vector["needed"])
