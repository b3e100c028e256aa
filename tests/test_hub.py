"""Models of the Hugging Face Hub, by its own client against a local server that answers as the hub does."""

import hashlib
import http.server
import os
import subprocess
import sys
import threading

import pytest
from conftest import REPOSITORY

from inpaint_jax import hub
from inpaint_jax.errors import UserError
from inpaint_jax.models import model_name, shipped_models

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed (extra hub)")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_server():
    """Calls of the client to OWNER/NAME get the shipped model; gives address and the paths that were asked for."""
    content, asked = shipped_models()["scenes"].read_bytes(), []

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.path)
            found = self.path.startswith("/owner/name/resolve/") and self.path.endswith("/model.safetensors")
            self.send_response(200 if found else 404)
            if found:
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            else:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", str(len(content) if found else 0))
            self.end_headers()
            return found

        def do_GET(self):
            if self.do_HEAD():
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("localhost", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}", asked
        server.shutdown()


def test_a_model_of_the_hub_fills_a_photo_and_stays_in_the_cache(hub_server, photos, tmp_path):
    address, asked = hub_server

    def command(*arguments, endpoint=address):
        environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "cache")}
        environment.pop("HF_HUB_OFFLINE", None)
        command = [sys.executable, "-m", "inpaint_jax", *arguments]
        return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)

    photo = str(photos / "val" / "00.png")
    fill = ("fill", f"--image={photo}", "--plain", f"--mask={photo}", f"--output={tmp_path / 'out.png'}")
    done = command(*fill, "--checkpoint=hf://owner/name")
    assert done.returncode == 0, done.stderr
    assert "research" in done.stderr  # the terms of the file
    assert (tmp_path / "out.png").exists()
    assert any(path.startswith("/owner/name/resolve/main/") for path in asked)
    listed = command("models", endpoint="http://localhost:9").stdout
    assert f"hf://owner/name@{COMMIT[:7]}: " in listed
    assert command("models", "--card=hf://owner/name", endpoint="http://localhost:9").returncode == 0
    for model, endpoint, sentence in (
        ("hf://owner/other", address, "hf://owner/other has no model.safetensors for you"),
        ("hf://owner/other", "http://localhost:9", "cannot be reached; connect to the network"),
    ):
        refused = command("models", f"--card={model}", endpoint=endpoint)
        assert refused.returncode == 2
        assert sentence in refused.stderr
        assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("address", ["hf://", "hf://name", "hf://owner/name/file", "hf://owner/na me"])
def test_malformed_addresses(address):
    with pytest.raises(UserError, match="give hf://OWNER/NAME"):
        hub.fetch(address)


def test_names_in_tables():
    assert model_name("hf://owner/name@v1") == "name@v1"
    assert model_name("scenes") == "scenes"
