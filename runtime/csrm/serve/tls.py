"""`Certificate`: the TLS context of the server, whose certificate is replaced while it serves.

Not: when to replace it (Service.reload). Data comes from the operator's two PEM files. A handshake
takes the certificate of its moment; connections that stand keep theirs.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from csrm.errors import BadArgument


class Certificate:
    """The certificate chain in `chain` with the private key in `key`, both PEM, the key in clear.

    TLS 1.2 and newer, with Python's choice of ciphers; clients are not asked for certificates.
    Errors: BadArgument, which never quotes a file.
    """

    def __init__(self, chain: Path, key: Path) -> None:
        self._chain = chain
        self._key = key
        self._current = self._load()
        self.context = self._load()
        self.context.sni_callback = self._choose

    def renew(self) -> None:
        """Reads the files again; on an error the old certificate stays. Errors: BadArgument."""
        self._current = self._load()

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self._chain, self._key, _refuse_password)
        except ssl.SSLError as error:
            reason = (error.reason or "not PEM").lower().replace("_", " ")
            raise BadArgument(f"the TLS certificate or its key is refused: {reason}") from None
        except OSError as error:
            raise BadArgument(
                f"the TLS certificate or its key cannot be read: {error.strerror}"
            ) from None
        return context

    def _choose(
        self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _: ssl.SSLContext
    ) -> None:
        """Called in every handshake, also in those that name no host."""
        connection.context = self._current


def _refuse_password() -> str:
    """OpenSSL would ask for it on the terminal."""
    raise BadArgument("the TLS key is encrypted; give one in clear, readable by the server only")
