"""The endpoint proposer against a server on 127.0.0.1: answers, retries, cache and secrecy."""

from __future__ import annotations

import json
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("torch")

from test_configuration_augmentation import HARMS, made

from csrm.errors import BadArgument
from csrm.train.augment.cca import ConfigurationComposer
from csrm.train.augment.configuration import change
from csrm.train.augment.endpoint import BadAnswer, Endpoint, EndpointFailed, EndpointProposer
from csrm.train.augment.proposer import Subject

KEY = "sk-very-secret-91"
TEXT = "the words of the conversation"
SUBJECT = Subject((("user", TEXT),), (), frozenset())


def category(name: str) -> dict[str, str]:
    return {"name": name, "forbid": f"No {name} here.", "allow": f"{name} is fine here."}


GOOD = json.dumps({"violated": category("Rudeness"), "harmless": category("Gambling")})


def completion(content: str) -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}}]}).encode()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, dict(self.headers), json.loads(body)))
        answers = self.server.answers
        status, answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if status == 0:  # hangs up
            self.close_connection = True
            return
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen, server.answers = [], [(200, completion(GOOD))]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def proposer_of(server, tmp_path, **more) -> EndpointProposer:
    url = f"http://127.0.0.1:{server.server_port}/v1"
    options = {"timeout_s": 5.0, "wait_s": 0.0, "key": KEY, **more}
    return EndpointProposer(Endpoint(url, "made-model", tmp_path / "cache", **options))


def propose(proposer, listed=("Spam",)):
    return proposer.propose(random.Random(0), SUBJECT, listed)


def test_propose_good_answer_gives_clauses_and_sends_what_is_needed(server, tmp_path):
    proposal = propose(proposer_of(server, tmp_path))
    assert (proposal.plus, proposal.minus) == ({"Rudeness"}, "Gambling")
    assert [clause.forbid for clause in proposal.clauses] == [
        "No Rudeness here.",
        "No Gambling here.",
    ]
    ((path, headers, body),) = server.seen
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert body["model"] == "made-model"
    assert json.loads(body["messages"][1]["content"]) == {
        "conversation": [{"role": "user", "content": TEXT}],
        "listed": ["Spam"],
    }


def test_propose_second_time_asks_the_cache(server, tmp_path):
    first = propose(proposer_of(server, tmp_path))
    server.answers = [(500, b"")]
    assert propose(proposer_of(server, tmp_path)) == first
    assert len(server.seen) == 1
    with pytest.raises(EndpointFailed):
        propose(proposer_of(server, tmp_path), listed=("Other",))


def test_propose_damaged_cache_is_asked_again_and_mended(server, tmp_path):
    first = propose(proposer_of(server, tmp_path))
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(b"\xff{")
    assert propose(proposer_of(server, tmp_path)) == first
    assert path.read_text() == GOOD


@pytest.mark.parametrize("bad", [(500, b""), (429, b""), (0, b""), (200, b"{"), (200, b"[]")])
def test_propose_passing_failure_is_tried_again(server, tmp_path, bad):
    server.answers = [bad, bad, (200, completion(GOOD))]
    assert propose(proposer_of(server, tmp_path)).minus == "Gambling"
    assert len(server.seen) == 3


@pytest.mark.parametrize(("status", "n"), [(401, 1), (404, 1), (302, 1), (503, 3)])
def test_propose_lasting_failure_raises_without_secrets(server, tmp_path, status, n):
    server.answers = [(status, f"{KEY} {TEXT}".encode())]
    with pytest.raises(EndpointFailed) as caught:
        propose(proposer_of(server, tmp_path, attempts=3))
    assert len(server.seen) == n
    assert KEY not in str(caught.value)
    assert TEXT not in str(caught.value)
    assert str(status) in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        "no json",
        "[]",
        json.dumps({"violated": None}),
        json.dumps({"violated": None, "harmless": None}),
        json.dumps({"violated": category("spam"), "harmless": category("Gambling")}),
        json.dumps({"violated": category("Gambling"), "harmless": category("gambling")}),
        json.dumps({"violated": None, "harmless": {**category("a"), "forbid": " "}}),
        json.dumps({"violated": None, "harmless": {**category("a"), "allow": "x" * 601}}),
        json.dumps({"violated": None, "harmless": {**category("a"), "name": 3}}),
        json.dumps({"violated": None, "harmless": {**category("a"), "more": "b"}}),
    ],
)
def test_propose_answer_of_another_shape_raises_and_is_not_kept(server, tmp_path, content):
    server.answers = [(200, completion(content))]
    with pytest.raises(BadAnswer):
        propose(proposer_of(server, tmp_path, attempts=2))
    assert len(server.seen) == 2
    assert list((tmp_path / "cache").iterdir()) == []


def test_propose_oversized_answer_raises(server, tmp_path):
    server.answers = [(200, completion("x" * (1 << 20)))]
    with pytest.raises(BadAnswer, match="longer"):
        propose(proposer_of(server, tmp_path, attempts=1))


def test_propose_nobody_listening_raises(server, tmp_path):
    options = Endpoint("http://127.0.0.1:9/v1", "m", tmp_path, attempts=2, wait_s=0, timeout_s=2)
    with pytest.raises(EndpointFailed, match="reached"):
        propose(EndpointProposer(options))


def test_endpoint_key_file_is_read_and_never_shown(server, tmp_path):
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    propose(proposer_of(server, tmp_path, key="", key_file=file))
    assert server.seen[0][1]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(Endpoint("http://a", "m", tmp_path, key=KEY))


@pytest.mark.parametrize(
    "more",
    [
        {"url": "file:///etc/hosts"},
        {"attempts": 0},
        {"timeout_s": 0},
        {"timeout_s": float("nan")},
        {"wait_s": -1},
        {"key": "a", "key_file": "b"},
    ],
)
def test_endpoint_bad_option_raises(tmp_path, more):
    with pytest.raises(BadArgument):
        Endpoint(**{"url": "http://a", "model": "m", "cache": tmp_path, **more})


@pytest.mark.parametrize("key", ["two\nlines", "schlüssel"])
def test_endpoint_key_that_cannot_be_sent_raises(tmp_path, key):
    with pytest.raises(BadArgument) as caught:
        EndpointProposer(Endpoint("http://a", "m", tmp_path, key=key))
    assert key not in str(caught.value)


def test_change_asked_category_decides_the_label(server, tmp_path):
    proposer = proposer_of(server, tmp_path)
    changed = change(random.Random(1), SUBJECT, frozenset({"Spam"}), proposer, flips=True)
    assert changed.is_unsafe is True
    assert "Rudeness" in {clause.key for clause in changed.clauses} & changed.listed


def test_family_with_asked_categories_words_them(server, tmp_path):
    offline = made(HARMS[:3], has_rules=False)
    composer = ConfigurationComposer(
        offline.categorised, offline.ruled, proposer_of(server, tmp_path)
    )
    rng = random.Random(2)
    families = [composer.family(rng, 8) for _ in range(30)]
    targets = {"No Rudeness here.": set(), "No Gambling here.": set()}
    for family in families:
        for example in family.examples:
            for text, seen in targets.items():
                if any(text in said for _, said in example.rules):
                    seen.add(example.target)
                    assert (
                        text == "No Gambling here."
                        or example.target == 0
                        or (example.turns[0][1].startswith("calm"))
                    )
    assert targets == {"No Rudeness here.": {0.0, 1.0}, "No Gambling here.": {0.0, 1.0}}
