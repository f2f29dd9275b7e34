"""Byte-level BPE: a list of merges as the ranks that tiktoken runs, or the reason why tiktoken cannot."""
from itertools import chain


def byte_characters():
    """GPT-2's printable stand-in for every byte: itself where printable, else the characters from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


BYTE_OF = {char: byte for byte, char in byte_characters().items()}
LATIN_1 = str.maketrans({char: chr(byte) for char, byte in BYTE_OF.items()})


def to_bytes(piece):
    """The bytes of a piece that is written in stand-in characters; of any other piece its UTF-8."""
    return piece.translate(LATIN_1).encode("latin-1") if BYTE_OF.keys() >= set(piece) else piece.encode()


def rank_pieces(path, vocab, merges, whole_words, special):
    """(pieces in the order of their ranks, {id: piece} of those no text produces).

    vocab: {piece: id}. merges: pairs of pieces, in order. whole_words: a word that is a piece is taken whole, whatever its
    merges (ignore_merges). special: pieces that are added tokens.

    tiktoken joins any neighbors that form a token, a list of merges only the pairs it names. The two agree when it names them
    all, and when every token is reached by its own merge; tokens that are never reached are left out.
    """
    single = [piece for piece in vocab if len(piece) == 1 and piece in BYTE_OF]
    ways = {}  # piece: how many merges produce it
    for merge in merges:
        if len(merge) != 2 or "".join(merge) not in vocab:
            raise ValueError(f"{path}: the merge {merge} does not fit the vocabulary; the tokenizer's files are damaged")
        ways["".join(merge)] = ways.get("".join(merge), 0) + 1
    if len(merges) > len(ways) and all(n == count_splits(piece, vocab) for piece, n in ways.items()):
        order = [*single, *ways]  # Llama 3's list names all neighbors that form a token
    else:
        order = reachable(single, merges)
    known = set(order)
    rest = {piece: i for piece, i in vocab.items() if piece not in known and piece not in special}
    if not whole_words:
        return order, {i: piece for piece, i in rest.items()}
    for piece in rest:  # tiktoken would take such a word whole, but also join its halves elsewhere
        if count_splits(piece, vocab):
            raise ValueError(f"{path}: ignore_merges with a token, {piece!r}, whose halves no merge joins is not implemented")
    return [*order, *rest], {}


def count_splits(piece, vocab):
    """The number of ways to split a piece into two pieces of the vocabulary."""
    return sum(piece[:k] in vocab and piece[k:] in vocab for k in range(1, len(piece)))


def reachable(single, merges):
    """Single bytes, then the pieces that text can produce, each by the first merge that reaches it."""
    order, pairs, halves = list(single), {}, {}
    rank = {piece: i for i, piece in enumerate(order)}
    for left, right in merges:
        a, b, new = rank.get(left), rank.get(right), len(order)
        if a is None or b is None or left + right in rank or not can_meet(a, b, new, pairs, halves):
            continue
        rank[left + right], pairs[a, b], halves[new] = new, new, (a, b)
        order.append(left + right)
    return order


def can_meet(a, b, limit, pairs, halves):
    """Whether tokens a and b can be neighbors before merge `limit`: no earlier merge joins their inner ends.

    Undo the merges from the end: of two neighbors the one made last splits into its halves, until two bytes are left. Of two
    merges of equal rank the left one goes first.
    """
    until_a = until_b = limit  # the merges that end a and b
    while True:
        joined = pairs.get((a, b))
        if joined is not None and joined < until_a and joined <= until_b:
            return False
        if a > b and a in halves:
            until_a, a = a, halves[a][1]
        elif b in halves:
            until_b, b = b, halves[b][0]
        else:
            return True


def all_splits(pieces):
    """Every pair of pieces that forms another piece, in the order of the pieces: Llama 3's list of merges."""
    known = set(pieces)
    return list(chain.from_iterable(
        [(x[:k], x[k:]) for k in range(1, len(x)) if x[:k] in known and x[k:] in known] for x in pieces))
