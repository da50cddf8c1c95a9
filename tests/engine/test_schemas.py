import json
import os
from collections.abc import Iterator
from dataclasses import dataclass

import jsonschema
import pytest
import tokenizers

from app.enclave.engine.constraint import Constraint, Constraints
from app.enclave.engine.forms import find_forms
from app.enclave.engine.grammar import write_grammar
from app.enclave.engine.spelling import Speller
from app.enclave.engine.template import ChatTemplate
from app.enclave.engine.vocabulary import make_vocabulary
from app.protocol.asker.schema import check_schema
from app.protocol.schema import read_schema
from tests.engine.real_tokenizers import FOLDER, read_family
from tests.schemas import Json, write_answer

pytestmark = pytest.mark.timeout(300)

# Of bytes with marks of calls that are added tokens, and of pieces that fall back to bytes.
FAMILIES = ("qwen3", "mistral_nemo", "llama2")
FORM: Json = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 20},
        "town": {"type": "string", "pattern": "^[A-ZÄÖÜ][a-zäöüß]{2,10}$"},
        "born": {"type": "string", "format": "date"},
        "kind": {"enum": ["new", "known", "näher bekannt", 7, None]},
        "visits": {"type": "integer", "minimum": 0, "maximum": 120},
        "insured": {"type": "boolean"},
        "notes": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 3},
    },
    "required": ["name", "town", "born", "kind", "visits", "insured", "notes"],
    "additionalProperties": False,
}
ANSWERS = 8


@dataclass(frozen=True, slots=True)
class Held:
    """A family's tokens, under grammars."""

    tokenizer: tokenizers.Tokenizer
    constraints: Constraints
    controls: dict[int, str]
    ends: frozenset[int]
    template: ChatTemplate

    def write(self, constraint: Constraint, seed: int) -> str | None:
        """Write an answer of tokens at random."""
        return write_answer(
            constraint,
            self.tokenizer,
            ends=self.ends,
            seed=seed,
            most_tokens=400,
            controls=self.controls,
        )


@pytest.fixture(params=FAMILIES, scope="module")
def held(request: pytest.FixtureRequest) -> Iterator[Held]:
    """Each family's tokens, as the enclave has them."""
    if not FOLDER.is_dir():
        if os.environ.get("CI"):
            pytest.fail("no real tokenizers, and CI never goes without them")
        pytest.skip("no real tokenizers: bin/setup-node --fetch tests/tokenizers")
    family = read_family(request.param)
    tokenizer = tokenizers.Tokenizer.from_file(str(family.tokenizer))
    added = tokenizer.get_added_tokens_decoder()
    controls = {
        number: token.content
        for number, token in added.items()
        if token.content.strip() and (token.special or token.content in family.template)
    }
    end = tokenizer.token_to_id(family.names["eos_token"])
    assert end is not None
    vocabulary = make_vocabulary(
        Speller(tokenizer),
        size=tokenizer.get_vocab_size() + 300,
        controls=controls,
        ends=[end],
    )
    constraints = Constraints(vocabulary)
    template = ChatTemplate(family.template, family.names)
    yield Held(tokenizer, constraints, controls, frozenset({end}), template)
    constraints.close()


def test_answers_validate(held: Held) -> None:
    """
    Tokens at random, of a real vocabulary: each answer that ends is JSON that validates.
    """
    forms = find_forms(held.template, held.controls, ends=held.ends, thinking="auto")
    schema = read_schema(check_schema(json.dumps(FORM)))
    grammar = write_grammar(forms, schema=schema, parameters={}, many=False)
    ended = 0
    for seed in range(ANSWERS):
        constraint = held.constraints.open(grammar.text)
        text = held.write(constraint, seed)
        constraint.end()
        if text is not None:
            ended += 1
            jsonschema.validate(json.loads(text), FORM)
    assert ended > ANSWERS / 2


def test_calls(held: Held) -> None:
    """
    Tokens at random under a required call: what ends is a call in the family's form, whose marks
    are its control tokens and whose arguments are of the tool's schema.
    """
    forms = find_forms(held.template, held.controls, ends=held.ends, thinking="auto")
    if forms.call is None:
        assert not forms.shows_tools
        return
    grammar = write_grammar(
        forms, schema=None, parameters={"look_up": read_schema(json.dumps(FORM))}, many=False
    )
    for seed in range(ANSWERS):
        constraint = held.constraints.open(grammar.text)
        text = held.write(constraint, seed)
        constraint.end()
        if text is None:
            continue
        begin, end = text.index('{"name": "look_up"'), text.rindex("}")
        jsonschema.validate(json.loads(text[begin : end + 1])["arguments"], FORM)
