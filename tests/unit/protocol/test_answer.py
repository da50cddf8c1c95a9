import hashlib
import itertools

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from app.protocol import answer, cbor
from app.protocol.answer import (
    MAX_DATA_BYTES,
    SEALED_FRAME_BYTES,
    PartKind,
    PartQueue,
    encode_header,
    encode_logprob,
    encode_part,
    round_up_frames,
    seal_error,
)
from app.protocol.asker.answer import open_error, parse_header
from app.protocol.authorization import pad
from app.protocol.constants import (
    FRAME_COUNT_BUCKETS,
    FRAME_PLAINTEXT_BYTES,
    MAX_ANSWERS,
    MAX_WRAPPED_KEY_BYTES,
)
from app.protocol.errors import (
    WIRE_ERRORS,
    AppError,
    EnvelopeError,
    KmsError,
    NsmError,
    ProtocolError,
    TooLongError,
    UnsupportedError,
)
from app.protocol.messages import Kind, parse_message
from app.protocol.piece import Piece, TokenLogprob
from app.protocol.question import Options
from tests.samples import (
    ANSWER_KEY,
    ANSWER_SECRET,
    HEADER,
    REQUEST_DIGEST,
    flips,
    make_opener,
    make_sealer,
    open_frames,
    open_text,
    seal_answer,
    with_kind,
)

OTHER = b"\x07" * 32


@given(text=st.text(max_size=3000), cuts=st.lists(st.integers(0, 50), min_size=1))
def test_round_trip(text: str, cuts: list[int]) -> None:
    """
    However UTF-8 is cut into frames, dummies among them, the text comes back, and so does the
    receipt with the digest of all frames before it.
    """
    left, pieces = text.encode(), list[bytes]()
    for cut in itertools.cycle([*cuts, 700]):
        if not left:
            break
        pieces.append(left[:cut])
        left = left[cut:]
    sealer, opener = make_sealer(), make_opener()
    frames = [sealer.seal_text(piece) for piece in pieces]
    digest = sealer.digest
    frames += seal_answer(sealer=sealer)
    assert "".join(open_text(opener, frame) for frame in frames) == text
    assert opener.finished
    assert opener.finish() == (b"a receipt", digest)


def test_characters_that_span_frames() -> None:
    """
    A character comes with the frame that ends it, and a dummy in between changes nothing.
    """
    sealer, opener = make_sealer(), make_opener()
    bear = "🐻".encode()
    parts = [bear[:1], bear[1:3], b"", bear[3:]]
    opened = [open_text(opener, sealer.seal_text(part)) for part in parts]
    assert opened == ["", "", "", "🐻"]


def test_all_frames_are_equal_in_length() -> None:
    """
    Text, dummies, receipts and final frames cannot be told apart by length, nor a sealed error.
    """
    sealer = make_sealer()
    messages = [
        sealer.seal_text(b"a" * MAX_DATA_BYTES),
        sealer.seal_text(),
        sealer.seal_receipt(b"part"),
        sealer.seal_place(3),
        sealer.seal_text(final=True),
        seal_error(KmsError(), answer_secret=ANSWER_SECRET, request_digest=REQUEST_DIGEST),
    ]
    assert {len(message) for message in messages} == {1 + SEALED_FRAME_BYTES}


