"""The cells of js-libp2p and go-libp2p that py-libp2p 0.8.1 cannot do, and what happens instead."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cannot:
    """Why a cell fails. It is run, and must fail, unless another one shows the same or it would only wait."""

    reason: str
    run: bool = False


TREES = (
    "1,000 small files",
    "names beyond ASCII, where the order of UTF-16 is not that of UTF-8",
    "1,000 small files, sharded for their long names",
)
FIRST_ENTRY = "of a directory its MerkleDag fetches the first entry alone, and takes it for the file"
NO_DIRECTORY = "its MerkleDag adds files alone: IsADirectoryError"
BLOCK_BYTES = "it serves no block of over 512 KiB: BlockTooLargeError"

CANNOT = {
    "test_bitswap.py::test_we_fetch_a_single_block[2097152]": Cannot(BLOCK_BYTES, run=True),
    "test_bitswap.py::test_we_fetch_blocks_of_all_sizes_in_one_session": Cannot(BLOCK_BYTES),
    "test_bitswap.py::test_helia_sends_the_empty_block": Cannot(
        "it answers a want for the empty block, which it has, with nothing at all"
    ),
    "test_bitswap.py::test_boxo_denies_the_empty_block_that_it_has_and_our_client_has_it_all_the_same": Cannot(
        "it answers a want for the empty block, which it has, with nothing at all"
    ),
    "test_files.py::test_we_fetch_a_file[100 MB, in 256 KiB]": Cannot(
        "it gives the file another CID: in its nodes the links to raw leaves say that these are of 0 bytes", run=True
    ),
    "test_files.py::test_we_fetch_a_file[100 MB, in 1024 KiB]": Cannot(BLOCK_BYTES, run=True),
    "test_files.py::test_they_fetch_a_directory[nested]": Cannot(FIRST_ENTRY, run=True),
    **{f"test_files.py::test_they_fetch_a_directory[{tree}]": Cannot(FIRST_ENTRY) for tree in TREES},
    "test_files.py::test_we_fetch_a_directory[nested]": Cannot(NO_DIRECTORY, run=True),
    **{f"test_files.py::test_we_fetch_a_directory[{tree}]": Cannot(NO_DIRECTORY) for tree in TREES},
    **{
        "test_we_dial.py::test_a_handler_as_the_js_documentation_writes_it_sees_the_end_of_a_lazy_stream"
        f"[{size}]": Cannot("about a handler of js-libp2p's documentation")
        for size in (0, 1, 100_000)
    },
    **{
        f"test_they_dial.py::test_a_stream_opened_lazily_works_from_its_first_byte[{size}]": Cannot(
            "it opens no stream lazily: new_stream waits for the answer"
        )
        for size in (0, 1, 65_537)
    },
}
"""By `FILE::TEST[PARAMETERS]`, without the stack."""


def cell_of(node_id: str) -> tuple[str, str | None]:
    """Return what a test without its folders and its stack is called, and the stack, or None if it has none."""
    test, bracket, parameters = node_id.rpartition("/")[2].partition("[")
    words = parameters.removesuffix("]").split("-")
    stack = next((word for word in words if word in ("js", "go", "py")), None)
    if stack is not None:
        words.remove(stack)
    return (f"{test}[{'-'.join(words)}]" if bracket and words else test), stack
