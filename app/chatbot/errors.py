"""
Errors of the programs on a person's own machine, beside those of `app.protocol.errors`:

* DocumentError       a file cannot be read as a document
* ConfigError
  + SettingsError     AWS's settings on this machine are refused by AWS's library
  + LoginError        there is no login at AWS here, or it has expired
  + NoQuestionError   nothing was asked
  + OutputError       what is to be shown cannot be written
  + SchemaError       the schema that an answer is to have is none that can be asked for
    - SchemaFileError   the file that it is in cannot be read
* UnavailableError
  + CertificateError  TLS with the other end fails
* ProtocolError
  + FormError         an answer is not of the form that was asked for
* BusyError
  + FullError         no room in the program that was asked, whatever the enclave has
"""

from app.protocol.errors import (
    AppError,
    BusyError,
    ConfigError,
    ProtocolError,
    UnavailableError,
)


class DocumentError(AppError):
    """A file cannot be read as a document; the message says why, and what to do."""

    code = "document"


class SettingsError(ConfigError):
    """AWS's settings on this machine are refused by AWS's library."""


class LoginError(ConfigError):
    """There is no login at AWS here, or it has expired."""

    code = "login"


class NoQuestionError(ConfigError):
    """Nothing was asked: what was typed or piped in is empty."""


class OutputError(ConfigError):
    """What is to be shown cannot be written, such as on a full disk."""


class SchemaError(ConfigError):
    """The schema that an answer is to have is none that can be asked for; says where."""

    code = "schema"


class SchemaFileError(SchemaError):
    """The file that the schema is in cannot be read; says why."""

    code = "config"


class CertificateError(UnavailableError):
    """TLS with the other end fails: its certificate does not verify, or it speaks no TLS."""

    code = "certificate"


class FullError(BusyError):
    """No room for another question in the program that was asked, whatever the enclave has."""

    code = "full"


class FormError(ProtocolError):
    """An answer is not of the form that was asked for; names the places, not what stands there."""

    code = "form"
