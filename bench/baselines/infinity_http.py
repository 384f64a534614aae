"""An Infinity server over HTTP, as a user would run it: `infinity_emb v2` on the CPU, fp32.

It embeds texts by their first token with a BertModel folder (bert_folder.py), so it computes a
plain bidirectional BERT and only its time is compared. That time includes what a client waits for:
HTTP, JSON, the server's tokenizer and its batching. Texts are made of the row's tokens, to the same
length. The server is started and ended by the baseline and listens on the loopback address alone.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from csrm.bench.baselines.bert_folder import write_bert
from csrm.bench.baselines.interface import Rewards, Rows, bert_rows
from csrm.errors import EngineFailed, EngineUnavailable

_HOST = "127.0.0.1"
_MODEL = "csrm"
_START_TIMEOUT_S = 180.0
_FILLER = "the"


class InfinityHttp:
    """See the module. `artifact` is the folder. Errors: EngineUnavailable, no server came up."""

    def __init__(self, artifact: Path, threads: int) -> None:
        self._scratch = tempfile.TemporaryDirectory()
        folder = Path(self._scratch.name)
        self._head = write_bert(artifact, folder)
        _write_pooling(folder)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._port = _free_port()
        self._server = _start_server(folder, self._port, threads)
        self._connection = http.client.HTTPConnection(_HOST, self._port, timeout=_START_TIMEOUT_S)
        self._body = b""
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def prepare(self, rows: Rows) -> Rows:
        """See `Baseline.prepare`. Errors: Unsupported, more tokens than positions."""
        like = bert_rows(rows)
        texts = [self._text(ids) for ids in like["input_ids"].tolist()]
        self._body = json.dumps({"model": _MODEL, "input": texts}).encode()
        return {
            **like,
            "input_ids": np.array([self._tokenizer.encode(t).ids for t in texts], np.int64),
            "segment_ids": np.zeros_like(like["segment_ids"]),
            "pooled_at": np.zeros_like(like["pooled_at"]),
        }

    def run(self) -> Rewards:
        """See `Baseline.run`. Errors: EngineFailed, the server answered with an error."""
        try:
            answer = self._post()
        except ConnectionError:  # the server ends a connection that was idle for 5 s
            self._connection.close()
            answer = self._post()
        directions = [item["embedding"] for item in json.loads(answer)["data"]]
        states = self._head.unnormalised(np.array(directions, np.float32))
        return self._head.rewards(states)

    def close(self) -> None:
        """See `Baseline.close`."""
        self._connection.close()
        self._server.terminate()
        try:
            self._server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._scratch.cleanup()

    def _post(self) -> bytes:
        self._connection.request(
            "POST", "/embeddings", self._body, {"Content-Type": "application/json"}
        )
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != http.client.OK:
            raise EngineFailed(f"the Infinity server answered {response.status}")
        return answer

    def _text(self, ids: list[int]) -> str:
        """Words of `ids` that make a text of as many tokens, the server's two control ids too."""
        tokens = (self._tokenizer.id_to_token(token) or "" for token in ids)
        words = [token for token in tokens if re.fullmatch("[a-z]+", token)]
        while self._length(words) > len(ids):
            words.pop()
        while self._length(words) < len(ids):
            words.append(_FILLER)
        return " ".join(words)

    def _length(self, words: list[str]) -> int:
        return len(self._tokenizer.encode(" ".join(words)).ids)

    def _wait(self) -> None:
        """Until the server is healthy. Errors: EngineUnavailable."""
        end = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < end and self._server.poll() is None:
            try:
                self._connection.request("GET", "/health")
                response = self._connection.getresponse()
                response.read()
                if response.status == http.client.OK:
                    return
                time.sleep(0.2)
            except OSError:
                self._connection.close()
                time.sleep(0.2)
        raise EngineUnavailable(
            f"the Infinity server did not start within {_START_TIMEOUT_S:.0f} s;"
            f" its exit status is {self._server.poll()}"
        )


def _start_server(folder: Path, port: int, threads: int) -> subprocess.Popen[bytes]:
    command = [
        str(Path(sys.executable).with_name("infinity_emb")),
        "v2",
        *("--model-id", str(folder), "--served-model-name", _MODEL),
        *("--engine", "torch", "--device", "cpu", "--dtype", "float32"),
        *("--no-bettertransformer", "--no-compile", "--batch-size", "32"),
        *("--host", _HOST, "--port", str(port), "--log-level", "error"),
    ]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
    }
    return subprocess.Popen(command, env=environment, stdout=sys.stderr, stdin=subprocess.DEVNULL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _write_pooling(folder: Path) -> None:
    """What makes a BertModel folder one of sentence-transformers: the first token's state."""
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {
            "idx": 1,
            "name": "1",
            "path": "1_Pooling",
            "type": "sentence_transformers.models.Pooling",
        },
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    pooling = folder / "1_Pooling"
    pooling.mkdir()
    hidden = json.loads((folder / "config.json").read_text())["hidden_size"]
    settings = {
        "word_embedding_dimension": hidden,
        "pooling_mode_cls_token": True,
        "pooling_mode_mean_tokens": False,
    }
    (pooling / "config.json").write_text(json.dumps(settings))
