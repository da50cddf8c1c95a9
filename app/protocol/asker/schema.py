"""
A schema as it is sent: checked, and said so that every dialect of patterns means the same.
"""

import json

from app.protocol.asker.pattern import translate_pattern
from app.protocol.schema import read_schema


def check_schema(text: str, *, option: str = "schema") -> str:
    """
    Check the schema *text*, and give it as it is to be sent.

    Raises:
        QuestionError: It is no JSON, no schema, or over a limit.

        UnsupportedError: It has a keyword or a pattern that is not served; the message says where.
    """
    schema = read_schema(text, option=option, pattern=translate_pattern)
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
