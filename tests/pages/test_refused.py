"""What the page shows when somebody cheats: which step failed, what that means, what to do."""

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import expect

from app.chatbot.session.session import Session
from app.protocol.errors import AttestationError, UnavailableError, UnknownKeyError
from app.protocol.messages import Kind
from app.protocol.releases import Measurements
from local.signers.nsm import SoftwareNsm
from local.signers.pki import make_root
from local.twin.twin import Twin
from tests.hostile import HostileParent, Messages, alter, substitute_document
from tests.pages.conftest import PHONE, Opening, OpenPage

Rewrite = Callable[[bytes, bytes], bytes]
QUESTION = "How do I request vacation?"


def another_root(twin: Twin) -> Rewrite:
    foreign = make_root(now=datetime.now(UTC))
    return substitute_document(SoftwareNsm(foreign, twin.release.measurements))


def another_image(twin: Twin) -> Rewrite:
    approved = twin.release.measurements
    other = Measurements(b"\x01" * 48, approved.pcr1, approved.pcr2)
    return substitute_document(SoftwareNsm(twin.nsm.root, other))


def debug_mode(twin: Twin) -> Rewrite:
    return substitute_document(SoftwareNsm(twin.nsm.root, twin.release.measurements, debug=True))


def stale(twin: Twin) -> Rewrite:
    old = timedelta(seconds=-301)
    return substitute_document(
        SoftwareNsm(twin.nsm.root, twin.release.measurements, timestamp_offset=old)
    )


def replayed(twin: Twin) -> Rewrite:
    transport = twin.transport()
    recorded = transport.get_attestation(secrets.token_bytes(32))
    transport.close()
    return lambda _, __: recorded


def altered(twin: Twin) -> Rewrite:
    del twin
    return lambda _, body: body.replace(b"enclave-llm-demo", b"enclave-llm-dem0")


GOOD, BAD = "rgb(15, 100, 73)", "rgb(160, 42, 34)"  # as style.css has them, in daylight
SIGNED = ["Chain", "Signature"]
CURRENT = [*SIGNED, "Freshness", "Not debug"]
CASES = [
    (another_root, "This enclave is not trusted", "Chain", []),
    (
        another_image,
        "This enclave runs something else",
        "Image",
        CURRENT,
    ),
    (debug_mode, "This enclave is not trusted", "Not debug", SIGNED),
    (stale, "The clocks disagree", "Freshness", SIGNED),
    (replayed, "This enclave is not trusted", "Freshness", [*SIGNED, "Not debug"]),
    (
        altered,
        "This enclave is not trusted",
        "Manifest",
        [*CURRENT, "Image"],
    ),
]


def steps(opened: OpenPage, outcome: str) -> list[str]:
    """Give the steps that the proof shows with *outcome*."""
    shown = opened.page.locator(f"#steps > [data-outcome={outcome}] .what").all_text_contents()
    return [text.rpartition(",")[0] for text in shown]


def colours(opened: OpenPage, outcome: str) -> set[str]:
    """Give the colours in which the marks of steps with *outcome* are drawn."""
    marks = opened.page.locator(f"#steps > [data-outcome={outcome}] > .mark path")
    return set(marks.evaluate_all("(marks) => marks.map((one) => getComputedStyle(one).stroke)"))


def expect_no_way_to_ask(opened: OpenPage) -> None:
    """Require that there is nothing to type into, and no session behind it."""
    expect(opened.page.locator("#text")).to_be_disabled()
    expect(opened.page.get_by_role("button", name="Ask")).to_be_disabled()
    assert opened.visit._session is None


@pytest.mark.parametrize(
    ("cheat", "title", "failed", "passed"), CASES, ids=[case[0].__name__ for case in CASES]
)
def test_a_parent_that_cheats_is_refused(
    opening: Opening,
    twin: Twin,
    cheat: Callable[[Twin], Rewrite],
    title: str,
    failed: str,
    passed: list[str],
) -> None:
    """The step that failed is named, and those before it; nothing can be typed or sent."""
    parent = HostileParent(twin, rewrite_attestation=cheat(twin))
    with opening(parent.connect) as opened:
        opened.expect_mark("Not trusted")
        refusal = opened.page.locator("#refusal")
        expect(refusal.get_by_role("heading")).to_have_text(title)
        for part in ("What happened", "What it means", "What to do"):
            expect(refusal).to_contain_text(part)
        assert steps(opened, "failed") == [failed]
        assert steps(opened, "passed") == passed
        said = f"{len(passed)} of 7 checks passed"
        expect(opened.page.locator("#checks > summary")).to_have_text(said)
        assert colours(opened, "passed") <= {GOOD}
        assert colours(opened, "failed") == {BAD}
        expect(refusal).to_be_focused()
        expect_no_way_to_ask(opened)
        opened.keep(f"refused-{cheat.__name__.replace('_', '-')}")
    assert parent.posted == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [(1440, 900), PHONE], ids=["desktop", "phone"])
def test_nobody_is_kept_out_of_a_refusal(
    opening: Opening, twin: Twin, size: tuple[int, int], *, dark: bool
) -> None:
    """axe-core finds nothing on it either, with the program's own words open."""
    parent = HostileParent(twin, rewrite_attestation=another_image(twin))
    with opening(parent.connect, size=size, dark=dark) as opened:
        opened.expect_mark("Not trusted")
        opened.page.locator("#refusal summary").click()
        expect(opened.page.locator("#refusal dd").last).to_contain_text("PCR0 is 01010101")
        assert opened.find_barriers() == []
        opened.keep(f"refusal-{size[0]}-{'dark' if dark else 'light'}")


