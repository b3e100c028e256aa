"""Models of the Hugging Face Hub, by its own client against a local server that answers as the hub does."""

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
import safetensors.numpy
from conftest import REPOSITORY

from inpaint_jax import hub
from inpaint_jax.errors import UserError
from inpaint_jax.hub import FILE
from inpaint_jax.models import export, model_name

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed (extra hub)")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_server(tiny_workdir, tmp_path):
    """A hub with a model of ours and one of another library; gives its address and the paths that were asked for."""
    export(tiny_workdir, tmp_path / FILE, terms="for tests alone", card="A model of two steps.")
    contents = {
        "name": (tmp_path / FILE).read_bytes(),
        "foreign": safetensors.numpy.save({"weight": np.ones(3, np.float32)}),
    }
    asked = []

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.path)
            _, owner, repository, *rest = self.path.split("/")
            whole = (owner, rest[:1], rest[-1:]) == ("owner", ["resolve"], ["model.safetensors"])
            content = contents.get(repository) if whole else None
            self.send_response(404 if content is None else 200)
            if content is not None:
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            else:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            return content or b""

        def do_GET(self):
            self.wfile.write(self.do_HEAD())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("localhost", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}", asked
        server.shutdown()


PROGRAM = """
import json, sys
from inpaint_jax.cli import main
for arguments in json.load(sys.stdin):
    print("###", main(arguments), flush=True)
"""


def test_a_model_of_the_hub_fills_a_photo_and_stays_in_the_cache(hub_server, photos, tmp_path):
    address, asked = hub_server

    def run(offline, *commands):
        """What the commands print, one after the other in a process of their own; and their codes."""
        environment = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache")}
        environment["HF_HUB_OFFLINE"] = str(int(offline))
        start = [sys.executable, "-c", PROGRAM]
        given = {"input": json.dumps(commands), "capture_output": True, "text": True}
        done = subprocess.run(start, cwd=REPOSITORY, env=environment, check=True, **given)
        return done.stdout, done.stderr, re.findall("^### (.+)$", done.stdout, re.MULTILINE)

    photo = str(photos / "val" / "00.png")
    fill = ["fill", f"--image={photo}", "--plain", f"--mask={photo}", f"--output={tmp_path / 'out.png'}"]
    _, said, codes = run(
        False,
        [*fill, "--checkpoint=hf://owner/name"],
        [*fill, "--checkpoint=hf://owner/foreign"],
        ["models", "--card=hf://owner/other"],
    )
    assert codes == ["0", "2", "2"], said
    assert "The model name: for tests alone" in said
    assert "holds tensors, but not those of a generator" in said
    assert "hf://owner/other has no model.safetensors for you" in said
    assert (tmp_path / "out.png").exists()
    assert any(path.startswith("/owner/name/resolve/main/") for path in asked)
    listed, said, codes = run(
        True,
        ["models"],
        ["models", "--card=hf://owner/name"],
        ["models", "--card=hf://owner/other"],
    )
    assert codes == ["0", "0", "2"], said
    assert f"hf://owner/name@{COMMIT[:7]}: " in listed
    assert "foreign" not in listed
    assert "A model of two steps." in listed
    assert "cannot be reached; connect to the network" in said


@pytest.mark.parametrize("address", ["hf://", "hf://name", "hf://owner/name/file", "hf://owner/na me"])
def test_malformed_addresses(address):
    with pytest.raises(UserError, match="give hf://OWNER/NAME"):
        hub.fetch(address)


def test_names_in_tables():
    assert model_name("hf://owner/name@refs/pr/1") == "name@refs/pr/1"
    assert model_name("scenes") == "scenes"