def test_every_byte_counts() -> None:
    """
    No byte of a frame can be altered: not its ciphertext, nor its tag.
    """
    kind, body = parse_message(make_sealer().seal_text(b"text"))
    for altered in flips(body, every_bit_at=(0, 3, len(body) // 2, -1)):
        with pytest.raises(EnvelopeError, match="frame 0 does not open"):
            make_opener().open(kind, altered)


@given(body=st.binary(max_size=SEALED_FRAME_BYTES + 9))
def test_any_bytes(body: bytes) -> None:
    """
    Any bytes for a frame are refused as what does not open.
    """
    with pytest.raises(EnvelopeError):
        make_opener().open(Kind.ANSWER_FRAME, body)


@given(
    order=st.lists(st.integers(0, 4), max_size=7).filter(
        lambda order: order != list(range(len(order)))
    )
)
def test_only_in_their_order(order: list[int]) -> None:
    """
    Frames left out, repeated or moved do not open, whatever the order made of them.
    """
    frames = seal_answer(b"a", b"b", b"c")
    with pytest.raises((EnvelopeError, ProtocolError)):
        open_frames([frames[place] for place in order])


@pytest.mark.parametrize("count", range(5))
def test_truncated(count: int) -> None:
    """
    An answer cut off anywhere before its final frame is never whole.
    """
    frames = seal_answer(b"a", b"b", b"c")[:count]
    opener = make_opener()
    for frame in frames:
        opener.open(*parse_message(frame))
    assert not opener.finished
    with pytest.raises(ProtocolError, match="no final frame"):
        opener.finish()


def test_lost_frame_is_never_passed_over() -> None:
    """
    After a frame that does not open, the next one does not either, even for a caller who goes
    on; only the lost one itself does.
    """
    frames = seal_answer(b"do ", b"not ", b"go")
    opener = make_opener()
    assert open_text(opener, frames[0]) == "do "
    with pytest.raises(EnvelopeError):
        opener.open(Kind.ANSWER_FRAME, bytes(SEALED_FRAME_BYTES))
    with pytest.raises(EnvelopeError, match="frame 1 does"):
        opener.open(*parse_message(frames[2]))
    assert open_frames(frames[1:], opener) == "not go"


def test_final_flag_is_sealed() -> None:
    """
    A frame made final, or a final frame made an ordinary one, does not open.
    """
    frames = seal_answer(b"a")
    with pytest.raises(EnvelopeError):
        make_opener().open(*parse_message(with_kind(frames[0], Kind.FINAL_FRAME)))
    with pytest.raises(EnvelopeError):
        open_frames([*frames[:-1], with_kind(frames[-1], Kind.ANSWER_FRAME)])


@pytest.mark.parametrize("kind", sorted(set(Kind) - {Kind.ANSWER_FRAME, Kind.FINAL_FRAME}))
def test_no_other_message_among_frames(kind: Kind) -> None:
    """
    No other kind of message is read where frames are.
    """
    _, body = parse_message(seal_answer(b"a")[0])
    with pytest.raises(ProtocolError, match="where no frame may be"):
        make_opener().open(kind, body)


def test_nothing_after_the_final_frame() -> None:
    """
    Even a frame that the enclave itself sealed is refused after the final one.
    """
    sealer, opener = make_sealer(), make_opener()
    open_frames(seal_answer(b"a", sealer=sealer), opener)
    with pytest.raises(ProtocolError, match="where no frame may be"):
        opener.open(*parse_message(sealer.seal_text(b"more")))


def test_bound_to_its_question() -> None:
    """
    A frame opens for its own request, header, answer secret and data key alone: not in another
    answer, turn or conversation, all of which differ in these.
    """
    frames = seal_answer(b"a")
    for opener in (
        make_opener(request_digest=OTHER),
        make_opener(answer_secret=OTHER),
        make_opener(data_key=OTHER),
        make_opener(header=encode_header(b"another wrapped key")),
        make_opener(header=HEADER[1:]),
        make_opener(data_key=ANSWER_SECRET, answer_secret=ANSWER_KEY),
    ):
        with pytest.raises(EnvelopeError):
            open_frames(frames, opener)
    assert open_frames(frames) == "a"


def test_kms_data_key_alone_neither_reads_nor_forges() -> None:
    """
    Who has all that KMS and the wire give him, the answer data key included, and lacks the
    answer secret can derive no key that reads a frame, nor forge one that opens.
    """
    frame = seal_answer(b"a")[0]
    info = b"enclave-llm/2 answer" + REQUEST_DIGEST + hashlib.sha256(HEADER).digest()
    for material in (ANSWER_KEY, ANSWER_KEY + bytes(32), ANSWER_KEY + REQUEST_DIGEST):
        guess = AESGCM(HKDF(SHA256(), 32, None, info).derive(material))
        aad = REQUEST_DIGEST + bytes(4) + b"\0"
        with pytest.raises(InvalidTag):
            guess.decrypt(bytes(12), frame[1:], aad)
        forged = guess.encrypt(bytes(12), bytes(FRAME_PLAINTEXT_BYTES), aad)
        with pytest.raises(EnvelopeError):
            make_opener().open(Kind.ANSWER_FRAME, forged)
    for secret in (b"", bytes(32), REQUEST_DIGEST):
        with pytest.raises(EnvelopeError):
            open_frames([make_sealer(answer_secret=secret).seal_text(b"forged")])


def test_answer_secret_alone_neither_reads_nor_forges() -> None:
    """
    Nor does the answer secret without KMS's data key, so KMS can withhold every answer.
    """
    with pytest.raises(EnvelopeError):
        open_frames(seal_answer(b"a"), make_opener(data_key=b""))
    with pytest.raises(EnvelopeError):
        open_frames(seal_answer(b"a", sealer=make_sealer(data_key=b"")))


def test_key_is_the_spec_s() -> None:
    """
    The key is HKDF of data key and answer secret, over request digest and header digest.
    """
    info = b"enclave-llm/2 answer" + REQUEST_DIGEST + hashlib.sha256(HEADER).digest()
    key = HKDF(SHA256(), 32, None, info).derive(ANSWER_KEY + ANSWER_SECRET)
    frame = make_sealer().seal_text(b"hi", final=True)
    plaintext = AESGCM(key).decrypt(bytes(12), frame[1:], REQUEST_DIGEST + bytes(4) + b"\1")
    assert plaintext == b"\1\0\0\2hi" + bytes(FRAME_PLAINTEXT_BYTES - 6)


def test_text_after_the_receipt() -> None:
    """
    Text after the receipt has begun is refused, though a dummy is not.
    """
    sealer, opener = make_sealer(), make_opener()
    for frame in (sealer.seal_receipt(b"part"), sealer.seal_text()):
        assert opener.open(*parse_message(frame)) == []
    with pytest.raises(ProtocolError, match="after the receipt"):
        opener.open(*parse_message(sealer.seal_text(b"more")))


def test_control_tokens_are_no_text() -> None:
    """
    A control token comes as one, beside text that spells it, and in its place.
    """
    parts = [
        (PartKind.TEXT, "<tool_call>"),
        (PartKind.CONTROL, "<tool_call>"),
        (PartKind.TEXT, "a"),
    ]
    frame = make_sealer().seal(b"".join(encode_part(kind, text.encode()) for kind, text in parts))
    assert make_opener().open(*parse_message(frame)) == [
        Piece("<tool_call>"),
        Piece("<tool_call>", control=True),
        Piece("a"),
    ]


def test_frames_with_anything_are_equal_in_length() -> None:
    """
    What a frame holds, and for how many answers, does not show.
    """
    sealer = make_sealer()
    held = [
        b"",
        encode_part(PartKind.CONTROL, b"<|channel|>"),
        encode_part(PartKind.LOGPROBS, b"\0\1\0"),
        b"".join(encode_part(PartKind.TEXT, b"a" * 60, index) for index in range(MAX_ANSWERS)),
    ]
    assert {len(sealer.seal(parts)) for parts in held} == {1 + SEALED_FRAME_BYTES}


def test_several_answers() -> None:
    """
    Each of several answers keeps its own characters and its own log-probabilities.
    """
    bear, entry = "🐻".encode(), cbor.encode([b"a", -1_500_000, [[b"b", -2_000_000]]])
    told = len(entry).to_bytes(2) + entry
    opener, sealer = make_opener(), make_sealer()
    pieces = []
    for index, data in ((0, bear[:2]), (3, bear[:3]), (0, bear[2:]), (3, bear[3:])):
        frame = sealer.seal(encode_part(PartKind.TEXT, data, index))
        pieces += opener.open(*parse_message(frame))
    assert pieces == [Piece("🐻", 0), Piece("🐻", 3)]
    entries = []
    for index, data in ((0, told + told[:3]), (3, told), (0, told[3:])):
        frame = sealer.seal(encode_part(PartKind.LOGPROBS, data, index))
        entries += opener.open(*parse_message(frame))
    one = TokenLogprob(b"a", -1.5, (TokenLogprob(b"b", -2.0),))
    assert entries == [Piece("", index, logprobs=(one,)) for index in (0, 3, 0)]
    assert opener.entries == 3


PIECES = st.builds(
    Piece, st.text(max_size=700), st.integers(0, 2)
) | st.builds(
    lambda text, index: Piece(text, index, control=True),
    st.text(min_size=1, max_size=60),
    st.integers(0, 2),
) | st.builds(
    lambda told, index: Piece("", index, logprobs=told),
    st.tuples(st.builds(
        TokenLogprob,
        st.binary(max_size=20),
        st.integers(-10**9, 0).map(lambda value: value / 10**6),
        st.tuples(st.builds(TokenLogprob, st.binary(max_size=400), st.just(-2.5))),
    )),
    st.integers(0, 2),
)  # fmt: skip


def joined(pieces: list[Piece]) -> list[tuple[str | TokenLogprob, bool]]:
    """Give what was made as no cut changes it: characters, control tokens and entries."""
    made = list[tuple[str | TokenLogprob, bool]]()
    for piece in pieces:
        made += [(piece.text, True)] if piece.control else [(c, False) for c in piece.text]
        made += [(told, False) for told in piece.logprobs]
    return made


@given(st.lists(PIECES, max_size=40), st.integers(1, 9))
def test_pieces_arrive(pieces: list[Piece], every: int) -> None:
    """
    However pieces of several answers fill frames, each answer gets its own again, in order; and
    they take no more frames than was said.
    """
    queue, sealer, opener = PartQueue(), make_sealer(), make_opener()
    opened: list[Piece] = []
    for number, piece in enumerate(pieces):
        queue.put(piece)
        if number % every == 0:
            opened += opener.open(*parse_message(sealer.seal(queue.take())))
    most = sealer.frames + queue.frames
    while queue:
        opened += opener.open(*parse_message(sealer.seal(queue.take())))
    assert queue.take() == b""
    assert queue.frames == 1
    assert sealer.frames <= most
    for index in range(3):
        sent, got = ([p for p in some if p.index == index] for some in (pieces, opened))
        told = [one for one in joined(got) if isinstance(one[0], TokenLogprob)]
        assert told == [one for one in joined(sent) if isinstance(one[0], TokenLogprob)]
        texts = [one for one in joined(got) if isinstance(one[0], str)]
        assert texts == [one for one in joined(sent) if isinstance(one[0], str)]


@pytest.mark.parametrize(
    ("value", "expected"), [(0.0, 0), (1e-9, 0), (-1.5, -1_500_000), (-float("inf"), -(10**9))]
)
def test_log_probabilities_are_millionths(value: float, expected: int) -> None:
    """
    A logarithm travels in millionths, between 0 and the least one.
    """
    entry = encode_logprob(TokenLogprob(b"a", value))
    assert cbor.decode(entry[2:]) == [b"a", expected, []]


@pytest.mark.parametrize(
    ("options", "kind", "index"),
    [
        (Options(n=2), PartKind.TEXT, 2),
        (Options(), PartKind.CONTROL, 1),
        (Options(), PartKind.LOGPROBS, 0),
        (Options(logprobs=0), PartKind.LOGPROBS, 0),
        (Options(logprobs=2), PartKind.LOGPROBS, 0),
    ],
    ids=["index", "control", "untold", "none", "few"],
)
def test_only_what_was_asked_for(options: Options, kind: PartKind, index: int) -> None:
    """
    Another answer than were asked for, or other log-probabilities, are refused.
    """
    entry = encode_logprob(TokenLogprob(b"a", -1.0, (TokenLogprob(b"a", -1.0),)))
    data = entry if kind is PartKind.LOGPROBS else b"a"
    frame = make_sealer().seal(encode_part(kind, data, index))
    with pytest.raises(ProtocolError, match="asked for"):
        make_opener(options=options).open(*parse_message(frame))


@pytest.mark.parametrize("text", ["", "é", "a é"])
@pytest.mark.parametrize("kind", [PartKind.CONTROL, PartKind.RECEIPT])
def test_inside_a_character(kind: PartKind, text: str) -> None:
    """
    Neither a control token nor the receipt comes inside a character.
    """
    opener, sealer = make_opener(), make_sealer()
    opener.open(*parse_message(sealer.seal_text(text.encode())))
    opener.open(*parse_message(sealer.seal_text("é".encode()[:1])))
    with pytest.raises(ProtocolError, match="not UTF-8"):
        opener.open(*parse_message(sealer.seal(encode_part(kind, b"a"))))


def test_place() -> None:
    """
    A place is told without text, and the last one told holds; one beyond two bytes is capped.
    """
    sealer, opener = make_sealer(), make_opener()
    assert opener.place is None
    for place, told in ((3, 3), (2**20, 65_535), (0, 0)):
        assert opener.open(*parse_message(sealer.seal_place(place))) == []
        assert opener.place == told
    opener.open(*parse_message(sealer.seal_receipt(b"part")))
    with pytest.raises(ProtocolError):
        opener.open(*parse_message(sealer.seal_place(1)))


def test_final_without_a_receipt() -> None:
    """
    A final frame alone makes no answer whole.
    """
    opener = make_opener()
    opener.open(*parse_message(make_sealer().seal_text(b"all", final=True)))
    assert opener.finished
    with pytest.raises(ProtocolError, match="no receipt"):
        opener.finish()


@pytest.mark.parametrize("text", [b"\xff", b"a\xc3(", "\ud800".encode("utf-8", "surrogatepass")])
def test_other_than_utf8(text: bytes) -> None:
    """
    Text that is not UTF-8 is refused.
    """
    with pytest.raises(ProtocolError, match="not UTF-8"):
        open_frames(seal_answer(text))


def test_text_that_ends_inside_a_character() -> None:
    """
    A character cut off by the receipt is refused.
    """
    with pytest.raises(ProtocolError, match="not UTF-8"):
        open_frames(seal_answer("é".encode()[:1]))


@pytest.mark.parametrize(
    "plaintext",
    [
        b"\4\0\0\1\0" + bytes(1019),
        b"\6\0\0\1a" + bytes(1019),
        b"\1\x10\0\1a" + bytes(1019),
        b"\1\0\0\0" + bytes(1019) + b"\1",
        b"\1\0\3\xfd" + bytes(1020),
        b"\1\0\xff\xff" + bytes(1020),
        bytes(1023) + b"\1",
        b"\1\0\0\1ab" + bytes(1018),
        bytes(1020) + b"\1\0\0",
        bytes(1023),
        bytes(1025),
        b"",
    ],
    ids=[
        "place",
        "type",
        "index",
        "nothing",
        "length",
        "longest",
        "last",
        "after",
        "head",
        "short",
        "long",
        "empty",
    ],
)
def test_malformed_frame(plaintext: bytes) -> None:
    """
    A frame that opens and is not of SPEC.md section 6.2 is refused.
    """
    sealer = make_sealer()
    nonce, aad = sealer.position(final=False)
    body = sealer.aead.encrypt(nonce, plaintext, aad)
    with pytest.raises(ProtocolError):
        make_opener().open(Kind.ANSWER_FRAME, body)


def test_header() -> None:
    """
    A header is a wrapped key of 1 to 6,144 bytes.
    """
    for size in (1, MAX_WRAPPED_KEY_BYTES):
        assert parse_header(parse_message(encode_header(bytes(size)))[1]) == bytes(size)
    for size in (0, MAX_WRAPPED_KEY_BYTES + 1):
        with pytest.raises(ProtocolError, match="wrapped answer key"):
            parse_header(bytes(size))


@given(count=st.integers(0, FRAME_COUNT_BUCKETS[-1]))
def test_round_up(count: int) -> None:
    """
    A count is rounded up to the next of 32, 48, 64, 96 … 12,288: never by more than half.
    """
    bucket = round_up_frames(count)
    assert bucket in FRAME_COUNT_BUCKETS
    assert count <= bucket <= max(32, count * 3 // 2)
    assert FRAME_COUNT_BUCKETS[:6] == (32, 48, 64, 96, 128, 192)
    assert FRAME_COUNT_BUCKETS[-1] == 12_288


def test_no_bucket_is_larger() -> None:
    """
    More frames than the largest bucket are none.
    """
    with pytest.raises(ProtocolError, match="fits no bucket"):
        round_up_frames(FRAME_COUNT_BUCKETS[-1] + 1)


def error_body(error: AppError) -> bytes:
    """Seal *error* and give the body of its message."""
    sealed = seal_error(error, answer_secret=ANSWER_SECRET, request_digest=REQUEST_DIGEST)
    kind, body = parse_message(sealed)
    assert kind is Kind.SEALED_ERROR
    return body


def open_sealed(
    body: bytes, *, answer_secret: bytes = ANSWER_SECRET, request_digest: bytes = REQUEST_DIGEST
) -> AppError:
    """Open an error as the sample's asker, or as another."""
    return open_error(body, answer_secret=answer_secret, request_digest=request_digest)


@pytest.mark.parametrize("code", sorted(WIRE_ERRORS))
def test_sealed_error(code: str) -> None:
    """
    Each code of the wire comes back as its error, with its numbers and without its message.
    """
    error = open_sealed(error_body(WIRE_ERRORS[code]("CANARY", numbers=(7, -3))))
    assert type(error) is WIRE_ERRORS[code]
    assert error.numbers == (7, -3)
    assert "CANARY" not in str(error)


def test_inner_error() -> None:
    """
    A code that is none of the wire's arrives as `internal`.
    """
    assert type(open_sealed(error_body(NsmError("CANARY")))) is AppError


def test_sealed_error_is_the_asker_s() -> None:
    """
    Another secret or another request does not open it.
    """
    body = error_body(TooLongError(numbers=(9, 8)))
    with pytest.raises(EnvelopeError):
        open_sealed(body, answer_secret=OTHER)
    with pytest.raises(EnvelopeError):
        open_sealed(body, request_digest=OTHER)


def test_every_byte_of_an_error_counts() -> None:
    """
    No byte of a sealed error can be altered.
    """
    body = error_body(KmsError())
    for altered in flips(body, every_bit_at=(0, 1, -1)):
        with pytest.raises(EnvelopeError):
            open_sealed(altered)


@given(body=st.binary(max_size=1100))
def test_any_bytes_for_an_error(body: bytes) -> None:
    """
    Any bytes for a sealed error are refused as what does not open.
    """
    with pytest.raises(EnvelopeError):
        open_sealed(body)


def test_frames_are_no_errors() -> None:
    """
    A frame does not open as an error, nor an error as a frame.
    """
    _, frame = parse_message(seal_answer(b"a")[0])
    with pytest.raises(EnvelopeError):
        open_sealed(frame)
    with pytest.raises(EnvelopeError):
        make_opener().open(Kind.ANSWER_FRAME, error_body(KmsError()))


@pytest.mark.parametrize(
    "block",
    [
        pad(cbor.encode(["attestation", []]), 1024),
        pad(cbor.encode(["no such code", []]), 1024),
        pad(cbor.encode(["kms", ["text"]]), 1024),
        pad(cbor.encode(["kms", [True]]), 1024),
        pad(cbor.encode(["kms", []]), 1023),
        pad(cbor.encode(["kms", []]), 4096),
        pad(cbor.encode(["kms", [], 1]), 1024),
        pad(cbor.encode(["kms", 1]), 1024),
        pad(cbor.encode("kms"), 1024),
        pad(b"\xff", 1024),
        b"\0\0\1\0",
        b"",
    ],
    ids=[
        "inner",
        "unknown",
        "text",
        "boolean",
        "short",
        "long",
        "more",
        "number",
        "bare",
        "cbor",
        "block",
        "empty",
    ],
)
def test_malformed_error(block: bytes) -> None:
    """
    What opens and is no code of the wire with integers is refused.
    """
    aead = answer.error_aead(ANSWER_SECRET, REQUEST_DIGEST)
    with pytest.raises(ProtocolError):
        open_sealed(aead.encrypt(bytes(12), block, REQUEST_DIGEST))


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((15, 16), "cannot honour logprobs, n"),
        ((0,), "cannot honour messages"),
        ((99,), "answered"),
    ],
)
def test_unsupported_options_are_named(numbers: tuple[int, ...], words: str) -> None:
    """
    An error about options names them; a number that is none of theirs names nothing.
    """
    error = UnsupportedError(numbers=numbers)
    sealed = seal_error(error, answer_secret=ANSWER_SECRET, request_digest=REQUEST_DIGEST)
    assert words in str(open_sealed(sealed[1:]))