def end_early(messages: Messages) -> Messages:
    return messages[:4]


@pytest.mark.parametrize(
    ("rewrite", "title"),
    [(alter, "Bytes were altered on the way"), (end_early, "The answer was cut off")],
)
def test_an_answer_that_is_tampered_with_is_told(
    opening: Opening, twin: Twin, rewrite: Callable[[Messages], Messages], title: str
) -> None:
    """It is not whole, not in the conversation, and has no receipt; asking again is possible."""
    parent = HostileParent(twin)
    with opening(parent.connect) as opened:
        opened.expect_mark("Demo")
        parent.rewrite_answer = rewrite
        opened.ask(QUESTION)
        opened.expect_outcome("^Not whole, and not in the conversation$")
        expect(opened.page.locator(".failure h3")).to_have_text(title)
        expect(opened.page.locator("#receipt")).to_be_hidden()
        assert opened.session.history == ()
        assert opened.find_barriers() == []
        opened.keep(f"answer-{rewrite.__name__.replace('_', '-')}")
        parent.rewrite_answer = lambda messages: messages
        opened.ask(QUESTION)
        opened.expect_outcome("^Receipt verified")


def test_a_receipt_that_does_not_verify_is_told(
    opened: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text is there and called unreliable."""

    def fail(*_: object, **__: object) -> None:
        raise AttestationError("another image signed the receipt than was asked")

    monkeypatch.setattr("app.chatbot.session.sealed.verify_receipt", fail)
    opened.ask(QUESTION)
    expect(opened.page.locator(".failure h3")).to_have_text("The receipt does not verify")
    expect(opened.page.locator("#receipt")).to_be_hidden()
    opened.expect_mark("Not verified")  # until the next question has it verified again
    expect(opened.page.locator("#checks > summary")).to_have_text("0 of 7 checks passed")
    monkeypatch.undo()
    opened.ask(QUESTION)
    opened.expect_outcome("^Receipt verified")
    opened.expect_mark("Demo")


def test_who_does_not_answer_is_asked_again(opening: Opening, twin: Twin) -> None:
    """Nobody there is no distrust; when the server is back, Verify again goes on."""
    down = [True]

    def connect() -> Session:
        if down.pop() if down else False:
            raise UnavailableError("no connection to the parent")
        return twin.connect()

    with opening(connect) as opened:
        opened.expect_mark("Not verified")
        expect(opened.page.locator("#refusal")).to_contain_text("Nobody answers")
        assert steps(opened, "passed") == steps(opened, "failed") == []
        expect_no_way_to_ask(opened)
        opened.page.get_by_role("button", name="Verify again").click()
        opened.expect_mark("Demo")
        opened.ask(QUESTION)
        opened.expect_outcome("^Receipt verified")


def let_the_proof_age(opened: OpenPage) -> Session:
    """Make the page's session verify again before the next question."""
    session = opened.session
    verified = session.enclave
    object.__setattr__(verified, "verified_at", verified.verified_at - timedelta(seconds=301))
    return session


def test_an_enclave_that_is_verified_anew_shows_its_new_proof(opened: OpenPage) -> None:
    """What stands in the proof is what the last answer was asked under."""
    session = let_the_proof_age(opened)
    before = session.enclave.attestation.nonce
    opened.ask(QUESTION)
    opened.expect_outcome("^Receipt verified")
    nonce = session.enclave.attestation.nonce
    assert nonce is not None
    assert nonce != before
    opened.page.locator("#checks > summary").click()
    opened.page.locator("#steps summary", has_text="Freshness").click()
    expect(opened.page.locator("#steps dd:visible").first).to_have_text(nonce.hex())


def test_an_enclave_that_changes_under_way_is_refused(opening: Opening, twin: Twin) -> None:
    """Verification that fails at a later question tells so; the question is not sent."""
    parent = HostileParent(twin)
    with opening(parent.connect) as opened:
        opened.expect_mark("Demo")
        parent.rewrite_attestation = another_image(twin)
        let_the_proof_age(opened)
        opened.ask(QUESTION)
        expect(opened.page.locator(".failure h3")).to_have_text("This enclave runs something else")
        opened.expect_mark("Not trusted")
        assert steps(opened, "failed") == ["Image"]
        assert steps(opened, "passed") == CURRENT
        expect(opened.page.locator("#exchanges .failure")).to_contain_text("has left this machine")
        assert parent.posted == []
        parent.rewrite_attestation = lambda _, body: body
        opened.ask(QUESTION)
        opened.expect_outcome("^Receipt verified")
        opened.expect_mark("Demo")
        assert steps(opened, "failed") == []


def test_an_enclave_that_changes_after_sending_is_told_so(opening: Opening, twin: Twin) -> None:
    """Where a sealed copy had left before verification failed, nothing else is said."""
    parent = HostileParent(twin)
    with opening(parent.connect) as opened:
        opened.expect_mark("Demo")
        parent.rewrite_attestation = another_image(twin)
        parent.rewrite_answer = lambda _: [(Kind.HINT, UnknownKeyError.code.encode())]
        opened.ask(QUESTION)
        failure = opened.page.locator("#exchanges .failure")
        expect(failure).to_contain_text("only a copy sealed to the enclave verified before")
        expect(failure).not_to_contain_text("has left this machine")
        assert steps(opened, "failed") == ["Image"]
        assert len(parent.posted) == 1
