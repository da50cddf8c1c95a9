"""
What `import enclave_llm` gives.
"""

from app.chatbot.config import ChatbotConfig
from app.chatbot.documents.document import Document
from app.chatbot.documents.reader import read_document, read_file
from app.chatbot.errors import (
    CertificateError,
    DocumentError,
    FormError,
    LoginError,
    SettingsError,
)
from app.chatbot.evidence.advice import advise
from app.chatbot.evidence.proof import Step, prove_answer
from app.chatbot.library.asynchronous import AsyncAnswer, AsyncSession, connect_async
from app.chatbot.library.opening import connect
from app.chatbot.library.session import Session
from app.chatbot.library.tools import Tools
from app.chatbot.reading.parts import Arguments, Call, Reasoning, Text, Tokens
from app.chatbot.session.exchange import Answer, Evidence
from app.protocol.errors import (
    AppError,
    AttestationError,
    BusyError,
    ConfigError,
    DeadlineError,
    DeniedError,
    EnvelopeError,
    KmsError,
    PcrMismatchError,
    ProtocolError,
    QuestionError,
    ReceiptError,
    TooLongError,
    TruncatedError,
    UnavailableError,
    UnsupportedError,
    VersionError,
)
from app.protocol.question import Message, Options, ToolCall
from app.protocol.receipt import Receipt

__all__ = [
    "Answer",
    "AppError",
    "Arguments",
    "AsyncAnswer",
    "AsyncSession",
    "AttestationError",
    "BusyError",
    "Call",
    "CertificateError",
    "ChatbotConfig",
    "ConfigError",
    "DeadlineError",
    "DeniedError",
    "Document",
    "DocumentError",
    "EnvelopeError",
    "Evidence",
    "FormError",
    "KmsError",
    "LoginError",
    "Message",
    "Options",
    "PcrMismatchError",
    "ProtocolError",
    "QuestionError",
    "Reasoning",
    "Receipt",
    "ReceiptError",
    "Session",
    "SettingsError",
    "Step",
    "Text",
    "Tokens",
    "TooLongError",
    "ToolCall",
    "Tools",
    "TruncatedError",
    "UnavailableError",
    "UnsupportedError",
    "VersionError",
    "advise",
    "connect",
    "connect_async",
    "prove_answer",
    "read_document",
    "read_file",
]
