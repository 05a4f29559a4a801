"""C2SP tlog-tiles: paths, widths and encodings, with the examples of the specification."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.errors import VerificationError
from gatebook.tlog.merkle import leaf_hash, root_of
from gatebook.tlog.tiles import (
    ENTRIES,
    Tile,
    decode_bundle,
    encode_bundle,
    hashes_root,
    new_tiles,
    number_path,
    parse_path,
    split_tile,
    subtree_in_tile,
)


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(0, 1_234_067), "tile/0/x001/x234/067"),
        (Tile(5, 1_000), "tile/5/x001/000"),
        (Tile(63, 999, 17), "tile/63/999.p/17"),
        (Tile(ENTRIES, 255_999, 255), "tile/entries/x255/999.p/255"),
    ],
)
def test_a_tile_has_one_path(tile: Tile, path: str) -> None:
    """The path of a tile is that of the specification, and leads back to the tile."""
    assert path == tile.path
    assert tile == parse_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/0",
        "tile/0/0000",
        "tile/00/000",
        "tile/64/000",
        "tile/0/x000/000",
        "tile/0/001/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/-1/000",
        "tile/entries/000.p/256",
        "tile/0/000\n",
        "tile/0/\u0660\u0660\u0660",
        "/tile/0/000",
        "tile/0/../0/000",
        "tile/0/" + "x001/" * 20 + "000",
    ],
)
def test_no_other_path_is_a_tile(path: str) -> None:
    """A path in any other form is refused, so that each tile has one name."""
    with pytest.raises(VerificationError, match="not the path of a tile"):
        parse_path(path)


@given(st.integers(0, 10**15))
def test_numbers_come_back_from_paths(number: int) -> None:
    """Every tile number survives the way through its path."""
    assert number == parse_path(f"tile/3/{number_path(number)}").number


def test_the_tiles_of_seventy_thousand_entries() -> None:
    """The example of the specification: which tiles a tree of 70,000 entries has."""
    tiles = list(new_tiles(0, 70_000))

    assert [273, 1, 0] == [sum(tile.full for tile in tiles if tile.level == level) for level in range(3)]
    partial = {(tile.level, tile.number): tile.width for tile in tiles if not tile.full}
    assert {(ENTRIES, 273): 112, (0, 273): 112, (1, 1): 17, (2, 0): 1} == partial


@pytest.mark.parametrize(
    ("size", "paths"),
    [
        (0, []),
        (1, ["tile/entries/000.p/1", "tile/0/000.p/1"]),
        (256, ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]),
        (
            257,
            ["tile/entries/000", "tile/entries/001.p/1", "tile/0/000", "tile/0/001.p/1", "tile/1/000.p/1"],
        ),
    ],
)
def test_the_tiles_of_small_trees(size: int, paths: list[str]) -> None:
    """A tree has exactly the tiles of its size, and none of width 0."""
    assert paths == [tile.path for tile in new_tiles(0, size)]


def test_growth_adds_what_a_size_needs() -> None:
    """Growing step by step adds every tile that the last size needs, and no full tile twice."""
    seen: list[Tile] = []
    for old in range(0, 2_000, 7):
        seen.extend(new_tiles(old, old + 7))

    assert set(new_tiles(0, 2_002)) <= set(seen)
    full = [tile for tile in seen if tile.full]
    assert len(set(full)) == len(full)


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_a_bundle_comes_back(entries: list[bytes]) -> None:
    """A bundle decodes to the entries it was made of."""
    assert entries == decode_bundle(encode_bundle(entries), Tile(ENTRIES, 3, len(entries)))


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=9), st.data())
def test_a_bundle_of_another_length_is_refused(entries: list[bytes], data: st.DataObject) -> None:
    """A bundle cut anywhere, or with bytes after its last entry, is refused with an index."""
    bundle = encode_bundle(entries)
    cut = data.draw(st.integers(0, len(bundle) - 1))

    for wrong in (bundle[:cut], bundle + b"\x00", bundle + b"\x00\x00"):
        with pytest.raises(VerificationError) as caught:
            decode_bundle(wrong, Tile(ENTRIES, 2, len(entries)))
        assert caught.value.index is not None
        assert 512 <= caught.value.index <= 512 + len(entries)


def test_a_tile_of_another_length_is_refused() -> None:
    """The error names the first entry whose hash is not there."""
    with pytest.raises(VerificationError) as caught:
        split_tile(bytes(3 * 32 + 31), Tile(1, 2, 4))

    assert (2 * 256 + 3) * 256 == caught.value.index


@given(st.integers(1, 256))
def test_the_root_over_a_tile(width: int) -> None:
    """The root over the hashes of a tile is that of the tree below it."""
    leaves = [leaf_hash(bytes([at])) for at in range(width)]

    assert root_of(leaves) == hashes_root(leaves)


def test_subtrees_within_a_tile() -> None:
    """The complete subtrees of a tile come from its hashes."""
    leaves = [leaf_hash(bytes([at])) for at in range(256)]

    assert root_of(leaves[96:128]) == subtree_in_tile(leaves, 5, 3)
