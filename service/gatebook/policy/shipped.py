"""The policy set `gatebook` that comes with this version.

Owns where it is found: within the installed package, or in the source tree that an editable install serves from.
"""

from __future__ import annotations

from pathlib import Path

from gatebook.errors import BookRefusedError
from gatebook.policy import bundle
from gatebook.policy.gatebook_set import GATEBOOK

PACKAGE = Path(__file__).parents[1]
PLACES = (PACKAGE / "policies" / GATEBOOK, PACKAGE.parents[1] / "policies" / GATEBOOK)


def shipped_gatebook() -> dict[str, bytes]:
    """Returns the files of the shipped set.

    Raises:
        BookRefusedError: the installation is not complete.
    """
    for place in PLACES:
        if (place / bundle.MODEL_FILE).is_file():
            return bundle.read_folder(place)
    raise BookRefusedError(
        "this installation has no `policies/gatebook`: install gatebook again, or name one with --policies"
    )
