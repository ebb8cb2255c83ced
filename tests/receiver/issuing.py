"""Certificates as somebody else's authority issues them."""

from __future__ import annotations

import datetime as dt
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec


def issue(
    subject: str,
    *,
    signer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None,
    ca: bool,
    uri: str = "",
    host: str = "",
    path_length: int | None = None,
    permitted: str = "",
    **life: Any,
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Issue a certificate as somebody else's authority would: only what it must have."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(signer[0] if signer else name)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - life.get("age", dt.timedelta(hours=1)))
    builder = builder.not_valid_after(now + life.get("lifetime", dt.timedelta(hours=1)))
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
    if permitted:
        subtrees = [x509.DNSName(permitted)]
        constraints = x509.NameConstraints(permitted_subtrees=subtrees, excluded_subtrees=None)
        builder = builder.add_extension(constraints, critical=True)
    if usages := life.get("usages"):
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if uri:
        hosts = [x509.DNSName(host)] if host else []
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), *hosts])
        usage = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = builder.add_extension(names, critical=False).add_extension(usage, critical=False)
    return builder.sign(signer[1] if signer else key, hashes.SHA256()), key
