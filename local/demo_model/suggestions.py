"""
Suggestions: the questions that the demo, its page and the docs put before people.

Each is a wording of the corpus, so that the demo model knows its answer. A test holds the model to
it, and another finds any question in the docs that is not one of these.
"""

from typing import Final

SUGGESTIONS: Final = (
    "I can't access my email",
    "Does the dental plan cover cleanings?",
    "How do I request vacation?",
)
# What the demo asks unless told otherwise: with a name in it, so that there is something to hide.
DEMO_QUESTION: Final = f"{SUGGESTIONS[0]}. My user name is jdoe."
