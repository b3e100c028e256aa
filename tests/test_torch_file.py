"""Files of torch.save, read without torch: real ones, hand-made ones, damaged ones and malicious ones."""

import base64
import os
import pickle
import zipfile
import zlib

import numpy as np
import pytest
import torch_files
from torch_files import Raw, dumps, write_plain, write_zip

from inpaint_jax.features import torch_file, weights

# What torch 2.13 wrote of `checkpoint()` below; base = torch.arange(12.0):
# state_dict = OrderedDict(turned=base.view(3, 4).t(), part=base[5:12:3], scalar=torch.tensor(7),
#     expanded=torch.tensor([2.5]).expand(2, 3), half=torch.tensor([0.5, -2.0], dtype=torch.float16),
#     parameter=torch.nn.Parameter(base[:2])) with a _metadata, as modules give it;
# torch.save(checkpoint, path, _use_new_zipfile_serialization=layout == "zip"), zlib, base64.
REAL = {
    "zip": (
        "eNqlVltvG0UUHl9iO0uL7ZRLStom3B1oHO868aVp4sSUTdXl4hqQVkjIWtsT22Lj9dkdl1IpUiRwKEhI/ALU1/wCEE8VvMJDK1TxwEMRD4CE"
        "hHhDCAlmZh13d41rNRn72OvZ+b7znZlzzrqkBIIIRSJoaMTpy8SaXrnW6izWNaIlO+/qcvE4ets5dv07gBLqBAXgjlFrgu9SJ+5DaoBOVFsN"
        "8H8yeUC4rlJPyNQIhsBmoVR99faf+//wuba2jSGo+unlN/swwdmqmGgWhDYLd230OxBObBZ+/5aN717DexDh0LrRxjB5XRXotUUod6XeqhEQ"
        "ajVD13GNtIy2Jbxu1rGJ6xfoHQEemi/DsYQaogDSNdu4DsdrxDBrzWSlS1q6JVRMXO229HqF4LZlmJUrkgAPJxJqmLswTK2BIWpDBFk3NPKG"
        "PSlATPXRNSmI8/BrnS5MKccInLisICWoBPbgEcWnBPfg0Y+bTMVjBB4vwzSPo6OZBE42qZ9mtBlrxpsc+cRlZUIJ9GCGfZyyUacJnCnDLA/A"
        "qmm6ZsKcjetresVoNwaSnuSSRHiKEvoIPE2lzM/bRM8QeLYMz6ns7PHVjtau0714/kACx0mQsHHzLAQ/C+EFeoH24EWb4yyBhTIkeQhNTd+C"
        "RZeUi3RqICXFKdMgUko/AYlT9iCt+HqwZNMtE8iUIatO2jtC04JgE3IjzmewQoC8d+fO9dlXGPt5m32VwFoZCtf5j/WPYKMMxe4OvMTdVSiT"
        "xtIcLvD7L6ss60DegU1+8lewadFkgouKz7KsajdZUsKRn6YXTv9N05ZZaWQlTaP1e5WU3DLMbY1U+nxy8by7oB5wiEzGF3/8+AHbW2ajZcyg"
        "jENGP5Mrmt5qtLdxm8hF6RBKMktMQOE9+I1Vr/++AqbQ2j0B1fcJNlhdysVzR9gBvUWIjpmG3urPJ1lNhO6rIYpW3V1tMSUX84cXYLPuFlh/"
        "o29qu9RuULtJ7S41tIFQjNoctdQGU3p1Z2stxRrFGKUnPEpFuRj1Kg33VzPezp1fDEYUGcO74uGV5GIWHTr+uXXmO/nVqa9ZEwiO8V3w+E7L"
        "xZWjFADKoZvM/4f76mfj/cecGTiowKPkX1pg3m993nhrfP7PItFRgDx8C5stWoHXNPagqrTqcnHhwcSIqWw2l5GyUj6bz+eWl8SMtJzK56Xs"
        "co7eEqWMJEqpTDbHVH756+1/E1RHgqv0MbEDnc5OFh9SPvQ/wAt3dqBpF/RSAI1sfl4WZxuZcbHccrEM9S4vkbMXTLmIykH0Pz3Ii3dWaNSF"
        "vxNE3v7hBTvL0A3enfCCRS/YWUdu8A9DYMkLdhaBG/xmyAtOe8HOHI65wN87wSOOzplbs+4dD6NxWV9SQqGz/eVnAgsDqOD5/tRvf/8VPmh6"
        "IX7V6y+wn38TIRsj8PX22v8AnrCEvg=="
    ),
    "plain": (
        "eNp9U0lv01AQ9pamNV3Zyxr2hCWkSdqmbGmhNKWmpTUXXyrLsR+1kbEz9ksFSJFyaSj9DRw40n9RiStc+AW9InHhiNQD4+c0girwlHHseW++"
        "+b6ZN01hS3b3Psz9Sr38tDyabQqL30V8NoBLa8Mcx9UCn/qm7+rrJAgd3wMeD2gDuOM6lLpEJ57lGB4Im5qMTvqmRvTQeUtCEBsgpbUEOkPb"
        "DygkFEET8cvxKPQokiZFGL63BklFqtf3c0bnSc03beAXaiM8x0KqzhoIW31ce02z2MCgBMRKebm6+O3n9h7zecYrApIm4OvnbUgwtCqhRgg9"
        "lfJuHL0KyXSl/ONLtL4ukRb0slDL9wj0xSpCiti65ZgUZBPFu8SkqD2UnwUWCYg1izsyHMqo0J/WeiLZ9cAjFgyY1A9MO6vXqeOGsh6Qat1x"
        "LZ0SL/QDfT0vw2A6rSVZCj8w1ggMxSHynOsb9HnslGFYG8QzU8XxQr4wmRsfm8zlizDCamHW6nBY6V+icGRF4RRJEVtwVOEVqQXH3tsRp+MU"
        "TqhwkqmqGVj5URuz2kN2V9RTdox2ekVJKOIGnIkeZ2OkcxTOq5BiEkPTcI0ALsRYbdZPsX8d0hcPwE8V8iW4hPA8wl9GsplMDHuFwlUVrmm9"
        "Ua9f1wzPwtqlu5PM5/KlEmTaKNcjyUIk+Qa+cC24GSPeopBV4TaTbBvuC8j9RXMeXR2aYwdoThSLJchjAgETFFiCDSgq/AaMx+ATFCZVKGl9"
        "cT3xilESwNQ/et05IcOd/9X9brvu99oZ70cZH8QZyxSmVZjZZB8P38EjFWbrDXjMKOiIblgGNWCO7Ve06FbDfAOesJu1P6gLCh+GYTWarNVo"
        "srqo5rsRE7q1UezWFYlkhf2ZLHE7/dyfq1mOJhV/aE20j2g7aLto3AzHDaOl0HIzfDsi2f7nOxip6d+7+i+/"
    ),
}

