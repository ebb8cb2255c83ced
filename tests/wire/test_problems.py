from __future__ import annotations

import json
import re

import pytest

from openclaw_exporter.errors import (
    FieldProblem,
    FieldsError,
    IdentityError,
    MalformedBodyError,
    TokenError,
    WireError,
)
from openclaw_exporter.wire.problems import (
    CASES,
    CONTENT_TYPE,
    TYPE_PREFIX,
    encode_problem,
    problem,
    problem_for,
)

CONTRACT = {
    400: {"malformed-json", "malformed-utf8", "malformed-number", "malformed-nesting"},
    401: {f"token-{end}" for end in (
        "missing", "malformed", "expired", "not-yet-valid", "signature", "algorithm", "key-unknown", "header",
        "claims", "issuer", "audience", "lifetime", "binding", "too-large")},
    403: {"identity-mismatch", "role-not-allowed", "node-denied"},
    404: {"not-found"},
    405: {"method-not-allowed"},
    408: {"request-timeout"},
    409: {"key-conflict", "epoch-conflict"},
    411: {"length-required"},
    413: {"body-too-large"},
    415: {"content-encoding", "media-type"},
    422: {"invalid-fields", "epoch-ahead", "heartbeat-ahead"},
    429: {"rate-limited"},
    431: {"headers-too-large"},
    500: {"internal-error"},
    503: {"store-unavailable", "shedding"},
}  # fmt: skip


@pytest.mark.parametrize(("status", "slugs"), CONTRACT.items())
def test_every_case_of_the_contract_has_a_type_of_its_own(status: int, slugs: set[str]) -> None:
    assert slugs <= {slug for slug, case in CASES.items() if case.status == status}


@pytest.mark.parametrize("slug", CASES)
def test_a_slug_is_a_name_and_a_title_is_a_sentence(slug: str) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", slug)
    assert 5 <= len(CASES[slug].title) <= 70
    assert not CASES[slug].title.endswith(".")


def test_no_two_cases_share_a_title() -> None:
    assert len({case.title for case in CASES.values()}) == len(CASES)


def test_fields_are_listed_one_by_one() -> None:
    error = FieldsError(
        (FieldProblem("hostname", "is required"), FieldProblem("tags[2]", "must be a string"))
    )
    assert json.loads(encode_problem(problem_for(error))) == {
        "type": "urn:openclaw:problem:invalid-fields",
        "title": "Fields break their rule",
        "status": 422,
        "errors": [
            {"field": "hostname", "message": "is required"},
            {"field": "tags[2]", "message": "must be a string"},
        ],
    }


def test_a_conflict_says_the_epoch() -> None:
    document = json.loads(encode_problem(problem("epoch-conflict", epoch=1_700_000_000_000)))
    assert (document["status"], document["epoch"]) == (409, 1_700_000_000_000)
    assert "errors" not in document


@pytest.mark.parametrize(
    "error",
    [
        MalformedBodyError("malformed-json", "the body is not JSON"),
        TokenError("token-expired", "the token has expired"),
        IdentityError("identity-mismatch", "not the same node"),
    ],
)
def test_an_error_keeps_its_slug_status_and_detail(error: WireError) -> None:
    document = problem_for(error)
    assert document.type == TYPE_PREFIX + error.slug
    assert document.status == error.status
    assert document.detail == error.detail


def test_an_error_that_the_table_does_not_know_says_its_status_alone() -> None:
    document = json.loads(encode_problem(problem_for(TokenError("invented", "secret"))))
    assert document == {"type": "about:blank", "title": "Unauthorized", "status": 401}


def test_the_media_type_is_that_of_rfc_9457() -> None:
    assert CONTENT_TYPE == "application/problem+json"
