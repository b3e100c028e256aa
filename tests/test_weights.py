"""Fetching and checking of weight files, against a real server on this machine and without any."""

import hashlib
import http.server
import socket
import threading
import time

import numpy as np
import pytest

from inpaint_jax.features import weights

CONTENT = b"weights of a network" * 1000
CHECKSUM = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("INPAINT_JAX_CACHE", str(folder))
    return folder


@pytest.fixture
def server():
    """Serves CONTENT at /net.bin and 404 elsewhere; `requested` lists the paths asked for."""

    requested = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requested.append(self.path)
            found = self.path == "/net.bin"
            self.send_response(200 if found else 404)
            self.end_headers()
            if found:
                self.wfile.write(CONTENT)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        running.address = f"http://127.0.0.1:{running.server_port}"
        running.requested = requested
        yield running
        running.shutdown()


def test_fetch_downloads_once_and_verifies(server, cache):
    file = weights.WeightsFile("net.bin", f"{server.address}/net.bin", CHECKSUM)
    assert file.fetch() == cache / "net.bin"
    assert file.fetch().read_bytes() == CONTENT
    assert server.requested == ["/net.bin"]


def test_a_file_put_into_the_cache_by_hand_needs_no_network(cache):
    cache.mkdir()
    (cache / "net.bin").write_bytes(CONTENT)
    assert weights.WeightsFile("net.bin", "https://nowhere.invalid/net.bin", CHECKSUM).fetch().read_bytes() == CONTENT


def test_download_with_another_checksum_is_refused_and_not_kept(server, cache):
    file = weights.WeightsFile("net.bin", f"{server.address}/net.bin", "md5:" + "0" * 32)
    with pytest.raises(weights.WeightsUnavailable, match="does not match"):
        file.fetch()
    assert list(cache.iterdir()) == []


def test_missing_address_is_an_error(server):
    with pytest.raises(weights.WeightsUnavailable, match="404"):
        weights.WeightsFile("old.bin", f"{server.address}/old.bin", CHECKSUM).fetch()


def test_damaged_file_in_the_cache_is_named_and_left_alone(server, cache):
    cache.mkdir()
    (cache / "net.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(weights.WeightsInvalid, match=r"net\.bin does not have the checksum.*delete it"):
        weights.WeightsFile("net.bin", f"{server.address}/net.bin", CHECKSUM).fetch()
    assert (cache / "net.bin").read_bytes() == CONTENT[:-1]
    assert server.requested == []


@pytest.mark.parametrize(
    "url",
    ["https://weights.invalid/net.bin", "http://127.0.0.1:9/net.bin"],  # a name that never resolves, a closed port
)
def test_no_network_names_file_address_and_place(url, cache):
    started = time.monotonic()
    with pytest.raises(weights.WeightsUnavailable) as error:
        weights.WeightsFile("net.bin", url, CHECKSUM).fetch()
    assert time.monotonic() - started < 30
    for part in ("net.bin", url, str(cache / "net.bin"), "load(path)"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert "Max retries" not in str(error.value)  # the cause, not its wrapping


def test_a_server_that_never_answers_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/net.bin"
        started = time.monotonic()
        with pytest.raises(weights.WeightsUnavailable, match="timed out"):
            weights.WeightsFile("net.bin", url, CHECKSUM).fetch(timeout=0.2)
        assert time.monotonic() - started < 5


def test_an_unusable_cache_folder_is_an_error(server, cache):
    cache.write_text("a file where the folder should be")
    with pytest.raises(weights.WeightsUnavailable, match="cache"):
        weights.WeightsFile("net.bin", f"{server.address}/net.bin", CHECKSUM).fetch()


EXPECTED = {"first": {"kernel": (3, 3, 3, 8), "bias": (8,)}, "second": {"kernel": (1, 1, 8, 2)}}


def tree():
    return {
        "first": {"kernel": np.zeros((3, 3, 3, 8)), "bias": np.zeros(8)},
        "second": {"kernel": np.zeros((1, 1, 8, 2))},
    }


def test_check_tree_accepts_the_expected_tree():
    weights.check_tree(tree(), EXPECTED)


def test_check_tree_names_missing_extra_and_misshapen_keys():
    wrong = tree()
    del wrong["first"]["bias"]
    wrong["second"]["scale"] = np.zeros(2)
    wrong["second"]["kernel"] = np.zeros((8, 2))
    with pytest.raises(weights.WeightsInvalid) as error:
        weights.check_tree(wrong, EXPECTED, source="net.npz")
    assert "net.npz" in str(error.value)
    assert "missing: first/bias;" in str(error.value)
    assert "extra: second/scale;" in str(error.value)
    assert "wrong shape: second/kernel (8, 2) instead of (1, 1, 8, 2)" in str(error.value)


def test_check_tree_keeps_the_message_short():
    with pytest.raises(weights.WeightsInvalid, match=r"layer7 and 92 more") as error:
        weights.check_tree({}, {f"layer{i}": (1,) for i in range(100)})
    assert "layer8," not in str(error.value)