LAYOUTS = pytest.mark.parametrize("write", [write_zip, write_plain])


def checkpoint():
    """What the real files hold."""
    base = np.arange(12, dtype=np.float32)
    return {
        "epoch": 70000,
        "big": 2**70,
        "rate": 1e-3,
        "name": "é",
        "betas": (0.5, [0.9, None]),
        "done": True,
        "state_dict": {
            "turned": base.reshape(3, 4).T,
            "part": base[5:12:3],
            "scalar": np.array(7),
            "expanded": np.full((2, 3), 2.5, np.float32),
            "half": np.array([0.5, -2], np.float16),
            "parameter": base[:2],
        },
    }


@pytest.fixture(params=REAL)
def real(request, tmp_path):
    path = tmp_path / f"{request.param}.pth"
    path.write_bytes(zlib.decompress(base64.b64decode(REAL[request.param])))
    return path


def assert_same_arrays(actual, expected):
    assert list(actual) == list(expected)
    for name, array in expected.items():
        assert type(actual[name]) is np.ndarray
        assert (actual[name].dtype, actual[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(actual[name], array, err_msg=name)


# ------------------------------------------------------------------------------------------------- what is in a file


def test_real_files_of_both_layouts(real):
    actual, expected = torch_file.read(real), checkpoint()
    assert_same_arrays(actual.pop("state_dict"), expected.pop("state_dict"))
    assert actual == expected


def test_tensors_that_share_memory_share_it_and_are_read_only(real):
    state = torch_file.read(str(real))["state_dict"]
    assert np.shares_memory(state["turned"], state["part"])
    assert np.shares_memory(state["turned"], state["parameter"])
    assert not np.shares_memory(state["turned"], state["half"])
    with pytest.raises(ValueError, match="read-only"):
        state["turned"][0, 0] = 1


def test_pidinet(shared):
    """The numbers are those that torch.load gives."""
    read = torch_file.read(shared / "weights" / "table5_pidinet.pth")
    state = read["state_dict"]
    assert list(read) == ["epoch", "state_dict"]
    assert read["epoch"] == 19
    assert len(state) == 83
    assert sum(array.size for array in state.values()) == 710_149
    first = state["module.init_block.weight"]
    assert (first.shape, first.dtype) == ((60, 3, 3, 3), np.float32)
    np.testing.assert_array_equal(first[0, 0, 0], np.float32([-0.12042921, -0.13835992, -0.10474902]))


@LAYOUTS
@pytest.mark.parametrize("dtype", torch_files.STORAGES)
def test_every_type_of_number(tmp_path, write, dtype):
    array = np.array([[0, 1, 3], [100, 7, 0]]).astype(dtype)
    arrays = {"array": array, "none": array[:0], "scalar": np.array(array[1, 0])}
    write(tmp_path / "x.pth", arrays)
    assert_same_arrays(torch_file.read(tmp_path / "x.pth"), arrays)


@LAYOUTS
def test_signed_numbers(tmp_path, write):
    arrays = {dtype: np.array([-3, 5]).astype(dtype) for dtype in torch_files.STORAGES if dtype[0] in "fi"}
    write(tmp_path / "x.pth", arrays)
    assert_same_arrays(torch_file.read(tmp_path / "x.pth"), arrays)


def test_strings_and_ordered_dicts_of_python_2(tmp_path):
    """str as SHORT_BINSTRING, an OrderedDict as a call with the list of its pairs."""
    pairs = b"](](U\x01aK\x01e](U\x01bK\x02ee"
    write_plain(tmp_path / "x.pth", Raw(b"ccollections\nOrderedDict\n(" + pairs + b"tR"))
    assert torch_file.read(tmp_path / "x.pth") == {"a": 1, "b": 2}


# ------------------------------------------------------------------------------------------------- malicious files


class Evil:
    """Creates a folder when it is unpickled: os.mkdir stands for any function of any module."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("layout", ["zip", "plain", "bare"])
def test_malicious_files_are_refused_and_run_nothing(tmp_path, layout, protocol):
    evil = pickle.dumps({"weight": Evil(tmp_path / "ran")}, protocol)
    path = tmp_path / "x.pth"
    if layout == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("archive/data.pkl", evil)
    else:
        path.write_bytes(torch_files.MAGIC + dumps(1001) + dumps({"little_endian": True}) + evil)
        path.write_bytes(evil if layout == "bare" else path.read_bytes())
    with pytest.raises(weights.WeightsInvalid) as error:
        torch_file.read(path)
    if protocol == 2:
        assert f"names {os.mkdir.__module__}.mkdir" in str(error.value)
    assert not (tmp_path / "ran").exists()
    pickle.loads(evil)  # what torch.load used to do
    assert (tmp_path / "ran").exists()


@LAYOUTS
@pytest.mark.parametrize(
    ("opcodes", "fault"),
    [
        (b"cbuiltins\neval\n(X\x03\x00\x00\x001+1tR", "names builtins.eval"),
        (b"c__builtin__\neval\n.", "names __builtin__.eval"),
        (b"ctorch._utils\n_rebuild_sparse_tensor\n", "names torch._utils._rebuild_sparse_tensor"),
        (b"ctorch\nBFloat16Storage\n", "names torch.BFloat16Storage"),
        (b"ctorch FloatStorage\nload\n", "names torch.FloatStorage.load"),
        (b"ctorch\nFloatStorage\n)R", "calls torch.FloatStorage"),
        (b"(S'true'\nios\nsystem\n", "opcode STRING"),
        (b"(ios\nsystem\n", "opcode INST"),
        (b"(cos\nsystem\no", "names os.system"),
        (b"ccollections\nOrderedDict\n)\x81", "opcode NEWOBJ"),
        (b"(ccollections\nOrderedDict\no", "opcode OBJ"),
        (b"\x82\x01", "opcode EXT1"),
        (b"X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93", "opcode STACK_GLOBAL"),
        (b"P1\n", "opcode PERSID"),
        (b"(X\x06\x00\x00\x00modulectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ", "a module"),
        (b"}(ctorch\nFloatStorage\nNu", "key of type _Name"),
    ],
)
def test_what_no_state_dict_needs_is_refused_by_name(tmp_path, write, opcodes, fault):
    write(tmp_path / "x.pth", {"weight": Raw(opcodes)})
    with pytest.raises(weights.WeightsInvalid, match=r"x\.pth is not read: .*" + fault + r".* use the published file"):
        torch_file.read(tmp_path / "x.pth")


# ------------------------------------------------------------------------------------------------- damaged files


def test_no_file_at_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*nothing\.pth"):
        torch_file.read(tmp_path / "nothing.pth")


def test_cut_anywhere(real):
    content = real.read_bytes()
    for kept in range(0, len(content), 3):
        real.write_bytes(content[:kept])
        with pytest.raises(weights.WeightsInvalid, match=real.name):
            torch_file.read(real)


def test_any_flipped_byte_is_an_error_of_ours_or_none(real):
    content = real.read_bytes()
    refused = 0
    for position in range(0, len(content), 3):
        real.write_bytes(content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :])
        try:
            torch_file.read(real)
        except weights.WeightsInvalid:
            refused += 1
    assert refused > 0.1 * len(content)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x89HDF\r\n\x1a\n", bytes(1024)])
def test_files_of_others(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(weights.WeightsInvalid, match=r"x\.pth is no file of torch\.save"):
        torch_file.read(tmp_path / "x.pth")


def test_a_zip_of_others(tmp_path):
    np.savez(tmp_path / "x.npz", weight=np.zeros(3))
    with pytest.raises(weights.WeightsInvalid, match=r"holds 0 files data\.pkl"):
        torch_file.read(tmp_path / "x.npz")


def test_a_pickle_of_others(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"weight": 1}, 2))
    with pytest.raises(weights.WeightsInvalid, match=r"none of torch\.save"):
        torch_file.read(tmp_path / "x.pkl")


def test_big_endian_files_are_refused(tmp_path):
    write_zip(tmp_path / "x.pth", {"weight": np.zeros(3)}, byteorder="big")
    write_plain(tmp_path / "y.pth", {"weight": np.zeros(3)}, little_endian=False)
    for name in ("x.pth", "y.pth"):
        with pytest.raises(weights.WeightsInvalid, match="big-endian"):
            torch_file.read(tmp_path / name)


@LAYOUTS
@pytest.mark.parametrize(
    ("offset", "size", "strides"),
    [
        (0, (4, 3), (3, 1)),  # 12 elements of 6
        (5, (2,), (1,)),
        (6, (), ()),
        (0, (2,), (2**40,)),
        (0, (2, 3), (1,)),
        (-1, (2,), (1,)),
        (0, (-2,), (1,)),
        (5, (2,), (-1,)),
        (0, (2.0,), (1,)),
        (0, (True,), (1,)),
        (0, [2], [1]),
        (0, (1,) * 70, (1,) * 70),
        (0, (2**31 - 1,) * 4, (0,) * 4),
    ],
)
def test_tensors_that_do_not_fit_their_storage(tmp_path, write, offset, size, strides):
    write(tmp_path / "x.pth", {"weight": torch_files.Tensor(np.zeros(6), offset, size, strides)})
    with pytest.raises(weights.WeightsInvalid, match=r"x\.pth is truncated or damaged"):
        torch_file.read(tmp_path / "x.pth")


@LAYOUTS
@pytest.mark.parametrize("announced", [5, 7, 2**40, -6])
def test_a_storage_of_another_length_than_announced(tmp_path, write, announced):
    write(tmp_path / "x.pth", {"weight": torch_files.Tensor(np.zeros(6), 0, (2,), (1,), announced)})
    with pytest.raises(weights.WeightsInvalid, match=r"x\.pth is truncated or damaged"):
        torch_file.read(tmp_path / "x.pth")


@LAYOUTS
def test_strides_and_offsets(tmp_path, write):
    base = np.arange(24)
    write(
        tmp_path / "x.pth",
        {
            "permuted": torch_files.Tensor(base, 0, (4, 2, 3), (1, 12, 4)),
            "last": torch_files.Tensor(base, 23, (), ()),
            "one": torch_files.Tensor(base, 3, (1, 1), (2**62, 7)),
            "expanded": torch_files.Tensor(base, 2, (2, 3), (0, 5)),
            "empty": torch_files.Tensor(base, 24, (0, 3), (3, 1)),
        },
    )
    expected = {
        "permuted": base.reshape(2, 3, 4).transpose(2, 0, 1),
        "last": np.array(23),
        "one": np.array([[3]]),
        "expanded": np.array([[2, 7, 12]] * 2),
        "empty": np.zeros((0, 3), int),
    }
    assert_same_arrays(torch_file.read(tmp_path / "x.pth"), expected)
