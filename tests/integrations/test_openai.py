"""OpenAI's Python client on /v1/moderations of a running `csrm serve`."""

from __future__ import annotations

import openai
import pytest
from csrm_server import Server, Traffic


def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_moderations_allowed_text_is_not_flagged(csrm_server: Server, traffic: Traffic) -> None:
    answer = client(csrm_server).moderations.create(input=traffic.allowed)
    assert [result.flagged for result in answer.results] == [False]


def test_moderations_violating_text_is_flagged(csrm_server: Server, traffic: Traffic) -> None:
    answer = client(csrm_server).moderations.create(input=[traffic.allowed, traffic.violating])
    assert [result.flagged for result in answer.results] == [False, True]
    scores = answer.results[1].category_scores.model_dump()
    assert scores["Harassment"] > 0.5


def test_moderations_unknown_is_an_error_of_the_client(
    late_server: Server, traffic: Traffic
) -> None:
    with pytest.raises(openai.InternalServerError, match="the deadline passed"):
        client(late_server).moderations.create(input=traffic.allowed)
